"""`rapha attest`: shows a quote to a person, and checks it link by link."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.attestation.collateral import CollateralSource, FileCollateral
from oracle.attestation.explain import QuoteField, explain
from oracle.attestation.identity.reclaim import MAX_PROOF
from oracle.attestation.identity.report import examine_identity
from oracle.attestation.identity.settings import load_identity_settings
from oracle.attestation.pccs import INTEL_PCS, PccsClient, PccsCollateral
from oracle.attestation.policy import TcbPolicy
from oracle.attestation.report import Check, Outcome, examine
from settlement.errors import InvalidInput, RaphaError
from settlement.types import to_hex

POLYGON = 137
MAX_FILE = 1 << 20
WHOLE = 64
"""Bytes up to which a table shows a value whole."""
PIPED = 240
"""Columns where there is no terminal to say how many it has."""
CACHE = Path.home() / ".cache" / "rapha" / "collateral"

_STYLE: dict[Outcome, str] = {"pass": "green", "fail": "bold red", "skip": "dim"}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QuoteFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A quote, binary or as hex; - reads it from input.")
]

app = typer.Typer(
    name="attest",
    help="Show and check the evidence of an enclave (SGX and TDX quotes).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def show(file: QuoteFile, as_json: AsJson = False) -> None:
    """Show a quote field by field: where each lies, what is there, what that means."""
    explanation = explain(_read(file))
    if as_json:
        typer.echo(explanation.model_dump_json())
        return
    _print(_fields(explanation.fields))
    typer.echo(f"\nmeasurement         {to_hex(explanation.measurement)}")
    typer.echo(f"attestation digest  {to_hex(explanation.attestation_digest)}")


@app.command()
def verify(
    file: QuoteFile,
    collateral: Annotated[
        Path | None, typer.Option(help="Collateral in a file, as JSON of `QuoteCollateralV3`.")
    ] = None,
    pccs: Annotated[
        str, typer.Option(help="Collateral from this service, when no file is given.")
    ] = INTEL_PCS,
    cache: Annotated[Path, typer.Option(help="Where fetched collateral is kept.")] = CACHE,
    pccs_ca: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) that vouch for the service's TLS.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="TCB policy as JSON; without one only UpToDate passes.")
    ] = None,
    dev_root: Annotated[
        Path | None, typer.Option(help="Root of a development platform (DER); test chains only.")
    ] = None,
    chain_id: Annotated[int, typer.Option(help="For which chain the quote is judged.")] = POLYGON,
    at: Annotated[
        int | None, typer.Option(help="Judge as of this time (Unix seconds), not as of now.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a quote link by link up to the vendor's root; exit code 1 when it is refused."""
    now = int(time.time()) if at is None else at
    root = _bytes_of(dev_root) if dev_root else None
    source: CollateralSource = (
        FileCollateral(collateral)
        if collateral
        else PccsCollateral(
            PccsClient(pccs, ca_file=pccs_ca), cache, development_root=root, clock=lambda: now
        )
    )
    report = examine(
        _read(file),
        chain_id=chain_id,
        collateral=source,
        now=now,
        policy=_policy(policy) if policy else None,
        development_root=root,
    )
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _print(_checks(report.checks))
    if not report.accepted:
        raise typer.Exit(1)


@app.command()
def identity(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A Reclaim proof (JSON); - reads it from input.")
    ],
    settings: Annotated[
        Path | None,
        typer.Option(help="Pinned attestors and templates as JSON; without it the built-in ones."),
    ] = None,
    wallet: Annotated[
        str | None, typer.Option(help="The wallet that the proof has to be made for.")
    ] = None,
    purpose: Annotated[
        str | None, typer.Option(help="The message that the proof has to carry.")
    ] = None,
    at: Annotated[
        int | None, typer.Option(help="Judge as of this time (Unix seconds), not as of now.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an identity proof (zkTLS), offline; exit code 1 when it is refused."""
    report = examine_identity(
        _text(file),
        load_identity_settings(settings),
        wallet=wallet,
        purpose=purpose,
        now=int(time.time()) if at is None else at,
    )
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        for name, value in report.model_dump(mode="json", exclude_none=True).items():
            typer.echo(f"{name:10}{', '.join(value) if isinstance(value, list) else value}")
    if not report.accepted:
        raise typer.Exit(1)


def main() -> None:
    """`rapha` with this group alone: typed errors become one line and exit code 2."""
    rapha = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    rapha.add_typer(app, name="attest")
    rapha.callback()(_root)
    try:
        rapha()
    except RaphaError as error:
        line = {"event": "failed", "code": error.code, "detail": str(error)}
        typer.echo(json.dumps(line), err=True)
        sys.exit(2)


def _root() -> None:
    """Rapha settlement."""


def _read(file: Path) -> bytes:
    data = sys.stdin.buffer.read(MAX_FILE + 1) if str(file) == "-" else _bytes_of(file)
    if len(data) > MAX_FILE:
        raise InvalidInput(f"{file} has more than {MAX_FILE} bytes, which no quote has")
    try:
        return bytes.fromhex(data.decode("ascii").strip().removeprefix("0x"))
    except ValueError:
        return data  # not hex, so it is the quote itself


def _text(file: Path) -> str:
    data = sys.stdin.buffer.read(MAX_PROOF * 4 + 1) if str(file) == "-" else _bytes_of(file)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not text, and no identity proof") from None


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror or 'cannot be read'}") from error


def _policy(file: Path) -> TcbPolicy:
    try:
        return TcbPolicy.model_validate_json(_bytes_of(file))
    except ValidationError as error:
        where = ", ".join(".".join(map(str, part["loc"])) or "whole" for part in error.errors())
        raise InvalidInput(f"{file} is not a TCB policy: invalid {where}") from error


def _fields(fields: tuple[QuoteField, ...]) -> Table:
    table = Table("offset", "field", box=None)
    table.add_column("value", overflow="fold")
    table.add_column("meaning")
    for field in fields:
        table.add_row(str(field.offset), field.name, _short(field), Text(field.meaning))
    return table


def _short(field: QuoteField) -> str:
    if field.size > 4 and not int(field.value, 16):
        return f"zero ({field.size} B)"
    if field.size <= WHOLE:
        return field.value
    return f"{field.value[:WHOLE]}… ({field.size} B)"


def _checks(checks: tuple[Check, ...]) -> Table:
    table = Table("", "check", "why", box=None)
    for check in checks:
        outcome = Text(check.outcome, style=_STYLE[check.outcome])
        table.add_row(outcome, check.name, Text(check.why))
    return table


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else PIPED).print(table)


if __name__ == "__main__":
    main()
