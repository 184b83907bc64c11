"""Has receipts that come in at the same time share one durable transaction.

What bounds single receipts is the disk's flush for each commit. So one thread writes, and while it
waits for the disk, all that comes in meanwhile gathers for its next transaction.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError

from oracle.errors import IntakeBusy, IntakeClosed
from oracle.intake import Verified
from oracle.messages import ReceiptStatus

ROOM = 5_000
"""Receipts that may wait; more are refused for now."""

MOST = 1_000
"""Receipts in one transaction, unless one caller alone brings more."""

RETRY_AFTER = 1
"""Seconds in which what waits has been written, unless the database is in trouble."""

Statuses = list[ReceiptStatus]


@dataclass(frozen=True)
class _Entry:
    receipts: Sequence[Verified]
    answer: "Future[Statuses]"


class GroupCommit:
    """Hands what it is given to `keep` on one thread, as much as there is at a time."""

    def __init__(
        self,
        keep: Callable[[Sequence[Verified]], Statuses],
        *,
        room: int = ROOM,
        most: int = MOST,
    ) -> None:
        self._keep = keep
        self._room = room
        self._most = most
        self._waiting: deque[_Entry] = deque()
        self._count = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, receipts: Sequence[Verified]) -> "Future[Statuses]":
        """Their statuses in order, once they are durable, or what kept them from being so.

        Raises:
            IntakeBusy: when too many wait already; none of these is kept.
            IntakeClosed: when the process ends.
        """
        entry = _Entry(receipts, Future())
        with self._changed:
            if self._closed:
                raise IntakeClosed
            if self._count and self._count + len(receipts) > self._room:
                raise IntakeBusy(self._count, RETRY_AFTER)
            self._count += len(receipts)
            self._waiting.append(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
                self._thread.start()
            self._changed.notify()
        return entry.answer

    def close(self, timeout: float | None = None) -> None:
        """Take no more, and write what waits; `timeout` is seconds to wait for that."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while group := self._next():
            running = [entry for entry in group if entry.answer.set_running_or_notify_cancel()]
            if running:
                self._write(running)
            with self._changed:
                self._count -= sum(len(entry.receipts) for entry in group)

    def _next(self) -> list[_Entry]:
        """What goes into the next transaction; nothing when all is done."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            group: list[_Entry] = []
            size = 0
            while self._waiting:
                size += len(self._waiting[0].receipts)
                if group and size > self._most:
                    break
                group.append(self._waiting.popleft())
            return group

    def _write(self, group: Sequence[_Entry]) -> None:
        try:
            statuses = iter(self._keep([r for entry in group for r in entry.receipts]))
        except Exception as error:  # noqa: BLE001 - it is handed to whoever waits for the answer
            # Where the database itself does not answer, trying one by one would only take longer.
            if len(group) == 1 or isinstance(error, OperationalError):
                for entry in group:
                    entry.answer.set_exception(error)
            else:
                for entry in group:
                    self._write([entry])
            return
        for entry in group:
            entry.answer.set_result([next(statuses) for _ in entry.receipts])
