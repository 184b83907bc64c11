"""A log is read strictly, replayed per bank, and the first event that differs is named."""

import struct
from dataclasses import replace

import pytest
from eventlogs import (
    BOOT,
    EV_SEPARATOR,
    NO_ACTION,
    Measured,
    agile_event,
    agile_log,
    legacy_event,
    legacy_log,
)
from hypothesis import given
from hypothesis import strategies as st

from oracle.attestation.errors import EventLogMismatch, TpmMalformed
from oracle.attestation.tpm.eventlog import (
    MAX_LOG,
    check_event_log,
    first_difference,
    parse_event_log,
)
from oracle.attestation.tpm.structures import Bank

BANKS = (Bank.SHA1, Bank.SHA256, Bank.SHA384)
LOG = parse_event_log(agile_log(BOOT, BANKS))
QUOTED = {pcr: LOG.replay(Bank.SHA256)[pcr] for pcr in (8, 9, 10, 11)}
HEADER = len(agile_log(()))


def extended(bank: Bank, *data: bytes) -> bytes:
    value = bytes(bank.size)
    for item in data:
        value = bank.digest(value + bank.digest(item))
    return value


def test_log_gives_its_events() -> None:
    assert LOG.banks == BANKS
    assert len(LOG.events) == len(BOOT) + 1
    assert not LOG.events[0].is_measured
    for number, (event, written) in enumerate(zip(LOG.events[1:], BOOT, strict=True), 1):
        assert (event.number, event.pcr, event.kind) == (number, written.pcr, written.kind)
        assert event.data == written.data
        assert event.digests == {bank: written.digest(bank) for bank in BANKS}


@pytest.mark.parametrize("bank", BANKS)
def test_replay_is_per_bank(bank: Bank) -> None:
    replayed = LOG.replay(bank)
    for pcr in (8, 9, 11):
        assert replayed[pcr] == extended(bank, *(e.data for e in BOOT if e.pcr == pcr))
    assert replayed[10] == replayed[0] == bytes(bank.size)
    assert replayed[17] == b"\xff" * bank.size
    assert len(replayed) == 24


def test_log_of_sha1_events_is_replayed() -> None:
    log = parse_event_log(legacy_log(BOOT))
    assert log.banks == (Bank.SHA1,)
    assert log.replay(Bank.SHA1) == LOG.replay(Bank.SHA1)
    assert log.events[0].is_measured
    check_event_log(log, Bank.SHA1, {8: LOG.replay(Bank.SHA1)[8]})


def test_old_header_begins_a_log_of_sha1_events() -> None:
    header = legacy_event(0, NO_ACTION, bytes(20), b"Spec ID Event02\0" + bytes(13))
    log = parse_event_log(header + legacy_log(BOOT))
    assert log.banks == (Bank.SHA1,)
    assert log.replay(Bank.SHA1) == LOG.replay(Bank.SHA1)


def test_empty_log_is_refused() -> None:
    with pytest.raises(TpmMalformed) as refusal:
        parse_event_log(b"")
    assert (refusal.value.structure, refusal.value.reason) == (
        "event log",
        "it ends inside PCR index",
    )


def test_unmeasured_events_change_no_pcr() -> None:
    told = Measured(8, b"only told", NO_ACTION, dict.fromkeys(BANKS, b"") | {
        bank: bytes(bank.size) for bank in BANKS})  # fmt: skip
    assert parse_event_log(agile_log((*BOOT, told), BANKS)).replay(Bank.SHA256) == LOG.replay(
        Bank.SHA256
    )


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_startup_locality_is_where_pcr_0_starts(locality: int) -> None:
    zeros = {bank: bytes(bank.size) for bank in BANKS}
    told = Measured(0, b"StartupLocality\0" + bytes([locality]), NO_ACTION, zeros)
    version = Measured(0, b"firmware 1", 0x08)
    late = Measured(0, b"StartupLocality\0\3", NO_ACTION, zeros)
    log = parse_event_log(agile_log((told, version, late), BANKS))
    start = bytes(31) + bytes([locality])
    digest = Bank.SHA256.digest(b"firmware 1")
    assert log.replay(Bank.SHA256)[0] == Bank.SHA256.digest(start + digest)
    assert log.replay(Bank.SHA256)[1] == bytes(32)


def test_startup_locality_told_too_late_does_not_count() -> None:
    zeros = {bank: bytes(bank.size) for bank in BANKS}
    late = Measured(0, b"StartupLocality\0\3", NO_ACTION, zeros)
    log = parse_event_log(agile_log((Measured(0, b"firmware 1"), late), BANKS))
    assert log.locality == 0
    assert log.replay(Bank.SHA256)[0] == extended(Bank.SHA256, b"firmware 1")


@pytest.mark.parametrize("tail", [b"", b"\2", b"\5", b"\3\0"])
def test_other_startup_locality_is_refused(tail: bytes) -> None:
    zeros = {bank: bytes(bank.size) for bank in BANKS}
    told = Measured(0, b"StartupLocality\0" + tail, NO_ACTION, zeros)
    with pytest.raises(TpmMalformed, match="the startup locality is not 0, 3 or 4"):
        parse_event_log(agile_log((told,), BANKS))


def test_unknown_algorithm_is_read_over() -> None:
    sm3 = struct.pack("<H", 0x12) + bytes(32)
    algorithms = [(0x0B, 32), (0x12, 32)]
    event = struct.pack("<III", 8, EV_SEPARATOR, 2) + sm3
    event += struct.pack("<H", 0x0B) + b"\7" * 32 + struct.pack("<I", 0)
    log = parse_event_log(agile_log((), algorithms=algorithms, vendor=b"vendor") + event)
    assert log.banks == (Bank.SHA256,)
    assert log.events[1].digests == {Bank.SHA256: b"\7" * 32}


EVENT = agile_event(BOOT[0], (Bank.SHA1, Bank.SHA256))


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (agile_log((), algorithms=[(0x12, 32)]), "it declares no known algorithm"),
        (
            agile_log((), algorithms=[(0x0B, 20)]),
            "algorithm 0x000b is repeated or has a wrong size",
        ),
        (
            agile_log((), algorithms=[(0x0B, 32)] * 2),
            "algorithm 0x000b is repeated or has a wrong size",
        ),
        (
            agile_log((), algorithms=[(n, 32) for n in range(100, 117)]),
            "it declares 17 algorithms",
        ),
        (agile_log(()) + struct.pack("<I", 24) + EVENT[4:], "PCR 24 does not exist"),
        (
            agile_log(()) + agile_event(BOOT[0], (Bank.SHA256,)),
            "event 1 has 1 digests, the log declares 2",
        ),
        (
            agile_log(()) + agile_event(BOOT[0], (Bank.SHA256, Bank.SHA256)),
            "event 1 has an undeclared or repeated digest",
        ),
        (
            agile_log(()) + agile_event(BOOT[0], (Bank.SHA256, Bank.SHA384)),
            "event 1 has an undeclared or repeated digest",
        ),
        (agile_log(BOOT) + b"\xff" * 3, "it ends inside PCR index"),
        (agile_log(BOOT)[:-1], "it ends inside event data"),
        (bytes(MAX_LOG + 1), f"it has {MAX_LOG + 1} bytes, more than {MAX_LOG}"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_log_that_does_not_fit_is_refused(log: bytes, reason: str) -> None:
    with pytest.raises(TpmMalformed) as refusal:
        parse_event_log(log)
    assert refusal.value.reason == reason


def test_header_longer_than_its_content_is_refused() -> None:
    header = parse_event_log(agile_log(())).events[0].data + b"\0"
    with pytest.raises(TpmMalformed) as refusal:
        parse_event_log(legacy_event(0, NO_ACTION, bytes(20), header))
    assert refusal.value.structure == "event log header"


def test_bank_that_the_log_is_not_about_is_refused() -> None:
    with pytest.raises(TpmMalformed) as refusal:
        check_event_log(LOG, Bank.SHA512, {8: bytes(64)})
    assert refusal.value.reason == "it has no sha512 digests"
    with pytest.raises(TpmMalformed, match="it has no sha256 digests"):
        first_difference(LOG, parse_event_log(legacy_log(BOOT)), Bank.SHA256, 8)


def test_log_that_explains_the_pcrs_passes() -> None:
    check_event_log(LOG, Bank.SHA256, QUOTED)


def test_event_that_the_pcr_lacks_is_named_without_a_reference() -> None:
    log = parse_event_log(agile_log((*BOOT, Measured(9, b"/late"), Measured(9, b"/more")), BANKS))
    with pytest.raises(EventLogMismatch) as refusal:
        check_event_log(log, Bank.SHA256, QUOTED)
    assert (refusal.value.bank, refusal.value.pcr, refusal.value.event) == ("sha256", 9, 7)
    assert refusal.value.reason == "event 7 is not in it"


@pytest.mark.parametrize("number", range(1, len(BOOT) + 1))
def test_changed_event_is_named_by_a_reference(number: int) -> None:
    changed = list(BOOT)
    changed[number - 1] = replace(BOOT[number - 1], data=b"something else")
    log = parse_event_log(agile_log(changed, BANKS))
    with pytest.raises(EventLogMismatch) as refusal:
        check_event_log(log, Bank.SHA256, QUOTED, LOG)
    assert (refusal.value.pcr, refusal.value.event) == (BOOT[number - 1].pcr, number)
    assert refusal.value.reason == f"event {number} differs from the reference log"
    with pytest.raises(EventLogMismatch) as without:
        check_event_log(log, Bank.SHA256, QUOTED)
    assert without.value.event is None
    assert without.value.reason == "its value is after no event of the log"


def test_missing_last_event_is_named_after_the_log() -> None:
    log = parse_event_log(agile_log(BOOT[:-1], BANKS))
    with pytest.raises(EventLogMismatch) as refusal:
        check_event_log(log, Bank.SHA256, QUOTED, LOG)
    assert (refusal.value.pcr, refusal.value.event) == (11, len(BOOT))


def test_changed_order_is_seen() -> None:
    log = parse_event_log(agile_log((BOOT[2], *BOOT[1:2], BOOT[0], *BOOT[3:]), BANKS))
    assert first_difference(log, LOG, Bank.SHA256, 8) == 1
    assert first_difference(log, LOG, Bank.SHA256, 9) is None
    with pytest.raises(EventLogMismatch) as refusal:
        check_event_log(log, Bank.SHA256, QUOTED, LOG)
    assert (refusal.value.pcr, refusal.value.event) == (8, 1)


def test_additional_event_is_the_first_difference() -> None:
    log = parse_event_log(agile_log((*BOOT, Measured(9, b"/late"), Measured(9, b"/more")), BANKS))
    assert first_difference(log, LOG, Bank.SHA256, 9) == len(BOOT) + 1
    assert first_difference(LOG, log, Bank.SHA256, 9) == len(BOOT) + 1
    assert first_difference(log, LOG, Bank.SHA256, 8) is None


def test_digest_of_another_bank_alone_does_not_help() -> None:
    digests = {bank: BOOT[0].digest(bank) for bank in BANKS} | {Bank.SHA256: b"\1" * 32}
    log = parse_event_log(agile_log((replace(BOOT[0], digests=digests), *BOOT[1:]), BANKS))
    check_event_log(log, Bank.SHA1, {8: LOG.replay(Bank.SHA1)[8]})
    with pytest.raises(EventLogMismatch):
        check_event_log(log, Bank.SHA256, QUOTED)


def test_reference_that_is_not_of_this_boot_names_nothing() -> None:
    other = parse_event_log(agile_log(BOOT[:2], BANKS))
    log = parse_event_log(agile_log(BOOT[1:], BANKS))
    with pytest.raises(EventLogMismatch) as refusal:
        check_event_log(log, Bank.SHA256, {8: b"\1" * 32}, other)
    assert refusal.value.event is None


@given(
    start=st.sampled_from([0, HEADER, HEADER + 12, len(agile_log(BOOT))]),
    tail=st.binary(max_size=400),
)
def test_no_bytes_make_the_parser_fail_otherwise(start: int, tail: bytes) -> None:
    data = agile_log(BOOT)[:start] + tail
    try:
        log = parse_event_log(data)
    except TpmMalformed:
        return
    for bank in log.banks:
        assert len(log.replay(bank)) == 24


@given(
    events=st.lists(st.tuples(st.integers(0, 23), st.binary(max_size=40)), max_size=12),
    banks=st.lists(st.sampled_from(list(Bank)), unique=True, min_size=1),
)
def test_what_is_written_is_read(events: list[tuple[int, bytes]], banks: list[Bank]) -> None:
    written = [Measured(pcr, data) for pcr, data in events]
    log = parse_event_log(agile_log(written, banks))
    assert log.banks == tuple(banks)
    assert [(event.pcr, event.data) for event in log.events[1:]] == events
    for bank in banks:
        check_event_log(log, bank, log.replay(bank))
