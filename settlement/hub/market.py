"""What a developer looks at and hands in: catalogue, quotes, policies, uploads, escrow, delivery.

Amounts are USDC base units, times Unix seconds.
"""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from settlement.dataset import Label
from settlement.hub.messages import (
    ArtifactName,
    CatalogueEntry,
    JobView,
    NodeId,
    OutputPolicy,
    Route,
)
from settlement.models import Authorization
from settlement.types import Address, Bytes32, Frozen, HexData, UInt64, Usdc

MAX_PAGE = 200
"""The most items of one page."""


class CataloguePage(Frozen):
    """Catalogue entries by node id; `next` asks for the following page."""

    entries: tuple[CatalogueEntry, ...]
    next: str | None = None


class Shares(Frozen):
    """Who gets which part of what a node earns, in basis points (1/10,000)."""

    hospital: int
    node_owner: int
    onboarder: int
    protocol: int


class QuoteRequest(Frozen):
    """A job to be priced; nothing is kept of it."""

    modality: Label
    epochs: UInt64 = Field(gt=0)
    min_records: UInt64 = 0
    columns: tuple[Label, ...] = Field(default=(), max_length=256)
    budget: Usdc | None = None
    policy: OutputPolicy | None = None


class Gas(Frozen):
    """Gas of a job's transactions, as measured; the relayer pays it, not the payer.

    `receipts` is how many settlements were reckoned with; `price` is wei, None where the hub has no
    endpoint to ask.
    """

    escrow: int
    settlement: int
    receipts: int
    total: int
    price: int | None
    cost_wei: int | None


class Quote(Frozen):
    """What a job costs on one node at most, and why it would not go there (empty: it could).

    The shares are of that amount, none is added to it. `expected_seconds` is what such a job took
    on this node lately, None where there was none.
    """

    node_id: NodeId
    records: UInt64
    for_records: Usdc
    for_epochs: Usdc
    worst_case: int
    shares: Shares | None
    expected_seconds: int | None
    why_not: tuple[str, ...]


class Quotes(Frozen):
    """Quotes of every node, those that could take the job first, and the gas of it."""

    quotes: tuple[Quote, ...]
    gas: Gas


class PolicyTemplate(Frozen):
    """An output policy to start from, and what it means."""

    name: str
    title: str
    explanation: str
    policy: OutputPolicy
    digest: Bytes32


class PolicyLibrary(Frozen):
    """Policies to choose from, and the rules that every node enforces besides (Rego, by file)."""

    policies: tuple[PolicyTemplate, ...]
    rules: dict[str, str]


class PolicyExplanation(Frozen):
    """A policy in words, a sentence for each of its limits, and the digest that terms name."""

    sentences: tuple[str, ...]
    digest: Bytes32


class BundleReport(Frozen):
    """What a complete upload is. `files` are their sizes by path."""

    digest: Bytes32
    framework: str
    entry_point: str
    files: dict[str, int]
    outputs: tuple[str, ...]


class BundleFaultReport(Frozen):
    """What keeps a complete upload from being trained, and in which file."""

    reason: str
    detail: str
    path: str | None


class UploadView(Frozen):
    """How far an upload is; once complete, what it turned out to be."""

    upload_id: Bytes32
    length: UInt64
    offset: UInt64
    expires_at: UInt64
    bundle: BundleReport | None = None
    fault: BundleFaultReport | None = None


class EscrowStage(StrEnum):
    """How far the money is: UNSIGNED, on its way as the oracle says, or in the vault."""

    UNSIGNED = "UNSIGNED"
    WAITING = "WAITING"
    ACCEPTED = "ACCEPTED"
    SUBMITTED = "SUBMITTED"
    SETTLED = "SETTLED"
    REJECTED = "REJECTED"


class EscrowOffer(Frozen):
    """What the payer signs, once, to escrow exactly these terms: `typed_data` (EIP-712) is USDC's
    `ReceiveWithAuthorization` (EIP-3009) with the job id as its nonce."""

    job_id: Bytes32
    typed_data: dict[str, Any]
    valid_after: UInt64
    valid_before: UInt64
    stage: EscrowStage
    reason: str | None = None
    detail: str | None = None
    transaction: Bytes32 | None = None


class EscrowOrder(Frozen):
    """The payer's signature over an `EscrowOffer`, to be relayed."""

    authorization: Authorization


class Artifact(Frozen):
    """One file of a delivery: its size in bytes, and the SHA-256 of its bytes as delivered."""

    name: ArtifactName
    size: UInt64
    sha256: Bytes32
    expires_at: UInt64


class JobDetail(JobView):
    """A job as its developer sees it. `stalled` says, in words, what it waits for if it does.

    `replaces` is the job that this one takes the place of, `replaced_by` the one that takes its.
    """

    created_at: UInt64
    started_at: UInt64 | None
    ended_at: UInt64 | None
    node_seen_at: UInt64 | None
    stalled: str | None
    framework: str | None
    epochs: UInt64
    policy: OutputPolicy
    route: Route | None
    artifacts: tuple[Artifact, ...]
    replaces: Bytes32 | None = None
    replaced_by: Bytes32 | None = None


class Reroute(Frozen):
    """A job asked for again at another node; what is None stays as it was asked for."""

    deadline: UInt64 | None = None
    budget: Usdc | None = None


class JobPage(Frozen):
    """Jobs, the newest first; `next` asks for the following page."""

    jobs: tuple[JobView, ...]
    next: str | None = None


class Call(Frozen):
    """A transaction that a wallet can send about a job, and what it is for."""

    name: Literal["cancel", "refund"]
    to: Address
    data: HexData
    chain_id: int
    sender: Address | None
    explanation: str


class JobCalls(Frozen):
    """What may be sent about a job; anyone may send those without a `sender`."""

    calls: tuple[Call, ...]


class NodeView(Frozen):
    """A node as the hub's operator sees it."""

    node_id: NodeId
    seen_at: UInt64 | None
    unfinished_jobs: int
    running_job: Bytes32 | None
    entry: CatalogueEntry | None
    needs: str | None = None
    """What the node has to do before it can get work, in words."""


class NodeViews(Frozen):
    """All nodes that ever published a profile."""

    nodes: tuple[NodeView, ...]
