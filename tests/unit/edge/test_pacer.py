import pytest

from oracle.clients.edge.loader import Counters
from oracle.clients.edge.pacer import Pacer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pacer(clock):
    return Pacer(at(0, 0), every_records=128, every_seconds=5.0, interval=0.5, monotonic=clock)


def at(records, epochs):
    return Counters(records, epochs, records.to_bytes(32, "big"))


def test_due_after_so_many_records(pacer):
    assert not pacer.due(at(127, 0))
    assert pacer.due(at(128, 0))


def test_due_after_an_epoch(pacer):
    assert pacer.due(at(10, 1))


def test_due_after_so_many_seconds_with_anything_new(pacer, clock):
    clock.now = 5.0
    assert not pacer.due(at(0, 0))
    assert pacer.due(at(1, 0))


def test_never_twice_within_the_interval(pacer, clock):
    assert pacer.due(at(128, 0))
    assert not pacer.due(at(256, 1))
    clock.now = 0.5
    assert pacer.due(at(256, 1))


def test_nothing_new_is_never_due(pacer, clock):
    assert pacer.due(at(128, 0))
    clock.now = 100.0
    assert not pacer.due(at(128, 0))
