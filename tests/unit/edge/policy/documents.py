"""Documents that pass each gate, and how a test changes one field of them."""

import json
from typing import Any

DIGEST = "0x" + "11" * 32
OTHER = "0x" + "22" * 32
TENSORS = [
    {"name": "weight", "dtype": "F32", "shape": [3, 2]},
    {"name": "bias", "dtype": "F32", "shape": [2]},
]


def _common() -> dict[str, Any]:
    return {
        "policy": {
            "min_records": 50,
            "max_output_bytes": 1000,
            "max_tensors": 2,
            "allowed_dtypes": ["F32"],
            "allowed_metrics": ["holdout_accuracy", "loss"],
        },
        "dataset": {
            "digest": DIGEST,
            "records": 100,
            "partitions": [20, 80, 100],
            "columns": 7,
            "consent": {"purposes": ["model-training"], "until": 2000},
            "retention_until": 2000,
        },
        "hospital": {
            "frameworks": ["pytorch", "jax"],
            "bundles": {"any": False, "digests": [DIGEST]},
            "images": {"any": False, "digests": [DIGEST]},
            "datasets": [DIGEST],
            "min_cohort": 60,
            "limits": {
                "epochs": 10,
                "wall_seconds": 3600,
                "cpu_seconds": 7200,
                "memory_bytes": 1 << 30,
                "gpus": 1,
                "output_bytes": 2000,
            },
        },
        "privacy": {
            "demanded": False,
            "accounted": True,
            "budget_epsilon": 3_000_000,
            "budget_delta": 10,
            "spent_epsilon": 2_000_000,
            "spent_delta": 4,
            "job_epsilon": 1_000_000,
            "job_delta": 6,
        },
    }


def training(*changes: tuple[str, Any]) -> dict[str, Any]:
    """A job on every bound but one unit within it; `changes` are dotted paths and new values."""
    document = {
        "gate": "training",
        "job": {
            "framework": "jax",
            "bundle_digest": DIGEST,
            "image_digest": DIGEST,
            "dataset_digest": DIGEST,
            "purpose": "model-training",
            "epochs": 10,
            "deadline": 2000,
            "network": "none",
            "resources": {
                "wall_seconds": 3600,
                "cpu_seconds": 7200,
                "memory_bytes": 1 << 30,
                "gpus": 1,
            },
            "outputs": {"declared": True, "tensors": TENSORS},
        },
        **_common(),
    }
    return changed(document, *changes)


def release(*changes: tuple[str, Any]) -> dict[str, Any]:
    """A result within every bound; `changes` are dotted paths and new values."""
    document = {
        "gate": "release",
        "stage": "final",
        "job": {
            "bundle_digest": DIGEST,
            "epochs": 2,
            "outputs": {"declared": True, "tensors": TENSORS},
        },
        "output": {
            "well_formed": True,
            "bytes": 1000,
            "records": 100,
            "epochs": 2,
            "tensors": TENSORS,
            "metrics": [
                {"name": "loss", "values": 2},
                {"name": "holdout_accuracy", "values": 1},
            ],
            "rows_in_metrics": False,
        },
        **_common(),
    }
    return changed(document, *changes)


def changed(document: dict[str, Any], *changes: tuple[str, Any]) -> dict[str, Any]:
    """A copy with the values at dotted paths replaced; a path that is not there is an error."""
    result = json.loads(json.dumps(document))  # not deepcopy, which keeps what is shared shared
    for path, value in changes:
        *parents, last = path.split(".")
        place: Any = result
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        key = int(last) if isinstance(place, list) else last
        place[key]
        place[key] = json.loads(json.dumps(value))
    return result


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def tensor(dtype: str = "F32", shape: tuple[int, ...] = (3, 2), name: str = "weight") -> Any:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


PRIVATE = (("privacy.demanded", True), ("policy.allowed_metrics", []))
"""Changes of a document that make it one of a hospital that demands a budget, and still pass."""
QUIET = (*PRIVATE, ("output.metrics", []))


def declared_and_given(*tensors: Any) -> tuple[tuple[str, Any], ...]:
    """Changes of a release document: the same tensors are declared and given."""
    return ("job.outputs.tensors", list(tensors)), ("output.tensors", list(tensors))


TRAINING_CASES: dict[str, tuple[tuple[tuple[str, Any], ...], dict[str, Any]]] = {
    "framework": ((("job.framework", "tensorflow"),), {"framework": "tensorflow"}),
    "bundle": ((("job.bundle_digest", OTHER),), {}),
    "image": ((("job.image_digest", OTHER),), {}),
    "dataset": ((("hospital.datasets", [OTHER]),), {}),
    "dataset_agreed": ((("job.dataset_digest", OTHER),), {}),
    "min_records": ((("policy.min_records", 101),), {"have": 100, "need": 101}),
    "min_cohort": ((("hospital.min_cohort", 101),), {"have": 100, "need": 101}),
    "consent_purpose": ((("dataset.consent.purposes", ["care"]),), {}),
    "consent_until": ((("dataset.consent.until", 1999),), {"have": 2000, "need": 1999}),
    "retention": ((("dataset.retention_until", 1999),), {"have": 2000, "need": 1999}),
    "epochs": ((("job.epochs", 11),), {"have": 11, "need": 10}),
    "wall_seconds": ((("job.resources.wall_seconds", 3601),), {"have": 3601, "need": 3600}),
    "cpu_seconds": ((("job.resources.cpu_seconds", 7201),), {"have": 7201, "need": 7200}),
    "memory_bytes": (
        (("job.resources.memory_bytes", (1 << 30) + 1),),
        {"have": (1 << 30) + 1, "need": 1 << 30},
    ),
    "gpus": ((("job.resources.gpus", 2),), {"have": 2, "need": 1}),
    "output_limit": ((("policy.max_output_bytes", 2001),), {"have": 2001, "need": 2000}),
    "network": ((("job.network", "host"),), {"network": "host"}),
    "outputs_declared": ((("job.outputs", {"declared": False, "tensors": []}),), {}),
    "declared_none": ((("job.outputs.tensors", []),), {}),
    "declared_count": ((("policy.max_tensors", 1),), {"have": 2, "need": 1}),
    "declared_dtype": ((("job.outputs.tensors.0.dtype", "F64"),), {"dtype": "F64"}),
    "declared_bytes": (
        (("job.outputs.tensors", [tensor(shape=(3, 83)), tensor(shape=(2,), name="bias")]),),
        {"have": 1004, "need": 1000},
    ),
    "declared_shape": ((("job.outputs.tensors.0.shape", [3, 80]),), {"have": 1}),
    "privacy_accountant": ((*PRIVATE, ("privacy.accounted", False)), {}),
    "privacy_metrics": ((("privacy.demanded", True),), {"have": 2}),
    "privacy_epsilon": (
        (*PRIVATE, ("privacy.job_epsilon", 1_000_001)),
        {"have": 3_000_001, "need": 3_000_000},
    ),
    "privacy_delta": ((*PRIVATE, ("privacy.spent_delta", 5)), {"have": 11, "need": 10}),
}
"""By rule: what breaks this rule and no other, and what its denial then carries."""

RELEASE_CASES: dict[str, tuple[tuple[tuple[str, Any], ...], dict[str, Any]]] = {
    "min_records": ((("policy.min_records", 101),), {"have": 100, "need": 101}),
    "min_cohort": ((("hospital.min_cohort", 101),), {"have": 100, "need": 101}),
    "max_output_bytes": ((("output.bytes", 1001),), {"have": 1001, "need": 1000}),
    "well_formed": ((("output.well_formed", False), ("output.tensors", [])), {}),
    "no_tensors": ((("output.tensors", []),), {}),
    "early_tensors": ((("stage", "progress"),), {"have": 2}),
    "max_tensors": ((("policy.max_tensors", 1),), {"have": 2, "need": 1}),
    "undeclared_tensors": ((("output.tensors.0.name", "patient17"),), {"have": 1}),
    "other_form": ((("output.tensors.0.shape", [2, 3]),), {"have": 1}),
    "allowed_dtypes": (declared_and_given(tensor("F64")), {"dtype": "F64"}),
    "record_shape": (declared_and_given(tensor(shape=(20, 1))), {"have": 1}),
    "allowed_metrics": ((("output.metrics.0.name", "patient17"),), {"have": 1}),
    "metric_length": ((("output.metrics.0.values", 3),), {"have": 1, "need": 2}),
    "rows_in_metrics": ((("output.rows_in_metrics", True),), {}),
    "privacy_accountant": ((*QUIET, ("privacy.accounted", False)), {}),
    "privacy_metrics": ((("privacy.demanded", True),), {"have": 2}),
    "privacy_epsilon": (
        (*QUIET, ("privacy.spent_epsilon", 2_000_001)),
        {"have": 3_000_001, "need": 3_000_000},
    ),
    "privacy_delta": ((*QUIET, ("privacy.job_delta", 7)), {"have": 11, "need": 10}),
}
