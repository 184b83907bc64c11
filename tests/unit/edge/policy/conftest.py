"""One engine for the tests of this folder."""

from collections.abc import Iterator

import pytest

from oracle.clients.edge.policy.engine import Engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine(timeout=120) as started:
        yield started
