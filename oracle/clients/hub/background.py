"""What a hub does by itself: it follows the oracle's changes, and sweeps up."""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from oracle.client import ChangeKind, OracleClient, OracleRefused, OracleUnavailable
from oracle.clients.hub.service import HubService
from oracle.clients.hub.wakeups import Wakeups

PAUSE = 2.0
"""Seconds before an oracle that broke off is asked again."""
SWEEP = 5.0
"""Seconds between two sweeps."""
AGE = 15
"""Seconds after which a job is asked about though no change was told."""

_ABOUT_JOBS = frozenset({ChangeKind.JOB, ChangeKind.ESCROW})

log = structlog.get_logger("rapha.hub")


class Follower(threading.Thread):
    """Follows the oracle's changes, so that a funded job reaches a waiting node at once.

    It is there for speed alone: whatever it misses, the sweep and the nodes' own questions find.
    """

    def __init__(self, service: HubService, oracle: OracleClient, wakeups: Wakeups) -> None:
        super().__init__(name="follower", daemon=True)
        self._service = service
        self._oracle = oracle
        self._wakeups = wakeups
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Do not begin again."""
        self._stopping.set()
        self._oracle.close()

    def run(self) -> None:
        """The thread's body."""
        position: str | None = None
        while not self._stopping.is_set():
            try:
                for change in self._oracle.changes(position):
                    position = change.position
                    if change.kind in _ABOUT_JOBS:
                        self._take(change.job_id or change.key)
                    if self._stopping.is_set():
                        return
            except OracleRefused as error:
                log.warning("changes refused", code=error.code)
                position = None  # it does not know the position any more: from now on
            except (OracleUnavailable, SQLAlchemyError, RuntimeError) as error:
                # RuntimeError: the client was closed under a request, which is how it is stopped
                if not self._stopping.is_set():
                    log.warning("changes interrupted", reason=type(error).__name__)
            self._stopping.wait(PAUSE)

    def _take(self, job_id: bytes) -> None:
        node_id = self._service.followed(job_id)
        if node_id is not None:
            self._wakeups.wake(node_id)


class Sweeper(threading.Thread):
    """Asks about jobs that nothing was heard of, and forgets what has expired."""

    def __init__(self, service: HubService, wakeups: Wakeups) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._service = service
        self._wakeups = wakeups
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Do not begin again."""
        self._stopping.set()

    def run(self) -> None:
        """The thread's body."""
        while not self._stopping.wait(SWEEP):
            try:
                for node_id in self._service.sweep(AGE):
                    self._wakeups.wake(node_id)
            except (OracleUnavailable, OracleRefused, SQLAlchemyError, OSError) as error:
                log.warning("sweep interrupted", reason=type(error).__name__)
