"""Writes event logs as firmware does."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oracle.attestation.tpm.structures import Bank

EV_SEPARATOR = 0x04
EV_IPL = 0x0D
NO_ACTION = 0x03


@dataclass(frozen=True)
class Measured:
    """One event to write; without `digests`, they are of its data."""

    pcr: int
    data: bytes
    kind: int = EV_IPL
    digests: Mapping[Bank, bytes] | None = None

    def digest(self, bank: Bank) -> bytes:
        return bank.digest(self.data) if self.digests is None else self.digests[bank]


BOOT = (
    Measured(8, b"grub_cmd: linux /vmlinuz root=/dev/vda1"),
    Measured(9, b"/vmlinuz"),
    Measured(8, b"grub_cmd: initrd /initrd.img"),
    Measured(9, b"/initrd.img"),
    Measured(8, b"kernel_cmdline: /vmlinuz root=/dev/vda1"),
    Measured(11, b"edge node 1.2.0"),
)
"""What a node measures when it boots; the numbers in its log start at 1, after the header."""


def agile_log(
    events: Sequence[Measured],
    banks: Sequence[Bank] = (Bank.SHA1, Bank.SHA256),
    *,
    algorithms: Sequence[tuple[int, int]] | None = None,
    vendor: bytes = b"",
) -> bytes:
    """A crypto-agile log: its header as a TCG_PCR_EVENT, then TCG_PCR_EVENT2s."""
    declared = algorithms or [(bank.algorithm_id, bank.size) for bank in banks]
    header = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(declared))
    header += b"".join(struct.pack("<HH", *entry) for entry in declared)
    header += bytes([len(vendor)]) + vendor
    return legacy_event(0, NO_ACTION, bytes(20), header) + b"".join(
        agile_event(event, banks) for event in events
    )


def agile_event(event: Measured, banks: Sequence[Bank]) -> bytes:
    digests = b"".join(struct.pack("<H", bank.algorithm_id) + event.digest(bank) for bank in banks)
    head = struct.pack("<III", event.pcr, event.kind, len(banks))
    return head + digests + struct.pack("<I", len(event.data)) + event.data


def legacy_log(events: Sequence[Measured]) -> bytes:
    """A log of SHA-1 events alone."""
    return b"".join(legacy_event(e.pcr, e.kind, e.digest(Bank.SHA1), e.data) for e in events)


def legacy_event(pcr: int, kind: int, digest: bytes, data: bytes) -> bytes:
    return struct.pack("<II", pcr, kind) + digest + struct.pack("<I", len(data)) + data
