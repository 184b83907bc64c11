"""The audit log's form: what is changed, left out or cut shows, and a closed entry does not."""

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.settlement.test_verify_isolation import DEPLOYMENT, ENCLAVE, METRICS, TERMS, WEIGHTS

from settlement.audit import (
    ANCHOR,
    GENESIS,
    Entry,
    Event,
    Line,
    LineInvalid,
    entry_key,
    entry_leaf,
    next_link,
    verify_log,
)
from settlement.digests import canonical_json, output_digest
from settlement.eip712 import job_id, receipt_digest, sign_digest
from settlement.models import Receipt, SignedReceipt
from settlement.types import to_hex
from settlement.verify import Output, ReceiptBundle

KEY = bytes(range(32))
JOB = job_id(TERMS, DEPLOYMENT.vault_domain)


class Log:
    """A log that is written as a node writes it."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.link = GENESIS

    def tell(self, event: Event, job: bytes | None = JOB, **facts: object) -> bytes:
        number = len(self.lines)
        entry = Entry(number=number, time=1000 + number, event=event, job=job, facts=facts)
        self.link = next_link(self.link, entry_leaf(entry_key(KEY, number), entry))
        self.lines.append(Line(entry=entry, link=self.link).encoded.rstrip())
        return self.link

    def exported(self, job: bytes | None = None) -> list[bytes]:
        lines = []
        for number, data in enumerate(self.lines):
            line = Line.model_validate_json(data)
            own = entry_key(KEY, number)
            if job in (None, line.entry.job):
                line = line.model_copy(update={"key": own})
            else:
                line = Line(leaf=entry_leaf(own, line.entry), link=line.link)
            lines.append(line.encoded.rstrip())
        return lines


def signed(records: int, output: bytes, *, complete: bool = False) -> SignedReceipt:
    receipt = Receipt(
        job_id=JOB,
        records=records,
        epochs=1,
        records_root=bytes(32),
        output_digest=output,
        complete=complete,
    )
    digest = receipt_digest(receipt, DEPLOYMENT.vault_domain)
    return SignedReceipt(receipt=receipt, signature=sign_digest(digest, ENCLAVE.key))


def whole_job() -> tuple[Log, ReceiptBundle]:
    """A log of one job between two others' entries, and the receipts over it."""
    log = Log()
    log.tell(Event.STARTED, None, measurement="0x11")
    log.tell(Event.OFFERED, bytes(32), epochs=3)
    log.tell(Event.OFFERED, epochs=3)
    receipts = [signed(1, log.link)]
    domain = DEPLOYMENT.vault_domain
    log.tell(Event.SIGNED, digest=to_hex(receipt_digest(receipts[0].receipt, domain)))
    log.tell(Event.TRAINED, records=2)
    evidence = canonical_json({"isolation": "bubblewrap", ANCHOR: to_hex(log.link)})
    receipts.append(signed(2, output_digest(WEIGHTS, METRICS, evidence), complete=True))
    log.tell(Event.SIGNED, digest=to_hex(receipt_digest(receipts[1].receipt, domain)))
    log.tell(Event.RELEASED)
    bundle = ReceiptBundle(
        deployment=DEPLOYMENT,
        terms=TERMS,
        enclave_key=ENCLAVE.address,
        receipts=tuple(receipts),
        transactions=(),
        output=Output(
            weights=sha256(WEIGHTS).digest(),
            metrics=sha256(METRICS).digest(),
            evidence=evidence.decode(),
        ),
    )
    return log, bundle


def failed(lines, bundle, key=KEY) -> list[str]:
    audit = verify_log(lines, log_key=key, bundles=[bundle])
    return [check.claim for check in audit.checks if not check.holds]


def test_a_whole_log_holds_with_its_key_and_an_export_without():
    log, bundle = whole_job()
    for lines, key in ((log.lines, KEY), (log.exported(), None), (log.exported(JOB), None)):
        audit = verify_log(lines, log_key=key, bundles=[bundle])
        assert [check.claim for check in audit.checks if not check.holds] == []
        assert (audit.length, audit.anchored) == (7, 5)
    assert {entry.job for entry in audit.entries} == {JOB}


def test_a_closed_entry_shows_nothing_and_cannot_be_guessed():
    log, _ = whole_job()
    closed = log.exported(JOB)[1]
    assert set(json.loads(closed)) == {"leaf", "link"}
    entry = Line.model_validate_json(log.lines[1]).entry
    # Not even the right guess can be told from a wrong one without the key.
    assert to_hex(entry_leaf(bytes(32), entry)) != json.loads(closed)["leaf"]


@pytest.mark.parametrize("kept", range(7))
def test_a_log_that_was_cut_does_not_bear_its_receipts(kept):
    log, bundle = whole_job()
    claims = failed(log.lines[:kept], bundle)
    assert ("the receipts were signed over this log" in claims) == (kept < 5)
    assert ("the log tells of every receipt" in claims) == (kept < 6)


def test_another_log_of_the_same_key_does_not_bear_the_receipts():
    _, bundle = whole_job()
    other = Log()
    for _ in range(9):
        other.tell(Event.STARTED, None)
    assert "the receipts were signed over this log" in failed(other.lines, bundle)


def test_receipts_that_name_no_log_show_nothing():
    log, bundle = whole_job()
    silent = bundle.model_copy(
        update={"receipts": (signed(1, bytes(32)),), "output": None, "transactions": ()}
    )
    assert "the receipts were signed over this log" in failed(log.lines, silent)


def test_evidence_that_the_enclave_did_not_sign_binds_nothing():
    log, bundle = whole_job()
    forged = canonical_json({ANCHOR: to_hex(log.link)}).decode()
    output = bundle.output.model_copy(update={"evidence": forged})
    claims = failed(log.lines, bundle.model_copy(update={"output": output}))
    assert "the evidence of isolation is under the enclave's signature" in claims


@given(st.data())
def test_any_change_of_a_log_or_an_export_shows(data):
    log, _ = whole_job()
    lines, key = data.draw(
        st.sampled_from([(log.lines, KEY), (log.exported(), None), (log.exported(JOB), None)])
    )
    lines = list(lines)
    how = data.draw(st.sampled_from(["swap", "drop", "repeat", "byte"]))
    number = data.draw(st.integers(0, len(lines) - 2))
    if how == "swap":
        lines[number : number + 2] = reversed(lines[number : number + 2])
    elif how == "drop":
        del lines[number]
    elif how == "repeat":
        lines.insert(number, lines[number])
    else:
        line = bytearray(lines[number])
        line[data.draw(st.integers(0, len(line) - 1))] ^= data.draw(st.integers(1, 255))
        if json_or_none(bytes(line)) == json.loads(lines[number]):
            return  # the other case of a hex digit is the same line
        lines[number] = bytes(line)
    with pytest.raises(LineInvalid):
        verify_log(lines, log_key=key)


def json_or_none(line: bytes) -> object:
    try:
        return json.loads(line.lower())
    except ValueError:
        return None


def test_the_wrong_key_and_no_key_are_named():
    log, _ = whole_job()
    with pytest.raises(LineInvalid, match="changed, or belongs to another log or key"):
        verify_log(log.lines, log_key=bytes(32))
    with pytest.raises(LineInvalid, match="cannot be checked without the log's key"):
        verify_log(log.lines)


@pytest.mark.parametrize(
    "facts",
    [
        {"note": "patient 17 was trained on"},
        {"note": "x" * 65},
        {"a note": 1},
        {"x": 1.5},
        {"x": None},
        {"x": {"y": 1}},
        {"x": ["ok", "not ok"]},
    ],
)
def test_no_entry_holds_free_text(facts):
    with pytest.raises(ValueError, match="validation error"):
        Entry(number=0, time=0, event=Event.STARTED, job=None, facts=facts)


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[" * 100_000, b"\xff", b"{}", b'{"link":"0x00"}', b"[]", b"x" * (1 << 17)],
    ids=lambda line: str(line[:8]),
)
def test_what_is_no_line_is_named_by_its_number(line):
    log, _ = whole_job()
    with pytest.raises(LineInvalid) as caught:
        verify_log([*log.lines, line], log_key=KEY)
    assert caught.value.number == 7
