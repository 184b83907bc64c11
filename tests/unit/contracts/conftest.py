"""A world for each test, undone afterwards, its clock included."""

from collections.abc import Iterator

import pytest
from world import World

WINDOW = 3_600


@pytest.fixture
def world() -> Iterator[World]:
    with World.temporary() as world:
        yield world


@pytest.fixture
def windowed() -> Iterator[World]:
    """A world where earnings can be challenged for an hour at least, at a period's first second."""
    with World.temporary(window=WINDOW) as world:
        world.start_period()
        yield world
