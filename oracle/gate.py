"""Whether anything is taken in: the operator's switch, in the store so that it outlives a restart.

All processes on one database share it. What was taken in before is worked on as ever, and can be
asked for.
"""

from sqlalchemy import delete
from sqlalchemy.orm import Session

from oracle.errors import IntakePaused
from oracle.store.database import Store
from oracle.store.tables import PauseRow
from settlement.types import Frozen

RETRY_AFTER = 60
"""Seconds after which clients are asked to come again."""


class Pause(Frozen):
    """Why nothing is taken in, and since when (Unix seconds)."""

    reason: str
    since: int


class Gate:
    """The switch of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pause(self) -> Pause | None:
        """The pause that there is."""
        with self._store.read() as session:
            return _pause(session)

    def close(self, reason: str, now: int) -> Pause:
        """Take nothing in from `now` (Unix seconds) on; a pause that there is gets the reason."""
        with self._store.write() as session:
            row = session.get(PauseRow, 1)
            if row is None:
                row = PauseRow(id=1, reason=reason, since=now)
                session.add(row)
            row.reason = reason
        return Pause(reason=row.reason, since=row.since)

    def open(self) -> bool:
        """Take things in again. Returns whether there was a pause."""
        with self._store.write() as session:
            paused = session.get(PauseRow, 1) is not None
            session.execute(delete(PauseRow))
        return paused

    def check(self) -> None:
        """Raises IntakePaused while nothing is taken in."""
        with self._store.read() as session:
            refuse_while_paused(session)


def refuse_while_paused(session: Session) -> None:
    """Look at the switch in the transaction that takes something in.

    Raises:
        IntakePaused: while nothing is taken in.
    """
    pause = _pause(session)
    if pause is not None:
        raise IntakePaused(pause.reason, RETRY_AFTER)


def _pause(session: Session) -> Pause | None:
    row = session.get(PauseRow, 1)
    return Pause(reason=row.reason, since=row.since) if row else None
