"""`rapha reconcile`: names every difference between loader, receipts, store, chain and USDC."""

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import ArgumentError

from oracle.commands.failures import UNTOLD, ending
from oracle.config import OracleSettings
from oracle.reconcile import reconcile
from oracle.store.database import Store
from settlement.amounts import format_usdc
from settlement.connection import connect
from settlement.deployment import load_deployment
from settlement.errors import InvalidInput
from settlement.reconcile import Reconciliation, load_bundles, load_counts

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
    with ending(UNTOLD):
        _compare(rpc, deployment, database, receipts or [], loader or [], block, as_json)


def here(
    receipts: Receipts = None,
    loader: Loader = None,
    block: AtBlock = None,
    as_json: AsJson = False,
) -> None:
    """Compare this oracle's database with the chain; exit code 0 equal, 1 differences, 2 untold."""
    with ending(UNTOLD):
        settings = OracleSettings()
        _compare(
            settings.rpc_url.get_secret_value(),
            settings.deployment_file,
            settings.database_url.get_secret_value(),
            receipts or [],
            loader or [],
            block,
            as_json,
        )


def _compare(
    rpc: str,
    deployment: Path,
    database: str | None,
    receipts: list[Path],
    loader: list[Path],
    block: int | None,
    as_json: bool,
) -> None:
    record = load_deployment(deployment)
    bundles, counts = load_bundles(receipts), load_counts(loader)
    w3 = connect(rpc)
    store = _open(database) if database else None
    try:
        found = reconcile(w3, record, store=store, bundles=bundles, counts=counts, block=block)
    finally:
        if store is not None:
            store.close()
    typer.echo(_json(found) if as_json else _words(found))
    if not found.is_equal:
        raise typer.Exit(1)


def _open(url: str) -> Store:
    try:
        return Store(url)
    except ArgumentError as error:
        raise InvalidInput("the database's URL is not one that SQLAlchemy knows") from error


def _json(found: Reconciliation) -> str:
    return found.model_dump_json()


def _words(found: Reconciliation) -> str:
    lines = [f"block {found.block}"]
    lines += [f"  {pair:20}{count} values compared" for pair, count in found.compared.items()]
    if found.surplus:
        lines.append(f"  {format_usdc(found.surplus)} USDC in the vault is owed to nobody")
    lines += [str(difference) for difference in found.differences]
    count = len(found.differences)
    lines.append("all equal" if not count else f"{count} difference{'s' if count > 1 else ''}")
    return "\n".join(lines)
