"""Poisson sampling by the trusted loader."""

import numpy as np
import pytest

from oracle.clients.edge.loader import Meter
from oracle.clients.edge.poisson import PoissonLoader, sampling_rate, steps_per_epoch

JOB = bytes(32)


@pytest.fixture
def meter(committed, tmp_path):
    with Meter(tmp_path / "journal", committed, JOB) as meter:
        yield meter


def loader_of(committed, meter, batch_size):
    return PoissonLoader(committed, meter, batch_size=batch_size, seed=5)


def drawn(loader):
    return loader._draw(0, shuffle=True, drop_last=False)


def test_each_record_is_in_each_batch_with_the_same_probability(committed, meter):
    loader = loader_of(committed, meter, 8)
    draws = [positions for _ in range(500) for positions in drawn(loader)]
    assert len(draws) == 500 * steps_per_epoch(8, 32) == 2000
    counts = np.bincount(np.concatenate(draws), minlength=40)
    assert counts[committed.dataset.holdout].tolist() == [0] * 8
    # 2000 draws of probability 1/4: 500 expected, deviation 19.4; 8 deviations never happen.
    assert all(abs(count - 500) < 155 for count in counts[committed.dataset.training])
    sizes = {len(positions) for positions in draws}
    assert len(sizes) > 5, "a batch has no fixed size"
    assert all(len(set(positions.tolist())) == len(positions) for positions in draws)


def test_no_seed_gives_the_same_batches_again(committed, meter):
    loader = loader_of(committed, meter, 8)
    first, second = ([p.tolist() for p in drawn(loader)] for _ in range(2))
    assert first != second


def test_an_epoch_is_metered_and_stepped_as_ever(committed, meter):
    loader = loader_of(committed, meter, 8)
    seen = [len(batch.labels) for number in range(3) for batch in loader.epoch(number)]
    assert loader.steps == len(seen) == 12
    assert loader.counters.epochs == 3
    assert 0 < loader.counters.records <= 32


def test_a_batch_as_large_as_the_dataset_takes_all(committed, meter):
    assert sampling_rate(100, 32) == 1.0
    loader = loader_of(committed, meter, 100)
    assert [len(batch.labels) for batch in loader.epoch(0)] == [32]
