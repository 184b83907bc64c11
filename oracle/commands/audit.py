"""`rapha audit verify`: whether a hospital's audit log, or an export, is whole and unchanged."""

import json
from pathlib import Path
from typing import Annotated

import typer

from oracle.commands.failures import UNTOLD, ending
from settlement.audit import KEY_BYTES, Audit, LineInvalid, verify_log
from settlement.errors import InvalidInput
from settlement.reconcile import load_bundles

app = typer.Typer(
    name="audit",
    help="Hold a hospital to what it says: its log and its records.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
LogFile = Annotated[Path, typer.Argument(metavar="FILE", help="A log, or an export of one.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key", help="The log's key, for a log that is no export.")
]
Receipts = Annotated[
    list[Path] | None,
    typer.Option("--receipts", help="A receipt bundle (JSON) that binds the log; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _group() -> None:
    """Hold a hospital to what it says: its log and its records."""


@app.command()
def verify(
    file: LogFile, key: KeyFile = None, receipts: Receipts = None, as_json: AsJson = False
) -> None:
    """Check a log by itself, and against receipts, which show whether its end was cut.

    Exit code 0: every claim holds; 1: one does not, or a line was changed; 2: could not be told.
    """
    with ending(UNTOLD):
        log_key = _key(key)
        bundles = load_bundles(receipts or [])
        lines = _read(file, "an audit log").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    try:
        audit = verify_log(lines, log_key=log_key, bundles=bundles)
    except LineInvalid as error:
        typer.echo(
            json.dumps({"holds": False, "line": error.number + 1, "why": error.detail})
            if as_json
            else f"fail  {error}"
        )
        raise typer.Exit(1) from error
    typer.echo(_json(audit) if as_json else _words(audit))
    if not all(check.holds for check in audit.checks):
        raise typer.Exit(1)


def _json(audit: Audit) -> str:
    return json.dumps(
        {
            "holds": all(check.holds for check in audit.checks),
            "entries": audit.length,
            "open": len(audit.entries),
            "bound_by_receipts": audit.anchored,
            "checks": [check.model_dump() for check in audit.checks],
        }
    )


def _words(audit: Audit) -> str:
    lines = [
        f"{'pass' if check.holds else 'fail'}  {check.claim}: {check.why}" for check in audit.checks
    ]
    if audit.anchored < audit.length:
        lines.append(
            f"the last {audit.length - audit.anchored} entries are bound by no receipt given here:"
            " whether more followed cannot be told"
        )
    return "\n".join(lines)


def _key(file: Path | None) -> bytes | None:
    if file is None:
        return None
    key = _read(file, "an audit log's key")
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"{file} does not hold the {KEY_BYTES} bytes of an audit log's key")
    return key


def _read(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} is not {what}: {error.strerror or 'unreadable'}") from error
