"""The audit log on disk: through crashes, tampering, and a full disk."""

import pytest
from longrun import LONG
from unit.edge.small_disk import on_a_small_disk

import oracle.clients.edge.audit as audit_module
from oracle.clients.edge.audit import HEAD, KEY, LOG, AuditLog, export
from oracle.clients.edge.durable import write_atomically
from oracle.clients.edge.errors import AuditDamaged, KeyFileInvalid
from settlement.audit import Event, verify_log

JOB, OTHER = bytes([1] * 32), bytes([2] * 32)


def clock() -> int:
    return 1_800_000_000


@pytest.fixture
def written(tmp_path):
    """A log of four entries, of two jobs."""
    with AuditLog(tmp_path, clock) as log:
        log.append(Event.STARTED, measurement="0x11")
        log.append(Event.OFFERED, JOB, epochs=3)
        log.append(Event.OFFERED, OTHER, epochs=4)
        log.append(Event.FAILED, OTHER, code="TrainingFailed")
    return tmp_path


def lines(directory) -> list[bytes]:
    return (directory / LOG).read_bytes().splitlines()


def entries(directory) -> list[tuple[Event, dict]]:
    audit = verify_log(lines(directory), log_key=(directory / KEY).read_bytes())
    return [(entry.event, entry.facts) for entry in audit.entries]


def test_what_was_told_is_there_in_order_and_goes_on(written):
    with AuditLog(written, clock) as log:
        before = log.link
        log.append(Event.PURGED, JOB)
        assert log.link != before
    told = [event for event, _ in entries(written)]
    assert told == [Event.STARTED, Event.OFFERED, Event.OFFERED, Event.FAILED, Event.PURGED]


def test_the_files_are_the_nodes_alone(written):
    for name in (LOG, HEAD, KEY):
        assert (written / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", range(4))
def test_a_log_that_was_cut_is_not_gone_on_with(written, kept):
    (written / LOG).write_bytes(b"".join(line + b"\n" for line in lines(written)[:kept]))
    with pytest.raises(AuditDamaged, match=f"4 entries were written, {kept} are left"):
        AuditLog(written, clock)


def test_a_cut_in_the_middle_of_the_last_line_is_not_taken_for_a_crash(written):
    (written / LOG).write_bytes((written / LOG).read_bytes()[:-5])
    with pytest.raises(AuditDamaged, match="3 are left"):
        AuditLog(written, clock)


@pytest.mark.parametrize("number", range(4))
def test_a_changed_entry_is_not_gone_on_with(written, number):
    changed = lines(written)
    changed[number] = changed[number].replace(b'"time":1800000000', b'"time":1800000001')
    (written / LOG).write_bytes(b"\n".join([*changed, b""]))
    with pytest.raises(AuditDamaged, match=f"line {number + 1} "):
        AuditLog(written, clock)


def test_another_log_of_the_same_key_is_not_gone_on_with(written, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / KEY).write_bytes((written / KEY).read_bytes())
    with AuditLog(other, clock) as log:
        for _ in range(4):
            log.append(Event.STARTED)
    (written / LOG).write_bytes((other / LOG).read_bytes())
    with pytest.raises(AuditDamaged, match="another log is in its place"):
        AuditLog(written, clock)


def test_a_head_that_was_removed_is_not_forgotten(written):
    (written / HEAD).unlink()
    with pytest.raises(AuditDamaged, match="4 entries behind"):
        AuditLog(written, clock)


@pytest.mark.parametrize("head", [b"", b"{", b"[]", b'{"entries":-1,"link":""}'])
def test_a_head_that_cannot_be_read_is_named(written, head):
    (written / HEAD).write_bytes(head)
    with pytest.raises(AuditDamaged, match="cannot be read"):
        AuditLog(written, clock)


def test_a_key_that_was_changed_is_named(written):
    (written / KEY).write_bytes(bytes(32))
    with pytest.raises(AuditDamaged, match="another log or key"):
        AuditLog(written, clock)
    (written / KEY).write_bytes(b"short")
    with pytest.raises(KeyFileInvalid, match="32-byte audit key"):
        AuditLog(written, clock)


@pytest.mark.parametrize("torn", [b"{", b'{"entry":{"number":4', b"\xff\x00", b"{}\n", b"\n"])
def test_a_torn_last_line_is_dropped_and_told_of(written, torn):
    with (written / LOG).open("ab") as file:
        file.write(torn)
    with AuditLog(written, clock):
        pass
    assert entries(written)[-1] == (Event.REPAIRED, {"bytes": len(torn)})
    assert len(lines(written)) == 5


def test_killed_at_any_byte_of_an_entry_the_log_goes_on(written, tmp_path):
    before = (written / LOG).read_bytes()
    head = (written / HEAD).read_bytes()
    with AuditLog(written, clock) as log:
        log.append(Event.SETTLED, JOB, digest="0x22")
    after = (written / LOG).read_bytes()
    # by default around both ends and at some places between
    near = {*range(len(before), len(before) + 3), *range(len(after) - 3, len(after) + 1)}
    some = range(len(before), len(after) + 1, 1 if LONG else 23)
    for size in sorted(near.union(some)):
        (written / LOG).write_bytes(after[:size])
        (written / HEAD).write_bytes(head)
        with AuditLog(written, clock) as log:
            log.append(Event.PURGED, JOB)
        events = [event for event, _ in entries(written)][4:]
        whole = size == len(after)
        torn = [] if size == len(before) else [Event.REPAIRED]
        assert events == ([Event.SETTLED] if whole else torn) + [Event.PURGED]


def test_killed_between_an_entry_and_its_head_nothing_is_lost(written, monkeypatch):
    def die(path, data, mode=0o600):
        raise KeyboardInterrupt

    with AuditLog(written, clock) as log:
        monkeypatch.setattr(audit_module, "write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            log.append(Event.SETTLED, JOB)
    monkeypatch.setattr(audit_module, "write_atomically", write_atomically)
    with AuditLog(written, clock) as log:
        log.append(Event.PURGED, JOB)
    assert [event for event, _ in entries(written)][4:] == [Event.SETTLED, Event.PURGED]


def test_an_export_opens_one_job_and_is_checked_without_the_key(written):
    whole = verify_log([line.rstrip() for line in export(written)])
    assert (whole.length, len(whole.entries)) == (4, 4)
    own = verify_log([line.rstrip() for line in export(written, JOB)])
    assert (own.length, [entry.job for entry in own.entries]) == (4, [None, JOB])
    assert b"TrainingFailed" not in b"".join(export(written, JOB))


def test_an_export_of_a_running_log_stops_before_the_line_that_is_written(written):
    with (written / LOG).open("ab") as file:
        file.write(b'{"entry":')
    assert len(list(export(written))) == 4


def test_no_export_is_made_of_nothing_or_of_a_damaged_log(written, tmp_path):
    with pytest.raises(AuditDamaged, match="it is not there"):
        list(export(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    (written / KEY).write_bytes(bytes(32))
    with pytest.raises(AuditDamaged):
        list(export(written))


FILL = """
import errno
from pathlib import Path
from oracle.clients.edge.audit import LOG, AuditLog
from settlement.audit import Event, verify_log

told = 0
with AuditLog(disk, lambda: 1) as log:
    try:
        while True:
            log.append(Event.OFFERED, bytes([1] * 32), note="a" * 60)
            told += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC
lines = (disk / LOG).read_bytes().splitlines(keepends=True)
# What did not fit left nothing behind, and what was told is there.
assert all(line.endswith(b"\\n") for line in lines)
assert told <= len(lines) <= told + 1, (told, len(lines))
grow()
with AuditLog(disk, lambda: 1) as log:
    log.append(Event.PURGED)
lines = (disk / LOG).read_bytes().splitlines()
entries = verify_log(lines, log_key=(disk / "key").read_bytes()).entries
assert [e.event for e in entries][-1] is Event.PURGED and len(entries) >= told + 1
assert told > 20
"""


def test_a_full_disk_is_an_error_and_loses_no_entry(tmp_path):
    on_a_small_disk(tmp_path, FILL, kilobytes=48)
