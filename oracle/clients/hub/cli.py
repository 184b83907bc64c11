"""`rapha-hub`: the one place that reads the configuration and puts the hub together."""

import signal

import structlog
import typer
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from oracle.client import OracleClient
from oracle.clients.hub.api import create_app
from oracle.clients.hub.config import HubSettings
from oracle.clients.hub.database import open_database
from oracle.clients.hub.files import ArtifactFiles
from oracle.clients.hub.keys import KeyRing, load_hash_key, load_keys
from oracle.clients.hub.service import HubService
from oracle.clients.hub.store import Store
from settlement import logs
from settlement.deployment import load_deployment
from settlement.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The Rapha hub.")


@app.callback()
def hub() -> None:
    """The hub: developers bring jobs, nodes lease them."""


@app.command()
def serve() -> None:
    """Serve the HTTP API until SIGTERM or SIGINT. Configured by RAPHA_HUB_*."""
    logs.configure()
    try:
        settings = HubSettings()
        application = build(settings)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        structlog.get_logger("rapha.hub").error("configuration refused", faults=faults)
        raise typer.Exit(2) from error
    except InvalidInput as error:
        structlog.get_logger("rapha.hub").error("configuration refused", detail=str(error))
        raise typer.Exit(2) from error
    # uvicorn raises the signal that stopped it again, once it is done: then this takes it, and the
    # process ends with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
        )
    )
    server.run()
    if not server.started:
        raise typer.Exit(1)


def build(settings: HubSettings) -> FastAPI:
    """The hub as configured, its database migrated.

    Raises:
        InvalidInput: naming the file that cannot be used.
    """
    deployment = load_deployment(settings.deployment_file)
    keys_file = load_keys(settings.keys_file)
    hash_key = load_hash_key(settings.hash_key_file)
    store = Store(open_database(settings.database_url))
    store.replace_api_keys(keys_file.records(hash_key))
    service = HubService(
        store,
        ArtifactFiles(settings.artifacts_dir),
        OracleClient(str(settings.oracle_url), timeout=settings.oracle_timeout),
        deployment,
        shortest_deadline=settings.shortest_deadline,
    )
    return create_app(service, KeyRing(store.api_keys(), hash_key))


def main() -> None:
    """The console script."""
    app()
