"""One oracle on a real database and an in-memory ledger."""

from pathlib import Path

import pytest
from postgres import cluster as cluster
from unit.oracle.bench import Bench

from oracle.store.database import Store
from scripts.postgres import Cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a schema, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    found: Cluster = request.getfixturevalue("cluster")
    return found.create()


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the present schema, of each kind in turn."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'store.db'}"
        Store(url).migrate()
        return url
    found: Cluster = request.getfixturevalue("cluster")
    return found.create_migrated()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A relaying oracle, alone in its committee, with node 1 and its enclave registered."""
    return Bench.create(tmp_path)
