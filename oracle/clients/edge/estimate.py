"""What a job will take before it begins: money, time and memory; and whether that is to be had.

Money follows from the terms. Time and memory are the manifest's word where it gives any; where it
is silent the bundle is rehearsed: it runs in the sandbox over a few batches of random numbers in
the dataset's form, so no record is seen and none is counted. Either is a guess: what holds a job to
its limits is the sandbox.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.dataset import Dataset
from oracle.clients.edge.errors import EstimateExceeded
from oracle.clients.edge.loader import Batch, Counters, loader_settings
from oracle.clients.edge.poisson import steps_per_epoch
from oracle.clients.edge.sandbox.gpu import NONE, Gpus
from oracle.clients.edge.sandbox.launch import Isolation
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.trainer import train
from settlement.hub.messages import DatasetProfile
from settlement.metering import EMPTY_ROOT
from settlement.types import Frozen

REHEARSED_BATCHES = 4
"""The first, in which frameworks compile, is counted once; the others stand for all."""
_OUTPUT_BYTES = 1 << 30


Basis = Literal["declared", "rehearsed", "unknown"]


class Estimate(Frozen):
    """Amounts are USDC base units. `basis` says where `wall_seconds` and `memory_bytes` come from.

    The `..._limit` are what is granted, `excesses` what is more than that, in words. Time and
    memory are those with `gpus` GPUs, which are granted; `gpus_why` says why they are not more.
    """

    records: int
    epochs: int
    batches: int
    cost_of_records: int
    cost_of_epochs: int
    cost: int
    budget: int | None
    basis: Basis
    wall_seconds: int
    wall_seconds_limit: int
    memory_bytes: int
    memory_bytes_limit: int
    gpus: int
    gpus_needed: int
    gpus_why: str

    @property
    def excesses(self) -> tuple[str, ...]:
        """What of it is not to be had; empty when the job may begin."""
        compared = [
            ("USDC base units", self.cost, self.cost if self.budget is None else self.budget),
            ("s of time", self.wall_seconds, self.wall_seconds_limit),
            ("bytes of memory", self.memory_bytes, self.memory_bytes_limit),
            ("GPUs", self.gpus_needed, self.gpus),
        ]
        return tuple(
            f"{need} {unit} are needed, and {granted} are granted"
            + (f": {self.gpus_why}" if unit == "GPUs" else "")
            for unit, need, granted in compared
            if need > granted
        )

    def require(self) -> None:
        """Pass a job that fits.

        Raises:
            EstimateExceeded: naming all that does not.
        """
        if self.excesses:
            raise EstimateExceeded(self.excesses)


def estimate(
    bundle: Bundle,
    profile: DatasetProfile,
    dataset: Dataset,
    *,
    epochs: int,
    budget: int | None,
    limits: ChildLimits,
    wall_seconds: int,
    scratch_root: Path,
    isolation: Isolation,
    stop: threading.Event,
    gpus: Gpus = NONE,
) -> Estimate:
    """What the bundle takes on this dataset; `wall_seconds` and `gpus` are what it is granted.

    Raises:
        TrainingFailed, TrainingTimedOut, ProtocolViolation, ...: when the rehearsal itself fails.
    """
    batch_size, _ = loader_settings(bundle.manifest.hyperparameters)
    batches = epochs * steps_per_epoch(batch_size, len(dataset.training))
    declared, needed = bundle.manifest.resources, bundle.manifest.gpus.at_least
    basis: Basis = "declared"
    if declared is not None:
        seconds, memory = declared.wall_seconds, declared.memory_bytes
    elif needed > gpus.number:
        basis, seconds, memory = "unknown", 0, 0  # without them there is nothing to rehearse
    else:
        basis = "rehearsed"
        rehearsal = Rehearsal(dataset, batch_size)
        with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=scratch_root) as scratch:
            result = train(
                bundle,
                rehearsal,
                epochs=1,
                max_output_bytes=_OUTPUT_BYTES,
                limits=limits,
                wall_seconds=wall_seconds,
                scratch_root=Path(scratch),
                isolation=isolation,
                stop=stop,
                progress=lambda counters, metrics: None,
                admitted=lambda evidence: None,
                keep=lambda checkpoint: None,
                gpus=gpus,
            )
        seconds, memory = rehearsal.extrapolate(batches), result.memory_bytes
    return Estimate(
        records=profile.record_count,
        epochs=epochs,
        batches=batches,
        cost_of_records=profile.record_count * profile.price_per_record,
        cost_of_epochs=epochs * profile.price_per_epoch,
        cost=profile.worst_case(epochs),
        budget=budget,
        basis=basis,
        wall_seconds=seconds,
        wall_seconds_limit=wall_seconds,
        memory_bytes=memory,
        memory_bytes_limit=limits.memory_bytes,
        gpus=gpus.number,
        gpus_needed=needed,
        gpus_why=gpus.why,
    )


class Rehearsal:
    """Stands for the loader in a rehearsal, and takes the time between what is asked of it."""

    counters = Counters(0, 0, EMPTY_ROOT)

    def __init__(self, dataset: Dataset, batch_size: int) -> None:
        self.features = dataset.features.shape[1]
        self.shape = dataset.shape
        self.training_records = len(dataset.training)
        self.holdout_records = len(dataset.holdout)
        self._batch_size = min(batch_size, self.training_records)
        self._random = np.random.default_rng(0)
        self._asked = [time.monotonic()]

    def epoch(
        self, number: int, *, shuffle: bool = True, drop_last: bool = False
    ) -> Iterator[Batch]:
        """A few batches of random numbers, however long the real epoch is and in which order."""
        for _ in range(REHEARSED_BATCHES):
            self._asked.append(time.monotonic())
            labels = self._random.integers(0, 2, self._batch_size)
            yield Batch(self._numbers(self._batch_size), labels)
        self._asked.append(time.monotonic())

    def holdout(self) -> NDArray[np.float32]:
        """Random numbers in the form of the held-out features."""
        return self._numbers(self.holdout_records)

    def accuracy(self, predictions: NDArray[np.int64]) -> float:
        """Nothing is judged."""
        return 0.0

    def extrapolate(self, batches: int) -> int:
        """Seconds that so many batches take, with all that comes before, between and after."""
        total = time.monotonic() - self._asked[0]
        steps = [later - earlier for earlier, later in pairwise(self._asked)][2:]
        step = statistics.median(steps) if steps else 0.0
        return int(np.ceil(total + step * max(0, batches - REHEARSED_BATCHES)))

    def _numbers(self, records: int) -> NDArray[np.float32]:
        return self._random.standard_normal((records, self.features), dtype=np.float32)
