"""Batches for differentially private training: drawn by the trusted parent, and by nobody's seed.

What a training takes of a record's privacy depends on how batches are drawn. The accountant reckons
with Poisson sampling whose outcome is secret, so that is what there is here: each record is in each
batch with the same probability, independent of all else, by the kernel's random numbers. A shuffle
by the bundle's seed, as other jobs have it, would allow no such reckoning.
"""

import math
import os

import numpy as np
from numpy.typing import NDArray

from oracle.clients.edge.loader import RaphaDataLoader


def sampling_rate(batch_size: int, records: int) -> float:
    """The probability that a record is in a batch; `batch_size` is what to expect of one."""
    return min(1.0, batch_size / records)


def steps_per_epoch(batch_size: int, records: int) -> int:
    """How many batches an epoch has."""
    return math.ceil(records / batch_size)


class PoissonLoader(RaphaDataLoader):
    """A `RaphaDataLoader` whose batches are Poisson samples, some of them empty.

    An epoch has as many batches as it would have otherwise. A record may come twice in it, or not
    at all; what counts as delivered is counted as ever. Asked for another order, it draws the same:
    a sample has none, and no batch is short of a size.
    """

    def _draw(self, number: int, *, shuffle: bool, drop_last: bool) -> list[NDArray[np.intp]]:
        training = self._dataset.training
        rate = sampling_rate(self._batch_size, len(training))
        bound = min(round(rate * 2**64), 2**64 - 1)
        return [
            training[np.frombuffer(os.urandom(8 * len(training)), np.uint64) <= bound]
            for _ in range(steps_per_epoch(self._batch_size, len(training)))
        ]
