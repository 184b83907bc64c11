"""Signed receipts on their way to the oracle: on disk first, and until the oracle has them."""

import threading
from pathlib import Path
from typing import NamedTuple

from oracle.clients.edge.durable import write_atomically
from settlement.models import SignedReceipt

POSTED = "posted"


class Entry(NamedTuple):
    """A receipt and its place in the order of signing."""

    number: int
    signed: SignedReceipt


class Outbox:
    """The receipts of one job, in the order they were signed. Safe to use from several threads."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._lock = threading.Lock()
        self._entries = [
            Entry(int(path.stem), SignedReceipt.model_validate_json(path.read_bytes()))
            for path in sorted(directory.glob("[0-9]*.json"))
        ]
        self._fates = {int(path.stem): path.read_text() for path in directory.glob("[0-9]*.fate")}

    @property
    def receipts(self) -> list[SignedReceipt]:
        """All receipts so far."""
        with self._lock:
            return [entry.signed for entry in self._entries]

    @property
    def pending(self) -> list[Entry]:
        """Those that the oracle does not have yet."""
        with self._lock:
            return [entry for entry in self._entries if entry.number not in self._fates]

    def fates(self) -> list[tuple[SignedReceipt, str | None]]:
        """All receipts so far, each with what became of it; see `fate`."""
        with self._lock:
            return [(entry.signed, self._fates.get(entry.number)) for entry in self._entries]

    def add(self, signed: SignedReceipt) -> Entry:
        """Keep a receipt; the last one again keeps its place. Returns once it is on disk."""
        with self._lock:
            if self._entries and self._entries[-1].signed == signed:
                return self._entries[-1]
            entry = Entry(len(self._entries), signed)
            path = self._directory / f"{entry.number:08d}.json"
            write_atomically(path, signed.model_dump_json().encode())
            self._entries.append(entry)
            return entry

    def settle_fate(self, entry: Entry, fate: str) -> None:
        """Note that the oracle has it (`POSTED`), or the code with which it refused it for good."""
        with self._lock:
            write_atomically(self._directory / f"{entry.number:08d}.fate", fate.encode())
            self._fates[entry.number] = fate

    def fate(self, entry: Entry) -> str | None:
        """`POSTED`, the code of a refusal, or None while it is pending."""
        with self._lock:
            return self._fates.get(entry.number)

    def reopen(self, entry: Entry) -> None:
        """Make it pending again: the oracle has lost it."""
        with self._lock:
            (self._directory / f"{entry.number:08d}.fate").unlink(missing_ok=True)
            self._fates.pop(entry.number, None)
