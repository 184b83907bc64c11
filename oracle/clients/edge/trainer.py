"""Trains a bundle on metered records: the trusted side of the protocol with the child."""

import builtins
import importlib.util
import math
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.checkpoint import Checkpoint
from oracle.clients.edge.child import Child
from oracle.clients.edge.errors import (
    FrameworkMissing,
    ProtocolViolation,
    TensorsInvalid,
    TrainingFailed,
)
from oracle.clients.edge.loader import Batch, Counters, loader_settings
from oracle.clients.edge.sandbox.gpu import NONE, Gpus
from oracle.clients.edge.sandbox.launch import Isolation
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.tensors import read_header

VERSION = "rapha.trainer.v3"
CHECKPOINT_FACTOR = 4
"""How much larger than the output a checkpoint may be: an optimiser's state has its room."""
MAX_METRICS_PER_REPORT = 16
MAX_METRIC_NAME = 64
FRAMEWORK_MODULES = {
    "pytorch": "torch",
    "tensorflow": "tensorflow",
    "jax": "jax",
    "scikit-learn": "sklearn",
    "numpy": "numpy",
}
ORDER = frozenset({"shuffle", "drop_last"})
"""How a bundle may have an epoch delivered, said with its first request."""

Progress = Callable[[Counters, dict[str, float]], None]
Admitted = Callable[[dict[str, Any]], None]


class TrainingResult(NamedTuple):
    """What a training gives: safetensors bytes, and metrics of at most one value an epoch.

    `evidence` says how the job was cut off from everything else; see `sandbox.launch`.
    `memory_bytes` is the most that its process had in memory.
    """

    weights: bytes
    accuracy: float
    reports: dict[str, list[float]]
    evidence: dict[str, Any]
    memory_bytes: int


class Source(Protocol):
    """Where batches come from: a `RaphaDataLoader`, or what stands for one."""

    @property
    def counters(self) -> Counters: ...
    @property
    def features(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def training_records(self) -> int: ...
    @property
    def holdout_records(self) -> int: ...
    def epoch(
        self, number: int, *, shuffle: bool = True, drop_last: bool = False
    ) -> Iterator[Batch]: ...
    def holdout(self) -> NDArray[np.float32]: ...
    def accuracy(self, predictions: NDArray[np.int64]) -> float: ...


def train(
    bundle: Bundle,
    loader: Source,
    *,
    epochs: int,
    max_output_bytes: int,
    limits: ChildLimits,
    wall_seconds: float,
    scratch_root: Path,
    isolation: Isolation,
    stop: threading.Event,
    progress: Progress,
    admitted: Admitted,
    keep: Callable[[Checkpoint], None],
    resume: Checkpoint | None = None,
    gpus: Gpus = NONE,
) -> TrainingResult:
    """Run the bundle's code over at most `epochs` epochs and judge its model on the held-out part.

    `admitted` is called with the evidence of the isolation before the child is told anything,
    `progress` after each delivery with the counters and the latest reported metrics, `keep` with
    each checkpoint; `resume` is the one to go on from. `gpus` are the child's. It works in a new
    directory under `scratch_root`, which is removed in any case.

    Raises:
        FrameworkMissing: before anything is started.
        SandboxUnavailable, SandboxUnsound, WanGuardUnavailable: before anything of the bundle runs.
        TrainingFailed, TrainingTimedOut, ProtocolViolation, NodeStopping: see `errors`.
    """
    framework = FRAMEWORK_MODULES[bundle.manifest.framework]
    if importlib.util.find_spec(framework) is None:
        raise FrameworkMissing(framework)
    batch_size, _ = loader_settings(bundle.manifest.hyperparameters)
    scratch = Path(tempfile.mkdtemp(prefix="job-", dir=scratch_root))
    try:
        bundle.write_to(scratch / "bundle")
        with (
            isolation.guard.closed() as wan,
            Child(scratch, limits, wall_seconds, stop, isolation, gpus) as child,
        ):
            evidence = {**child.evidence, "wan": dict(wan)}
            admitted(evidence)
            job = {
                "bundle": child.bundle,
                "entry_point": bundle.manifest.entry_point,
                "hyperparameters": bundle.manifest.hyperparameters,
                "epochs": epochs,
                "features": loader.features,
                "shape": loader.shape,
                "records": loader.training_records,
                "batch_size": batch_size,
                "completed": resume.epochs if resume else 0,
            }
            child.send({"kind": "job", **job}, resume.tensors if resume else b"")
            conversation = _Conversation(
                child, loader, epochs, max_output_bytes, progress, keep, resume
            )
            weights, accuracy, reports = conversation.hold()
            memory = child.peak_memory
        return TrainingResult(weights, accuracy, reports, evidence, memory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Conversation:
    """Answers the child's requests, in the order the protocol allows, until there is a result."""

    def __init__(
        self,
        child: Child,
        loader: Source,
        epochs: int,
        max_output_bytes: int,
        progress: Progress,
        keep: Callable[[Checkpoint], None],
        resume: Checkpoint | None,
    ) -> None:
        self._child = child
        self._loader = loader
        self._epochs = epochs
        self._max_output_bytes = max_output_bytes
        self._progress = progress
        self._keep = keep
        self._epoch = resume.epochs - 1 if resume else -1
        self._batches: Iterator[Batch] = iter(())
        self._ended = True
        self._kept_epoch = self._reported_epoch = self._epoch
        self._reports: dict[str, list[float]] = dict(resume.reports) if resume else {}
        self._latest: dict[str, float] = {}
        self._asked_holdout = False
        self._accuracy: float | None = None

    def hold(self) -> tuple[bytes, float, dict[str, list[float]]]:
        answers = {
            "next": self._next,
            "metrics": self._metrics,
            "checkpoint": self._checkpoint,
            "holdout": self._holdout,
            "predictions": self._predictions,
        }
        larger = {"checkpoint": CHECKPOINT_FACTOR * self._max_output_bytes}
        while True:
            header, payload = self._child.receive(self._max_output_bytes, larger)
            kind = header.pop("kind")
            if kind == "result":
                return self._result(payload)
            if kind == "failed":
                name = header.get("error")
                kind_of = getattr(builtins, name, None) if isinstance(name, str) else None
                known = isinstance(kind_of, type) and issubclass(kind_of, BaseException)
                raise TrainingFailed(
                    f"its code raised {name}" if known else "its code raised an error",
                    self._child.last_words(),
                )
            if kind not in answers:
                raise ProtocolViolation("a frame of an unknown kind")
            answers[kind](header, payload)

    def _next(self, header: dict[str, Any], payload: bytes) -> None:
        epoch = header.pop("epoch", None)
        if type(epoch) is not int or payload:
            raise ProtocolViolation("a request for a batch names no epoch, or carries a payload")
        if not header.keys() <= ORDER or any(type(value) is not bool for value in header.values()):
            raise ProtocolViolation("a request for a batch in an unknown order")
        if epoch == self._epoch + 1 and epoch < self._epochs and not self._asked_holdout:
            self._epoch = epoch
            self._batches = self._loader.epoch(epoch, **header)
        elif epoch != self._epoch or self._ended:
            raise ProtocolViolation("a request for a batch of another epoch than is due")
        batch = next(self._batches, None)
        self._ended = batch is None
        if batch is None:
            self._child.send({"kind": "end"})
        else:
            arrays = {"x": batch.features, "y": batch.labels.astype(np.float32)}
            self._child.send({"kind": "batch"}, save(arrays))
        self._progress(self._loader.counters, self._latest)

    def _metrics(self, header: dict[str, Any], payload: bytes) -> None:
        values = header.get("values")
        if self._reported_epoch == self._epoch:
            raise ProtocolViolation("a report of metrics before an epoch, or a second one in it")
        if not isinstance(values, dict) or not 0 < len(values) <= MAX_METRICS_PER_REPORT or payload:
            raise ProtocolViolation("a report without metrics, or with too many")
        for name, value in values.items():
            if len(name) > MAX_METRIC_NAME or not name.isidentifier():
                raise ProtocolViolation("a metric's name is not a short identifier")
            if type(value) is not float or not math.isfinite(value):
                raise ProtocolViolation(f"the metric {name} is not a finite number")
        self._reported_epoch = self._epoch
        for name, value in values.items():
            self._reports.setdefault(name, []).append(value)
        self._latest = dict(values)
        self._child.send({"kind": "ok"})

    def _checkpoint(self, header: dict[str, Any], payload: bytes) -> None:
        if not self._ended or self._kept_epoch == self._epoch or self._asked_holdout or header:
            raise ProtocolViolation("a checkpoint is kept once, after a completed epoch")
        try:
            read_header(payload)
        except TensorsInvalid as error:
            raise ProtocolViolation("the checkpoint is not safetensors") from error
        self._kept_epoch = self._epoch
        reports = {name: list(values) for name, values in self._reports.items()}
        self._keep(Checkpoint(self._epoch + 1, reports, payload))
        self._child.send({"kind": "ok"})

    def _holdout(self, header: dict[str, Any], payload: bytes) -> None:
        if self._asked_holdout or header or payload:
            raise ProtocolViolation("the held-out features can be asked for once, and plainly")
        self._asked_holdout = True
        self._ended = True
        self._child.send({"kind": "holdout"}, save({"x": self._loader.holdout()}))
        self._progress(self._loader.counters, self._latest)

    def _predictions(self, header: dict[str, Any], payload: bytes) -> None:
        if not self._asked_holdout or self._accuracy is not None or header:
            raise ProtocolViolation("predictions are given once, for the held-out features")
        try:
            arrays = load(payload)
        except (SafetensorError, KeyError) as error:
            raise ProtocolViolation("the predictions are not safetensors") from error
        labels = arrays.get("labels")
        if (
            len(arrays) != 1
            or labels is None
            or labels.dtype != np.int64
            or labels.shape != (self._loader.holdout_records,)
        ):
            raise ProtocolViolation("the predictions are not one whole number per record")
        self._accuracy = self._loader.accuracy(labels)
        self._child.send({"kind": "ok"})

    def _result(self, payload: bytes) -> tuple[bytes, float, dict[str, list[float]]]:
        if self._accuracy is None:
            raise ProtocolViolation("a result before its model was judged on the held-out part")
        return payload, self._accuracy, self._reports
