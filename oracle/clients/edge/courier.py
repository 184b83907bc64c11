"""What goes on beside the training: receipts to the oracle, progress to the hub."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from oracle.client import OracleRefused, ReceiptStatus, Status
from oracle.clients.edge.errors import NodeStopping
from oracle.clients.edge.outbox import POSTED, Outbox
from oracle.clients.edge.patience import Patience
from settlement.errors import RaphaError
from settlement.hub.client import HubRefused, HubUnavailable
from settlement.hub.messages import JobView, Progress
from settlement.models import SignedReceipt
from settlement.types import to_hex

log = structlog.get_logger(__name__)


class ReceiptApi(Protocol):
    """What receipts need of `oracle.client.OracleClient`."""

    def submit_receipt(self, receipt: SignedReceipt) -> ReceiptStatus: ...
    def receipt(self, digest: bytes) -> ReceiptStatus: ...


class ProgressApi(Protocol):
    """What progress needs of `settlement.hub.client.HubClient`."""

    def report_progress(self, job_id: bytes, progress: Progress) -> JobView: ...


class Daemon(threading.Thread):
    """Repeats `step` every `interval` seconds, or as soon as it is woken, until the node stops.

    An error that repeating cannot cure stops the whole node: it is kept in `failure`.
    """

    def __init__(
        self, name: str, step: Callable[[], None], interval: float, stop: threading.Event
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._step = step
        self._interval = interval
        self._stop_event = stop
        self._woken = threading.Event()
        self.failure: BaseException | None = None

    def wake(self) -> None:
        """Do the next step now."""
        self._woken.set()

    def run(self) -> None:
        """The thread's body."""
        while not self._stop_event.is_set():
            self._woken.clear()
            try:
                self._step()
            except NodeStopping:
                return
            except BaseException as error:  # noqa: BLE001 - the main thread raises it
                if not isinstance(error, RaphaError) or error.final:
                    self.failure = error
                    self._stop_event.set()
                    return
                log.warning("unavailable", code=error.code, detail=str(error))
            self._woken.wait(self._interval)


class Courier:
    """Takes the receipts of all outboxes to the oracle, in the order they were signed."""

    def __init__(self, oracle: ReceiptApi, patience: Patience) -> None:
        self._oracle = oracle
        self._patience = patience
        self._lock = threading.Lock()
        self._outboxes: list[Outbox] = []

    def serve(self, outbox: Outbox) -> None:
        """Take care of this outbox from now on."""
        with self._lock:
            if outbox not in self._outboxes:
                self._outboxes.append(outbox)

    def step(self) -> None:
        """Post what is pending; while the oracle is unavailable this waits, and loses nothing."""
        with self._lock:
            outboxes = list(self._outboxes)
        for outbox in outboxes:
            for entry in outbox.pending:
                receipt = entry.signed.receipt
                event = log.bind(
                    job_id=to_hex(receipt.job_id), records=receipt.records, epochs=receipt.epochs
                )
                try:
                    status = self._patience.call(self._oracle.submit_receipt, entry.signed)
                except OracleRefused as error:
                    event.error("receipt_refused", code=error.code, detail=error.detail)
                    outbox.settle_fate(entry, error.code)
                    continue
                outbox.settle_fate(entry, POSTED)
                tell = event.error if status.status is Status.REJECTED else event.info
                tell("receipt_posted", status=status.status, reason=status.reason)


SILENCE = 20.0
"""Seconds after which the hub is told the same again, so that it counts on the node."""


class Reporter:
    """Tells the hub how far the running job is. Only the latest counts, and none of it is vital."""

    def __init__(self, hub: ProgressApi, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._latest: tuple[bytes, Progress] | None = None
        self._told: tuple[bytes, Progress] | None = None
        self._told_at = 0.0

    def end(self) -> None:
        """The job is over: nothing more is to be told of it."""
        with self._lock:
            self._latest = self._told = None

    def update(self, job_id: bytes, progress: Progress) -> None:
        """Replace what is to be told next."""
        with self._lock:
            self._latest = job_id, progress

    def step(self) -> None:
        """Tell the latest, if it was not told yet."""
        with self._lock:
            quiet = self._elapsed() - self._told_at >= SILENCE
            latest = self._latest or (self._told if quiet else None)
            self._latest = None
            if latest is None:
                return
            self._told, self._told_at = latest, self._elapsed()
        try:
            self._hub.report_progress(*latest)
        except (HubUnavailable, HubRefused) as error:
            log.warning("progress_not_reported", code=error.code, detail=str(error))
