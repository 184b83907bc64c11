"""Background loops that never fail silently: a failure is logged, shown, and tried again."""

import threading
import time
from collections.abc import Callable

import structlog

from settlement.errors import RaphaError

MAX_PAUSE = 30.0
"""Seconds; the longest pause after repeated failures."""

STALLED = 300.0
"""Seconds after which a round that has not ended counts as hanging."""

_log = structlog.get_logger(__name__)


class Loop:
    """Calls `tick` on its own thread every `interval` seconds, at once while it returns True.

    `failures` counts rounds that failed, `succeeded_at` is when the last one went well (Unix
    seconds), None before the first.
    """

    def __init__(self, name: str, tick: Callable[[], bool], interval: float) -> None:
        self.name = name
        self.failures = 0
        self.succeeded_at: float | None = None
        self._tick = tick
        self._interval = interval
        self._wake = threading.Event()
        self._stopping = False
        self._trouble: str | None = "has not run yet"
        self._begun: float | None = None
        # A daemon: all that counts is on disk, so a hanging RPC call must not hold up the exit.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have the next tick come now."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Ask the thread to end, and wait for it for `timeout` seconds."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def trouble(self) -> str | None:
        """What keeps the loop from working, None when its last tick went well."""
        if not self._thread.is_alive():
            return "is not running"
        begun = self._begun
        if begun is not None and time.monotonic() - begun > STALLED:
            return f"has been in one round for more than {STALLED:.0f} seconds"
        return self._trouble

    def _run(self) -> None:
        in_a_row = 0
        while not self._stopping:
            pause = self._interval
            self._begun = time.monotonic()
            try:
                if self._tick():
                    pause = 0.0
                self._trouble, in_a_row = None, 0
                self.succeeded_at = time.time()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is told and tried again
                in_a_row += 1
                self.failures += 1
                self._trouble = _summary(error)
                pause = min(self._interval * 2 ** min(in_a_row, 10), MAX_PAUSE)
                self._report(error, in_a_row)
            self._begun = None
            self._wake.wait(pause)
            self._wake.clear()

    def _report(self, error: Exception, in_a_row: int) -> None:
        if isinstance(error, RaphaError) and not error.final:
            _log.warning("loop has to wait", loop=self.name, reason=_summary(error), times=in_a_row)
        else:
            _log.error("loop failed", loop=self.name, times=in_a_row, exc_info=error)


def _summary(error: Exception) -> str:
    name = error.code if isinstance(error, RaphaError) else type(error).__name__
    return f"{name}: {error}"
