"""The untrusted side: runs a bundle's code and speaks to the parent in frames over two pipes.

Started as `python -I trainee.py` in an empty directory; it says that it is ready, then waits to be
told the job, so that its confinement can be looked at before any of the bundle is loaded. It is one
file on purpose: it and numpy and safetensors are all that the child needs of this package. It has
no access to data: each batch is asked for. The frame format, which the parent shares, is a
big-endian u32 length of a JSON header, a u64 length of a safetensors payload (0 for none), the
header, the payload.
"""

import builtins
import ctypes
import importlib
import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

PREFIX = struct.Struct(">IQ")
MAX_HEADER_BYTES = 1 << 16
READY = "ready"
_PR_SET_PDEATHSIG = 1

Predict = Callable[[NDArray[np.float32]], NDArray[Any]]


def encode_frame(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """One frame of the protocol."""
    text = json.dumps(header).encode()
    return PREFIX.pack(len(text), len(payload)) + text + payload


class Loader:
    """What a bundle trains from. Batches come when they are asked for, and are metered by then."""

    def __init__(
        self, requests: BinaryIO, answers: BinaryIO, job: Mapping[str, Any], checkpoint: bytes = b""
    ) -> None:
        self._requests = requests
        self._answers = answers
        self._next_epoch: int = job["completed"]
        self.completed: int = job["completed"]
        """How many epochs an earlier run completed, to go on from `checkpoint`."""
        self.checkpoint: dict[str, NDArray[Any]] = load(checkpoint) if checkpoint else {}
        """What `keep` was last given before; empty at a first start."""
        self.features: int = job["features"]
        self.records: int = job["records"]
        self.batch_size: int = job["batch_size"]
        self._granted: int = job["epochs"]

    def epochs(self, count: int | None = None) -> Iterator[Iterator[tuple[Any, Any]]]:
        """So many epochs of batches `(x, y)`: float32 [batch, features] and float32 [batch].

        Never more than the job was granted, which is the default.
        """
        wanted = self._granted if count is None else min(count, self._granted)
        while self._next_epoch < wanted:
            number = self._next_epoch
            self._next_epoch += 1
            yield self._batches(number)

    def _batches(self, number: int) -> Iterator[tuple[Any, Any]]:
        while True:
            header, payload = self._ask({"kind": "next", "epoch": number})
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
        send(self._requests, header, payload)
        return receive(self._answers)


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
