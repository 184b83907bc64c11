"""`make run`: one real job, all the way, on a local chain. Ends by itself and leaves no process.

Exit status: 0 when the job settled and every check held, 1 on a failure, 130 on Ctrl-C.
"""

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from eth_utils import to_checksum_address
from hexbytes import HexBytes
from rich.console import Console

from oracle.client import EscrowRequest, OracleRefused, Status
from oracle.clients.edge.bundle import example
from oracle.clients.hub.client import HubClient
from oracle.clients.hub.messages import (
    ArtifactName,
    JobCreated,
    JobRequest,
    JobState,
    JobView,
    OutputPolicy,
)
from oracle.clients.hub.terms import check_quote
from scripts.localnet import ROOT, Localnet
from scripts.view import ChainEvent, Payout, View, event_table, payout_table
from settlement.amounts import format_usdc
from settlement.contracts import Event, decode_events
from settlement.delivery import open_sealed
from settlement.digests import output_digest
from settlement.errors import InvalidInput, RaphaError
from settlement.models import SignedReceipt
from settlement.picture import Payment, Waterfall, draw_settlement
from settlement.types import Frozen, to_hex
from settlement.verify import ReceiptBundle, verify_bundle

BUDGET = 60_000_000
PAYER_FUNDS = 1_000_000_000
JOB_SECONDS = 24 * 60 * 60
POLICY = OutputPolicy(
    min_records=100,
    max_output_bytes=4 * 2**20,
    max_tensors=32,
    allowed_dtypes=("F32",),
    allowed_metrics=("loss", "held_out_accuracy"),
)


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
) -> None:
    """Escrow, train, settle and deliver one job on a chain of its own."""
    console = Console(stderr=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="rapha-"))
    try:
        with Localnet(folder) as net, View(console) as view:
            finished = settle_one_job(net, view, pick_framework(framework), epochs, output)
    except Interrupted:
        console.print("interrupted: everything is stopped")
        raise typer.Exit(130) from None
    except RaphaError as error:
        kept = keep_logs(folder, output / "failed" / time.strftime("%Y%m%d-%H%M%S"))
        console.print(f"[red]{error.code}[/red]: {error}", highlight=False)
        console.print(f"the logs of all processes are in {kept}")
        raise typer.Exit(1) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        typer.echo(json.dumps(finished.summary, indent=2))
        return
    tables = Console()
    tables.print(event_table(finished.events))
    tables.print(payout_table(finished.payouts))
    accuracy = finished.summary["held_out_accuracy"]
    tables.print(f"held-out accuracy: {accuracy:.4f}   files: {finished.summary['folder']}")


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
    view.begin("local chain")
    net.start_chain()
    view.done(net.url("chain"))

    view.begin("contracts")
    deployment = net.deploy()
    net.fund_payer(PAYER_FUNDS)
    net.start_blocks()
    view.done(f"vault {deployment.vault}")

    view.begin("oracles and hub")
    net.start_oracles()
    net.start_hub()
    net.start_node()
    net.wait_for_services()
    view.done("three operators, two must sign")

    with net.hub() as hub, net.oracle() as oracle:
        view.begin("hospital's node attested")
        entry = net.wait(
            "the node's attestation",
            lambda: next((entry for entry in hub.catalogue() if entry.valid), None),
            90,
        )
        view.done(f"{entry.profile.record_count} records, {entry.profile.modality}")

        view.begin("job quoted and routed")
        bundle = example(f"breast_cancer_{framework}")
        epochs = epochs or int(bundle.manifest.hyperparameters["epochs"])
        result_key = X25519PrivateKey.generate()
        request = JobRequest(
            bundle=bundle.to_zip(),
            modality=entry.profile.modality,
            min_records=POLICY.min_records,
            policy=POLICY,
            epochs=epochs,
            budget=BUDGET,
            result_key=result_key.public_key().public_bytes_raw(),
            payer=net.actors.payer.address,
            deadline=net.payer().now() + JOB_SECONDS,
        )
        created = hub.create_job(request)
        check_quote(created, request, entry.profile, bundle.digest, deployment.vault_domain)
        terms = created.terms
        view.done(f"job {to_hex(created.job_id)[:18]}…, budget {format_usdc(terms.budget)} USDC")

        view.begin("budget escrowed with one signature")
        authorization = net.payer().authorize(terms)
        oracle.submit_escrow(EscrowRequest(terms=terms, authorization=authorization))

        def escrowed() -> bool | None:
            status = oracle.escrow(created.job_id)
            if status.status is Status.REJECTED:
                raise InvalidInput(f"the escrow was refused: {status.reason} {status.detail}")
            return status.status is Status.SETTLED or None

        net.wait("the escrow", escrowed, 60)
        view.done("EIP-3009, relayed: the payer holds no native token")

        view.begin("training, settled by receipts")
        view.bars({"records": entry.profile.record_count, "epochs": epochs, "USDC": terms.budget})
        net.wait("the training", lambda: _watch(net, view, hub, created, epochs), 600)
        chain_job = oracle.job(created.job_id)
        view.done(f"{chain_job.records} records, {chain_job.epochs} epochs, all final on chain")

        view.begin("weights delivered")
        net.wait("the delivery", lambda: _delivered(hub.job(created.job_id)), 120)
        artifacts = {name: hub.artifact(created.job_id, name) for name in ArtifactName}
    weights = open_sealed(
        artifacts[ArtifactName.WEIGHTS],
        result_key.private_bytes_raw(),
        chain_id=deployment.chain_id,
        vault=deployment.vault,
        job_id=created.job_id,
    )
    metrics = json.loads(artifacts[ArtifactName.METRICS])
    digest = output_digest(weights, artifacts[ArtifactName.METRICS])
    view.done(f"{len(weights):,} bytes, held-out accuracy {metrics['held_out_accuracy']:.4f}")

    view.begin("everybody paid")
    payouts = pay_out(net, chain_job.records, chain_job.epochs)
    events = vault_events(net)
    receipt_bundle = ReceiptBundle(
        deployment=deployment,
        terms=terms,
        receipts=tuple(
            SignedReceipt.model_validate(item)
            for item in json.loads(artifacts[ArtifactName.RECEIPTS])
        ),
        enclave_key=next(
            str(event.args["enclave_key"]) for event in events if event.name == "EnclaveRegistered"
        ),
        transactions=tuple(
            event.transaction for event in events if event.args.get("job_id") == created.job_id
        ),
    )
    verify_bundle(receipt_bundle, output=digest, paid=chain_job.paid)
    view.done(f"{format_usdc(chain_job.paid)} USDC earned, the bundle verifies")

    target = output / to_hex(created.job_id)
    waterfall = draw(net, created, events)
    told = tell(net, events)
    summary = {
        "job_id": to_hex(created.job_id),
        "framework": framework,
        "held_out_accuracy": metrics["held_out_accuracy"],
        "records": chain_job.records,
        "epochs": chain_job.epochs,
        "budget": terms.budget,
        "paid": chain_job.paid,
        "refunded": chain_job.refunded,
        "payouts": [payout.model_dump(mode="json") for payout in payouts],
        "transactions": [event.model_dump(mode="json") for event in told],
        "deployment": deployment.model_dump(mode="json"),
        "folder": str(target),
        "seconds": round(time.monotonic() - begun, 1),
    }
    save(target, weights, metrics, receipt_bundle, waterfall, summary)
    keep_logs(net.folder, target / "logs")
    return Finished(summary, payouts, told)


def _watch(
    net: Localnet, view: View, hub: HubClient, created: JobCreated, epochs: int
) -> bool | None:
    """Move the bars; True when the job is closed on chain and final for the oracle."""
    job = hub.job(created.job_id)
    if job.failure is not None:
        raise InvalidInput(f"the node failed: {job.failure.code}: {job.failure.detail}")
    if job.progress is not None:
        trained = job.progress
        view.advance(
            {
                "records": (trained.records, str(trained.records)),
                "epochs": (trained.epochs, f"{trained.epochs} of {epochs}"),
            }
        )
    status = net.payer().job(created.job_id)
    view.advance({"USDC": (status.paid, f"{format_usdc(status.paid)} settled")})
    try:
        with net.oracle() as oracle:
            return oracle.job(created.job_id).state.name == "CLOSED" or None
    except OracleRefused:
        return None


def _delivered(job: JobView) -> bool | None:
    return job.state is JobState.DELIVERED or None


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


WORDING: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "EnclaveRegistered": lambda a: f"enclave {a['enclave_key'][:10]}… for node {a['node_id']}",
    "JobOpened": lambda a: f"{format_usdc(a['terms']['budget'])} USDC escrowed",
    "Settled": lambda a: (
        f"{a['records']} records, {a['epochs']} epochs: +{format_usdc(a['amount'])} USDC"
    ),
    "JobClosed": lambda a: f"{format_usdc(a['refunded'])} USDC back to the payer",
    "Distributed": lambda a: f"node {a['node_id']}'s earnings split",
    "Withdrawn": lambda a: f"{format_usdc(a['amount'])} USDC to {a['account'][:10]}…",
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


def draw(net: Localnet, created: JobCreated, events: list[Event]) -> Waterfall:
    """The numbers of the settlement's picture, from the chain's events alone."""
    payments = tuple(
        Payment(
            time=net.w3.eth.get_block(event.block)["timestamp"],
            records=event.args["records"],
            epochs=event.args["epochs"],
            amount=event.args["amount"],
            paid=event.args["paid"],
            transaction=event.transaction,
        )
        for event in events
        if event.name == "Settled" and event.args["job_id"] == created.job_id
    )
    split = next(event.args for event in events if event.name == "Distributed")
    closed = next(event.args for event in events if event.name == "JobClosed")
    return Waterfall(
        job_id=created.job_id,
        budget=created.terms.budget,
        payments=payments,
        shares={
            "hospital": split["hospital_amount"],
            "node owner": split["node_owner_amount"],
            "onboarder": split["onboarder_amount"],
            "protocol": split["protocol_amount"],
        },
        refunded=closed["refunded"],
    )


def save(
    target: Path,
    weights: bytes,
    metrics: dict[str, Any],
    bundle: Frozen,
    waterfall: Waterfall,
    summary: dict[str, Any],
) -> None:
    """Write the run's files."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "weights.safetensors").write_bytes(weights)
    (target / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (target / "receipts.json").write_text(bundle.model_dump_json(indent=2) + "\n")
    (target / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    draw_settlement(waterfall, target / "settlement.png")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
