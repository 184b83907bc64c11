"""`make run`: one real job, all the way, on a local chain. Ends by itself and leaves no process.

With `--stay` the network goes on after it until Ctrl-C, for whoever follows a tutorial.

Exit status: 0 when the job settled and every check held, 1 on a failure, 130 on Ctrl-C.
"""

import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from eth_utils import to_checksum_address
from hexbytes import HexBytes
from rich.console import Console
from rich.markup import escape

from oracle.client import JobStatus
from oracle.clients.edge.bundle import example
from oracle.clients.edge.sandbox.launch import NONE as NO_ISOLATION
from scripts.chain import ROOT
from scripts.developer import Job
from scripts.localnet import Localnet
from scripts.view import ChainEvent, Payout, View, event_table, payout_table
from settlement.accounts import job_account
from settlement.amounts import format_usdc
from settlement.errors import InvalidInput, RaphaError
from settlement.events import Event, decode_events
from settlement.hub.messages import CatalogueEntry
from settlement.picture import draw_settlement
from settlement.types import to_hex
from settlement.verify import ISOLATED, BundleRefused, ReceiptBundle, check_bundle

BUDGET = 60_000_000
PAYER_FUNDS = 1_000_000_000
TRAINING_SECONDS = 600
PASSWORD = "local"
"""Of the keystores that a network which stays hands out; its keys are worth nothing."""
PIPED_WIDTH = 120


class Interrupted(BaseException):
    """SIGINT or SIGTERM: unwind, clean up, leave."""


@dataclass
class Finished:
    """What a run came to."""

    summary: dict[str, Any]
    payouts: list[Payout]
    events: list[ChainEvent]


def main(
    framework: Annotated[str, typer.Option(help="torch or jax; torch where it is installed.")] = "",
    epochs: Annotated[int, typer.Option(help="Epochs to train; 0: as the bundle says.")] = 0,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = ROOT / "runs",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    stay: Annotated[
        bool, typer.Option("--stay", help="Keep the network in OUTPUT/network until Ctrl-C.")
    ] = False,
) -> None:
    """Escrow, train, settle and deliver one job on a chain of its own."""
    console = Console(stderr=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    folder = standing(output) if stay else Path(tempfile.mkdtemp(prefix="rapha-"))
    try:
        with Localnet(folder.resolve()) as net:
            with View(console) as view:
                finished = settle_one_job(net, view, pick_framework(framework), epochs, output)
            show(finished, as_json=as_json)
            if stay:
                keep_running(net, console)
    except Interrupted:
        console.print("interrupted: everything is stopped")
        raise typer.Exit(130) from None
    except Exception as error:
        kept = keep_logs(folder, output / "failed" / time.strftime("%Y%m%d-%H%M%S"))
        console.print(f"the logs of all processes are in {kept}", soft_wrap=True)
        if not isinstance(error, RaphaError):
            raise
        console.print(f"[red]{error.code}[/red]: {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def standing(output: Path) -> Path:
    """The folder of a network that stays; one at a time.

    Raises:
        SystemExit: when it is there.
    """
    folder = output / "network"
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise SystemExit(
            f"{folder} is there: another network runs, or one was killed; then remove it"
        ) from None
    return folder


def keep_running(net: Localnet, console: Console) -> NoReturn:
    """Say how to use the network, and wait for Ctrl-C.

    Raises:
        ProcessDied: when a process of it ended on its own.
    """
    net.hand_out(PASSWORD)
    console.print(
        f"the network goes on until Ctrl-C; elsewhere: source {net.folder / 'env'}", soft_wrap=True
    )
    while True:
        net.check()
        time.sleep(1)


def show(finished: Finished, *, as_json: bool) -> None:
    """Print what a run came to."""
    if as_json:
        typer.echo(json.dumps(finished.summary, indent=2))
        return
    tables = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    tables.print(event_table(finished.events))
    tables.print(payout_table(finished.payouts))
    accuracy = finished.summary["held_out_accuracy"]
    work = finished.summary["work"]
    records = f"records: {finished.summary['records']} of dataset {work['dataset_digest']}"
    tables.print(records, soft_wrap=True, highlight=False)
    tables.print(f"their root: {work['records_root']}", soft_wrap=True, highlight=False)
    tables.print(f"held-out accuracy: {accuracy:.4f}", highlight=False)
    tables.print(f"isolation: {finished.summary['isolation']}", highlight=False)
    tables.print(f"files: {finished.summary['folder']}", soft_wrap=True, highlight=False)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # once is enough: cleaning up must not be interrupted in turn
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise Interrupted


def pick_framework(wanted: str) -> str:
    """The framework to train with: as wanted, else PyTorch where it is installed, else JAX.

    Raises:
        InvalidInput: for another one.
    """
    if wanted in ("torch", "jax"):
        return wanted
    if wanted:
        raise InvalidInput(f'the default job comes for torch and jax, not for "{wanted}"')
    try:
        import torch  # noqa: F401
    except ImportError:
        return "jax"
    return "torch"


def keep_logs(folder: Path, target: Path) -> Path:
    """Save the processes' logs, and nothing else, from a network's folder."""
    shutil.copytree(folder / "logs", target, dirs_exist_ok=True)
    return target


def settle_one_job(
    net: Localnet, view: View, framework: str, epochs: int, output: Path
) -> Finished:
    """Everything from an empty chain to paid parties."""
    begun = time.monotonic()
    entry = bring_up(net, view)

    view.begin("job quoted and routed")
    job = Job(net, entry, example(f"breast_cancer_{framework}"), budget=BUDGET, epochs=epochs)
    view.done(f"job {to_hex(job.id)[:18]}…, budget {format_usdc(job.terms.budget)} USDC")

    view.begin("budget escrowed with one signature")
    job.escrow()
    view.done("EIP-3009, relayed: the payer holds no native token")

    view.begin("training, settled by receipts")
    records = entry.profile.record_count
    view.bars({"records": records, "epochs": job.epochs, "USDC": job.terms.budget})
    closed = net.wait("the settlement", lambda: follow(net, view, job), TRAINING_SECONDS)
    view.done(f"{closed.records} records, {closed.epochs} epochs, all final on chain")

    view.begin("weights delivered")
    delivery = job.collect()
    accuracy = delivery.metrics["holdout_accuracy"]
    view.done(f"{len(delivery.weights):,} bytes, held-out accuracy {accuracy:.4f}")

    view.begin("everybody paid")
    payouts = pay_out(net, closed.records, closed.epochs)
    events = vault_events(net)
    enclave = next(event for event in events if event.name == "EnclaveRegistered")
    bundle = ReceiptBundle(
        deployment=net.deployment,
        terms=job.terms,
        receipts=delivery.receipts,
        enclave_key=enclave.args["enclave_key"],
        transactions=tuple(e.transaction for e in events if e.args.get("job_id") == job.id),
        output=delivery.output,
    )
    isolation = json.loads(delivery.output.evidence)["isolation"]
    checks = check_bundle(bundle, output=delivery.digest, paid=closed.paid, funded=closed.funded)
    # A machine without user namespaces shows all the rest, and says what it does not show.
    forgiven = ISOLATED if isolation == NO_ISOLATION else None
    if failed := tuple(c for c in checks if not c.holds and c.claim != forgiven):
        raise BundleRefused(failed)
    view.done(f"{format_usdc(closed.paid)} USDC earned, the receipt bundle verifies")

    target = output / to_hex(job.id)
    told = tell(net, events)
    summary = {
        "job_id": to_hex(job.id),
        "framework": framework,
        "held_out_accuracy": accuracy,
        "isolation": isolation,
        "records": closed.records,
        "epochs": closed.epochs,
        "work": {
            **job.terms.work.model_dump(mode="json"),
            "records_root": to_hex(delivery.receipts[-1].receipt.records_root),
        },
        "budget": job.terms.budget,
        "paid": closed.paid,
        "refunded": closed.refunded,
        "payouts": [payout.model_dump(mode="json") for payout in payouts],
        "transactions": [event.model_dump(mode="json") for event in told],
        "deployment": net.deployment.model_dump(mode="json"),
        "folder": str(target),
        "seconds": round(time.monotonic() - begun, 1),
    }
    target.mkdir(parents=True, exist_ok=True)
    (target / "weights.safetensors").write_bytes(delivery.weights)
    (target / "metrics.json").write_text(json.dumps(delivery.metrics, indent=2) + "\n")
    (target / "terms.json").write_text(job.terms.model_dump_json(indent=2) + "\n")
    (target / "receipts.json").write_text(bundle.model_dump_json(indent=2) + "\n")
    (target / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    account = job_account(net.deployment, dated(net, events), job.id)
    draw_settlement(account, target / "settlement.png")
    keep_logs(net.folder, target / "logs")
    return Finished(summary, payouts, told)


def bring_up(net: Localnet, view: View) -> CatalogueEntry:
    """Start everything; returns the attested node's entry in the hub's catalogue."""
    view.begin("local chain")
    net.start_chain()
    view.done(net.url("chain"))

    view.begin("contracts")
    net.deploy()
    net.fund_payer(PAYER_FUNDS)
    net.start_blocks()
    view.done(f"vault {net.deployment.vault}")

    view.begin("oracles and hub")
    net.start_oracles()
    net.start_hub()
    net.start_node()
    net.wait_for_services()
    view.done("three operators, two must sign")

    view.begin("hospital's node attested")
    entry = net.wait_for_node()
    view.done(f"{entry.profile.record_count} records, {entry.profile.modality}")
    return entry


def follow(net: Localnet, view: View, job: Job) -> JobStatus | None:
    """Move the bars; the job's final status once it is closed on chain."""
    records, epochs = job.progress()
    paid = net.payer().job(job.id).paid
    view.advance(
        {
            "records": (records, str(records)),
            "epochs": (epochs, f"{epochs} of {job.epochs}"),
            "USDC": (paid, f"{format_usdc(paid)} settled"),
        }
    )
    return job.closed()


def pay_out(net: Localnet, records: int, epochs: int) -> list[Payout]:
    """Split the node's earnings and push every balance out, as anyone may."""
    pusher, actors = net.governance, net.actors
    pusher.distribute(net.node_id)
    work = f"{records} records, {epochs} epochs"
    payouts = []
    for who, purpose, wallet in (
        ("hospital", f"70 % of {work}", actors.hospital.address),
        ("node owner", f"20 % of {work}", actors.node_owner.address),
        ("onboarder", f"5 % of {work}", actors.onboarder.address),
        ("protocol", f"5 % of {work}", actors.protocol.address),
        ("payer", "what was not earned", actors.payer.address),
    ):
        before = pusher.usdc_balance(wallet)
        receipt = pusher.withdraw_for(wallet)
        payouts.append(
            Payout(
                who=who,
                purpose=purpose,
                wallet=wallet,
                amount=pusher.usdc_balance(wallet) - before,
                transaction=receipt["transactionHash"],
            )
        )
    return payouts


def vault_events(net: Localnet) -> list[Event]:
    """Every event of the deployment so far."""
    deployment = net.deployment
    contracts = (deployment.vault, deployment.node_registry, deployment.enclave_registry)
    logs = net.w3.eth.get_logs(
        {
            "fromBlock": deployment.block,
            "toBlock": "latest",
            "address": [to_checksum_address(contract) for contract in contracts],
        }
    )
    return decode_events(deployment, logs)


def dated(net: Localnet, events: list[Event]) -> list[tuple[Event, int]]:
    """The events with their blocks' times."""
    times = {
        block: net.w3.eth.get_block(block)["timestamp"]
        for block in {event.block for event in events}
    }
    return [(event, times[event.block]) for event in events]


WORDING: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "EnclaveRegistered": lambda a: f"enclave {a['enclave_key'][:10]}… for node {a['node_id']}",
    "JobOpened": lambda a: f"{format_usdc(a['budget'])} USDC escrowed",
    "Settled": lambda a: (
        f"{a['records']} records, {a['epochs']} epochs: +{format_usdc(a['amount'])} USDC"
    ),
    "JobClosed": lambda a: f"{format_usdc(a['refunded'])} USDC back to the payer",
    "Distributed": lambda a: f"node {a['node_id']}'s earnings split",
    "Withdrawn": lambda a: f"{format_usdc(a['amount'])} USDC to {a['to'][:10]}…",
}


def tell(net: Localnet, events: list[Event]) -> list[ChainEvent]:
    """The events that move money or trust, in words."""
    return [
        ChainEvent(
            block=event.block,
            what=event.name,
            detail=WORDING[event.name](event.args),
            gas=net.w3.eth.get_transaction_receipt(HexBytes(event.transaction))["gasUsed"],
            transaction=event.transaction,
        )
        for event in events
        if event.name in WORDING
    ]


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
