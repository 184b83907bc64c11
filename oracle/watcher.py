"""Follows the finalized chain and turns its events into facts.

Facts and the position that they reach to move in one database transaction, so that after any crash
they agree. Money rests on final blocks only. When an endpoint shows that one of them is gone, and a
longer final chain in its place, facts go back to the last block that both have.

What is read has to hold together before it is written: each block names the one before it, a block
whose bloom filter admits a log of ours is asked for it a second time, and a long range is asked
once more in halves, which tells of endpoints that cut their answers short.
"""

from collections.abc import Sequence
from typing import Protocol

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from oracle.errors import (
    ChainUnavailable,
    DatabaseOfOtherDeployment,
    FinalityWentBack,
    ForkNotLonger,
    HistoryIncomplete,
    LogRangeRefused,
)
from oracle.facts import Block, Event, Header
from oracle.projection import extend, roll_back
from oracle.store.database import Store
from oracle.store.tables import CheckpointRow, CursorRow
from oracle.verdicts import rejudge
from settlement.deployment import Deployment
from settlement.types import to_hex

MAX_RANGE = 10_000
"""Blocks per request for logs, where the endpoint allows it."""

MAX_HEADERS = 32
"""Blocks up to which every header of a range is asked for."""

RECENT = 512
"""Newest checkpoints that are all kept."""

SPACING = 10_000
"""Blocks in which one of the older checkpoints is kept."""

_log = structlog.get_logger(__name__)


class History(Protocol):
    """What of `oracle.facts.Chain` following it needs."""

    def finalized(self) -> Block:
        """The newest block that is final."""

    def block(self, number: int) -> Block | None:
        """The block at a height, None above the tip."""

    def events(self, first: int, last: int) -> Sequence[Event]:
        """All events of vault and enclave registry in these blocks, in order. LogRangeRefused."""

    def headers(self, first: int, last: int) -> Sequence[Header]:
        """The headers of these blocks, in order."""


class Watcher:
    """Moves the facts of one deployment up to the finalized block.

    `behind` is how many final blocks were not in the facts after the last tick, None before it.
    `reorgs` counts how often final blocks were gone since the start, `incomplete` how often an
    endpoint's answers did not hold together.
    """

    def __init__(self, store: Store, chain: History, deployment: Deployment) -> None:
        self._store = store
        self._chain = chain
        self._deployment = deployment
        self._range = MAX_RANGE
        self.behind: int | None = None
        self.reorgs = 0
        self.incomplete = 0

    def check_database(self) -> None:
        """Make sure that the database is this deployment's.

        Raises:
            DatabaseOfOtherDeployment: when it was filled from another chain or vault.
        """
        cursor = self._cursor()
        deployment = self._deployment
        if cursor and (cursor.chain_id, cursor.vault) != (deployment.chain_id, deployment.vault):
            raise DatabaseOfOtherDeployment(cursor.chain_id, cursor.vault)

    def tick(self) -> bool:
        """Advance by one range of blocks. Returns whether there are more to read.

        Raises:
            ChainUnavailable: when the endpoint gives no answer; nothing has moved then.
            FinalityWentBack, ForkNotLonger: when it contradicts what was final; nothing has moved.
            HistoryIncomplete: when its answers do not hold together; nothing has moved.
        """
        cursor = self._cursor()
        finalized = self._chain.finalized()
        if cursor and self._is_gone(cursor, finalized):
            self._go_back(cursor)
            return True  # there is a longer chain to read
        first = cursor.block + 1 if cursor else self._deployment.block
        self.behind = finalized.number + 1 - first
        last = min(finalized.number, first + self._range - 1)
        if last < first:
            return False
        try:
            end = finalized if last == finalized.number else self._final(last)
            events = read(self._chain, first, end, before=cursor.block_hash if cursor else None)
            with self._store.write() as session:
                if not _is_at(session, cursor):
                    return True
                self._advance(session, events, end)
        except LogRangeRefused:
            if first == last:
                raise
            self._range = max(1, (last - first + 1) // 2)
            return True
        except HistoryIncomplete:
            self.incomplete += 1
            raise
        self._range = min(MAX_RANGE, self._range * 2)
        self.behind = finalized.number - last
        return last < finalized.number

    def _cursor(self) -> CursorRow | None:
        with self._store.read() as session:
            return session.get(CursorRow, 1)

    def _final(self, number: int) -> Block:
        """A block that the endpoint must have, since a later one is final."""
        block = self._chain.block(number)
        if block is None:
            raise ChainUnavailable(f"it has no block {number}, and calls a later one final")
        return block

    def _is_gone(self, cursor: CursorRow, finalized: Block) -> bool:
        """Whether a longer final chain has another block where the cursor stands."""
        if finalized.number < cursor.block:
            raise FinalityWentBack(cursor.block, finalized.number)
        here = finalized if finalized.number == cursor.block else self._final(cursor.block)
        if here.hash == cursor.block_hash:
            return False
        if finalized.number == cursor.block:
            raise ForkNotLonger(cursor.block, cursor.block_hash, here.hash)
        return True

    def _go_back(self, cursor: CursorRow) -> None:
        """Take the facts back to the newest checkpoint that the chain still has."""
        with self._store.read() as session:
            checkpoints = session.scalars(select(CheckpointRow).order_by(CheckpointRow.block)).all()
        # what is on the chain comes first and what is gone after it, so halving finds the border
        low, high = 0, len(checkpoints)
        while low < high:
            middle = (low + high) // 2
            if self._final(checkpoints[middle].block).hash == checkpoints[middle].block_hash:
                low = middle + 1
            else:
                high = middle
        common = checkpoints[low - 1] if low else None
        block = common.block if common else self._deployment.block - 1
        with self._store.write() as session:
            if not _is_at(session, cursor):
                return
            subjects = roll_back(session, block)
            session.execute(delete(CheckpointRow).where(CheckpointRow.block > block))
            now = common.block_time if common else 0
            if common:
                self._stand_at(session, Block(block, common.block_hash, now))
            else:
                session.execute(delete(CursorRow))
            grace = self._deployment.grace_period
            rejudge(session, subjects.receipts(session), grace=grace, now=now)
        self.reorgs += 1
        _log.error(
            "final blocks are gone, facts go back",
            block=cursor.block,
            block_hash=to_hex(cursor.block_hash),
            to=block,
        )

    def _advance(self, session: Session, events: Sequence[Event], end: Block) -> None:
        subjects = extend(session, events)
        self._stand_at(session, end)
        session.merge(CheckpointRow(block=end.number, block_hash=end.hash, block_time=end.time))
        _thin_out(session)
        grace = self._deployment.grace_period
        rejudge(session, subjects.receipts(session), grace=grace, now=end.time)
        if events:
            _log.info("facts advanced", block=end.number, events=len(events))

    def _stand_at(self, session: Session, block: Block) -> None:
        session.merge(
            CursorRow(
                id=1,
                chain_id=self._deployment.chain_id,
                vault=self._deployment.vault,
                block=block.number,
                block_hash=block.hash,
                block_time=block.time,
            )
        )


def read(chain: History, first: int, end: Block, *, before: bytes | None) -> Sequence[Event]:
    """All events from block `first` to `end`, asked for twice; `before` is the hash below `first`.

    Raises:
        HistoryIncomplete: when the answers do not hold together.
        LogRangeRefused: when the endpoint wants fewer blocks.
    """
    events = chain.events(first, end.number)
    if end.number - first >= MAX_HEADERS:
        headers = chain.headers(first, first)
        check_links(headers, before=before, end=None)
        middle = (first + end.number) // 2
        again = [*chain.events(first, middle), *chain.events(middle + 1, end.number)]
        _compare(first, end.number, events, again)
        return events
    headers = chain.headers(first, end.number)
    check_links(headers, before=before, end=end)
    for header in headers:
        number = header.block.number
        found = [event for event in events if event.place.block == number]
        if header.logged:
            _compare(number, number, found, chain.events(number, number))
        elif found:
            raise HistoryIncomplete(number, "there are logs, and its bloom filter admits none")
    return events


def check_links(headers: Sequence[Header], *, before: bytes | None, end: Block | None) -> None:
    """Make sure that each block names the one before it, from `before` on and up to `end`.

    Raises:
        HistoryIncomplete: naming the first block that does not.
    """
    for header in headers:
        if before is not None and header.parent != before:
            what = f"its parent is {to_hex(header.parent)}, the block before it {to_hex(before)}"
            raise HistoryIncomplete(header.block.number, what)
        before = header.block.hash
    if end is not None and before != end.hash:
        raise HistoryIncomplete(end.number, "the endpoint has two blocks of this number")


def _compare(first: int, last: int, events: Sequence[Event], again: Sequence[Event]) -> None:
    if list(events) != list(again):
        what = f"asked twice for the logs up to block {last}, the endpoint gave"
        raise HistoryIncomplete(first, f"{what} {len(events)} and then {len(again)} of ours")


def _is_at(session: Session, cursor: CursorRow | None) -> bool:
    """Whether the facts still stand where they did: another process may have moved them."""
    present = session.get(CursorRow, 1, with_for_update=True)
    if cursor is None or present is None:
        return cursor is present
    return (present.block, present.block_hash) == (cursor.block, cursor.block_hash)


def _thin_out(session: Session) -> None:
    """Keep the newest checkpoints, and of the older ones the first of each long stretch."""
    newest = select(CheckpointRow.block).order_by(CheckpointRow.block.desc())
    edge = session.scalar(newest.offset(RECENT).limit(1))
    if edge is None:
        return
    kept = select(func.min(CheckpointRow.block)).group_by(CheckpointRow.block // SPACING)
    session.execute(
        delete(CheckpointRow).where(
            CheckpointRow.block <= edge, CheckpointRow.block.not_in(kept.scalar_subquery())
        )
    )
