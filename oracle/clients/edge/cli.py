"""`rapha-edge`: the hospital's node."""

import json
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import structlog
import typer
from pydantic import ValidationError

from oracle.client import OracleClient, TpmWanted
from oracle.clients.edge.audit import export
from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.config import EdgeSettings
from oracle.clients.edge.dataset import (
    CommittedDataset,
    answer_challenge,
    breast_cancer,
    commit,
    open_dataset_key,
)
from oracle.clients.edge.devplatform import DevPlatform
from oracle.clients.edge.durable import write_atomically
from oracle.clients.edge.errors import KeyFileInvalid
from oracle.clients.edge.estimate import estimate
from oracle.clients.edge.node import AUDIT, Node, build_isolation, build_profile
from oracle.clients.edge.policy.cli import app as policy_app
from oracle.clients.edge.signer import EnclaveSigner, configuration_digest, measurement
from oracle.clients.edge.sources.open import open_dataset
from oracle.clients.edge.sources.settings import read_dataset_file
from oracle.clients.edge.tpm import Tpm, TpmFiles, endorsement_digest
from settlement import logs
from settlement.amounts import format_usdc
from settlement.bundle import MAX_ARCHIVE_BYTES
from settlement.dataset import Challenge, ChallengeInvalid
from settlement.deployment import load_deployment
from settlement.errors import InvalidInput, RaphaError
from settlement.hub.client import HubClient
from settlement.types import parse_bytes, to_hex

_TIMEOUT_SECONDS = 10.0

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(policy_app, name="policy")
dataset_app = typer.Typer(no_args_is_help=True, help="The dataset: what is published, and audits.")
app.add_typer(dataset_app, name="dataset")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
log = structlog.get_logger(__name__)


@app.command()
def run() -> None:
    """Run the node until it gets SIGTERM or SIGINT. Configured by RAPHA_EDGE_… variables."""
    settings = _settings()
    logs.configure(settings.log_level)
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        _run(settings, stop)
    except RaphaError as error:
        log.error("node_ended", code=error.code, detail=str(error))
        raise typer.Exit(1) from error


@app.command(name="measurement")
def show_measurement(as_json: AsJson = False) -> None:
    """Print the enclave's measurement, which governance has to allow."""
    value = to_hex(measurement())
    typer.echo(json.dumps({"measurement": value}) if as_json else value)


@app.command(name="profile")
def show_profile(as_json: AsJson = False) -> None:
    """Print the dataset profile that the node would publish."""
    settings = _settings()
    with _told():
        profile = build_profile(settings, _committed(settings))
    if as_json:
        typer.echo(profile.model_dump_json())
        return
    for name, value in profile.model_dump(mode="json", exclude={"bands"}).items():
        typer.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}")


@dataset_app.command(name="show")
def show_dataset(as_json: AsJson = False) -> None:
    """Print what the node would publish, and how many incomplete records it left out."""
    settings = _settings()
    with _told():
        committed = _committed(settings)
        profile = build_profile(settings, committed)
    if as_json:
        left_out = committed.dataset.left_out
        typer.echo(json.dumps({"profile": profile.model_dump(mode="json"), "left_out": left_out}))
        return
    for name, value in profile.model_dump(mode="json", exclude={"bands"}).items():
        typer.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    for band in profile.bands:
        typer.echo(f"{band.name}: {band.at_least} to {band.at_most} records")
    typer.echo(f"left out: {committed.dataset.left_out} incomplete records")


@dataset_app.command(name="answer")
def answer(
    challenge_file: Annotated[Path, typer.Argument(metavar="CHALLENGE", help="The auditor's.")],
    out: Annotated[Path, typer.Option(help="Where to write the answer. It holds records.")],
) -> None:
    """Open the leaves that an auditor's challenge draws, and no others."""
    settings = _settings()
    with _told():
        try:
            challenge = Challenge.model_validate_json(challenge_file.read_bytes())
        except (OSError, ValidationError) as error:
            raise ChallengeInvalid(f"{challenge_file} holds none") from error
        key = open_dataset_key(settings.state_dir / "dataset.key")
        answered = answer_challenge(_committed(settings), key, challenge)
    write_atomically(out, answered.model_dump_json().encode(), 0o600)
    typer.echo(f"{out} opens {len(answered.openings)} records: for the auditor and nobody else")


@app.command(name="tpm")
def show_tpm(
    pcrs: Annotated[str, typer.Option(help="Which PCRs to show.")] = "sha256:8,9",
    as_json: AsJson = False,
) -> None:
    """Print what operators need for their policies: the TPM's endorsement and its PCRs now."""
    settings = _settings()
    tpm = _tpm(settings)
    if tpm is None:
        typer.echo("RAPHA_EDGE_TPM_TCTI: names no TPM", err=True)
        raise typer.Exit(2)
    wanted = TpmWanted(required=False, selection=pcrs, event_log=False)
    try:
        with tpm.session() as session:
            quote = session.evidence(bytes(32), wanted).quote
            digest = endorsement_digest(session.request(settings.node_id).ek_certificate)
    except RaphaError as error:
        typer.echo(f"{error.code}: {error}", err=True)
        raise typer.Exit(1) from error
    shown = {
        "ek_key_digest": to_hex(digest),
        "pcrs": {
            str(bank): {str(pcr): to_hex(value) for pcr, value in sorted(values.items())}
            for bank, values in quote.pcrs.items()
        },
    }
    if as_json:
        typer.echo(json.dumps(shown))
        return
    typer.echo(f"ek_key_digest: {shown['ek_key_digest']}")
    for bank, values in quote.pcrs.items():
        for pcr, value in sorted(values.items()):
            typer.echo(f"{bank} {pcr}: {to_hex(value)}")


@app.command(name="estimate")
def show_estimate(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a zip, or a directory of sources.")],
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train for.")],
    budget: Annotated[
        int | None, typer.Option(min=0, help="What may be spent, in USDC base units.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a job will cost and take here, before it begins; no record is read by the bundle.

    Exit code 0: it fits; 1: it does not, or the bundle fails; 2: configuration.
    """
    settings = _settings()
    deployment = load_deployment(settings.deployment_file)
    committed = _committed(settings)
    try:
        opened = (
            Bundle.from_directory(bundle) if bundle.is_dir() else Bundle.from_zip(_read(bundle))
        )
        isolation = build_isolation(settings, deployment.chain_id)
        with tempfile.TemporaryDirectory(prefix="rapha-estimate-") as scratch:
            found = estimate(
                opened,
                build_profile(settings, committed),
                committed.dataset,
                epochs=epochs,
                budget=budget,
                limits=settings.limits,
                wall_seconds=settings.limits.wall_seconds,
                scratch_root=Path(scratch),
                isolation=isolation,
                stop=threading.Event(),
                gpus=isolation.grant(opened.manifest.gpus.at_most, settings.limits.gpus),
            )
    except RaphaError as error:
        typer.echo(f"{error.code}: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps({**found.model_dump(mode="json"), "excesses": found.excesses}))
    else:
        typer.echo(
            f"{found.records} records and {found.epochs} epochs cost at most"
            f" {format_usdc(found.cost)} USDC ({format_usdc(found.cost_of_records)} for records,"
            f" {format_usdc(found.cost_of_epochs)} for epochs)\n"
            f"{found.wall_seconds} s and {found.memory_bytes / 2**20:.0f} MiB, {found.basis}\n"
            f"{found.gpus} GPUs{f': {found.gpus_why}' if found.gpus_why else ''}"
        )
        for excess in found.excesses:
            typer.echo(f"does not fit: {excess}")
    if found.excesses:
        raise typer.Exit(1)


@app.command(name="audit-export")
def export_audit(
    job: Annotated[
        str | None,
        typer.Option(help="A job's id, 0x-prefixed hex: open its entries, and no other job's."),
    ] = None,
) -> None:
    """Print the audit log for somebody without its key; `rapha audit verify` checks it."""
    settings = _settings()
    try:
        wanted = None if job is None else parse_bytes(job)
    except ValueError as error:
        raise typer.BadParameter("a job's id is 0x-prefixed hex", param_hint="--job") from error
    try:
        for line in export(settings.state_dir / AUDIT, wanted):
            typer.echo(line.decode(), nl=False)
    except RaphaError as error:
        typer.echo(f"{error.code}: {error}", err=True)
        raise typer.Exit(1) from error


def main() -> None:
    """The console script."""
    app()


def _run(settings: EdgeSettings, stop: threading.Event) -> None:
    deployment = load_deployment(settings.deployment_file)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    signer = EnclaveSigner.open(settings.state_dir / "enclave", chain_id=deployment.chain_id)
    platform = DevPlatform.open(
        settings.platform_dir, int(time.time()), chain_id=deployment.chain_id
    )
    committed = _committed(settings)
    log.info(
        "starting",
        node_id=settings.node_id,
        enclave_key=signer.enclave_key,
        measurement=to_hex(measurement()),
        configuration=to_hex(configuration_digest(settings.limits)),
        records=len(committed.dataset),
        tpm=settings.tpm_tcti is not None,
    )
    with (
        connect(settings) as oracle,
        HubClient(settings.hub_url, _hub_key(settings), timeout=_TIMEOUT_SECONDS) as hub,
    ):
        Node(
            settings,
            deployment,
            committed=committed,
            signer=signer,
            platform=platform,
            oracle=oracle,
            hub=hub,
            clock=lambda: int(time.time()),
            stop=stop,
            tpm=_tpm(settings),
        ).run()


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_ARCHIVE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror or 'cannot be read'}") from error


def connect(settings: EdgeSettings) -> OracleClient:
    """The oracle as configured, with the node's API key where it has one."""
    key = settings.oracle_api_key
    token = key.get_secret_value() if key else None
    return OracleClient(settings.oracle_url, timeout=_TIMEOUT_SECONDS, token=token)


def _tpm(settings: EdgeSettings) -> Tpm | None:
    if settings.tpm_tcti is None:
        return None
    return Tpm(
        settings.state_dir / "tpm",
        settings.tpm_tcti,
        files=TpmFiles(
            certificate=settings.tpm_certificate_file,
            intermediates=settings.tpm_intermediates_file,
            event_log=settings.tpm_event_log_file,
        ),
        algorithm=settings.tpm_ek,
        timeout=settings.tpm_command_seconds,
    )


def _committed(settings: EdgeSettings) -> CommittedDataset:
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = open_dataset_key(settings.state_dir / "dataset.key")
    if settings.dataset_file is None:
        return commit(breast_cancer(), key)
    file = read_dataset_file(settings.dataset_file)
    dataset = open_dataset(file, settings.dataset_file.parent)
    return commit(dataset, key, deduplicate=file.deduplicate)


@contextmanager
def _told() -> Iterator[None]:
    """Typed errors become one line on standard error and exit code 1."""
    try:
        yield
    except RaphaError as error:
        typer.echo(f"{error.code}: {error}", err=True)
        raise typer.Exit(1) from error


def _hub_key(settings: EdgeSettings) -> str:
    try:
        key = settings.hub_key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        key = ""
    if not key:
        raise KeyFileInvalid(settings.hub_key_file, "the node's API key for the hub")
    return key


def _settings() -> EdgeSettings:
    try:
        return EdgeSettings()
    except ValidationError as error:
        for fault in error.errors():
            name = "__".join(str(part) for part in fault["loc"]).upper()
            typer.echo(f"RAPHA_EDGE_{name}: {fault['msg']}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    main()
