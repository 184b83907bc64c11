"""A world for each test, undone afterwards, its clock included."""

from collections.abc import Iterator

import pytest
from world import World


@pytest.fixture
def world() -> Iterator[World]:
    with World.temporary() as world:
        yield world
