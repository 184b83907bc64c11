"""The audit log of a hospital's node: its form, its chain, and what shows that it is whole.

A log is lines of JSON. Each entry has a leaf, keyed by a key of its own that only the log's key
gives; each link binds a leaf to the link before. Whoever has no key can neither change an entry nor
tell one from its leaf, and an export opens the entries of one job by their own keys, and no other.
The enclave puts the newest link under its signature with each receipt, so what is missing from the
end shows against the receipts.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from settlement.digests import canonical_json, check_nesting
from settlement.eip712 import receipt_digest
from settlement.errors import InvalidInput
from settlement.types import ZERO_BYTES32, Bytes32, Frozen, UInt64, parse_bytes, to_hex
from settlement.verify import ISOLATED, Check, ReceiptBundle, check_bundle

KEY_BYTES = 32
GENESIS = hashlib.sha256(b"rapha.audit.v1").digest()
"""The link before the first entry."""
MAX_LINE_BYTES = 1 << 16
ANCHOR = "audit"
"""The field of the evidence of isolation that names the newest link, 0x-prefixed hex."""

Word = Annotated[str, StringConstraints(pattern=r"^(0x[0-9a-fA-F]{0,512}|[A-Za-z][\w.-]{0,63})$")]
"""Hex, or a name of this product: no free text, so that no entry can carry anything of a record."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Number = Annotated[int, Field(strict=True, ge=-(2**64), lt=2**64)]
Fact = Annotated[bool, Field(strict=True)] | Number | Word | tuple[Word, ...]


class Event(StrEnum):
    """What an entry tells of; the closed list."""

    STARTED = "started"
    OFFERED = "offered"
    ESTIMATED = "estimated"
    DECIDED = "decided"
    ISOLATED = "isolated"
    TRAINED = "trained"
    SIGNED = "signed"
    SETTLED = "settled"
    RELEASED = "released"
    FAILED = "failed"
    PURGED = "purged"
    REPAIRED = "repaired"


class Entry(Frozen):
    """One thing that the node did. `number` counts from 0, `time` is Unix seconds."""

    number: UInt64
    time: UInt64
    event: Event
    job: Bytes32 | None = None
    facts: dict[Name, Fact] = Field(max_length=32)

    @property
    def canonical(self) -> bytes:
        """The bytes that its leaf is over."""
        return canonical_json(self.model_dump(mode="json"))


class Line(Frozen):
    """A line as it is written: an entry, or in an export only the leaf of one that stays closed.

    `key` is the entry's own, in an export.
    """

    entry: Entry | None = None
    key: Bytes32 | None = None
    leaf: Bytes32 | None = None
    link: Bytes32

    @model_validator(mode="after")
    def _open_or_closed(self) -> Self:
        if (self.entry is None) == (self.leaf is None) or (self.key and not self.entry):
            raise ValueError("a line has an entry, or in its place a leaf")
        return self

    @property
    def encoded(self) -> bytes:
        """The line, with its end."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True)) + b"\n"


class LineInvalid(InvalidInput):
    """A line that is not one of an audit log, or does not continue it; `number` counts from 0."""

    def __init__(self, number: int, detail: str) -> None:
        super().__init__(f"line {number + 1} of the audit log: {detail}")
        self.number = number
        self.detail = detail


class Audit(NamedTuple):
    """What a log shows: the claims, how many entries it has, and those that are open."""

    checks: tuple[Check, ...]
    length: int
    entries: tuple[Entry, ...]
    anchored: int
    """So many entries, from the first, are bound by the receipts; what comes after may be cut."""


def entry_key(log_key: bytes, number: int) -> bytes:
    """The 32-byte key of one entry, from the log's."""
    return hmac.digest(log_key, b"rapha.audit.entry.v1" + number.to_bytes(8, "big"), "sha256")


def entry_leaf(key: bytes, entry: Entry) -> bytes:
    """The 32-byte commitment to an entry, by its own key."""
    person = b"rapha.audit.v1"
    return hashlib.blake2b(entry.canonical, key=key, digest_size=32, person=person).digest()


def next_link(link: bytes, leaf: bytes) -> bytes:
    """The link that binds `leaf` to everything before it."""
    return hashlib.sha256(link + leaf).digest()


def parse_line(number: int, data: bytes) -> Line:
    """The line in `data`.

    Raises:
        LineInvalid: when it is none.
    """
    if len(data) > MAX_LINE_BYTES:
        raise LineInvalid(number, f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        check_nesting(data)
        return Line.model_validate_json(data)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, part["loc"])) or "whole" for part in error.errors())
        raise LineInvalid(number, f"it has another form: {where}") from None
    except ValueError:
        raise LineInvalid(number, "it is not JSON") from None


def read_links(lines: Iterable[bytes], log_key: bytes | None) -> tuple[list[bytes], list[Entry]]:
    """The link after each line, and the entries that are open.

    Without `log_key` every line has to bring its entry's own key, or be closed.

    Raises:
        LineInvalid: at the first line that is no line, or does not continue those before it.
    """
    links: list[bytes] = []
    entries: list[Entry] = []
    link = GENESIS
    for number, data in enumerate(lines):
        line = parse_line(number, data)
        leaf = line.leaf
        if line.entry is not None:
            key = entry_key(log_key, number) if log_key is not None else line.key
            if key is None:
                raise LineInvalid(number, "it cannot be checked without the log's key")
            if line.entry.number != number:
                raise LineInvalid(number, f"it is entry {line.entry.number}: one is missing")
            leaf = entry_leaf(key, line.entry)
            entries.append(line.entry)
        assert leaf is not None  # the line's own rule
        link = next_link(link, leaf)
        if not hmac.compare_digest(link, line.link):
            raise LineInvalid(number, "it was changed, or belongs to another log or key")
        links.append(link)
    return links, entries


def verify_log(
    lines: Sequence[bytes],
    *,
    log_key: bytes | None = None,
    bundles: Sequence[ReceiptBundle] = (),
) -> Audit:
    """Check a log or an export by itself, and against the receipts of jobs.

    Raises:
        LineInvalid: when it does not hold together by itself.
    """
    links, entries = read_links(lines, log_key)
    known = {link: length for length, link in enumerate([GENESIS, *links])}
    checks = [
        Check(
            claim="the log holds together",
            holds=True,
            why=f"{len(links)} entries, {len(entries)} of them open",
        )
    ]
    anchored = 0
    for bundle in bundles:
        found, reach = _hold_against(bundle, known, entries)
        checks += found
        anchored = max(anchored, reach)
    return Audit(tuple(checks), len(links), tuple(entries), anchored)


def _hold_against(
    bundle: ReceiptBundle, known: Mapping[bytes, int], entries: Sequence[Entry]
) -> tuple[list[Check], int]:
    """Whether the receipts of one job fit the log, and how many entries they bind."""
    # How a job was isolated is no matter of the log's.
    checks = [check for check in check_bundle(bundle) if check.claim != ISOLATED]
    anchors = _anchors(bundle)
    lost = [anchor for anchor in anchors if anchor not in known]
    reach = max((known[anchor] for anchor in anchors if anchor in known), default=0)
    if not anchors:
        why = "no receipt names a log"
    elif lost:
        why = f"{len(lost)} of {len(anchors)} are over a longer log, or another: it was cut"
    else:
        why = f"{len(anchors)} of {len(bundle.receipts)} receipts bind {reach} entries"
    checks.append(
        Check(
            claim="the receipts were signed over this log",
            holds=bool(anchors) and not lost,
            why=why,
        )
    )
    told = {entry.facts.get("digest") for entry in entries if entry.event is Event.SIGNED}
    domain = bundle.deployment.vault_domain
    digests = [to_hex(receipt_digest(signed.receipt, domain)) for signed in bundle.receipts]
    untold = [digest for digest in digests if digest not in told]
    why = f"not of {untold[0]}" if untold else f"{len(digests)} receipts"
    checks.append(Check(claim="the log tells of every receipt", holds=not untold, why=why))
    return checks, reach


def _anchors(bundle: ReceiptBundle) -> list[bytes]:
    """The links that the receipts commit to: a completing one does by the evidence."""
    anchors = [
        signed.receipt.output_digest
        for signed in bundle.receipts
        if not signed.receipt.complete and signed.receipt.output_digest != ZERO_BYTES32
    ]
    if bundle.output is not None:
        try:
            check_nesting(bundle.output.evidence)
            anchors.append(parse_bytes(json.loads(bundle.output.evidence)[ANCHOR]))
        except (ValueError, KeyError, TypeError):
            pass  # evidence of an older node, or none that can be read: it binds nothing
    return anchors
