"""`rapha-edge`: the hospital's node."""

import json
import signal
import threading
import time
from types import FrameType
from typing import Annotated

import structlog
import typer
from pydantic import ValidationError

from oracle.client import OracleClient, TpmWanted
from oracle.clients.edge.config import EdgeSettings
from oracle.clients.edge.dataset import CommittedDataset, breast_cancer, commit, open_dataset_key
from oracle.clients.edge.devplatform import DevPlatform
from oracle.clients.edge.errors import KeyFileInvalid
from oracle.clients.edge.node import Node, build_profile
from oracle.clients.edge.policy.cli import app as policy_app
from oracle.clients.edge.signer import EnclaveSigner, configuration_digest, measurement
from oracle.clients.edge.tpm import Tpm, TpmFiles, endorsement_digest
from oracle.clients.hub.client import HubClient
from settlement import logs
from settlement.deployment import load_deployment
from settlement.errors import RaphaError
from settlement.types import to_hex

_TIMEOUT_SECONDS = 10.0

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(policy_app, name="policy")
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
    profile = build_profile(settings, _committed(settings))
    if as_json:
        typer.echo(profile.model_dump_json())
        return
    for name, value in profile.model_dump(mode="json").items():
        typer.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}")


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
    return commit(breast_cancer(), open_dataset_key(settings.state_dir / "dataset.key"))


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
