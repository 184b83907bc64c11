"""What followers are told: each change of status, in an order that they can go on from.

Nothing is kept in memory for a follower but a page. One that does not read is cut off, and goes on
later from where it was.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import BigInteger, ColumnElement, cast, func, literal, select, true, tuple_
from sqlalchemy import Text as SqlText
from sqlalchemy.exc import SQLAlchemyError
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from oracle.errors import PositionUnknown, TooManyFollowers
from oracle.messages import HEARTBEAT, Change, ChangeKind
from oracle.store.database import Store
from oracle.store.intake_tables import ChangeRow

PAGE = 256
"""Changes that are read at a time."""

FOLLOWERS = 64
"""The most that may follow one process."""

POLL = 0.25
"""Seconds between two looks for changes, by one task for all followers."""

SEND_TIMEOUT = 10.0
"""Seconds that a follower has to read what was sent."""

RETRY_AFTER = 5

_POSITION = re.compile(r"(\d{1,19})-(\d{1,19})")
_MAX = 2**63 - 1
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, order=True)
class Position:
    """A place in the order of changes; what it says is the store's own."""

    era: int
    id: int

    def __str__(self) -> str:
        return f"{self.era}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises PositionUnknown."""
        found = _POSITION.fullmatch(text)
        if found is None or max(map(int, found.groups())) > _MAX:
            raise PositionUnknown(text)
        return cls(int(found[1]), int(found[2]))


BEGINNING = Position(0, 0)


class Feed:
    """The changes in one database."""

    def __init__(
        self,
        store: Store,
        *,
        followers: int = FOLLOWERS,
        poll: float = POLL,
        heartbeat: float = HEARTBEAT,
        send_timeout: float = SEND_TIMEOUT,
    ) -> None:
        self._store = store
        self._heartbeat = heartbeat
        self._send_timeout = send_timeout
        self._most = followers
        self._poll = poll
        self._following = 0
        self._newest = BEGINNING
        self._moved = asyncio.Event()
        self._tail: asyncio.Task[None] | None = None

    def page(self, after: Position, job: bytes | None = None, limit: int = PAGE) -> list[Change]:
        """The changes that come after a position, of one job or of all."""
        place = tuple_(ChangeRow.era, ChangeRow.id)
        query = select(ChangeRow).where(
            self._settled(), place > tuple_(literal(after.era), literal(after.id))
        )
        if job is not None:
            query = query.where(ChangeRow.job_id == job)
        with self._store.read() as session:
            rows = session.scalars(query.order_by(ChangeRow.era, ChangeRow.id).limit(limit)).all()
        return [_change(row) for row in rows]

    def newest(self) -> Position:
        """The position of the last change."""
        query = select(ChangeRow.era, ChangeRow.id).where(self._settled())
        with self._store.read() as session:
            last = query.order_by(ChangeRow.era.desc(), ChangeRow.id.desc()).limit(1)
            found = session.execute(last).first()
        return Position(*found) if found else BEGINNING

    def start_from(self, position: str | None) -> Position:
        """Where a follower begins: after the position that it names, else with what comes now.

        Raises:
            PositionUnknown: for what is no position, or one that has not been reached.
        """
        newest = self.newest()
        if position is None:
            return newest
        found = Position.parse(position)
        if found > newest:
            raise PositionUnknown(position)
        return found

    def follow(self, after: Position, job: bytes | None = None) -> EventSourceResponse:
        """A stream of changes until the follower leaves.

        Raises:
            TooManyFollowers: when there are as many as this process takes.
        """
        if self._following >= self._most:
            raise TooManyFollowers(self._most, RETRY_AFTER)
        return _Stream(
            self._changes(after, job),
            self,
            ping=self._heartbeat,
            send_timeout=self._send_timeout,
            sep="\n",
        )

    @property
    def following(self) -> int:
        """How many follow now."""
        return self._following

    def join(self) -> None:
        """One more follows. The first one has the task started that looks for changes."""
        self._following += 1
        if self._tail is None or self._tail.done():
            self._tail = asyncio.create_task(self._look())

    def leave(self) -> None:
        """One follows no more."""
        self._following -= 1

    async def _changes(self, after: Position, job: bytes | None) -> AsyncIterator[ServerSentEvent]:
        while True:
            moved, seen = self._moved, self._newest
            page = await run_in_threadpool(self.page, after, job)
            for change in page:
                after = Position.parse(change.position)
                yield ServerSentEvent(
                    change.model_dump_json(), id=change.position, event=change.kind
                )
            if not page:
                # nothing of this job up to there: no need to read it again
                after = max(after, seen)
                await moved.wait()

    async def _look(self) -> None:
        while self._following:
            try:
                newest = await run_in_threadpool(self.newest)
            except SQLAlchemyError as error:
                _log.warning("cannot look for changes", reason=type(error).__name__)
            else:
                if newest != self._newest:
                    self._newest = newest
                    self._moved.set()
                    self._moved = asyncio.Event()
            await asyncio.sleep(self._poll)

    def _settled(self) -> ColumnElement[bool]:
        """That no transaction which began earlier may still come before a change."""
        if not self._store.is_postgresql:
            return true()
        horizon = func.pg_snapshot_xmin(func.pg_current_snapshot())
        return ChangeRow.era < cast(cast(horizon, SqlText), BigInteger)


class _Stream(EventSourceResponse):
    """One follower's stream, counted while it lasts."""

    def __init__(self, changes: AsyncIterator[ServerSentEvent], feed: Feed, **options: Any) -> None:
        super().__init__(changes, **options)
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._feed.join()
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            _log.warning("follower does not read, and is cut off", followers=self._feed.following)
        finally:
            self._feed.leave()


def _change(row: ChangeRow) -> Change:
    return Change(
        position=str(Position(row.era, row.id)),
        kind=ChangeKind(row.kind),
        key=row.key,
        job_id=row.job_id,
        signer=row.signer,
        status=row.status,
        reason=row.reason,
    )
