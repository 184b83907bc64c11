"""From a model's sources to its trained weights: what the console does, for programs.

`Rapha` does it with blocking calls, `AsyncRapha` with awaited ones. What they do is written once,
as generators that yield each request and each pause, and are driven by either.
"""

import asyncio
import hashlib
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
from settlement.client import Settlement
from settlement.connection import connect
from settlement.contracts import authorization_document
from settlement.delivery import open_sealed
from settlement.deployment import Deployment
from settlement.eip712 import job_id as id_of
from settlement.errors import InvalidInput, RaphaError
from settlement.hub.client import HubRefused, HubUnavailable, accepted
from settlement.hub.market import (
    EscrowOffer,
    EscrowOrder,
    EscrowStage,
    PolicyLibrary,
    QuoteRequest,
    Quotes,
    Reroute,
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
from settlement.models import Authorization, Deposit, JobTerms, SignedReceipt
from settlement.signer import Signer
from settlement.types import to_hex
from settlement.verify import Output, ReceiptBundle

PART = 1 << 20
"""Bytes of a bundle that go in one request."""
SLICE = 8 << 20
"""Bytes of a delivery that come in one answer."""
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

    `evidence` is of the isolation it was trained in, as canonical JSON; `output` is what the last
    receipt commits to.
    """

    weights: bytes
    metrics: dict[str, Any]
    receipts: tuple[SignedReceipt, ...]
    evidence: bytes
    output: Output


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
    rpc_url: str | None = None

    def settlement(self) -> Settlement:
        """The contracts, to transact with as the signer, who pays the gas.

        Raises:
            InvalidInput: without an RPC endpoint.
            WrongChain: when that endpoint is of another chain, or lacks the contracts.
        """
        if self.rpc_url is None:
            raise InvalidInput("this sends a transaction, which needs an endpoint: give rpc_url")
        settlement = Settlement(connect(self.rpc_url), self.deployment, self.signer)
        settlement.check()
        return settlement

    def deposit(self, amount: int) -> int:
        """Put USDC into the signer's balance at the vault, by one signature; the balance then."""
        settlement = self.settlement()
        deposit = Deposit(account=self.signer.address, amount=amount, salt=secrets.token_bytes(32))
        settlement.deposit_with_authorization(deposit, settlement.authorize_deposit(deposit))
        return settlement.balance(self.signer.address)

    def withdraw(self, amount: int | None, to: str | None) -> int:
        """Take USDC out of the signer's balance: all of it unless told how much; the balance then.

        Raises:
            ContractReverted: when there is not as much.
        """
        settlement, account = self.settlement(), self.signer.address
        if amount is None:
            amount = settlement.balance(account)
        settlement.withdraw_to(to or account, amount)
        return settlement.balance(account)

    def cancel(self, handle: Handle) -> bytes:
        """End a job; the transaction."""
        return bytes(self.settlement().cancel(handle.terms)["transactionHash"])

    def refund(self, handle: Handle) -> bytes:
        """Close a job whose time is over; the transaction."""
        return bytes(self.settlement().refund(handle.terms)["transactionHash"])

    def dispute(self, handle: Handle) -> bytes:
        """Freeze what a job has freshly earned; the transaction."""
        return bytes(self.settlement().dispute(handle.terms)["transactionHash"])

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
            parts[name] = yield from self.artifact(handle.job_id, name)
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
        output = Output(
            weights=hashlib.sha256(weights).digest(),
            metrics=hashlib.sha256(metrics).digest(),
            evidence=evidence.decode(),
        )
        return Delivery(weights, json.loads(metrics), receipts, evidence, output)

    def artifact(self, job_id: bytes, name: ArtifactName) -> Flow[bytes]:
        """A file as delivered, slice by slice: what has come stays, whatever breaks off.

        Raises:
            DeliveryMismatch: when it is not what its ETag says, or changed in between.
        """
        path, data, etag = f"/v1/jobs/{to_hex(job_id)}/artifacts/{name}", bytearray(), None
        while True:
            headers = {"range": f"bytes={len(data)}-{len(data) + SLICE - 1}"}
            if etag is not None:
                headers["if-range"] = etag  # if it is another by now, all of it comes
            try:
                answer = yield from send(self.url, Ask("GET", path, headers=headers))
            except HubRefused as error:
                if error.status != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE or data:
                    raise
                answer = yield from send(self.url, Ask("GET", path))  # an empty file has no range
            if etag not in (None, answer.headers["etag"]):
                raise DeliveryMismatch(job_id)
            etag = answer.headers["etag"]
            whole = answer.status_code != httpx.codes.PARTIAL_CONTENT
            data = bytearray(answer.content) if whole else data + answer.content
            if whole or len(data) >= int(answer.headers["content-range"].rpartition("/")[2]):
                break
        if etag != f'"{hashlib.sha256(data).hexdigest()}"':
            raise DeliveryMismatch(job_id)
        return bytes(data)

    def receipts(self, handle: Handle, output: Output | None) -> Flow[ReceiptBundle]:
        """What shows what was done and paid: what `rapha verify` takes.

        Raises:
            QuoteMismatch: when the hub's is of other terms or contracts.
        """
        step = Ask("GET", f"/v1/jobs/{to_hex(handle.job_id)}/receipts")
        bundle = yield from ask(self.url, ReceiptBundle, step)
        if (bundle.terms, bundle.deployment) != (handle.terms, self.deployment):
            raise QuoteMismatch(("terms", "deployment"))
        return bundle.model_copy(update={"output": output})

    def reroute(self, handle: Handle, *, deadline: int | None, budget: int | None) -> Flow[Handle]:
        """Ask for a job again at another node, check that all else stayed, and fund it.

        Raises:
            QuoteMismatch: when the hub changed anything but node, dataset and prices.
        """
        changes = Reroute(deadline=deadline, budget=budget)
        path = f"/v1/jobs/{to_hex(handle.job_id)}/reroute"
        body = changes.model_dump(mode="json")
        created = yield from ask(self.url, JobCreated, Ask("POST", path, json=body))
        entry_path = f"/v1/catalogue/{created.terms.node_id}"
        entry = yield from ask(self.url, CatalogueEntry, Ask("GET", entry_path))
        profile, before = entry.profile, handle.terms
        expected = before.model_copy(
            update={
                "node_id": profile.node_id,
                "price_per_record": profile.price_per_record,
                "price_per_epoch": profile.price_per_epoch,
                "budget": budget if budget is not None else before.budget,
                "deadline": deadline if deadline is not None else before.deadline,
                "work": before.work.model_copy(update={"dataset_digest": profile.dataset_digest}),
                "salt": created.terms.salt,
            }
        )
        wrong = [
            name
            for name in JobTerms.model_fields
            if getattr(expected, name) != getattr(created.terms, name)
        ]
        if created.terms.salt == before.salt:
            wrong.append("salt")
        if created.job_id != id_of(created.terms, self.deployment.vault_domain):
            wrong.append("job_id")
        if wrong:
            raise QuoteMismatch(tuple(wrong))
        again = Handle(created.job_id, created.terms, handle.result_key)
        yield from self.fund(again)
        return again


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
        rpc_url: str | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 60.0,
    ) -> None:
        """`rpc_url` is for what sends transactions: cancel, refund, dispute, deposit, withdraw."""
        self.party = Party(url, deployment, signer, rpc_url)
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

    def balance(self) -> int:
        """The signer's prepaid balance at the vault, in USDC base units."""
        return self.party.settlement().balance(self.party.signer.address)

    def deposit(self, amount: int) -> int:
        """As `Party.deposit`."""
        return self.party.deposit(amount)

    def withdraw(self, amount: int | None = None, *, to: str | None = None) -> int:
        """As `Party.withdraw`."""
        return self.party.withdraw(amount, to)

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

    def receipts(self, delivery: Delivery | None = None) -> ReceiptBundle:
        """What shows what was done and paid, for `rapha verify`; with a `delivery` also that it is
        what the enclave signed for."""
        output = delivery.output if delivery is not None else None
        return self.rapha.run(self.rapha.party.receipts(self.handle, output))

    def reroute(self, *, deadline: int | None = None, budget: int | None = None) -> "Job":
        """The same job at another node, in escrow; the first has to be over, or cancelled."""
        flow = self.rapha.party.reroute(self.handle, deadline=deadline, budget=budget)
        return Job(self.rapha, self.rapha.run(flow))

    def cancel(self) -> bytes:
        """End it: what is not earned goes back, at once or after a grace; the transaction.

        Raises:
            ContractReverted: when it is over, or another's.
        """
        return self.rapha.party.cancel(self.handle)

    def refund(self) -> bytes:
        """Close it once its time is over, and have the rest in the balance; as `cancel`."""
        return self.rapha.party.refund(self.handle)

    def dispute(self) -> bytes:
        """Freeze what it has freshly earned until an arbiter has looked at it; as `cancel`."""
        return self.rapha.party.dispute(self.handle)


class AsyncRapha:
    """The same with awaited calls."""

    def __init__(
        self,
        url: str,
        api_key: str,
        deployment: Deployment,
        signer: Signer,
        *,
        rpc_url: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: float = 60.0,
    ) -> None:
        """As `Rapha`."""
        self.party = Party(url, deployment, signer, rpc_url)
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

    async def balance(self) -> int:
        """As `Rapha.balance`."""
        settlement = await asyncio.to_thread(self.party.settlement)
        return await asyncio.to_thread(settlement.balance, self.party.signer.address)

    async def deposit(self, amount: int) -> int:
        """As `Party.deposit`."""
        return await asyncio.to_thread(self.party.deposit, amount)

    async def withdraw(self, amount: int | None = None, *, to: str | None = None) -> int:
        """As `Party.withdraw`."""
        return await asyncio.to_thread(self.party.withdraw, amount, to)

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

    async def receipts(self, delivery: Delivery | None = None) -> ReceiptBundle:
        """As `Job.receipts`."""
        output = delivery.output if delivery is not None else None
        return await self.rapha.run(self.rapha.party.receipts(self.handle, output))

    async def reroute(
        self, *, deadline: int | None = None, budget: int | None = None
    ) -> "AsyncJob":
        """As `Job.reroute`."""
        flow = self.rapha.party.reroute(self.handle, deadline=deadline, budget=budget)
        return AsyncJob(self.rapha, await self.rapha.run(flow))

    async def cancel(self) -> bytes:
        """As `Job.cancel`."""
        return await asyncio.to_thread(self.rapha.party.cancel, self.handle)

    async def refund(self) -> bytes:
        """As `Job.refund`."""
        return await asyncio.to_thread(self.rapha.party.refund, self.handle)

    async def dispute(self) -> bytes:
        """As `Job.dispute`."""
        return await asyncio.to_thread(self.rapha.party.dispute, self.handle)
