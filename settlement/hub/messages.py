"""What the hub, developers and nodes say to each other, as frozen models.

In JSON bytes are 0x-prefixed hex, except a bundle, which is base64. Amounts are USDC base units,
times Unix seconds.
"""

import base64
import binascii
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from settlement.dataset import DatasetCommitment, Label, Schema
from settlement.models import JobTerms
from settlement.types import Address, Bytes32, Frozen, UInt64, Usdc


def parse_base64(value: Any) -> bytes:
    """Bytes from ``bytes`` or from strict base64 (RFC 4648, section 4).

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if not isinstance(value, str):
        raise ValueError("expected base64")
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"expected base64: {error}") from error


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


Base64Data = Annotated[
    bytes,
    BeforeValidator(parse_base64),
    PlainSerializer(_to_base64, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
Dtype = Literal["BOOL", "U8", "I8", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64"]
"""Element types of safetensors, by their names in its header."""
NodeId = Annotated[UInt64, Field(gt=0)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class JobState(StrEnum):
    """Where a job stands at the hub; `DELIVERED` and `FAILED` are final."""

    QUOTED = "QUOTED"
    FUNDED = "FUNDED"
    RUNNING = "RUNNING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class ArtifactName(StrEnum):
    """What a node delivers: encrypted weights, metrics, receipts, and evidence of the isolation.

    All but the weights are canonical JSON.
    """

    WEIGHTS = "weights"
    METRICS = "metrics"
    RECEIPTS = "receipts"
    EVIDENCE = "evidence"


class CohortBand(Frozen):
    """How many records share a property, as a range: no fewer than the hospital's k share it."""

    name: Label
    at_least: UInt64 = Field(gt=0)
    at_most: UInt64


class DatasetProfile(Frozen):
    """What a hospital tells about a dataset: no record, nothing derived from a single one.

    `schema_` (`schema` in JSON) lists ``column:type``. Prices are USDC base units. `dataset_digest`
    is that of the commitment (`settlement.dataset`) which the other fields state, so that whoever
    signs terms with it signs those too. `bands` are counts of groups.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    node_id: NodeId
    dataset_digest: Bytes32
    records_root: Bytes32
    modality: Label
    schema_: Schema = Field(alias="schema")
    record_count: UInt64 = Field(gt=0)
    deduplicate: bool = False
    bands: tuple[CohortBand, ...] = Field((), max_length=256)
    price_per_record: Usdc
    price_per_epoch: Usdc
    description: str = Field(max_length=2000)

    @model_validator(mode="after")
    def _keeps_its_digest(self) -> Self:
        if self.commitment.digest != self.dataset_digest:
            raise ValueError("dataset_digest is not the digest of what the profile states")
        return self

    @property
    def commitment(self) -> DatasetCommitment:
        """What `dataset_digest` stands for."""
        return DatasetCommitment(
            records_root=self.records_root,
            record_count=self.record_count,
            modality=self.modality,
            columns=self.schema_,
            deduplicate=self.deduplicate,
        )

    @property
    def columns(self) -> frozenset[str]:
        """The names in the schema, without their types."""
        return frozenset(column.partition(":")[0] for column in self.schema_)

    def worst_case(self, epochs: int) -> int:
        """USDC base units that a job of so many epochs can cost at most."""
        return self.record_count * self.price_per_record + epochs * self.price_per_epoch


class CatalogueEntry(Frozen):
    """A profile, and whether its node may get work now (`valid`, until `expiry`).

    `reasons` are the oracle's names for what speaks against it. `updated_at` is when the profile
    was published, `seen_at` when the node was last heard of.
    """

    profile: DatasetProfile
    valid: bool
    expiry: UInt64 | None
    reasons: tuple[str, ...] = ()
    updated_at: UInt64 | None = None
    seen_at: UInt64 | None = None


class OutputPolicy(Frozen):
    """What may leave the hospital: agreed in the terms by its digest, enforced by the node.

    `min_records` is the fewest unique records an output may rest on.
    """

    min_records: UInt64
    max_output_bytes: UInt64 = Field(gt=0)
    max_tensors: UInt64 = Field(gt=0)
    allowed_dtypes: tuple[Dtype, ...] = Field(min_length=1)
    allowed_metrics: tuple[Label, ...] = Field(max_length=256)


class JobRequest(Frozen):
    """A developer's wish. `result_key` is X25519.

    The bundle is a zip (`settlement.bundle`): here, or by the id of a complete upload.
    """

    bundle: Base64Data | None = None
    upload_id: Bytes32 | None = None
    modality: Label
    min_records: UInt64
    policy: OutputPolicy
    epochs: UInt64 = Field(gt=0)
    budget: Usdc = Field(gt=0)
    result_key: Bytes32
    payer: Address
    deadline: UInt64
    columns: tuple[Label, ...] = Field(default=(), max_length=256)
    """What the dataset's schema must have, by name; the types are the hospital's."""
    node_id: NodeId | None = None
    """The one node that is wanted, if it has to be a certain one."""

    @model_validator(mode="after")
    def _has_one_bundle(self) -> Self:
        if (self.bundle is None) == (self.upload_id is None):
            raise ValueError("give either the bundle itself or the id of its upload")
        return self


class NodeQuote(Frozen):
    """What one node would cost at most, and why it was not routed to (empty `why`: it could be)."""

    node_id: NodeId
    worst_case: int
    why: tuple[str, ...]


class Route(Frozen):
    """The one node that a job goes to, why, and what was found about every node."""

    node_id: NodeId
    why: tuple[str, ...]
    quotes: tuple[NodeQuote, ...]


class JobCreated(Frozen):
    """A quoted job: escrowing the budget for exactly these terms funds it."""

    job_id: Bytes32
    terms: JobTerms
    route: Route


class JobAssignment(Frozen):
    """A funded job as its node gets it."""

    job_id: Bytes32
    terms: JobTerms
    bundle: Base64Data
    policy: OutputPolicy
    epochs: UInt64
    result_key: Bytes32


class Progress(Frozen):
    """Cumulative counters and the latest metrics of a running job."""

    records: UInt64
    epochs: UInt64
    epochs_total: UInt64
    metrics: dict[Label, FiniteFloat] = Field(default_factory=dict, max_length=256)


class Failure(Frozen):
    """Why a job ended without a result; `code` is an error's stable name."""

    code: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,63}$")
    detail: str = Field(max_length=2000)


class JobView(Frozen):
    """A job as its developer and its node see it."""

    job_id: Bytes32
    terms: JobTerms
    state: JobState
    progress: Progress | None
    failure: Failure | None
