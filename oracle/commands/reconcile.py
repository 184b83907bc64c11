"""`rapha reconcile`: names every difference between loader, receipts, store, chain and USDC."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from oracle.commands.failures import UNTOLD, ending, missing
from settlement.amounts import format_usdc
from settlement.connection import connect
from settlement.deployment import load_deployment
from settlement.reconcile import Reconciliation, load_bundles, load_counts, reconcile

RpcUrl = Annotated[
    str, typer.Option("--rpc", envvar="RAPHA_RPC_URL", help="Any JSON-RPC endpoint of the chain.")
]
DeploymentFile = Annotated[
    Path, typer.Option("--deployment", envvar="RAPHA_DEPLOYMENT_FILE", help="Deployment record.")
]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database", help="An oracle's database (SQLAlchemy URL).")
]
Receipts = Annotated[
    list[Path] | None, typer.Option("--receipts", help="A receipt bundle (JSON); may be repeated.")
]
Loader = Annotated[
    list[Path] | None,
    typer.Option("--loader", help="Loader counters (JSON array of job_id, records, epochs)."),
]
AtBlock = Annotated[
    int | None, typer.Option("--block", help="Compare as of this block, not the newest final one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def anywhere(
    rpc: RpcUrl,
    deployment: DeploymentFile,
    database: DatabaseUrl = None,
    receipts: Receipts = None,
    loader: Loader = None,
    block: AtBlock = None,
    as_json: AsJson = False,
) -> None:
    """Compare loader counters, receipts, store, chain events, the vault and USDC.

    Exit code 0: all equal; 1: differences, each named; 2: could not be told.
    """
    given = (rpc, deployment, receipts or [], loader or [], block, as_json)
    with ending(UNTOLD):
        if database is None:
            compare(*given, reconcile)
        else:
            _with_database()(database, *given)


def _with_database() -> Callable[..., None]:
    """What compares a database too; its libraries are those of an oracle."""
    try:
        from oracle.commands.stored import compare_stored
    except ModuleNotFoundError as error:
        missing("--database", error, "oracle")
    return compare_stored


def compare(
    rpc: str,
    deployment: Path,
    receipts: list[Path],
    loader: list[Path],
    block: int | None,
    as_json: bool,
    reconcile: Callable[..., Reconciliation],
) -> None:
    """Compare by `reconcile`, say what was found, and end with 1 where something differs."""
    record = load_deployment(deployment)
    bundles, counts = load_bundles(receipts), load_counts(loader)
    found = reconcile(connect(rpc), record, bundles=bundles, counts=counts, block=block)
    typer.echo(found.model_dump_json() if as_json else _words(found))
    if not found.is_equal:
        raise typer.Exit(1)


def _words(found: Reconciliation) -> str:
    lines = [f"block {found.block}"]
    lines += [f"  {pair:20}{count} values compared" for pair, count in found.compared.items()]
    if found.surplus:
        lines.append(f"  {format_usdc(found.surplus)} USDC in the vault is owed to nobody")
    lines += [str(difference) for difference in found.differences]
    count = len(found.differences)
    lines.append("all equal" if not count else f"{count} difference{'s' if count > 1 else ''}")
    return "\n".join(lines)
