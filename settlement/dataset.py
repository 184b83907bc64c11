"""What a hospital commits to when it offers a dataset, and the challenge that holds it to that.

An auditor opens random leaves of the commitment and compares them with the hospital's own systems.
Which ones follows from the auditor's nonce and from the root, which stood before: the hospital
cannot foresee them, and the auditor cannot ask for one. What is not opened stays hidden under its
salt. Pure: randomness and files are the caller's.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

from eth_utils import keccak
from pydantic import Field, StringConstraints

from settlement.digests import canonical_json
from settlement.errors import InvalidInput
from settlement.metering import inclusion_proofs, record_leaf, verify_inclusion
from settlement.types import Bytes32, Frozen, HexData, UInt64, to_hex

COMMITMENT_VERSION: Literal["rapha.dataset.v1"] = "rapha.dataset.v1"
MAX_OPENED = 1024
"""Leaves that one challenge may open."""
_INDEXES = b"rapha.challenge.v1"

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/ -]{0,63}$")]
"""A short name without control characters: modality, metric, column."""
Schema = Annotated[tuple[Label, ...], Field(min_length=1, max_length=4096)]


class ChallengeInvalid(InvalidInput):
    """A challenge that is not about this dataset, or that asks for more than it may."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"not a challenge to this dataset: {detail}")
        self.detail = detail


class DatasetCommitment(Frozen):
    """One version of a dataset; its `digest` is what the terms of a job name `dataset_digest`.

    `records_root` is the RFC 6962 root over the leaves of all `record_count` records, in the order
    of their ids. With `deduplicate` a record that a payer's earlier jobs on this version count is
    not counted for that payer again.
    """

    version: Literal["rapha.dataset.v1"] = COMMITMENT_VERSION
    records_root: Bytes32
    record_count: UInt64 = Field(gt=0)
    modality: Label
    columns: Schema
    deduplicate: bool

    @property
    def digest(self) -> bytes:
        """keccak-256 of the canonical JSON."""
        return keccak(canonical_json(self.model_dump(mode="json")))


class Challenge(Frozen):
    """An auditor's demand to open `leaves` leaves. The nonce is drawn after the commitment."""

    dataset_digest: Bytes32
    leaves: int = Field(gt=0, le=MAX_OPENED, strict=True)
    nonce: Bytes32


class Opening(Frozen):
    """One record with its salt, and the audit path from its leaf to the root."""

    index: UInt64
    record_id: HexData
    salt: Bytes32
    record: HexData
    path: tuple[Bytes32, ...] = Field(max_length=64)


class Answer(Frozen):
    """The hospital's answer. It holds records: it is for the auditor and nobody else."""

    challenge: Challenge
    openings: tuple[Opening, ...] = Field(max_length=MAX_OPENED)


class Record(NamedTuple):
    """What a leaf commits to."""

    record_id: bytes
    salt: bytes
    record: bytes


class Finding(NamedTuple):
    """What became of one demanded leaf; `fault` is None when it opened."""

    place: int
    record_id: bytes | None
    fault: str | None


def challenged_indexes(challenge: Challenge, commitment: DatasetCommitment) -> tuple[int, ...]:
    """The places that a challenge opens, all different, in the order drawn.

    SHA-256 in counter mode over nonce, root and number of records; a draw beyond the largest
    multiple of that number is dropped, so that each record is as likely as any other.

    Raises:
        ChallengeInvalid: when it names another dataset, or more leaves than there are records.
    """
    if challenge.dataset_digest != commitment.digest:
        raise ChallengeInvalid(
            f"it names {to_hex(challenge.dataset_digest)}, this is {to_hex(commitment.digest)}"
        )
    size = commitment.record_count
    if challenge.leaves > size:
        raise ChallengeInvalid(f"it asks for {challenge.leaves} of {size} records")
    seed = _INDEXES + challenge.nonce + commitment.records_root + size.to_bytes(8, "big")
    chosen: dict[int, None] = {}
    for draw in _draws(seed, size):
        chosen.setdefault(draw)
        if len(chosen) == challenge.leaves:
            break
    return tuple(chosen)


def _draws(seed: bytes, size: int) -> Iterator[int]:
    limit = 2**256 - 2**256 % size
    counter = 0
    while True:
        digest = hashlib.sha256(seed + counter.to_bytes(8, "big")).digest()
        counter += 1
        number = int.from_bytes(digest, "big")
        if number < limit:
            yield number % size


def open_leaves(
    challenge: Challenge,
    commitment: DatasetCommitment,
    leaves: Sequence[bytes],
    records: Sequence[Record],
) -> Answer:
    """The hospital's answer, from all its leaves and records in the order of their ids.

    Raises:
        ChallengeInvalid: when there is nothing to answer.
    """
    indexes = challenged_indexes(challenge, commitment)
    paths = inclusion_proofs(leaves, indexes)
    return Answer(
        challenge=challenge,
        openings=tuple(
            Opening(index=index, path=tuple(path), **records[index]._asdict())
            for index, path in zip(indexes, paths, strict=True)
        ),
    )


def check_answer(
    challenge: Challenge, commitment: DatasetCommitment, answer: Answer
) -> tuple[Finding, ...]:
    """One finding for each leaf that `challenge` demands, whatever the answer brings beside them.

    Raises:
        ChallengeInvalid: when the challenge is not about this dataset.
    """
    indexes = challenged_indexes(challenge, commitment)
    opened: dict[int, Opening] = {}
    twice: set[int] = set()
    for opening in answer.openings:
        if opening.index in opened:
            twice.add(opening.index)
        opened[opening.index] = opening
    seen: dict[bytes, int] = {}
    findings = []
    for index in indexes:
        found = opened.get(index)
        if found is None:
            findings.append(Finding(index, None, "it was not opened"))
            continue
        fault = None
        leaf = record_leaf(found.salt, found.record_id, found.record)
        first = seen.setdefault(found.record_id, index)
        if answer.challenge != challenge:
            fault = "the answer is to another challenge"
        elif index in twice:
            fault = "it was opened twice"
        elif not verify_inclusion(
            leaf, index, commitment.record_count, found.path, commitment.records_root
        ):
            fault = "it is not under the published root"
        elif first != index:
            fault = f"it has the record id of leaf {first}"
        findings.append(Finding(index, found.record_id, fault))
    return tuple(findings)


def detection_probability(record_count: int, invented: int, leaves: int) -> float:
    """How likely `leaves` random leaves of `record_count` hold at least one of `invented` ones.

    Exactly 1 − C(n−m, k) / C(n, k), for drawing without replacement; at least 1 − (1 − m/n)^k.

    Raises:
        ValueError: unless 0 ≤ invented ≤ record_count and 0 ≤ leaves ≤ record_count.
    """
    if not (0 <= invented <= record_count and 0 <= leaves <= record_count):
        raise ValueError("invented records and leaves are at most the number of records")
    return 1 - math.comb(record_count - invented, leaves) / math.comb(record_count, leaves)
