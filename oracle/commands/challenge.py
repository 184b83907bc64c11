"""`rapha audit challenge` and `check`: have a hospital open random records of its commitment."""

import json
import math
import os
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oracle.commands.failures import UNTOLD, ending
from settlement.dataset import (
    MAX_OPENED,
    Answer,
    Challenge,
    DatasetCommitment,
    Label,
    Schema,
    check_answer,
    detection_probability,
)
from settlement.errors import InvalidInput
from settlement.types import Bytes32, UInt64, to_hex

MAX_FILE = 1 << 28
Model = TypeVar("Model", bound=BaseModel)

ProfileFile = Annotated[
    Path, typer.Argument(metavar="PROFILE", help="The dataset's profile, from the catalogue.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class _Published(BaseModel):
    """What of a profile the commitment is made of; prices and words are not."""

    model_config = ConfigDict(extra="ignore")

    dataset_digest: Bytes32
    records_root: Bytes32
    record_count: UInt64
    modality: Label
    columns: Schema = Field(alias="schema")
    deduplicate: bool = False


def challenge(
    profile: ProfileFile,
    out: Annotated[Path, typer.Option(help="Where to write the challenge.")],
    leaves: Annotated[int, typer.Option(min=1, max=MAX_OPENED, help="Records to open.")] = 60,
) -> None:
    """Write a challenge with a fresh nonce, and say what it finds how surely."""
    with ending(UNTOLD):
        commitment = _commitment(profile)
        if leaves > commitment.record_count:
            raise InvalidInput(f"the dataset has {commitment.record_count} records only")
        drawn = Challenge(dataset_digest=commitment.digest, leaves=leaves, nonce=os.urandom(32))
        out.write_text(drawn.model_dump_json() + "\n")
    for fraction in (0.01, 0.05, 0.1):
        typer.echo(_chance(commitment, leaves, fraction))


def check(
    profile: ProfileFile,
    challenge_file: Annotated[Path, typer.Argument(metavar="CHALLENGE", help="As it was sent.")],
    answer_file: Annotated[Path, typer.Argument(metavar="ANSWER", help="The hospital's answer.")],
    as_json: AsJson = False,
) -> None:
    """Check an answer leaf by leaf; exit code 0: all opened, 1: not all, 2: could not be told.

    What remains is a person's: to compare each opened record with the hospital's own system.
    """
    with ending(UNTOLD):
        commitment = _commitment(profile)
        sent = _read(challenge_file, Challenge)
        findings = check_answer(sent, commitment, _read(answer_file, Answer))
    faults = [finding for finding in findings if finding.fault is not None]
    if as_json:
        found = [
            {
                "leaf": place,
                "record_id": None if record_id is None else to_hex(record_id),
                "fault": fault,
            }
            for place, record_id, fault in findings
        ]
        typer.echo(json.dumps({"opened": not faults, "findings": found}))
    else:
        for place, record_id, fault in findings:
            name = "" if record_id is None else record_id.decode(errors="backslashreplace")
            typer.echo(f"leaf {place}: {fault or 'opened'} {name!r}")
        typer.echo(f"{len(findings) - len(faults)} of {len(findings)} leaves opened")
        if not faults:
            typer.echo(_chance(commitment, sent.leaves, 0.05))
    if faults:
        raise typer.Exit(1)


def _chance(commitment: DatasetCommitment, leaves: int, fraction: float) -> str:
    invented = math.ceil(commitment.record_count * fraction)
    chance = detection_probability(commitment.record_count, invented, leaves)
    return (
        f"{leaves} leaves of {commitment.record_count} hit at least one of {invented} invented"
        f" records ({fraction:.0%}) with probability {chance:.4f}"
    )


def _commitment(path: Path) -> DatasetCommitment:
    published = _read(path, _Published)
    commitment = DatasetCommitment(**published.model_dump(exclude={"dataset_digest"}))
    if commitment.digest != published.dataset_digest:
        raise InvalidInput(f"{path}: dataset_digest is not the digest of what the profile states")
    return commitment


def _read(path: Path, model: type[Model]) -> Model:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise InvalidInput(f"{path} has more than {MAX_FILE} bytes")
        return model.model_validate_json(data)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        fields = ", ".join(
            ".".join(map(str, fault["loc"])) or "the document"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise InvalidInput(f"{path}: {fields} is missing or malformed") from error
