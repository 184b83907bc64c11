"""The facts built from scratch, and every difference to those that there are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from oracle.errors import ChainUnavailable
from oracle.facts import Block, Event, Header
from oracle.projection import FACTS, logged, start_over
from oracle.store.database import Store
from oracle.store.tables import CheckpointRow, CursorRow, ReceiptRow, Table
from oracle.verdicts import rejudge
from oracle.watcher import History, Watcher
from settlement.deployment import Deployment
from settlement.types import Frozen, to_hex

Facts = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By table and primary key the row's columns, bytes as hex."""


class FactDifference(Frozen):
    """One column of one row, or the whole `row` that one side (None) does not have."""

    table: str
    key: str
    column: str
    live: str | None
    rebuilt: str | None

    def __str__(self) -> str:
        if self.live is None:
            return f"{self.table} {self.key} is missing"
        if self.rebuilt is None:
            return f"{self.table} {self.key} is not on the chain"
        return f"{self.table} {self.key}: {self.column} is {self.live}, rebuilt {self.rebuilt}"


class Rebuilt(Frozen):
    """What building anew up to `block` found. `replaced`: the live facts are now the new ones."""

    block: int
    events: int
    differences: tuple[FactDifference, ...]
    replaced: bool


class _Until:
    """A chain on which nothing after one block is final."""

    def __init__(self, chain: History, end: Block) -> None:
        self._chain = chain
        self._end = end

    def finalized(self) -> Block:
        return self._end

    def block(self, number: int) -> Block | None:
        return self._chain.block(number)

    def events(self, first: int, last: int) -> Sequence[Event]:
        return self._chain.events(first, last)

    def headers(self, first: int, last: int) -> Sequence[Header]:
        return self._chain.headers(first, last)


def rebuild(store: Store, chain: History, deployment: Deployment, *, check_only: bool) -> Rebuilt:
    """Read the chain from the deployment's block to where the facts stand, and compare.

    The new facts are made in a database of their own. Unless `check_only`, they take the place of
    the live ones in one transaction, and all that was handed in is judged by them. A database
    without facts gets those up to the finalized block. The oracle may be running.

    Raises:
        ChainUnavailable, HistoryIncomplete: nothing has changed then.
        DatabaseOfOtherDeployment: when the database is not this deployment's.
    """
    Watcher(store, chain, deployment).check_database()
    with store.read() as session:
        cursor = session.get(CursorRow, 1)
        live = facts_of(session)
    end = chain.block(cursor.block) if cursor else chain.finalized()
    if end is None:
        raise ChainUnavailable("it has no block as late as the facts'")
    with TemporaryDirectory() as directory:
        fresh = Store(f"sqlite:///{Path(directory) / 'facts.db'}")
        try:
            fresh.migrate()
            watcher = Watcher(fresh, _Until(chain, end), deployment)
            while watcher.tick():
                pass
            with fresh.read() as session:
                built, events = facts_of(session), logged(session)
                row = session.get_one(CursorRow, 1)
                columns = {column.key: getattr(row, column.key) for column in _columns(CursorRow)}
                checkpoints = [
                    CheckpointRow(
                        block=point.block,
                        block_hash=point.block_hash,
                        block_time=point.block_time,
                    )
                    for point in session.scalars(select(CheckpointRow))
                ]
        finally:
            fresh.close()
    if not check_only:
        with store.write() as session:
            start_over(session, events)
            for point in session.scalars(select(CheckpointRow)).all():
                session.delete(point)
            session.flush()
            session.add_all(checkpoints)
            session.merge(CursorRow(**columns))
            receipts = session.scalars(select(ReceiptRow)).all()
            rejudge(session, receipts, grace=deployment.grace_period, now=end.time)
    return Rebuilt(
        block=end.number,
        events=len(events),
        differences=differences(live, built),
        replaced=not check_only,
    )


def facts_of(session: Session) -> Facts:
    """All facts and the position that they reach to."""
    found = {}
    tables: tuple[type[Table], ...] = (*FACTS, CursorRow)
    for table in tables:
        keys = [column.key for column in table.__table__.primary_key]
        rows = session.execute(select(*_columns(table))).mappings()
        found[str(table.__tablename__)] = {
            " ".join(_text(row[key]) for key in keys): dict(row) for row in rows
        }
    return found


def differences(live: Facts, rebuilt: Facts) -> tuple[FactDifference, ...]:
    """Each column in which two states differ, by table and key."""
    found = []
    for table in live:
        for key in sorted(live[table].keys() | rebuilt[table].keys()):
            mine, other = live[table].get(key), rebuilt[table].get(key)
            if mine is None or other is None:
                sides = {"live": "there" if mine else None, "rebuilt": "there" if other else None}
                found.append(FactDifference(table=table, key=key, column="row", **sides))
                continue
            for column in mine:
                left, right = _text(mine[column]), _text(other[column])
                if left != right:
                    found.append(
                        FactDifference(
                            table=table, key=key, column=column, live=left, rebuilt=right
                        )
                    )
    return tuple(found)


def _columns(table: type[Table]) -> list[Any]:
    return list(table.__table__.columns)


def _text(value: Any) -> str:
    return to_hex(value) if isinstance(value, bytes) else str(value)
