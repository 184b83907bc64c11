"""What the rules of each gate may look at: a document with no field too few, too many or mistyped.

Rego is silent about what is not there (`input.n > 3` without `n` denies nothing), so the form is
held here, before any rule is asked. Whole numbers stay below 2**53: the engine takes larger ones
for negative.
"""

import json
import math
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from settlement.bundle import MAX_ELEMENTS, Framework, Network, TensorDtype
from settlement.digests import check_nesting
from settlement.errors import InvalidInput

MAX_NUMBER = 2**53 - 1
MAX_TENSORS = 1 << 15
MAX_DOCUMENT = 16 << 20
"""Bytes. The largest header of safetensors, declared and found, fits well within."""

Gate = Literal["training", "release"]
Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Digest = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(max_length=64)]


class InputRefused(InvalidInput):
    """A document that no rule is asked about; `fields` are the paths of what is wrong in it."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__(f"not the input of a gate: {', '.join(fields)}")
        self.fields = fields


class Strict(BaseModel):
    """Every field is there, no other is, and each has its own JSON type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TensorFact(Strict):
    """A tensor by its header."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=1 << 20)]
    dtype: TensorDtype
    shape: Annotated[tuple[Count, ...], Field(max_length=64)]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        # The product is what the rules reckon with, so it must stay exact.
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise ValueError(f"more than {MAX_ELEMENTS} elements")
        return self


Tensors = Annotated[tuple[TensorFact, ...], Field(max_length=MAX_TENSORS)]


class Outputs(Strict):
    """What the bundle's manifest declares to give; `declared` is false when it is silent."""

    declared: bool
    tensors: Tensors


class Agreed(Strict):
    """The developer's output policy (`settlement.hub.messages.OutputPolicy`)."""

    min_records: Count
    max_output_bytes: Count
    max_tensors: Count
    allowed_dtypes: Annotated[tuple[TensorDtype, ...], Field(max_length=64)]
    allowed_metrics: Annotated[tuple[Text, ...], Field(max_length=256)]


class Consent(Strict):
    """What the records' subjects agreed to, and until when (Unix seconds)."""

    purposes: Annotated[tuple[Text, ...], Field(max_length=64)]
    until: Count


class DatasetFacts(Strict):
    """The dataset as the node has it: sizes and conditions, nothing of a record.

    `partitions` are the sizes that a tensor of records would have: of the whole, the training and
    the held-out part. `retention_until` is when the records must be deleted (Unix seconds).
    """

    digest: Digest
    records: Count
    partitions: Annotated[tuple[Count, ...], Field(max_length=16)]
    columns: Count
    consent: Consent
    retention_until: Count


class AllowList(Strict):
    """Digests that may be, or any."""

    any: bool
    digests: Annotated[tuple[Digest, ...], Field(max_length=4096)]


class Resources(Strict):
    """What the training process is granted."""

    wall_seconds: Count
    cpu_seconds: Count
    memory_bytes: Count
    gpus: Count


class Limits(Strict):
    """What the hospital grants to any job."""

    epochs: Count
    wall_seconds: Count
    cpu_seconds: Count
    memory_bytes: Count
    gpus: Count
    output_bytes: Count


class HospitalTerms(Strict):
    """The hospital's own bounds, from its node's configuration."""

    frameworks: Annotated[tuple[Framework, ...], Field(max_length=16)]
    bundles: AllowList
    images: AllowList
    datasets: Annotated[tuple[Digest, ...], Field(max_length=4096)]
    min_cohort: Count
    limits: Limits


class PrivacyFacts(Strict):
    """Differential privacy of one dataset towards one buyer.

    ε in millionths, δ in 1e-15. `spent` is what all other trainings took, `job` what this one takes
    (before training: will take at most). `accounted` says that the node's own accountant vouches
    for it; without one the numbers are 0 and mean nothing.
    """

    demanded: bool
    accounted: bool
    budget_epsilon: Count
    budget_delta: Count
    spent_epsilon: Count
    spent_delta: Count
    job_epsilon: Count
    job_delta: Count


class TrainingJob(Strict):
    """What is asked for. `network` is what the bundle's manifest asks for."""

    framework: Framework
    bundle_digest: Digest
    image_digest: Digest
    dataset_digest: Digest
    purpose: Text
    epochs: Count
    deadline: Count
    network: Network
    resources: Resources
    outputs: Outputs


class TrainingInput(Strict):
    """The input of the gate before training."""

    gate: Literal["training"]
    job: TrainingJob
    policy: Agreed
    dataset: DatasetFacts
    hospital: HospitalTerms
    privacy: PrivacyFacts


class ReleaseJob(Strict):
    """What was agreed before training."""

    bundle_digest: Digest
    epochs: Count
    outputs: Outputs


class MetricFact(Strict):
    """A metric and how many values it has; the values themselves are no rule's matter."""

    name: Text
    values: Count


class OutputFacts(Strict):
    """What is to leave. `records` and `epochs` are the loader's count of what it rests on.

    `well_formed` says that the weights are strict safetensors; when they are not, no tensor is
    listed. `rows_in_metrics` says that a record's values were found among the metrics'.
    """

    well_formed: bool
    bytes: Count
    records: Count
    epochs: Count
    tensors: Tensors
    metrics: Annotated[tuple[MetricFact, ...], Field(max_length=4096)]
    rows_in_metrics: bool


class ReleaseInput(Strict):
    """The input of the gate before release."""

    gate: Literal["release"]
    stage: Literal["progress", "final"]
    job: ReleaseJob
    policy: Agreed
    dataset: DatasetFacts
    hospital: HospitalTerms
    output: OutputFacts
    privacy: PrivacyFacts


GateInput = Annotated[TrainingInput | ReleaseInput, Field(discriminator="gate")]
_ADAPTER: TypeAdapter[TrainingInput | ReleaseInput] = TypeAdapter(GateInput)


def parse_input(data: bytes) -> TrainingInput | ReleaseInput:
    """The document in `data`, JSON.

    Raises:
        InputRefused: naming each path that is missing, mistyped, out of bounds or too many.
    """
    if len(data) > MAX_DOCUMENT:
        raise InputRefused((f"more than {MAX_DOCUMENT} bytes",))
    try:
        check_nesting(data)
        json.loads(data, object_pairs_hook=_unique)
    except ValueError:
        raise InputRefused(("not JSON with unique names",)) from None
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError as error:
        raise InputRefused(faulty_fields(error)) from None


def faulty_fields(error: ValidationError) -> tuple[str, ...]:
    """Path and fault of each error, without the faulty value; names from outside are left out."""
    return tuple(
        f"{'.'.join(_known(part) for part in fault['loc']) or 'the document'}: {fault['type']}"
        for fault in error.errors(include_input=False, include_url=False)
    )


def _known(part: int | str) -> str:
    return str(part) if isinstance(part, int) or part in _FIELDS else "(another field)"


def _fields(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(model.model_fields)


_FIELDS = frozenset({"training", "release"}).union(
    *(
        _fields(model)
        for model in (
            TensorFact, Outputs, Agreed, Consent, DatasetFacts, AllowList, Resources, Limits,
            HospitalTerms, PrivacyFacts, TrainingJob, TrainingInput, ReleaseJob, MetricFact,
            OutputFacts, ReleaseInput,
        )
    )
)  # fmt: skip


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result
