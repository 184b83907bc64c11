"""The untrusted side: runs a bundle's code and speaks to the parent in frames over two pipes.

Started as `python -I trainee.py` in an empty directory; it says that it is ready, then waits to be
told the job, so that its confinement can be looked at before any of the bundle is loaded. It is one
file on purpose: it and numpy and safetensors are all that the child needs of this package; a
framework is imported by what hands out its tensors, when it is asked for. It has no access to data:
each batch is asked for. The frame format, which the parent shares, is a big-endian u32 length of a
JSON header, a u64 length of a safetensors payload (0 for none), the header, the payload.
"""

import builtins
import ctypes
import importlib
import itertools
import json
import math
import os
import signal
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

PREFIX = struct.Struct(">IQ")
MAX_HEADER_BYTES = 1 << 16
READY = "ready"
_PR_SET_PDEATHSIG = 1

Collate = Callable[[Any, Any], Any]
Predict = Callable[[NDArray[np.float32]], NDArray[Any]]


def encode_frame(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """One frame of the protocol."""
    text = json.dumps(header).encode()
    return PREFIX.pack(len(text), len(payload)) + text + payload


class Loader:
    """What a bundle trains from. Batches come when they are asked for, and are metered by then.

    `epochs` gives NumPy arrays, `torch`, `jax` and `tensorflow` the same as tensors of theirs;
    `partial_fit` and `whole` are for scikit-learn. All share the epochs that the job was granted.
    It may be asked from several threads, one at a time.
    """

    def __init__(
        self, requests: BinaryIO, answers: BinaryIO, job: Mapping[str, Any], checkpoint: bytes = b""
    ) -> None:
        self._requests = requests
        self._answers = answers
        self._turn = threading.Lock()
        self._next_epoch: int = job["completed"]
        self.completed: int = job["completed"]
        """How many epochs an earlier run completed, to go on from `checkpoint`."""
        self.checkpoint: dict[str, NDArray[Any]] = load(checkpoint) if checkpoint else {}
        """What `keep` was last given before; empty at a first start."""
        self.features: int = job["features"]
        self.shape: tuple[int, ...] = tuple(job["shape"])
        """Of one record; features stand in rows of as many as this holds."""
        self.records: int = job["records"]
        self.batch_size: int = job["batch_size"]
        self._granted: int = job["epochs"]

    def epochs(
        self, count: int | None = None, *, shuffle: bool = True, drop_last: bool = False
    ) -> Iterator["Epoch"]:
        """So many epochs of batches `(x, y)`: float32 [batch, features] and float32 [batch].

        Never more than the job was granted, which is the default. With `drop_last` an incomplete
        batch at the end is not delivered.
        """
        wanted = self._granted if count is None else min(count, self._granted)
        length = self.records / self.batch_size
        while self._next_epoch < wanted:
            number = self._next_epoch
            self._next_epoch += 1
            yield Epoch(
                self._batches(number, {"shuffle": shuffle, "drop_last": drop_last}),
                math.floor(length) if drop_last else math.ceil(length),
            )

    def torch(
        self,
        count: int | None = None,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        workers: int = 0,
        collate: Collate | None = None,
    ) -> Iterator["Epoch"]:
        """Epochs for PyTorch, each as a `DataLoader` gives one: batches, and their number as `len`.

        `collate` makes of `(x, y)` what a batch is to be; without it, tensors that share memory
        with the arrays. `workers` threads do so ahead, in order: what they fetched is delivered,
        so leaving an epoch early leaves up to so many more batches counted.
        """
        import torch

        def tensors(x: Any, y: Any) -> Any:
            return torch.from_numpy(x), torch.from_numpy(y)

        for epoch in self.epochs(count, shuffle=shuffle, drop_last=drop_last):
            yield epoch.mapped(collate or tensors, workers)

    def jax(
        self,
        count: int | None = None,
        *,
        shuffle: bool = True,
        drop_last: bool = True,
        workers: int = 0,
    ) -> Iterator["Epoch"]:
        """Epochs for JAX, of arrays on its default device.

        Incomplete batches are dropped unless told otherwise: another shape compiles anew.
        """
        import jax

        for epoch in self.epochs(count, shuffle=shuffle, drop_last=drop_last):
            yield epoch.mapped(lambda x, y: (jax.device_put(x), jax.device_put(y)), workers)

    def tensorflow(
        self,
        count: int | None = None,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        prefetch: int = 0,
    ) -> Iterator[Any]:
        """Epochs for TensorFlow, each a `tf.data.Dataset` that can be gone through once.

        `prefetch` batches are fetched ahead, and so delivered and counted.
        """
        import tensorflow as tf

        signature = (
            tf.TensorSpec((None, self.features), tf.float32),
            tf.TensorSpec((None,), tf.float32),
        )
        for epoch in self.epochs(count, shuffle=shuffle, drop_last=drop_last):
            dataset = tf.data.Dataset.from_generator(
                epoch.__iter__, output_signature=signature
            ).apply(tf.data.experimental.assert_cardinality(len(epoch)))
            yield dataset.prefetch(prefetch) if prefetch else dataset

    def partial_fit(
        self, estimator: Any, classes: Sequence[int], count: int | None = None
    ) -> Iterator[Any]:
        """Fit a scikit-learn estimator batch by batch; yields it after each epoch."""
        for epoch in self.epochs(count):
            for x, y in epoch:
                estimator.partial_fit(x, y.astype(np.int64), classes=np.asarray(classes))
            yield estimator

    def whole(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """One epoch in one piece: all training records in the order of their ids, for `fit`.

        Raises:
            RuntimeError: when the job has no epoch left.
        """
        epoch = next(self.epochs(shuffle=False), None)
        if epoch is None:
            raise RuntimeError("the job has no epoch left")
        parts = list(epoch)
        return (
            np.concatenate([x for x, _ in parts]),
            np.concatenate([y for _, y in parts]).astype(np.int64),
        )

    def _batches(self, number: int, order: Mapping[str, bool]) -> Iterator[tuple[Any, Any]]:
        asked: Mapping[str, bool] = order
        while True:
            header, payload = self._ask({"kind": "next", "epoch": number, **asked})
            asked = {}
            if header["kind"] == "end":
                return
            arrays = load(payload)
            yield arrays["x"], arrays["y"]

    def report(self, **metrics: float) -> None:
        """Report an epoch's metrics by name; only what the output policy names may leave."""
        values = {name: float(value) for name, value in metrics.items()}
        self._ask({"kind": "metrics", "values": values})

    def keep(self, arrays: Mapping[str, Any]) -> None:
        """Keep arrays, by name, of an epoch that is complete: a killed training goes on from there.

        Give all that the training goes on from: weights, the optimiser's state, random generators.
        """
        self._ask({"kind": "checkpoint"}, save(_plain(arrays)))

    def evaluate(self, predict: Predict) -> None:
        """Have the final model judged, once: `predict` turns held-out features into class labels.

        It gets float32 [records, features] and gives whole numbers [records]. The labels stay with
        the parent, which does the counting.
        """
        _, payload = self._ask({"kind": "holdout"})
        labels = np.asarray(predict(load(payload)["x"])).astype(np.int64)
        self._ask({"kind": "predictions"}, save({"labels": labels}))

    def _ask(self, header: Mapping[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        with self._turn:
            send(self._requests, header, payload)
            return receive(self._answers)


class Epoch:
    """The batches of one epoch, which can be gone through once, and how many there are."""

    def __init__(self, batches: Iterator[Any], length: int) -> None:
        self._batches: Iterator[Any] | None = batches
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        if self._batches is None:
            raise RuntimeError("an epoch can be gone through once; ask for the next")
        batches, self._batches = self._batches, None
        return batches

    def mapped(self, change: Collate, workers: int) -> "Epoch":
        """The epoch with each `(x, y)` changed: when it is taken, or ahead by so many threads."""
        if workers < 0:
            raise ValueError("workers must not be negative")
        batches = iter(self)
        if workers == 0:
            return Epoch((change(x, y) for x, y in batches), self._length)
        return Epoch(_ahead(batches, change, workers), self._length)


def _ahead(batches: Iterator[tuple[Any, Any]], change: Collate, workers: int) -> Iterator[Any]:
    """Change up to `workers` batches ahead, and give them in order."""
    with ThreadPoolExecutor(workers) as pool:
        # Fetched by the one who iterates, as the pipe is one; only the changing is parallel.
        waiting = deque(pool.submit(change, x, y) for x, y in itertools.islice(batches, workers))
        while waiting:
            done = waiting.popleft()
            for x, y in itertools.islice(batches, 1):
                waiting.append(pool.submit(change, x, y))
            yield done.result()


def send(stream: BinaryIO, header: Mapping[str, Any], payload: bytes = b"") -> None:
    """Write one frame."""
    stream.write(encode_frame(header, payload))
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Read one frame.

    Raises:
        EOFError: when the parent is gone.
    """
    header_size, payload_size = PREFIX.unpack(_exactly(stream, PREFIX.size))
    header = json.loads(_exactly(stream, header_size))
    return header, _exactly(stream, payload_size)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("the parent closed the pipe")
    return data


def run(requests: BinaryIO, answers: BinaryIO) -> None:
    """Say that it is ready, receive the job, run the bundle's entry point, send its weights."""
    send(requests, {"kind": READY})
    job, checkpoint = receive(answers)
    sys.path.insert(0, job["bundle"])
    module, _, name = job["entry_point"].partition(":")
    train = getattr(importlib.import_module(module), name)
    weights = train(Loader(requests, answers, job, checkpoint), job["hyperparameters"])
    send(requests, {"kind": "result"}, save(_plain(weights)))


def _plain(arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {str(key): np.ascontiguousarray(value) for key, value in arrays.items()}


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """The protocol's pipes under other numbers, so that a bundle's print does not break a frame."""
    requests = os.fdopen(os.dup(1), "wb")
    answers = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as null:
        os.dup2(null.fileno(), 0)
    return requests, answers


def _error_name(error: BaseException) -> str:
    """The name of a built-in exception type: a bundle's own names could carry records out."""
    for kind in type(error).__mro__:
        name = str(kind.__name__)
        if getattr(builtins, name, None) is kind:
            return name
    return "BaseException"


def main() -> None:
    """Run one job; the exit status is 1 when the bundle's code raised."""
    # The child must not outlive a killed parent.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    requests, answers = _private_streams()
    try:
        run(requests, answers)
    except BaseException as error:
        send(requests, {"kind": "failed", "error": _error_name(error)})
        raise


if __name__ == "__main__":
    main()
