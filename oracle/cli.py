"""`rapha-oracle`: serve, ask for the status, and what an operator does by hand."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import structlog
import typer
import uvicorn
from pydantic import TypeAdapter, ValidationError

from oracle.api import create_app
from oracle.client import OracleClient
from oracle.commands.failures import UNTOLD
from oracle.commands.stored import ending, here
from oracle.config import OracleSettings
from oracle.gate import Gate
from oracle.keyfiles import read_member_key
from oracle.keys import ApiKey, ApiKeys, Scope
from oracle.rebuild import rebuild
from oracle.service import build, wall_clock
from oracle.store.database import Store
from oracle.tpm import forget_tpm
from oracle.upkeep import retry, unfinished
from settlement import logs
from settlement.deployment import load_deployment
from settlement.errors import InvalidInput
from settlement.types import Bytes32

GRACEFUL = 1
"""Seconds that open requests have once the process is asked to end."""

MAX_HEADER = 16 * 1024
"""Bytes that a request's line and headers may have."""

KEEP_ALIVE = 5
"""Seconds that an idle connection is kept."""

MAX_CONNECTIONS = 1_000
"""Connections and requests at a time; the server refuses more with 503."""

MAX_NAME = 64
"""Characters of a key's name."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

app = typer.Typer(
    name="rapha-oracle",
    help="One operator's oracle. Configured by RAPHA_ORACLE_* variables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

keys = typer.Typer(help="The API keys of this oracle's database.", no_args_is_help=True)
app.add_typer(keys, name="keys")

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
            access_log=False,
            http="h11",  # the one that bounds a request's headers
            h11_max_incomplete_event_size=MAX_HEADER,
            timeout_keep_alive=KEEP_ALIVE,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=GRACEFUL,
        )
    )
    # The server raises the signal that ended it again once it is done; ending is no failure.
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda *_: None)
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
def pause(
    reason: Annotated[str, typer.Option(help="What clients are told.")] = "maintenance",
    as_json: AsJson = False,
) -> None:
    """Take nothing in any more: answer 503 to what is handed in, until `resume`.

    It outlives restarts. What was taken in before is worked on, and can be asked for.
    """
    with _store(OracleSettings()) as store:
        found = Gate(store).close(reason, wall_clock())
    _print(found.model_dump(), f"nothing is taken in ({found.reason})", as_json)


@app.command()
def resume(as_json: AsJson = False) -> None:
    """Take things in again."""
    with _store(OracleSettings()) as store:
        was_paused = Gate(store).open()
    text = "things are taken in again" if was_paused else "there was no pause"
    _print({"was_paused": was_paused}, text, as_json)


@app.command("retry")
def retry_item(
    digest: Annotated[
        str, typer.Argument(help="A receipt's or attestation's digest, or an escrow's job id.")
    ],
    as_json: AsJson = False,
) -> None:
    """Judge anew what was rejected."""
    settings = OracleSettings()
    deployment = load_deployment(settings.deployment_file)
    with _store(settings) as store:
        retried = retry(store, deployment, _digest(digest))
    lines = [f"{item.kind} {item.status} {item.reason or ''}".strip() for item in retried]
    found = [item.model_dump(mode="json") for item in retried]
    _print({"retried": found}, "\n".join(lines), as_json)


@app.command()
def drain(
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Take nothing in any more, and wait until all that was taken in is final.

    The oracle has to be running. Exit code 0 when it is so, 1 when it was not so in time.
    """
    settings = OracleSettings()
    end = time.monotonic() + timeout
    with _store(settings) as store:
        Gate(store).close("draining", wall_clock())
        while (left := unfinished(store)).total and time.monotonic() < end:
            time.sleep(min(settings.poll_interval, max(end - time.monotonic(), 0)))
    text = f"not final: {left}" if left.total else f"all is final; {left.waiting} wait for others"
    _print({"drained": not left.total, "left": left.model_dump()}, text, as_json)
    if left.total:
        raise typer.Exit(1)


@app.command("rebuild")
def rebuild_facts(
    check: Annotated[bool, typer.Option("--check", help="Only compare; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build the facts from the chain alone, name every difference, and put them in place.

    Exit code with --check: 0 equal, 1 differences. Without: 0 once the new facts are in place.
    Exit code 2 when the chain or the database could not be read; nothing has changed then.
    """
    logs.configure("WARNING")
    with ending(UNTOLD):
        settings = OracleSettings()
        service = build(settings)
        try:
            if not check:
                service.store.migrate()
            service.chain.check()
            deployment = load_deployment(settings.deployment_file)
            found = rebuild(service.store, service.chain, deployment, check_only=check)
        finally:
            service.stop()
    lines = [f"block {found.block}, {found.events} events"]
    lines += [str(difference) for difference in found.differences]
    lines.append(f"{len(found.differences)} differences" if found.differences else "all equal")
    _print(found.model_dump(mode="json"), "\n".join(lines), as_json)
    if check and found.differences:
        raise typer.Exit(1)


app.command("reconcile")(here)


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Bring the database to this version's schema; `serve` does so by itself."""
    store = Store(OracleSettings().database_url.get_secret_value())
    store.migrate()
    revision = store.revision()
    store.close()
    _print({"revision": revision}, f"database is at revision {revision}", as_json)


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Whose key it is, for people; up to 64 characters.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; give it several times.")],
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise typer.BadParameter(f"1 to {MAX_NAME} printable characters", param_hint="NAME")
    with _keys() as kept:
        key, token = kept.add(name, set(scope))
    text = f"{token}\n{key.key_id} may {', '.join(sorted(key.scopes))}; keep it, it is shown once"
    _print({**_shown(key), "token": token}, text, as_json)


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Show all keys there ever were, without their secrets."""
    with _keys() as kept:
        found = kept.all()
    lines = [
        f"{key.key_id}  {'revoked' if key.revoked_at else 'valid':8}"
        f"{' '.join(sorted(key.scopes)):22}{key.name}"
        for key in found
    ]
    _print({"keys": [_shown(key) for key in found]}, "\n".join(lines) or "no keys", as_json)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """End a key; oracles that run refuse it within two seconds."""
    with _keys() as kept:
        key = kept.revoke(key_id)
    _print(_shown(key), f"{key.key_id} ({key.name}) is revoked", as_json)


@contextmanager
def _keys() -> Iterator[ApiKeys]:
    store = Store(OracleSettings().database_url.get_secret_value())
    try:
        store.migrate()
        yield ApiKeys(store, wall_clock)
    finally:
        store.close()


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


@app.command()
def member(as_json: AsJson = False) -> None:
    """Show what a new committee needs of this operator: its address, its BLS key with its proof."""
    key = read_member_key(OracleSettings().committee_key_file)
    proven = key.bls.prove().model_dump(mode="json")
    lines = [f"{name:9}{value}" for name, value in {"address": key.address, **proven}.items()]
    _print({"address": key.address, "bls": proven}, "\n".join(lines), as_json)


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


@contextmanager
def _store(settings: OracleSettings) -> Iterator[Store]:
    logs.configure("WARNING")  # to standard error: what is printed is the answer alone
    store = Store(settings.database_url.get_secret_value())
    try:
        yield store
    finally:
        store.close()


def _digest(text: str) -> bytes:
    try:
        return TypeAdapter(Bytes32).validate_python(text)
    except ValidationError as error:
        raise InvalidInput(f"{text} is not a 32-byte 0x-prefixed digest") from error


def main() -> None:
    """The console entry point: typed errors become one line on standard error and exit code 1."""
    with ending(1):
        app()


if __name__ == "__main__":
    main()
