"""Event logs: what was measured into the PCRs, one event after the other.

Source: TCG PC Client Platform Firmware Profile, "Event Logging". All integers are little-endian.
A log is the node's own word; only its replay's agreement with quoted PCRs makes it count.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from oracle.attestation.errors import EventLogMismatch, TpmMalformed
from oracle.attestation.tpm.reader import Reader
from oracle.attestation.tpm.structures import BANKS, PCR_COUNT, Bank

MAX_LOG = 4 * 1024 * 1024
"""Bytes; logs of real machines are below 256 KiB."""

EV_NO_ACTION = 0x0000_0003
"""Events of this type tell something, and are not measured."""

_SPEC_ID = b"Spec ID Event03\0"
_STARTUP_LOCALITY = b"StartupLocality\0"
_DYNAMIC_PCRS = range(17, 23)
_MAX_BANKS = 16


@dataclass(frozen=True)
class Event:
    """One entry. `number` is its position in the log, from 0; `digests` are by bank."""

    number: int
    pcr: int
    kind: int
    digests: Mapping[Bank, bytes]
    data: bytes

    @property
    def is_measured(self) -> bool:
        """Whether it was extended into its PCR."""
        return self.kind != EV_NO_ACTION


@dataclass(frozen=True)
class EventLog:
    """A log, not yet believed. `locality` is the one that the TPM was started from."""

    banks: tuple[Bank, ...]
    events: tuple[Event, ...]
    locality: int

    def of(self, pcr: int, bank: Bank) -> list[Event]:
        """The events that were measured into one PCR of a bank.

        Raises:
            TpmMalformed: when the log is not about that bank.
        """
        if bank not in self.banks:
            raise TpmMalformed("event log", f"it has no {bank} digests")
        return [event for event in self.events if event.pcr == pcr and event.is_measured]

    def replay(self, bank: Bank) -> dict[int, bytes]:
        """All PCRs of a bank as they are after the log's events.

        Raises:
            TpmMalformed: when the log is not about that bank.
        """
        return {pcr: self.states(bank, pcr)[-1] for pcr in range(PCR_COUNT)}

    def states(self, bank: Bank, pcr: int) -> list[bytes]:
        """A PCR's value at the start and after each of its events, in order.

        Raises:
            TpmMalformed: when the log is not about that bank.
        """
        states = [self._start(bank, pcr)]
        for event in self.of(pcr, bank):
            states.append(bank.digest(states[-1] + event.digests[bank]))
        return states

    def _start(self, bank: Bank, pcr: int) -> bytes:
        if pcr in _DYNAMIC_PCRS:
            return b"\xff" * bank.size
        return (self.locality if pcr == 0 else 0).to_bytes(bank.size, "big")


def parse_event_log(data: bytes) -> EventLog:
    """Read a crypto-agile log, or a log of SHA-1 events alone when it does not start as one.

    Raises:
        TpmMalformed: for every deviation from the format, and above `MAX_LOG` bytes.
    """
    log = Reader(data, "event log", "little")
    if len(data) > MAX_LOG:
        raise log.malformed(f"it has {len(data)} bytes, more than {MAX_LOG}")
    first = _legacy_event(log, 0)
    sizes = _declared(first)
    events = [first]
    while not log.at_end:
        number = len(events)
        events.append(_agile_event(log, number, sizes) if sizes else _legacy_event(log, number))
    banks = tuple(BANKS[algorithm] for algorithm in sizes if algorithm in BANKS)
    return EventLog(banks or (Bank.SHA1,), tuple(events), _locality(log, events))


def first_difference(log: EventLog, reference: EventLog, bank: Bank, pcr: int) -> int | None:
    """The position in `log` of the first event of a PCR whose digest is not the reference's.

    None when there is none. When `log` lacks events at the end, it is the position after its last.

    Raises:
        TpmMalformed: when one of the logs is not about that bank.
    """
    events, expected = log.of(pcr, bank), reference.of(pcr, bank)
    for event, other in zip(events, expected, strict=False):
        if event.digests[bank] != other.digests[bank]:
            return event.number
    if len(events) > len(expected):
        return events[len(expected)].number
    return len(log.events) if len(events) < len(expected) else None


def check_event_log(
    log: EventLog, bank: Bank, quoted: Mapping[int, bytes], reference: EventLog | None = None
) -> None:
    """Check that the log explains every quoted PCR.

    Where it does not, the refusal names the first event that differs: the first that the PCR does
    not contain yet, or the first that differs from `reference`, a log known to be good.

    Raises:
        TpmMalformed: when one of the logs is not about that bank.
        EventLogMismatch: when a PCR has another value than the log's replay.
    """
    for pcr, value in sorted(quoted.items()):
        states = log.states(bank, pcr)
        if states[-1] == value:
            continue
        if value in states:
            unseen = log.of(pcr, bank)[states.index(value)].number
            raise EventLogMismatch(bank, pcr, unseen, f"event {unseen} is not in it")
        if reference is not None and reference.states(bank, pcr)[-1] == value:
            other = first_difference(log, reference, bank, pcr)
            raise EventLogMismatch(
                bank, pcr, other, f"event {other} differs from the reference log"
            )
        raise EventLogMismatch(bank, pcr, None, "its value is after no event of the log")


def _legacy_event(log: Reader, number: int) -> Event:
    """A TCG_PCR_EVENT, which has one SHA-1 digest."""
    pcr, kind = _pcr(log), log.integer(4, "event type")
    digest = log.take(Bank.SHA1.size, "digest")
    data = log.take(log.integer(4, "event size"), "event data")
    return Event(number, pcr, kind, {Bank.SHA1: digest}, data)


def _agile_event(log: Reader, number: int, sizes: Mapping[int, int]) -> Event:
    """A TCG_PCR_EVENT2, which has a digest for each algorithm that the log declares."""
    pcr, kind = _pcr(log), log.integer(4, "event type")
    count = log.integer(4, "digest count")
    if count != len(sizes):
        raise log.malformed(f"event {number} has {count} digests, the log declares {len(sizes)}")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = log.integer(2, "digest algorithm")
        if algorithm in digests or algorithm not in sizes:
            raise log.malformed(f"event {number} has an undeclared or repeated digest")
        digests[algorithm] = log.take(sizes[algorithm], "digest")
    data = log.take(log.integer(4, "event size"), "event data")
    known = {
        BANKS[algorithm]: digest for algorithm, digest in digests.items() if algorithm in BANKS
    }
    return Event(number, pcr, kind, known, data)


def _pcr(log: Reader) -> int:
    pcr = log.integer(4, "PCR index")
    if pcr >= PCR_COUNT:
        raise log.malformed(f"PCR {pcr} does not exist")
    return pcr


def _declared(first: Event) -> dict[int, int]:
    """Digest sizes by algorithm from a TCG_EfiSpecIDEvent; empty for a log of SHA-1 events."""
    if first.is_measured or not first.data.startswith(_SPEC_ID):
        return {}
    header = Reader(first.data, "event log header", "little")
    header.take(len(_SPEC_ID) + 8, "specification version")
    count = header.integer(4, "algorithm count")
    if not 0 < count <= _MAX_BANKS:
        raise header.malformed(f"it declares {count} algorithms")
    sizes: dict[int, int] = {}
    for _ in range(count):
        algorithm, size = header.integer(2, "algorithm"), header.integer(2, "digest size")
        bank = BANKS.get(algorithm)
        if algorithm in sizes or (bank is not None and bank.size != size):
            raise header.malformed(f"algorithm {algorithm:#06x} is repeated or has a wrong size")
        sizes[algorithm] = size
    if not sizes.keys() & BANKS.keys():
        raise header.malformed("it declares no known algorithm")
    header.take(header.integer(1, "vendor information size"), "vendor information")
    header.finish()
    return sizes


def _locality(log: Reader, events: list[Event]) -> int:
    """The startup locality, which PCR 0 starts with; it is told before PCR 0 is extended."""
    for event in events:
        if event.pcr != 0:
            continue
        if event.is_measured:
            break
        if event.data.startswith(_STARTUP_LOCALITY):
            locality = event.data[len(_STARTUP_LOCALITY) :]
            if locality not in (b"\0", b"\3", b"\4"):
                raise log.malformed("the startup locality is not 0, 3 or 4")
            return locality[0]
    return 0
