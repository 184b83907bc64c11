"""`rapha-hub`: the one place that reads the configuration and puts the hub together."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import structlog
import typer
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from oracle.client import OracleClient
from oracle.clients.hub.access import Access, AccessPolicy
from oracle.clients.hub.api import create_app
from oracle.clients.hub.background import Follower, Sweeper
from oracle.clients.hub.callers import Hub
from oracle.clients.hub.chain import RpcChain
from oracle.clients.hub.config import HubSettings
from oracle.clients.hub.database import open_database
from oracle.clients.hub.files import ArtifactFiles
from oracle.clients.hub.identity import Identities
from oracle.clients.hub.keys import (
    KeyRing,
    Principal,
    load_hash_key,
    load_keys,
    make_api_key,
    record_of,
)
from oracle.clients.hub.service import HubPolicy, HubService, now
from oracle.clients.hub.sessions import Sessions, Site
from oracle.clients.hub.store import Store
from oracle.clients.hub.uploads import Uploads
from oracle.clients.hub.wakeups import Wakeups
from settlement import logs
from settlement.bundle import MAX_ARCHIVE_BYTES
from settlement.deployment import Deployment, load_deployment
from settlement.errors import InvalidInput, RaphaError
from settlement.hub.account import HubInfo, IssuedKey, Role, Step
from settlement.types import parse_bytes, to_hex

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The Rapha hub.")
registrations = typer.Typer(no_args_is_help=True, help="Review who registered by a proof.")
app.add_typer(registrations, name="registrations")


def _registration_id(text: str) -> bytes:
    try:
        value = parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if len(value) != 32:
        raise typer.BadParameter("a registration's id has 32 bytes")
    return value


_COMMAND = Principal(Role.OPERATOR, "command line", via="command")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RegistrationId = Annotated[
    bytes, typer.Argument(metavar="ID", parser=_registration_id, help="The registration's id.")
]


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
        InvalidInput: naming the file, or the setting, that cannot be used.
    """
    deployment = load_deployment(settings.deployment_file)
    keys_file = load_keys(settings.keys_file)
    hash_key = load_hash_key(settings.hash_key_file)
    identities = _identities(settings, deployment)
    site = Site.at(settings.public_url or f"http://{settings.host}:{settings.port}")
    store = Store(open_database(settings.database_url))
    store.replace_api_keys(keys_file.records(hash_key))
    chain = RpcChain(str(settings.rpc_url), deployment) if settings.rpc_url else None
    lifetime = settings.upload_seconds
    uploads = Uploads(store, store.bundle_by_digest, lifetime=lifetime, clock=now)
    service = HubService(
        store,
        ArtifactFiles(settings.artifacts_dir),
        connect(settings),
        deployment,
        uploads=uploads,
        chain=chain,
        policy=HubPolicy(
            shortest_deadline=settings.shortest_deadline,
            patience=settings.node_patience,
            lease=settings.node_lease,
            queue=settings.node_queue,
            retention=settings.delivery_seconds,
            authorization=settings.authorization_seconds,
            freshness=settings.freshness,
        ),
    )
    sessions = Sessions(
        store, deployment, site, hash_key, chain, lifetime=settings.session_seconds, clock=now
    )
    access = Access(
        store,
        KeyRing(store.api_key, hash_key, now),
        sessions,
        hash_key,
        identities=identities,
        policy=AccessPolicy(
            per_party=settings.rate_per_party,
            per_address=settings.rate_per_address,
            operators=settings.operators,
            registering=settings.registration,
        ),
        clock=now,
    )
    info = HubInfo(
        deployment=deployment,
        registration=settings.registration,
        smart_wallets=chain is not None,
        max_bundle_bytes=MAX_ARCHIVE_BYTES,
        upload_seconds=settings.upload_seconds,
        delivery_seconds=settings.delivery_seconds,
    )
    wakeups = Wakeups()
    follower = Follower(service, connect(settings), wakeups)
    return create_app(
        Hub(service, access, uploads, wakeups, info), [follower, Sweeper(service, wakeups)]
    )


def connect(settings: HubSettings) -> OracleClient:
    """The oracle as configured, with the hub's API key where it has one."""
    key = settings.oracle_api_key
    return OracleClient(
        str(settings.oracle_url),
        timeout=settings.oracle_timeout,
        token=key.get_secret_value() if key else None,
    )


def _identities(settings: HubSettings, deployment: Deployment) -> Identities | None:
    if settings.registration == "closed":
        return None
    key = load_hash_key(settings.nullifier_key_file)
    return Identities(settings.identity_file, deployment, key)


@registrations.command(name="list")
def list_registrations(as_json: AsJson = False) -> None:
    """Show every registration, the oldest first."""
    with _admin() as (store, _settings):
        found = store.registrations()
    if as_json:
        typer.echo(json.dumps([it.model_dump(mode="json") for it in found]))
        return
    for it in found:
        typer.echo(
            f"{to_hex(it.registration_id)}  {it.state:9} {it.name}  {it.company}  "
            f"{it.wallet}  {it.site} ({it.template})"
        )


@registrations.command()
def approve(registration_id: RegistrationId, as_json: AsJson = False) -> None:
    """Approve a registration and print its API key, this once; again gives a new key."""
    api_key = make_api_key()
    with _admin() as (store, settings):
        known = store.registration(registration_id)
        hash_key = load_hash_key(settings.hash_key_file)
        record = record_of(
            api_key, hash_key, Role.DEVELOPER, known.name, label="by command", now=now()
        )
        approved = store.approve(registration_id, record, _COMMAND, now())
    issued = IssuedKey(registration=approved, api_key=api_key)
    typer.echo(issued.model_dump_json() if as_json else f"{approved.name}: {api_key}")


@registrations.command()
def reject(
    registration_id: RegistrationId,
    reason: Annotated[str, typer.Option(help="What the applicant reads.")] = "rejected by command",
    as_json: AsJson = False,
) -> None:
    """Reject a registration, or end an approved one: its keys count no more."""
    with _admin() as (store, _settings):
        rejected = store.review(registration_id, Step.REJECTED, reason, _COMMAND, now())
    typer.echo(rejected.model_dump_json() if as_json else f"{rejected.name}: {rejected.state}")


@contextmanager
def _admin() -> Iterator[tuple[Store, HubSettings]]:
    """The configured hub's database; a typed error becomes one line and exit code 1."""
    settings = HubSettings()
    store = Store(open_database(settings.database_url))
    try:
        yield store, settings
    except RaphaError as error:
        line = {"event": "failed", "code": error.code, "detail": str(error)}
        typer.echo(json.dumps(line), err=True)
        raise typer.Exit(1) from error
    finally:
        store.close()


def main() -> None:
    """The console script."""
    app()
