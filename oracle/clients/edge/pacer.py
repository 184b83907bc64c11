"""When the enclave signs the next receipt."""

import time
from collections.abc import Callable

from oracle.clients.edge.loader import Counters


class Pacer:
    """A receipt is due after so many new records, after an epoch, or after so many seconds.

    Never within `interval` seconds of the one before, and never without anything new: receipts are
    cumulative, so what is left out is in the next.
    """

    def __init__(
        self,
        last: Counters,
        *,
        every_records: int,
        every_seconds: float,
        interval: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._last = last
        self._every_records = every_records
        self._every_seconds = every_seconds
        self._interval = interval
        self._monotonic = monotonic
        self._signed_at = monotonic()
        self._first = True

    def due(self, counters: Counters) -> bool:
        """Whether to sign now; if so, this is the last one from here on."""
        if counters == self._last:
            return False
        now = self._monotonic()
        age = now - self._signed_at
        if age < self._interval and not self._first:
            return False
        if not (
            counters.records - self._last.records >= self._every_records
            or counters.epochs > self._last.epochs
            or age >= self._every_seconds
        ):
            return False
        self._last, self._signed_at, self._first = counters, now, False
        return True
