"""The typed HTTP client by which hubs, nodes and anybody else talk to an oracle.

It does not retry: callers know how long an answer is still worth waiting for.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from httpx_sse import SSEError, connect_sse
from pydantic import TypeAdapter, ValidationError

from oracle.attestation.tpm.enrolment import activation_proof
from oracle.attestation.tpm.evidence import quote_nonce
from oracle.messages import (
    HEARTBEAT,
    MAX_RECEIPTS,
    Activation,
    ActivationAnswer,
    ActivationAnswers,
    ActivationSet,
    AttestationStatus,
    Authorization,
    ChallengeRequest,
    ChallengeSet,
    Change,
    ChangeKind,
    EnrolmentRequest,
    EscrowRequest,
    EscrowStatus,
    Evidence,
    JobState,
    JobStatus,
    JobTransaction,
    NodeStatus,
    PeerChallenge,
    PlatformStatus,
    Problem,
    QuoteRequest,
    QuoteStatus,
    Readiness,
    ReceiptAnswer,
    ReceiptAnswers,
    ReceiptBatch,
    ReceiptStatus,
    SignatureAnswer,
    SignatureRequest,
    Status,
    TpmEvidence,
    TpmQuote,
    TpmRenewal,
    TpmStatus,
    TpmWanted,
    VouchFor,
)
from settlement.errors import RaphaError
from settlement.models import SignedReceipt
from settlement.types import Frozen, to_hex

T = TypeVar("T")

_NODES = TypeAdapter(tuple[NodeStatus, ...])
_TOO_MANY_REQUESTS = 429


class OracleUnavailable(RaphaError, ConnectionError):
    """No usable answer for now: no connection, a timeout, or the oracle's own trouble (5xx).

    `retry_after` is the seconds that the oracle asks for, None when it did not say.
    """

    final = False

    def __init__(self, url: str, reason: str, retry_after: int | None = None) -> None:
        self.url = url
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(f"the oracle at {url} is unavailable: {reason}")


class OracleRefused(RaphaError):
    """The oracle understood and said no: its error's name as `code`, and its `data`."""

    def __init__(
        self, code: str, status: int, detail: str, *, final: bool, data: Mapping[str, Any]
    ) -> None:
        self._code = code
        self.status = status
        self.detail = detail
        self.final = final
        self.data = dict(data)
        super().__init__(f"the oracle refused ({code}): {detail}")

    @property
    def code(self) -> str:
        """The name of the oracle's error."""
        return self._code


class _Client:
    """The transport that both clients share: one request, one typed answer or one typed error."""

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 10.0,
        token: str | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.base_url = base_url
        self._http = httpx.Client(
            base_url=base_url, transport=transport, timeout=timeout, headers=headers
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, body: Frozen | None = None) -> httpx.Response:
        content = None if body is None else body.model_dump_json()
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            return self._http.request(method, path, content=content, headers=headers)
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise OracleUnavailable(self.base_url, reason) from error

    def _ask(
        self, answer: type[T] | TypeAdapter[T], method: str, path: str, body: Frozen | None = None
    ) -> T:
        response = self._send(method, path, body)
        if not response.is_success:
            raise _refusal(self.base_url, response)
        return _parse(answer, self.base_url, response)


def _parse(answer: type[T] | TypeAdapter[T], url: str, response: httpx.Response) -> T:
    adapter = answer if isinstance(answer, TypeAdapter) else TypeAdapter(answer)
    try:
        return adapter.validate_json(response.content)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, part["loc"])) or "body" for part in error.errors())
        raise OracleUnavailable(url, f"its answer is not what it should be: {where}") from error


def _change(url: str, data: str) -> Change:
    try:
        return Change.model_validate_json(data)
    except ValidationError as error:
        raise OracleUnavailable(url, "a change is not what it should be") from error


def _refusal(url: str, response: httpx.Response) -> RaphaError:
    """The error that an answer outside 2xx stands for."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return OracleUnavailable(url, f"HTTP {response.status_code} without a problem document")
    if response.is_server_error or response.status_code == _TOO_MANY_REQUESTS:
        asked = response.headers.get("retry-after", "")
        retry_after = int(asked) if asked.isdigit() else None
        return OracleUnavailable(url, f"{problem.code}: {problem.detail}", retry_after)
    return OracleRefused(
        problem.code,
        response.status_code,
        problem.detail,
        final=problem.final,
        data=problem.data,
    )


class OracleClient(_Client):
    """Talks to one oracle. `timeout` is seconds per request, `token` an API key.

    Every method raises `OracleUnavailable` when asking again later may help, and `OracleRefused`
    with the oracle's named error when it said no.
    """

    def health(self) -> Readiness:
        """Whether the oracle is ready, and each check's state; not being ready is an answer too."""
        response = self._send("GET", "/readyz")
        return _parse(Readiness, self.base_url, response)

    def create_challenge(self, node_id: int, enclave_key: str) -> ChallengeSet:
        """Fresh challenges for one enclave key of one node."""
        request = ChallengeRequest(node_id=node_id, enclave_key=enclave_key)
        return self._ask(ChallengeSet, "POST", "/v1/attestations/challenges", request)

    def submit_attestation(self, evidence: Evidence) -> AttestationStatus:
        """Hand in evidence; idempotent by the quote's attestation digest."""
        return self._ask(AttestationStatus, "POST", "/v1/attestations", evidence)

    def attestation(self, digest: bytes) -> AttestationStatus:
        """Where the attestation with this digest stands."""
        return self._ask(AttestationStatus, "GET", f"/v1/attestations/{to_hex(digest)}")

    def platform(self, platform: bytes) -> PlatformStatus:
        """A platform on chain (by the digest of its PCK key), with its next quote's challenge."""
        return self._ask(PlatformStatus, "GET", f"/v1/platforms/{to_hex(platform)}")

    def submit_quote(self, request: QuoteRequest) -> QuoteStatus:
        """Have a quote relayed for the chain to check; idempotent by its attestation digest."""
        return self._ask(QuoteStatus, "POST", "/v1/quotes", request)

    def quote(self, digest: bytes) -> QuoteStatus:
        """Where the quote with this attestation digest stands."""
        return self._ask(QuoteStatus, "GET", f"/v1/quotes/{to_hex(digest)}")

    def enrol_tpm(self, request: EnrolmentRequest) -> ActivationSet:
        """Begin the enrolment of a node's TPM: what it has to open for each operator."""
        return self._ask(ActivationSet, "POST", "/v1/attestations/tpm/enrolments", request)

    def activate_tpm(self, answers: ActivationAnswers) -> TpmStatus:
        """End the enrolment of a node's TPM; the same key may be enrolled again."""
        return self._ask(TpmStatus, "POST", "/v1/attestations/tpm/activations", answers)

    def renew_tpm(self, renewal: TpmRenewal) -> TpmStatus:
        """Hand in fresh evidence of the TPM alone, over challenges of their own."""
        return self._ask(TpmStatus, "POST", "/v1/attestations/tpm", renewal)

    def nodes(self) -> tuple[NodeStatus, ...]:
        """All registered enclave keys, the newest of each node first."""
        return self._ask(_NODES, "GET", "/v1/nodes")

    def node(self, node_id: int) -> NodeStatus:
        """The node's enclave key that expires last, a valid one before others."""
        return self._ask(NodeStatus, "GET", f"/v1/nodes/{node_id}")

    def submit_escrow(self, request: EscrowRequest) -> EscrowStatus:
        """Have an escrow relayed; idempotent by job id."""
        return self._ask(EscrowStatus, "POST", "/v1/escrows", request)

    def escrow(self, job_id: bytes) -> EscrowStatus:
        """Where the escrow of this job stands."""
        return self._ask(EscrowStatus, "GET", f"/v1/escrows/{to_hex(job_id)}")

    def job(self, job_id: bytes) -> JobStatus:
        """The job as the finalized chain has it."""
        return self._ask(JobStatus, "GET", f"/v1/jobs/{to_hex(job_id)}")

    def submit_receipt(self, receipt: SignedReceipt) -> ReceiptStatus:
        """Hand in a receipt; once this returns it is durable. A forged one comes back REJECTED."""
        return self._ask(ReceiptStatus, "POST", "/v1/receipts", receipt)

    def submit_receipts(self, receipts: Sequence[SignedReceipt]) -> tuple[ReceiptAnswer, ...]:
        """Hand in up to `MAX_RECEIPTS` receipts at once: an answer for each, in their order.

        What has a status is durable; a problem with one leaves the others alone.
        """
        batch = ReceiptBatch(receipts=tuple(item.model_dump(mode="json") for item in receipts))
        return self._ask(ReceiptAnswers, "POST", "/v1/receipts/batch", batch).answers

    def receipt(self, digest: bytes) -> ReceiptStatus:
        """Where the receipt with this digest stands."""
        return self._ask(ReceiptStatus, "GET", f"/v1/receipts/{to_hex(digest)}")

    def changes(self, after: str | None = None, *, job_id: bytes | None = None) -> Iterator[Change]:
        """Every change of status as it comes, of one job or of all; does not end by itself.

        After `OracleUnavailable`, go on with the `position` of the last change as `after`.
        """
        headers = {} if after is None else {"last-event-id": after}
        params = {} if job_id is None else {"job": to_hex(job_id)}
        usual = self._http.timeout
        quiet = httpx.Timeout(
            connect=usual.connect, write=usual.write, pool=usual.pool, read=3 * HEARTBEAT
        )
        try:
            with connect_sse(
                self._http, "GET", "/v1/events", headers=headers, params=params, timeout=quiet
            ) as source:
                if not source.response.is_success:
                    source.response.read()
                    raise _refusal(self.base_url, source.response)
                for event in source.iter_sse():
                    yield _change(self.base_url, event.data)
        except (httpx.TransportError, httpx.DecodingError, SSEError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise OracleUnavailable(self.base_url, reason) from error
        raise OracleUnavailable(self.base_url, "it ended the stream of changes")


class PeerClient(_Client):
    """Talks to another operator of the committee, with the operators' shared bearer token."""

    def challenge(self, request: ChallengeRequest) -> PeerChallenge:
        """The peer's own challenge."""
        return self._ask(PeerChallenge, "POST", "/v1/committee/challenges", request)

    def signature(self, request: SignatureRequest) -> SignatureAnswer:
        """The peer's signature, which the caller must check like any other claim."""
        return self._ask(SignatureAnswer, "POST", "/v1/committee/signatures", request)

    def enrol_tpm(self, request: EnrolmentRequest) -> Activation:
        """The peer's own activation for a node's TPM."""
        return self._ask(Activation, "POST", "/v1/committee/tpm/enrolments", request)

    def activate_tpm(self, answers: ActivationAnswers) -> TpmStatus:
        """Have the peer enrol a node's TPM, if the answer to its own activation is among these."""
        return self._ask(TpmStatus, "POST", "/v1/committee/tpm/activations", answers)

    def renew_tpm(self, renewal: TpmRenewal) -> TpmStatus:
        """Have the peer check fresh evidence of a node's TPM."""
        return self._ask(TpmStatus, "POST", "/v1/committee/tpm", renewal)


__all__ = [
    "MAX_RECEIPTS",
    "Activation",
    "ActivationAnswer",
    "ActivationAnswers",
    "ActivationSet",
    "AttestationStatus",
    "Authorization",
    "ChallengeRequest",
    "ChallengeSet",
    "Change",
    "ChangeKind",
    "EnrolmentRequest",
    "EscrowRequest",
    "EscrowStatus",
    "Evidence",
    "JobState",
    "JobStatus",
    "JobTransaction",
    "NodeStatus",
    "OracleClient",
    "OracleRefused",
    "OracleUnavailable",
    "PeerChallenge",
    "PeerClient",
    "PlatformStatus",
    "Problem",
    "QuoteRequest",
    "QuoteStatus",
    "Readiness",
    "ReceiptAnswer",
    "ReceiptStatus",
    "SignatureAnswer",
    "SignatureRequest",
    "SignedReceipt",
    "Status",
    "TpmEvidence",
    "TpmQuote",
    "TpmRenewal",
    "TpmStatus",
    "TpmWanted",
    "VouchFor",
    "activation_proof",
    "quote_nonce",
]
