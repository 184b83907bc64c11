"""What may leave the hospital: the output policy, enforced before training and before release.

Denials never repeat a name that the bundle's code chose: a name could carry a record out.
"""

from collections.abc import Collection, Mapping, Sequence

from oracle.clients.edge.errors import PolicyDenied, TensorsInvalid
from oracle.clients.edge.tensors import read_header
from oracle.clients.hub.messages import DatasetProfile, OutputPolicy
from settlement.digests import canonical_json

VERSION = "rapha.policy.v1"
ACCURACY = "holdout_accuracy"
MAX_TENSOR_NAME = 128

Metrics = Mapping[str, float | Sequence[float]]


def check_before_training(
    policy: OutputPolicy, profile: DatasetProfile, *, output_limit: int
) -> None:
    """Pass a policy that this dataset can meet, within the hospital's own limit on outputs (bytes).

    Raises:
        PolicyDenied: by `min_records` or `max_output_bytes`.
    """
    if profile.record_count < policy.min_records:
        raise PolicyDenied(
            "min_records",
            f"the dataset has {profile.record_count} of at least {policy.min_records} records",
        )
    if policy.max_output_bytes > output_limit:
        raise PolicyDenied(
            "max_output_bytes",
            f"{policy.max_output_bytes} bytes are more than the hospital's {output_limit}",
        )


def check_metrics(policy: OutputPolicy, names: Collection[str]) -> None:
    """Pass metrics whose names the policy lists.

    Raises:
        PolicyDenied: by `allowed_metrics`.
    """
    excess = set(names) - set(policy.allowed_metrics)
    if excess:
        raise PolicyDenied("allowed_metrics", f"{len(excess)} metrics are not on the policy's list")


def check_before_release(
    policy: OutputPolicy,
    weights: bytes,
    metrics: Metrics,
    *,
    records: int,
    record_shapes: Collection[int],
) -> None:
    """Pass an output that keeps to the policy, judged by the safetensors header of `weights`.

    `records` is how many unique records it rests on; a tensor whose first dimension is one of
    `record_shapes` could be the records themselves.

    Raises:
        PolicyDenied: by `min_records`, `max_output_bytes`, `well_formed`, `max_tensors`,
            `tensor_names`, `allowed_dtypes`, `record_shape` or `allowed_metrics`.
    """
    if records < policy.min_records:
        raise PolicyDenied(
            "min_records", f"it rests on {records} of at least {policy.min_records} records"
        )
    size = len(weights) + len(canonical_json(metrics))
    if size > policy.max_output_bytes:
        raise PolicyDenied(
            "max_output_bytes", f"{size} bytes are more than {policy.max_output_bytes}"
        )
    try:
        tensors = read_header(weights)
    except TensorsInvalid as error:
        raise PolicyDenied("well_formed", error.detail) from error
    if not 0 < len(tensors) <= policy.max_tensors:
        raise PolicyDenied("max_tensors", f"{len(tensors)}, where 1 to {policy.max_tensors} may be")
    for name, tensor in tensors.items():
        if len(name) > MAX_TENSOR_NAME or not name.isascii() or not name.isprintable():
            raise PolicyDenied("tensor_names", f"one is not {MAX_TENSOR_NAME} ASCII characters")
        if tensor.dtype not in policy.allowed_dtypes:
            raise PolicyDenied("allowed_dtypes", f"{tensor.dtype} is not on the policy's list")
        if tensor.shape and tensor.shape[0] in record_shapes:
            raise PolicyDenied(
                "record_shape", f"a tensor has {tensor.shape[0]} rows, as many as records"
            )
    check_metrics(policy, metrics.keys())
