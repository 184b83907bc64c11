"""The PostgreSQL server that tests share."""

from collections.abc import Iterator

import pytest

from scripts.postgres import Cluster
from scripts.postgres import cluster as run


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server; where none is installed, what asks for it fails and says so."""
    with run() as running:
        yield running
