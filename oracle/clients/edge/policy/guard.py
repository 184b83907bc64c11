"""The two gates of a job, as the node passes through them: before training and before release.

What the rules look at is gathered here, from the terms, the bundle's manifest, the dataset and the
node's configuration. Nothing is taken from the training process but the header of its weights and
its metrics.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.dataset import CommittedDataset
from oracle.clients.edge.durable import write_atomically
from oracle.clients.edge.errors import PolicyDenied, TensorsInvalid
from oracle.clients.edge.loader import Counters, loader_settings
from oracle.clients.edge.poisson import sampling_rate, steps_per_epoch
from oracle.clients.edge.policy.decision import Decision, decide, name_of
from oracle.clients.edge.policy.engine import Engine
from oracle.clients.edge.policy.explain import explain
from oracle.clients.edge.policy.hospital import HospitalRules
from oracle.clients.edge.policy.input import Gate
from oracle.clients.edge.policy.privacy import NOTHING, Accountant, PrivacyLedger, Spend
from oracle.clients.edge.policy.settings import PURPOSE, PolicySettings
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.tensors import Tensor, read_header
from settlement.bundle import Manifest
from settlement.digests import canonical_json
from settlement.hub.messages import JobAssignment
from settlement.types import to_hex

ACCURACY = "holdout_accuracy"
ROW_FRAGMENT = 4
"""So many neighbouring values of one record, all different, are a row when found in metrics."""

Metrics = Mapping[str, float | Sequence[float]]
Told = Callable[[Gate, bytes, Decision], None]
"""Gets the gate, the document that it was asked about, and its decision."""


class Guard:
    """The hospital's rules and bounds; `job` gives the gates of one job.

    `image` is the measurement of the node's own code. `close` ends the engine's process.
    """

    def __init__(
        self,
        settings: PolicySettings,
        committed: CommittedDataset,
        *,
        image: bytes,
        limits: ChildLimits,
        output_limit: int,
        ledger: PrivacyLedger,
        accountant: Accountant | None = None,
        engine: Engine | None = None,
    ) -> None:
        """Read the hospital's rules, once.

        Raises:
            HospitalRulesInvalid: when they cannot be used.
        """
        self.settings = settings
        self.committed = committed
        self.image = image
        self.limits = limits
        self.output_limit = output_limit
        self.ledger = ledger
        self.accountant = accountant
        self.engine = engine or Engine()
        self.rules = (
            HospitalRules.read(settings.rules_dir) if settings.rules_dir else HospitalRules.none()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine's process."""
        self.engine.close()

    def job(
        self, assignment: JobAssignment, bundle: Bundle, record: Path, told: Told | None = None
    ) -> "JobGates":
        """The gates of one job; what each was asked is kept in the directory `record`.

        `told` hears of each decision, before it takes effect.
        """
        return JobGates(self, assignment, bundle, record, told)


class JobGates:
    """The gates of one training. `training` comes first, then any `progress`, then `release`."""

    def __init__(
        self,
        guard: Guard,
        assignment: JobAssignment,
        bundle: Bundle,
        record: Path,
        told: Told | None = None,
    ) -> None:
        self._guard = guard
        self._told = told
        self._assignment = assignment
        self._bundle = bundle
        self._record = record
        self._attempt: int | None = None
        self._charged = NOTHING
        self._vouched = False
        self._shown: dict[str, list[float]] = {}
        self._latest: Mapping[str, float] = {}

    @property
    def private(self) -> bool:
        """Whether the training that passed is charged, and so has to draw its batches in secret."""
        return self._attempt is not None

    def training(self, *, wall_seconds: int, gpus: int = 0) -> None:
        """Pass a job that may be trained for so many seconds on so many GPUs, and charge for it.

        Raises:
            PolicyDenied: by the first rule that denies; its detail tells of all.
        """
        guard, assignment = self._guard, self._assignment
        batch_size, records = self._sampling
        planned = self._spend(assignment.epochs * steps_per_epoch(batch_size, records))
        self._vouched = planned is not None
        planned = planned or NOTHING
        manifest = self._bundle.manifest
        document = {
            "gate": "training",
            "job": {
                "framework": manifest.framework,
                "bundle_digest": to_hex(self._bundle.digest),
                "image_digest": to_hex(guard.image),
                "dataset_digest": to_hex(assignment.terms.work.dataset_digest),
                "purpose": PURPOSE,
                "epochs": assignment.epochs,
                "deadline": assignment.terms.deadline,
                "network": manifest.network,
                "resources": {
                    "wall_seconds": wall_seconds,
                    "cpu_seconds": guard.limits.cpu_seconds,
                    "memory_bytes": guard.limits.memory_bytes,
                    "gpus": gpus,
                },
                "outputs": _outputs(manifest),
            },
            **self._common(self._total(), planned),
        }
        self._pass("training", document)
        if self._vouched:
            self._attempt = guard.ledger.charge(*self._account, assignment.job_id, planned)
            self._charged = planned

    def abandon(self) -> None:
        """Give back what was charged for a training that did not begin."""
        if self._attempt is not None:
            self._guard.ledger.settle(*self._account, self._attempt, NOTHING)
            self._attempt = None
            self._charged = NOTHING

    def progress(self, metrics: Mapping[str, float], counters: Counters) -> dict[str, float]:
        """The metrics that may be shown while the job runs: none before there are enough records.

        Raises:
            PolicyDenied: when it is for another reason that they may not.
        """
        if not metrics:
            return {}
        if dict(metrics) != self._latest:
            self._latest = dict(metrics)
            for name, value in metrics.items():
                self._shown.setdefault(name, []).append(value)
        document = self._release_document("progress", {}, True, 0, self._shown, counters)
        document |= self._common(self._others(), self._charged)
        decision = self._decide("release", canonical_json(document))
        if decision.rules and decision.rules <= {"min_records", "min_cohort"}:
            return {}
        _require(decision)
        return dict(metrics)

    def release(self, weights: bytes, metrics: Metrics, counters: Counters, *, steps: int) -> None:
        """Pass what may leave the hospital, and settle what its `steps` batches took.

        Raises:
            PolicyDenied: by the first rule that denies; its detail tells of all.
        """
        guard = self._guard
        taken = self._spend(steps)
        self._vouched = taken is not None
        spent = taken or NOTHING
        others = self._others()
        tensors: Mapping[str, Tensor] = {}
        well_formed = True
        try:
            tensors = read_header(weights)
        except TensorsInvalid:
            # What exactly is wrong stays here: it can tell a number that the job chose.
            well_formed = False
        size = len(weights) + len(canonical_json(metrics))
        document = self._release_document("final", tensors, well_formed, size, metrics, counters)
        document |= self._common(others, spent)
        if self._attempt is not None:
            # What was taken is taken, also by a result that does not leave: its metrics did.
            most = Spend(*map(max, self._charged, spent))
            guard.ledger.settle(*self._account, self._attempt, most)
        self._pass("release", document)
        if self._attempt is not None:
            guard.ledger.settle(*self._account, self._attempt, spent)

    @property
    def _sampling(self) -> tuple[int, int]:
        """The expected batch size, and of how many records."""
        batch_size, _ = loader_settings(self._bundle.manifest.hyperparameters)
        return batch_size, len(self._guard.committed.dataset.training)

    def _spend(self, steps: int) -> Spend | None:
        accountant = self._guard.accountant
        if accountant is None:
            return None
        return accountant.spend(self._bundle, rate=sampling_rate(*self._sampling), steps=steps)

    @property
    def _account(self) -> tuple[bytes, str]:
        return self._guard.committed.digest, self._assignment.terms.payer

    def _total(self) -> Spend:
        if self._guard.accountant is None:
            return NOTHING
        return self._guard.ledger.total(*self._account)

    def _others(self) -> Spend:
        total = self._total()
        return Spend(total.epsilon - self._charged.epsilon, total.delta - self._charged.delta)

    def _release_document(
        self,
        stage: str,
        tensors: Mapping[str, Tensor],
        well_formed: bool,
        size: int,
        metrics: Metrics,
        counters: Counters,
    ) -> dict[str, object]:
        series = {
            name: [value] if isinstance(value, float) else list(value)
            for name, value in metrics.items()
        }
        return {
            "gate": "release",
            "stage": stage,
            "job": {
                "bundle_digest": to_hex(self._bundle.digest),
                "epochs": self._assignment.epochs,
                "outputs": _outputs(self._bundle.manifest),
            },
            "output": {
                "well_formed": well_formed,
                "bytes": size,
                "records": counters.records,
                "epochs": counters.epochs,
                "tensors": [
                    {"name": name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
                    for name, tensor in tensors.items()
                ],
                "metrics": [
                    {"name": name, "values": len(values)} for name, values in series.items()
                ],
                "rows_in_metrics": holds_row(series, self._guard.committed.dataset.features),
            },
        }

    def _common(self, others: Spend, own: Spend) -> dict[str, object]:
        guard, settings = self._guard, self._guard.settings
        dataset = guard.committed.dataset
        budget = settings.privacy
        datasets = (guard.committed.digest,) if settings.datasets is None else settings.datasets
        sizes = {len(dataset), len(dataset.training), len(dataset.holdout)}
        return {
            "policy": self._assignment.policy.model_dump(mode="json"),
            "dataset": {
                "digest": to_hex(guard.committed.digest),
                "records": len(dataset),
                "partitions": sorted(sizes),
                "columns": dataset.features.shape[1],
                "consent": {
                    "purposes": list(settings.consent_purposes),
                    "until": settings.consent_until,
                },
                "retention_until": settings.retention_until,
            },
            "hospital": {
                "frameworks": list(settings.frameworks),
                "bundles": _allow_list(settings.bundles),
                "images": _allow_list(settings.images),
                "datasets": [to_hex(digest) for digest in datasets],
                "min_cohort": settings.min_cohort,
                "limits": {
                    "epochs": settings.max_epochs,
                    "wall_seconds": settings.max_wall_seconds,
                    "cpu_seconds": settings.max_cpu_seconds,
                    "memory_bytes": settings.max_memory_bytes,
                    "gpus": settings.max_gpus,
                    "output_bytes": guard.output_limit,
                },
            },
            "privacy": {
                "demanded": budget is not None,
                "accounted": self._vouched,
                "budget_epsilon": budget.epsilon_micro if budget else 0,
                "budget_delta": budget.delta_femto if budget else 0,
                "spent_epsilon": others.epsilon,
                "spent_delta": others.delta,
                "job_epsilon": own.epsilon,
                "job_delta": own.delta,
            },
        }

    def _pass(self, gate: Gate, document: Mapping[str, object]) -> None:
        data = canonical_json(document)
        # For `policy check`, by the hospital's own operator.
        write_atomically(self._record / f"{gate}.input.json", data)
        _require(self._decide(gate, data))

    def _decide(self, gate: Gate, data: bytes) -> Decision:
        decision = decide(self._guard.engine, data, self._guard.rules, gate=gate)
        if self._told is not None:
            self._told(gate, data, decision)
        return decision


def _require(decision: Decision) -> None:
    if not decision.allowed:
        raise PolicyDenied(name_of(decision.denials[0]), "; ".join(explain(decision)))


def _outputs(manifest: Manifest) -> dict[str, object]:
    return {
        "declared": manifest.outputs is not None,
        "tensors": [
            {"name": name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
            for name, tensor in (manifest.outputs or {}).items()
        ],
    }


def _allow_list(digests: tuple[bytes, ...] | None) -> dict[str, object]:
    return {"any": digests is None, "digests": [to_hex(digest) for digest in digests or ()]}


def holds_row(series: Mapping[str, Sequence[float]], features: NDArray[np.float32]) -> bool:
    """Whether `ROW_FRAGMENT` neighbouring values of a record stand together among metrics.

    `features` is float32 [records, columns], as the job saw them. Looked for along each metric, and
    across the metrics of each epoch. Finds plain copies only: what is scaled, split or encoded
    passes, as it would in the weights.
    """
    size = min(ROW_FRAGMENT, features.shape[1])
    if size < 2:
        return False
    depth = max((len(values) for values in series.values()), default=0)
    across = [
        [values[i] for values in order if i < len(values)]
        for order in (list(series.values()), [series[name] for name in sorted(series)])
        for i in range(depth)
    ]
    with np.errstate(over="ignore"):
        lines = [np.array(line, np.float32).tolist() for line in (*series.values(), *across)]
    fragments = {
        fragment
        for line in lines
        for start in range(len(line) - size + 1)
        # A run with equal values is a loss that stands still, not a record.
        if len(set(fragment := tuple(line[start : start + size]))) == size
    }
    if not fragments:
        return False
    firsts = np.array([fragment[0] for fragment in fragments], np.float32)
    for column in range(features.shape[1] - size + 1):
        window = features[:, column : column + size]
        for row in window[np.isin(window[:, 0], firsts)]:
            if tuple(row.tolist()) in fragments:
                return True
    return False
