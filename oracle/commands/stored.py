"""Commands that read an oracle's database. What they import comes with the extra `oracle`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from oracle.commands import failures
from oracle.commands.failures import UNTOLD, fail
from oracle.commands.reconcile import AsJson, AtBlock, Loader, Receipts, compare
from oracle.config import OracleSettings
from oracle.reconcile import reconcile
from oracle.store.database import Store
from settlement.errors import InvalidInput


@contextmanager
def ending(status: int) -> Iterator[None]:
    """`failures.ending`, where a database may fail too."""
    with failures.ending(status):
        try:
            yield
        except SQLAlchemyError as error:
            fail("StoreUnavailable", type(error).__name__, status, "check --database")


def here(
    receipts: Receipts = None,
    loader: Loader = None,
    block: AtBlock = None,
    as_json: AsJson = False,
) -> None:
    """Compare this oracle's database with the chain; exit code 0 equal, 1 differences, 2 untold."""
    with ending(UNTOLD):
        settings = OracleSettings()
        compare_stored(
            settings.database_url.get_secret_value(),
            settings.rpc_url.get_secret_value(),
            settings.deployment_file,
            receipts or [],
            loader or [],
            block,
            as_json,
        )


def compare_stored(
    database: str,
    rpc: str,
    deployment: Path,
    receipts: list[Path],
    loader: list[Path],
    block: int | None,
    as_json: bool,
) -> None:
    """`compare`, and a database with it."""
    with ending(UNTOLD):
        store = _open(database)
        try:
            given = (rpc, deployment, receipts, loader, block, as_json)
            compare(*given, partial(reconcile, store=store))
        finally:
            store.close()


def _open(url: str) -> Store:
    try:
        return Store(url)
    except ArgumentError as error:
        raise InvalidInput("the database's URL is not one that SQLAlchemy knows") from error
