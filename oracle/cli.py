"""`rapha-oracle`: serve, ask for the status, migrate the database."""

import json
import signal
import sys
from typing import Annotated, Any

import structlog
import typer
import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from oracle.api import create_app
from oracle.client import OracleClient
from oracle.config import OracleSettings
from oracle.service import build
from oracle.store.database import Store
from oracle.tpm import forget_tpm
from settlement import logs
from settlement.errors import RaphaError

GRACEFUL = 1
"""Seconds that open requests have once the process is asked to end."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

app = typer.Typer(
    name="rapha-oracle",
    help="One operator's oracle. Configured by RAPHA_ORACLE_* variables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_log = structlog.get_logger(__name__)


@app.command()
def serve() -> None:
    """Serve the HTTP API, follow the chain and, where configured, relay. Ends on SIGTERM."""
    logs.configure()
    settings = OracleSettings()
    service = build(settings)
    service.prepare()
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service),
            host=settings.host,
            port=settings.port,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL,
        )
    )
    # The server raises the signal that ended it again once it is done; ending is no failure.
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: None)
    service.start()
    try:
        server.run()
    finally:
        service.stop()
    _log.info("oracle stopped")


@app.command()
def status(
    url: Annotated[str, typer.Option(help="The oracle's base URL.")] = "http://127.0.0.1:8100",
    as_json: AsJson = False,
) -> None:
    """Tell whether a running oracle is ready; exit code 1 when it is not."""
    with OracleClient(url) as client:
        readiness = client.health()
    lines = [f"{'ready' if readiness.ready else 'not ready'}  {url}"]
    lines += [f"  {name:10}{state}" for name, state in readiness.checks.items()]
    _print(readiness.model_dump(mode="json"), "\n".join(lines), as_json)
    if not readiness.ready:
        raise typer.Exit(1)


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Bring the database to this version's schema; `serve` does so by itself."""
    store = Store(OracleSettings().database_url.get_secret_value())
    store.migrate()
    revision = store.revision()
    store.close()
    _print({"revision": revision}, f"database is at revision {revision}", as_json)


@app.command(name="forget-tpm")
def forget(node_id: int, as_json: AsJson = False) -> None:
    """Let a node have another TPM: forget the one that is enrolled; exit code 1 when none is."""
    store = Store(OracleSettings().database_url.get_secret_value())
    forgotten = forget_tpm(store, node_id)
    store.close()
    text = "may enrol another TPM" if forgotten else "has no enrolled TPM"
    _print({"node_id": node_id, "forgotten": forgotten}, f"node {node_id} {text}", as_json)
    if not forgotten:
        raise typer.Exit(1)


def _print(value: dict[str, Any], text: str, as_json: bool) -> None:
    typer.echo(json.dumps(value) if as_json else text)


def main() -> None:
    """The console entry point: typed errors become one line on standard error and exit code 1."""
    try:
        app()
    except ValidationError as error:
        fields = "; ".join(
            f"RAPHA_ORACLE_{'_'.join(map(str, part['loc'])).upper()}: {part['msg']}"
            for part in error.errors(include_input=False)
        )
        _fail("ConfigurationInvalid", fields)
    except RaphaError as error:
        _fail(error.code, str(error))
    except SQLAlchemyError as error:
        _fail("StoreUnavailable", type(error).__name__)


def _fail(code: str, detail: str) -> None:
    typer.echo(json.dumps({"event": "failed", "code": code, "detail": detail}), err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
