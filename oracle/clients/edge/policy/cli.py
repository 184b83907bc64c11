"""`policy`: what the rules are, and why one of them denies."""

import json
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from oracle.clients.edge.policy.decision import decide, name_of
from oracle.clients.edge.policy.digest import RULES, base_rules, policy_digest
from oracle.clients.edge.policy.engine import Engine
from oracle.clients.edge.policy.explain import words
from oracle.clients.edge.policy.hospital import HospitalRules, HospitalRulesInvalid
from oracle.clients.edge.policy.input import MAX_DOCUMENT, Gate
from settlement.hub.messages import OutputPolicy
from settlement.types import to_hex

CANNOT_JUDGE = 2

app = typer.Typer(
    name="policy",
    help="The rules by which a hospital trains a job and lets its result out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
InputFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="The input of a gate, JSON; - reads it from input.")
]


@app.command()
def check(
    file: InputFile,
    gate: Annotated[
        Gate | None, typer.Option(help="Deny a document that is of another gate.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="A directory with the hospital's own rules.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a gate opens, and why not; exit code 0, 1 for a denial, 2 for no judgement.

    The node keeps what it asked in jobs/<id>/training.input.json and release.input.json.
    """
    data = _read(file)
    try:
        hospital = HospitalRules.read(rules) if rules else HospitalRules.none()
    except HospitalRulesInvalid as error:
        raise _unable(str(error)) from error
    with Engine() as engine:
        decision = decide(engine, data, hospital, gate=gate)
    if as_json:
        denials = [
            {
                "rule": name_of(denial),
                "words": words(denial),
                "parameters": denial.parameters,
                "detail": denial.detail,
            }
            for denial in decision.denials
        ]
        typer.echo(json.dumps({"allowed": decision.allowed, "denials": denials}))
    elif decision.allowed:
        typer.echo("allowed: no rule denies it")
    else:
        typer.echo(f"denied by {len(decision.denials)}:")
        for denial in decision.denials:
            typer.echo(f"  {name_of(denial)}: {words(denial)}")
            if denial.detail:
                typer.echo(f"    {denial.detail}")
    if not decision.allowed:
        raise typer.Exit(1)


@app.command()
def digest(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="An output policy, JSON; - reads it from input."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what the terms of a job with this output policy carry; without one, the rules."""
    if file is None:
        names = {name: len(data) for name, data in base_rules().items()}
        if as_json:
            typer.echo(json.dumps({"directory": str(RULES), "rules": names}))
            return
        for name, size in names.items():
            typer.echo(f"{RULES / name}: {size} bytes")
        return
    try:
        value = to_hex(policy_digest(OutputPolicy.model_validate_json(_read(file))))
    except ValidationError as error:
        where = ", ".join(".".join(map(str, part["loc"])) or "whole" for part in error.errors())
        raise _unable(f"{file} is not an output policy: invalid {where}") from error
    typer.echo(json.dumps({"policy_digest": value}) if as_json else value)


@app.command()
def example(
    gate: Annotated[Gate, typer.Argument(metavar="training|release", help="Of which gate.")],
) -> None:
    """Print a document that passes, to see what a rule can look at."""
    source = resources.files("oracle.clients.edge.policy") / "examples" / f"{gate}.json"
    typer.echo(source.read_text(), nl=False)


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(MAX_DOCUMENT + 1)
        with file.open("rb") as opened:
            return opened.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise _unable(f"{file}: {error.strerror or 'cannot be read'}") from error


def _unable(detail: str) -> typer.Exit:
    typer.echo(detail, err=True)
    return typer.Exit(CANNOT_JUDGE)
