"""RaphaDataLoader: delivers batches and counts what it delivers, in the trusted parent process.

The job's own code never sees the meter: it gets batches through a pipe and can only ask for the
next. Counting happens on delivery, so nothing that was only prefetched is billed.

What is to be delivered is put on disk first. So after a crash the meter covers everything that may
have been seen, and since a job that starts again is trained from its beginning, whatever was
counted but lost on the way is delivered after all. The counters are a union: nothing counts twice.
"""

import json
import os
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from oracle.clients.edge.dataset import CommittedDataset
from oracle.clients.edge.durable import sync_directory
from oracle.clients.edge.errors import HyperparameterInvalid, JournalInvalid
from settlement.digests import canonical_json
from settlement.metering import MerkleLog

VERSION = "rapha.loader.v2"
BATCH_SIZES = range(1, 4097)
SEEDS = range(2**32)
DEFAULT_BATCH_SIZE = 32


class Counters(NamedTuple):
    """Unique records and completed epochs so far, and the root over the records' leaves."""

    records: int
    epochs: int
    records_root: bytes


class Batch(NamedTuple):
    """Features float32 [batch, features] and labels int64 [batch]."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def loader_settings(hyperparameters: dict[str, Any]) -> tuple[int, int]:
    """Batch size and shuffle seed, which the trusted loader takes from the bundle's manifest.

    Raises:
        HyperparameterInvalid: when one is there and is not a whole number in its range.
    """

    def choose(name: str, allowed: range, default: int) -> int:
        value = hyperparameters.get(name, default)
        if type(value) is not int or value not in allowed:
            raise HyperparameterInvalid(name, allowed)
        return value

    return choose("batch_size", BATCH_SIZES, DEFAULT_BATCH_SIZE), choose("seed", SEEDS, 0)


class Meter:
    """The durable count of one job: an append-only journal of positions and completed epochs.

    Positions in `paid` are counted by other jobs and never by this one. Use as a context manager.
    One process at a time may hold a journal.

    Raises:
        JournalInvalid: when the journal is damaged before its last line, or of another job.
    """

    def __init__(
        self,
        path: Path,
        committed: CommittedDataset,
        job_id: bytes,
        *,
        paid: Set[int] = frozenset(),
    ) -> None:
        self._path = path
        self._leaves = committed.leaves
        self._head = canonical_json(
            {"version": VERSION, "job": job_id.hex(), "dataset": committed.digest.hex()}
        )
        self._paid = paid
        self._free: set[int] = set()
        self._counted: dict[int, None] = {}
        self._log = MerkleLog()
        self._epochs = 0
        self._descriptor = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the journal."""
        os.close(self._descriptor)

    @property
    def counters(self) -> Counters:
        """What is on disk."""
        return Counters(self._log.size, self._epochs, self._log.root)

    @property
    def counted(self) -> tuple[int, ...]:
        """The positions that `counters` counts, in the order of the root's leaves."""
        return tuple(self._counted)

    @property
    def delivered(self) -> int:
        """How many unique records were delivered, those that were paid for before included.

        The latter are known of this process only; a job begins again after a crash.
        """
        return len(self._counted) + len(self._free)

    def record(self, positions: Sequence[int], epochs: int) -> None:
        """Count the records at `positions`, each once ever, and `epochs` completed epochs, if more.

        Returns once that is on disk; a count that is there already costs nothing.
        """
        uncounted = [p for p in dict.fromkeys(positions) if p not in self._counted]
        self._free.update(p for p in uncounted if p in self._paid)
        fresh = [p for p in uncounted if p not in self._paid]
        if not fresh and epochs <= self._epochs:
            return
        line = canonical_json({"records": fresh, "epochs": epochs}) + b"\n"
        self._append(line)
        self._apply(fresh, epochs)

    def _apply(self, fresh: Sequence[int], epochs: int) -> None:
        for position in fresh:
            self._log.append(self._leaves[position])
        self._counted.update(dict.fromkeys(fresh))
        self._epochs = max(self._epochs, epochs)

    def _append(self, line: bytes) -> None:
        written = 0
        while written < len(line):
            written += os.write(self._descriptor, line[written:])
        os.fdatasync(self._descriptor)

    def _open(self) -> int:
        existed = self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._descriptor = descriptor
            end = self._replay(self._path.read_bytes() if existed else b"")
            os.ftruncate(descriptor, end)
            if end == 0:
                self._append(self._head + b"\n")
                sync_directory(self._path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _replay(self, data: bytes) -> int:
        """Count what the journal says; the length of its valid part.

        A crash can only tear the last line, and a torn line was never acted upon: it is dropped.
        """
        # Not `splitlines`: a torn line may hold any bytes, a carriage return among them.
        lines = [line + b"\n" for line in data.split(b"\n")]
        lines[-1] = lines[-1][:-1]
        if not lines[-1]:
            lines.pop()
        end = 0
        for number, line in enumerate(lines):
            last = number == len(lines) - 1
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("torn")
                if number == 0:
                    self._check_head(line[:-1])
                else:
                    self._apply(*self._entry(line))
            except ValueError as error:
                if last:
                    return end
                raise JournalInvalid(self._path, f"line {number + 1} is damaged") from error
            end += len(line)
        return end

    def _check_head(self, line: bytes) -> None:
        if line == self._head:
            return
        json.loads(line)  # a torn line is no JSON, and says nothing about the job
        raise JournalInvalid(self._path, "it is of another job, dataset or version")

    def _entry(self, line: bytes) -> tuple[list[int], int]:
        entry = json.loads(line)
        if not isinstance(entry, dict) or set(entry) != {"records", "epochs"}:
            raise ValueError("unknown entry")
        positions, epochs = entry["records"], entry["epochs"]
        if type(epochs) is not int or not isinstance(positions, list):
            raise ValueError("unknown entry")
        known = range(len(self._leaves))
        if any(type(p) is not int or p not in known or p in self._counted for p in positions):
            raise ValueError("a position is unknown or was counted before")
        if len(set(positions)) != len(positions):
            raise ValueError("a position stands twice")
        return positions, epochs


class RaphaDataLoader:
    """Batches of the training records in seeded order, and the held-out features, all metered.

    `epoch` may be left early: then it does not count as completed, its delivered records do. A
    training that goes on from a checkpoint has `completed` so many epochs already.
    """

    def __init__(
        self,
        committed: CommittedDataset,
        meter: Meter,
        *,
        batch_size: int,
        seed: int,
        completed: int = 0,
    ) -> None:
        self._dataset = committed.dataset
        self._meter = meter
        self._batch_size = batch_size
        self._seed = seed
        self._completed = completed
        self.steps = 0
        """How many batches this run delivered."""

    @property
    def counters(self) -> Counters:
        """What was delivered in this run and in those before it."""
        return self._meter.counters

    @property
    def features(self) -> int:
        """How many features a record has."""
        return self._dataset.features.shape[1]

    @property
    def training_records(self) -> int:
        """How many records an epoch delivers."""
        return len(self._dataset.training)

    @property
    def holdout_records(self) -> int:
        """How many records the final evaluation delivers."""
        return len(self._dataset.holdout)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one record; its product is `features`."""
        return self._dataset.shape

    @property
    def delivered(self) -> int:
        """How many unique records a result rests on, whether or not they are counted."""
        return self._meter.delivered

    def epoch(
        self, number: int, *, shuffle: bool = True, drop_last: bool = False
    ) -> Iterator[Batch]:
        """The batches of epoch `number`, from 0; the order depends on the seed and the number only.

        Without `shuffle` it is that of the ids; with `drop_last` an incomplete batch at the end is
        neither delivered nor counted. Each batch is counted, durably, before it is yielded; with
        the last the epoch is complete.
        """
        batches = self._draw(number, shuffle=shuffle, drop_last=drop_last)
        for index, positions in enumerate(batches, start=1):
            if index == len(batches):
                self._completed += 1
            self.steps += 1
            self._meter.record(positions.tolist(), self._completed)
            yield Batch(self._dataset.features[positions], self._dataset.labels[positions])

    def _draw(self, number: int, *, shuffle: bool, drop_last: bool) -> list[NDArray[np.intp]]:
        """The positions of each batch of an epoch."""
        order, size = self._dataset.training, self._batch_size
        if shuffle:
            order = np.random.default_rng([self._seed, number]).permutation(order)
        if drop_last:
            order = order[: len(order) // size * size]
        return [order[i : i + size] for i in range(0, len(order), size)]

    def holdout(self) -> NDArray[np.float32]:
        """The held-out features, float32 [records, features]; they count as records, once."""
        positions = self._dataset.holdout
        self._meter.record(positions.tolist(), self._completed)
        return self._dataset.features[positions]

    def accuracy(self, predictions: NDArray[np.int64]) -> float:
        """The share of held-out labels that `predictions`, int64 [records], has right."""
        return float(np.mean(predictions == self._dataset.labels[self._dataset.holdout]))
