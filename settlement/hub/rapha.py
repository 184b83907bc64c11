"""From a model's sources to its trained weights: what the console does, for programs.

`Rapha` does it with blocking calls, `AsyncRapha` with awaited ones. What they do is written once,
as generators that yield each request and each pause, and are driven by either.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import TypeAdapter, ValidationError

from settlement import digests
from settlement.bundle import pack_bundle, unpack_bundle
from settlement.contracts import authorization_document
from settlement.delivery import open_sealed
from settlement.deployment import Deployment
from settlement.errors import InvalidInput, RaphaError
from settlement.hub.client import HubRefused, HubUnavailable, accepted
from settlement.hub.market import (
    EscrowOffer,
    EscrowOrder,
    EscrowStage,
    PolicyLibrary,
    QuoteRequest,
    Quotes,
    UploadView,
)
from settlement.hub.messages import (
    ArtifactName,
    CatalogueEntry,
    JobCreated,
    JobRequest,
    JobState,
    JobView,
    OutputPolicy,
)
from settlement.hub.terms import QuoteMismatch, check_quote
from settlement.models import Authorization, JobTerms, SignedReceipt
from settlement.signer import Signer
from settlement.types import to_hex

PART = 1 << 20
"""Bytes of a bundle that go in one request."""
POLL = 2.0
"""Seconds between two looks at a job."""
TRIES = 6
"""How often what failed for now is tried again, each time after twice the pause."""
_SUFFIXES = frozenset({".py", ".json", ".safetensors"})
_OCTETS = "application/offset+octet-stream"

T = TypeVar("T")


class JobFailed(RaphaError, RuntimeError):
    """The job ended without a result; `reason` is the named error of who gave up on it."""

    def __init__(self, job_id: bytes, reason: str, detail: str) -> None:
        self.job_id, self.reason, self.detail = job_id, reason, detail
        super().__init__(f"job {to_hex(job_id)} failed ({reason}): {detail}")


class DeliveryMismatch(RaphaError, ValueError):
    """What was delivered is not what the enclave signed for."""

    def __init__(self, job_id: bytes) -> None:
        self.job_id = job_id
        super().__init__(f"the delivery of job {to_hex(job_id)} is not what its receipt commits to")


@dataclass(frozen=True)
class Ask:
    """A request to the hub."""

    method: str
    path: str
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Pause:
    """Some seconds in which nothing is to be done."""

    seconds: float


Flow = Generator[Ask | Pause, httpx.Response | None, T]


@dataclass(frozen=True)
class Delivery:
    """A trained model: weights as safetensors, its metrics, and the receipts that it was paid by.

    `evidence` is of the isolation it was trained in, as canonical JSON.
    """

    weights: bytes
    metrics: dict[str, Any]
    receipts: tuple[SignedReceipt, ...]
    evidence: bytes


@dataclass(frozen=True)
class Handle:
    """What one needs to come back to a job: its id, its terms, and the key to its weights."""

    job_id: bytes
    terms: JobTerms
    result_key: bytes


@dataclass(frozen=True)
class Party:
    """A developer: where its hub is, by which contracts it goes, and who signs for its money."""

    url: str
    deployment: Deployment
    signer: Signer

    def submit(
        self,
        bundle: Path | Mapping[str, bytes] | bytes,
        *,
        modality: str,
        epochs: int,
        budget: int,
        policy: str | OutputPolicy = "small-model",
        min_records: int = 0,
        node_id: int | None = None,
        seconds: int = 86_400,
    ) -> Flow[Handle]:
        """Upload, have it quoted, check the quote, sign once, and have the escrow relayed."""
        archive = read_bundle(bundle)
        library = yield from ask(self.url, PolicyLibrary, Ask("GET", "/v1/policies"))
        chosen = _policy(library, policy)
        result_key = X25519PrivateKey.generate()
        upload_id = yield from self.upload(archive)
        request = JobRequest(
            upload_id=upload_id,
            modality=modality,
            min_records=min_records,
            policy=chosen,
            epochs=epochs,
            budget=budget,
            result_key=result_key.public_key().public_bytes_raw(),
            payer=self.signer.address,
            deadline=int(time.time()) + seconds,
            node_id=node_id,
        )
        once = {"idempotency-key": secrets.token_hex(16)}
        body = request.model_dump(mode="json")
        created = yield from ask(
            self.url, JobCreated, Ask("POST", "/v1/jobs", json=body, headers=once)
        )
        if node_id not in (None, created.terms.node_id):
            raise QuoteMismatch(("node_id",))
        path = f"/v1/catalogue/{created.terms.node_id}"
        entry = yield from ask(self.url, CatalogueEntry, Ask("GET", path))
        rules = {name: text.encode() for name, text in library.rules.items()}
        check_quote(
            created,
            request,
            entry.profile,
            bundle_digest=digests.bundle_digest(unpack_bundle(archive)),
            policy_digest=digests.policy_digest(rules, chosen.model_dump(mode="json")),
            vault=self.deployment.vault_domain,
        )
        handle = Handle(created.job_id, created.terms, result_key.private_bytes_raw())
        yield from self.fund(handle)
        return handle

    def upload(self, archive: bytes) -> Flow[bytes]:
        """Bring a bundle in parts, going on where a connection broke off; the upload's id."""
        tus = {"tus-resumable": "1.0.0"}
        length = {**tus, "upload-length": str(len(archive))}
        begun = yield from send(self.url, Ask("POST", "/v1/uploads", headers=length))
        path = begun.headers["location"]
        offset = 0
        while offset < len(archive):
            headers = {**tus, "upload-offset": str(offset), "content-type": _OCTETS}
            part = archive[offset : offset + PART]
            try:
                step = Ask("PATCH", path, content=part, headers=headers)
                answer = yield from send(self.url, step, tries=1)
            except HubUnavailable:
                answer = yield from send(self.url, Ask("HEAD", path))
            offset = int(answer.headers["upload-offset"])
        view = yield from ask(self.url, UploadView, Ask("GET", path))
        if view.fault is not None:
            raise InvalidInput(f"the hub refuses the bundle: {view.fault.detail}")
        return view.upload_id

    def fund(self, handle: Handle) -> Flow[EscrowStage]:
        """Sign the escrow of these terms, unless it is signed, and wait until it is in the vault.

        The hub's document is signed only if it is the one that these terms and contracts give.
        """
        path = f"/v1/jobs/{to_hex(handle.job_id)}/escrow"
        offer = yield from ask(self.url, EscrowOffer, Ask("GET", path))
        if offer.stage is EscrowStage.UNSIGNED:
            document = authorization_document(
                self.deployment,
                handle.terms,
                valid_after=offer.valid_after,
                valid_before=offer.valid_before,
            )
            if offer.typed_data != document:
                raise QuoteMismatch(("typed_data",))
            order = EscrowOrder(
                authorization=Authorization(
                    valid_after=offer.valid_after,
                    valid_before=offer.valid_before,
                    signature=self.signer.sign_typed_data(document),
                )
            )
            body = order.model_dump(mode="json")
            offer = yield from ask(self.url, EscrowOffer, Ask("POST", path, json=body))
        while offer.stage is not EscrowStage.SETTLED:
            if offer.stage is EscrowStage.REJECTED:
                reason, detail = offer.reason or "Rejected", offer.detail or ""
                raise JobFailed(handle.job_id, reason, detail)
            yield Pause(POLL)
            offer = yield from ask(self.url, EscrowOffer, Ask("GET", path))
        return offer.stage

    def delivery(self, handle: Handle) -> Flow[Delivery]:
        """Wait for the delivery, fetch it, decrypt it, and hold it against the last receipt."""
        path = f"/v1/jobs/{to_hex(handle.job_id)}"
        view = yield from ask(self.url, JobView, Ask("GET", path))
        while view.state is not JobState.DELIVERED:
            if view.failure is not None:
                raise JobFailed(handle.job_id, view.failure.code, view.failure.detail)
            yield Pause(POLL)
            view = yield from ask(self.url, JobView, Ask("GET", path))
        parts: dict[ArtifactName, bytes] = {}
        for name in ArtifactName:
            answer = yield from send(self.url, Ask("GET", f"{path}/artifacts/{name}"))
            parts[name] = answer.content
        weights = open_sealed(
            parts[ArtifactName.WEIGHTS],
            handle.result_key,
            chain_id=self.deployment.chain_id,
            vault=self.deployment.vault,
            job_id=handle.job_id,
        )
        metrics, evidence = parts[ArtifactName.METRICS], parts[ArtifactName.EVIDENCE]
        receipts = TypeAdapter(tuple[SignedReceipt, ...]).validate_json(
            parts[ArtifactName.RECEIPTS]
        )
        signed = receipts[-1].receipt.output_digest if receipts else None
        if digests.output_digest(weights, metrics, evidence) != signed:
            raise DeliveryMismatch(handle.job_id)
        return Delivery(weights, json.loads(metrics), receipts, evidence)


def read_bundle(bundle: Path | Mapping[str, bytes] | bytes) -> bytes:
    """The archive of a folder's sources (Python, JSON, safetensors), of files, or as it is.

    Raises:
        settlement.bundle.BundleRefused: naming the first thing that is wrong.
    """
    if isinstance(bundle, bytes):
        unpack_bundle(bundle)
        return bundle
    if isinstance(bundle, Path):
        bundle = {
            path.relative_to(bundle).as_posix(): path.read_bytes()
            for path in sorted(bundle.rglob("*"))
            if path.is_file() and path.suffix in _SUFFIXES
        }
    return pack_bundle(bundle)


def _policy(library: PolicyLibrary, wanted: str | OutputPolicy) -> OutputPolicy:
    if isinstance(wanted, OutputPolicy):
        return wanted
    known = {template.name: template.policy for template in library.policies}
    if wanted not in known:
        raise InvalidInput(f"no output policy {wanted}; there are {', '.join(known)}")
    return known[wanted]


def send(url: str, step: Ask, *, tries: int = TRIES) -> Flow[httpx.Response]:
    """An answer; what fails for now is tried again.

    Raises:
        HubUnavailable: when it still fails after so many tries.
        HubRefused: when the hub says no.
    """
    for left in reversed(range(tries)):
        try:
            answer = yield step
            assert answer is not None  # an `Ask` is answered
            return accepted(url, answer)
        except HubUnavailable:
            if not left:
                raise
        except HubRefused as error:
            if error.status != httpx.codes.TOO_MANY_REQUESTS or not left:
                raise
        yield Pause(2.0 ** (tries - 1 - left) / 4)
    raise AssertionError("the last try returns or raises")


def ask(url: str, kind: type[T], step: Ask) -> Flow[T]:
    """An answer of this kind; raises as `send`."""
    answer = yield from send(url, step)
    try:
        return TypeAdapter(kind).validate_json(answer.content)
    except ValidationError as error:
        raise HubUnavailable(url, f"an answer of unknown form: {error}") from error


def _request(step: Ask) -> dict[str, Any]:
    return {
        "method": step.method,
        "url": step.path,
        "json": step.json,
        "content": step.content,
        "headers": dict(step.headers or {}),
    }


class Rapha:
    """A developer's access to one hub, with blocking calls.

    It signs only for the contracts of `deployment`, whatever the hub proposes. Every method raises
    `HubUnavailable` after several tries, `HubRefused`, and what else it names.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        deployment: Deployment,
        signer: Signer,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.party = Party(url, deployment, signer)
        headers = {"authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(
            base_url=url, headers=headers, transport=transport, timeout=timeout
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def quotes(self, request: QuoteRequest) -> Quotes:
        """What a job would cost on each node."""
        step = Ask("POST", "/v1/quotes", json=request.model_dump(mode="json"))
        return self.run(ask(self.party.url, Quotes, step))

    def submit(self, bundle: Path | Mapping[str, bytes] | bytes, **job: Any) -> "Job":
        """Upload, quote, check and escrow a job; see `Party.submit` for what it takes.

        Raises:
            BundleRefused, QuoteMismatch, JobFailed: before money moves.
        """
        return Job(self, self.run(self.party.submit(bundle, **job)))

    def job(self, handle: Handle) -> "Job":
        """A job to come back to."""
        return Job(self, handle)

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end."""
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                try:
                    answer = self._http.request(**_request(step))
                except httpx.TransportError as error:
                    step = flow.throw(HubUnavailable(self.party.url, str(error)))
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result


@dataclass(frozen=True)
class Job:
    """A job in escrow. Keep its `handle` to come back to it."""

    rapha: Rapha
    handle: Handle

    def view(self) -> JobView:
        """Where it stands now."""
        path = f"/v1/jobs/{to_hex(self.handle.job_id)}"
        return self.rapha.run(ask(self.rapha.party.url, JobView, Ask("GET", path)))

    def delivery(self) -> Delivery:
        """All that was delivered, decrypted and checked; waits for it.

        Raises:
            JobFailed: when the job ends without a result.
            DeliveryUnreadable, DeliveryMismatch: when it is not what was agreed and signed.
        """
        return self.rapha.run(self.rapha.party.delivery(self.handle))

    def weights(self) -> bytes:
        """The weights (safetensors); as `delivery`."""
        return self.delivery().weights


class AsyncRapha:
    """The same with awaited calls."""

    def __init__(
        self,
        url: str,
        api_key: str,
        deployment: Deployment,
        signer: Signer,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.party = Party(url, deployment, signer)
        headers = {"authorization": f"Bearer {api_key}"}
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, transport=transport, timeout=timeout
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def quotes(self, request: QuoteRequest) -> Quotes:
        """What a job would cost on each node."""
        step = Ask("POST", "/v1/quotes", json=request.model_dump(mode="json"))
        return await self.run(ask(self.party.url, Quotes, step))

    async def submit(self, bundle: Path | Mapping[str, bytes] | bytes, **job: Any) -> "AsyncJob":
        """As `Rapha.submit`."""
        return AsyncJob(self, await self.run(self.party.submit(bundle, **job)))

    def job(self, handle: Handle) -> "AsyncJob":
        """A job to come back to."""
        return AsyncJob(self, handle)

    async def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end."""
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                try:
                    answer = await self._http.request(**_request(step))
                except httpx.TransportError as error:
                    step = flow.throw(HubUnavailable(self.party.url, str(error)))
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result


@dataclass(frozen=True)
class AsyncJob:
    """A job in escrow. Keep its `handle` to come back to it."""

    rapha: AsyncRapha
    handle: Handle

    async def view(self) -> JobView:
        """Where it stands now."""
        path = f"/v1/jobs/{to_hex(self.handle.job_id)}"
        return await self.rapha.run(ask(self.rapha.party.url, JobView, Ask("GET", path)))

    async def delivery(self) -> Delivery:
        """As `Job.delivery`."""
        return await self.rapha.run(self.rapha.party.delivery(self.handle))

    async def weights(self) -> bytes:
        """The weights (safetensors); as `delivery`."""
        return (await self.delivery()).weights
