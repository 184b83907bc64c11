"""The developer's client against a hub: from sources to weights, and what it does not sign."""

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from eth_account import Account
from unit.hub.conftest import FILES, KEYS, START

from settlement import eip712
from settlement.contracts import authorization_signer
from settlement.delivery import seal
from settlement.digests import canonical_json, output_digest
from settlement.hub import rapha as module
from settlement.hub.client import HubRefused, HubUnavailable
from settlement.hub.messages import ArtifactName, Failure
from settlement.hub.rapha import AsyncRapha, DeliveryMismatch, JobFailed, Rapha, read_bundle
from settlement.hub.terms import QuoteMismatch
from settlement.models import Authorization, JobTerms, Receipt, SignedReceipt
from settlement.signer import LocalSigner
from settlement.verify import BundleRefused as VerifyRefused
from settlement.verify import verify_bundle

World = Any
PAYER = Account.from_key(bytes([9]) * 32)
ENCLAVE = Account.from_key(bytes([10]) * 32)
APART = {"job": 1, "node": 2}
EVIDENCE = {
    "isolation": "bubblewrap",
    "namespaces": dict.fromkeys(("net", "mnt", "pid", "user", "ipc", "uts"), APART),
    "network": {"interfaces": ["lo"], "routes": []},
    "seccomp": {"mode": 2},
    "capabilities": 0,
    "no_new_privileges": True,
}
WEIGHTS = b"safetensors of a trained model"
DOCUMENT = Path(__file__).resolve().parents[3] / "docs/developer-client.md"


class Hospital:
    """Node 1, which does its next step whenever the developer waits."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.delivers = WEIGHTS
        self.fails: Failure | None = None
        self.dead = False

    def step(self) -> None:
        """Take the job and deliver it, if there is one."""
        if self.dead:
            return
        node = self.world.party("1")
        job = node.lease(1)
        if job is None:
            return
        if self.fails is not None:
            node.report_failure(job.job_id, self.fails)
            return
        metrics = canonical_json({"loss": [0.5]})
        evidence = canonical_json(EVIDENCE)
        receipt = Receipt(
            job_id=job.job_id,
            records=569,
            epochs=2,
            records_root=bytes(32),
            output_digest=output_digest(WEIGHTS, metrics, evidence),
            complete=True,
        )
        deployment = self.world.deployment
        digest = eip712.receipt_digest(receipt, deployment.vault_domain)
        signature = eip712.sign_digest(digest, ENCLAVE.key)
        receipts = [SignedReceipt(receipt=receipt, signature=signature).model_dump(mode="json")]
        sealed = seal(
            self.delivers,
            job.result_key,
            chain_id=deployment.chain_id,
            vault=deployment.vault,
            job_id=job.job_id,
        )
        for name, data in zip(
            ArtifactName, (sealed, metrics, json.dumps(receipts).encode(), evidence), strict=True
        ):
            node.put_artifact(job.job_id, name, data)


@pytest.fixture
def hospital(world: World, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    """A node that works while the client waits; an oracle that brings escrows to the vault."""
    found = Hospital(world)
    world.oracle.vault = world.deployment.vault_domain

    async def step(_seconds: float) -> None:
        await asyncio.to_thread(found.step)

    clock = SimpleNamespace(sleep=lambda _seconds: found.step(), time=lambda: START)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=step))
    return found


def client(world: World, handle: Callable[[httpx.Request], httpx.Response] | None = None) -> Rapha:
    transport = httpx.MockTransport(handle or world._relay)
    payer = LocalSigner(PAYER)
    return Rapha("http://hub", KEYS["acme"], world.deployment, payer, transport=transport)


def submit(rapha: Rapha, **changes: Any) -> Any:
    job = {"modality": "tabular", "epochs": 2, "budget": 10_000_000}
    return rapha.submit(FILES, **{**job, **changes})


def test_from_sources_to_weights_with_one_signature(world: World, hospital: Hospital) -> None:
    with client(world) as rapha:
        job = submit(rapha)
        assert job.handle.job_id == eip712.job_id(job.handle.terms, world.deployment.vault_domain)
        (handed,) = world.oracle.handed
        signer = authorization_signer(
            world.deployment,
            JobTerms.model_validate(handed["terms"]),
            Authorization.model_validate(handed["authorization"]),
        )
        assert signer == PAYER.address
        assert job.weights() == WEIGHTS
        delivery = rapha.job(job.handle).delivery()
        bundle = job.receipts(delivery)
    assert (delivery.metrics, len(delivery.receipts)) == ({"loss": [0.5]}, 1)
    assert bundle.enclave_key == ENCLAVE.address
    assert {check.holds for check in verify_bundle(bundle)} == {True}
    other = delivery.output.model_copy(update={"weights": bytes(32)})
    with pytest.raises(VerifyRefused):
        verify_bundle(bundle.model_copy(update={"output": other}))


@pytest.mark.parametrize("number", [0, 1])
def test_what_the_document_shows_works(
    world: World,
    hospital: Hospital,
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def relay(_self: Any, request: httpx.Request) -> httpx.Response:
        return world._relay(request)

    async def relay_async(_self: Any, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        whole = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        return await asyncio.to_thread(world._relay, whole)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", relay)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", relay_async)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deployment.json").write_text(world.deployment.model_dump_json())
    (tmp_path / "model").mkdir()
    for name, data in FILES.items():
        (tmp_path / "model" / name).write_bytes(data)
    snippet = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[number]
    names: dict[str, Any] = {
        "hub": "http://hub",
        "api_key": KEYS["acme"],
        "key": bytes(PAYER.key),
    }
    exec(snippet, names)
    if "train" in names:
        asyncio.run(names["train"]())
    assert (tmp_path / "weights.safetensors").read_bytes() == WEIGHTS
    lines = [line for line in snippet.split("with ")[-1].splitlines() if line.strip()]
    assert len(lines) <= 10
    assert os.getcwd() == str(tmp_path)


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("/jobs", lambda it: it["terms"].update(budget=10_000_001), "budget"),
        ("/jobs", lambda it: it["terms"].update(node_id=2), "work"),
        ("/jobs", lambda it: it.update(job_id="0x" + "11" * 32), "job_id"),
        ("/escrow", lambda it: it["typed_data"]["message"].update(value=1), "typed_data"),
        (
            "/escrow",
            lambda it: it["typed_data"]["domain"].update(verifyingContract="0x" + "22" * 20),
            "typed_data",
        ),
    ],
)
def test_what_the_hub_changes_is_not_signed(
    world: World,
    hospital: Hospital,
    make_profile: Callable[..., Any],
    path: str,
    change: Callable[[Any], None],
    field: str,
) -> None:
    world.store.put_profile(make_profile(2), world.node_principal(2), START)
    world.oracle.nodes.pop(2, None)

    def cheating(request: httpx.Request) -> httpx.Response:
        answer = world._relay(request)
        if not request.url.path.endswith(path):
            return answer
        document = answer.json()
        change(document)
        return httpx.Response(answer.status_code, json=document)

    with client(world, cheating) as rapha, pytest.raises(QuoteMismatch) as caught:
        submit(rapha)
    assert field in caught.value.fields
    assert world.oracle.handed == []


def test_failed_job_says_who_gave_up_and_why(world: World, hospital: Hospital) -> None:
    hospital.fails = Failure(code="OutOfMemory", detail="9 GiB")
    with client(world) as rapha, pytest.raises(JobFailed, match="OutOfMemory") as caught:
        submit(rapha).weights()
    assert caught.value.reason == "OutOfMemory"


def test_delivery_that_the_enclave_did_not_sign_is_refused(
    world: World, hospital: Hospital
) -> None:
    hospital.delivers = b"other weights"
    with client(world) as rapha, pytest.raises(DeliveryMismatch):
        submit(rapha).weights()


def test_upload_goes_on_where_the_connection_broke(
    world: World, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 100)
    broken = iter([False, True, True, False])
    offsets: list[int] = []

    def flaky(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            offsets.append(int(request.headers["upload-offset"]))
            if next(broken, False):
                raise httpx.WriteError("broken pipe")
        return world._relay(request)

    with client(world, flaky) as rapha:
        assert submit(rapha).weights() == WEIGHTS
    assert offsets[:4] == [0, 100, 100, 100]


@pytest.mark.parametrize("whole", [False, True], ids=["ranges", "a proxy without ranges"])
def test_download_goes_on_where_the_connection_broke(
    world: World, hospital: Hospital, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(module, "SLICE", 20)
    broken = iter([False, True, True, False])
    ranges: list[str] = []

    def flaky(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/artifacts/weights"):
            ranges.append(request.headers["range"])
            if next(broken, False):
                raise httpx.ReadError("connection reset")
            if whole:
                del request.headers["range"]
        return world._relay(request)

    with client(world, flaky) as rapha:
        assert submit(rapha).weights() == WEIGHTS
    assert ranges[:4] == ["bytes=0-19", *(["bytes=20-39"] * 3)] or whole
    assert len(ranges) == 1 if whole else len(ranges) > 4


def test_delivery_that_changes_on_the_way_is_refused(
    world: World, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE", 20)

    def tampering(request: httpx.Request) -> httpx.Response:
        answer = world._relay(request)
        if "/artifacts/" in request.url.path and answer.is_success:
            content = bytes([answer.content[0] ^ 1]) + answer.content[1:]
            return httpx.Response(answer.status_code, headers=answer.headers, content=content)
        return answer

    with client(world, tampering) as rapha, pytest.raises(DeliveryMismatch):
        submit(rapha).weights()


def test_job_of_a_dead_node_goes_on_at_another(
    world: World, hospital: Hospital, make_profile: Callable[..., Any]
) -> None:
    hospital.dead = True
    with client(world) as rapha:
        job = submit(rapha)
        world.now[0] += 400
        world.oracle.attest(2)
        world.party("2").put_profile(make_profile(2, price_per_record=9_000))
        with pytest.raises(HubRefused, match="JobStillHeld"):
            job.reroute()
        world.oracle.cancel(job.handle.job_id)
        again = job.reroute(budget=9_000_000)
    assert (again.handle.terms.node_id, again.handle.terms.budget) == (2, 9_000_000)
    assert again.handle.result_key == job.handle.result_key
    assert len(world.oracle.handed) == 2


def test_hub_that_stays_away_is_unavailable_and_a_refusal_is_not_repeated(
    world: World, hospital: Hospital
) -> None:
    asked: list[str] = []

    def away(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ConnectError("refused")

    with client(world, away) as rapha, pytest.raises(HubUnavailable):
        submit(rapha)
    assert asked == ["/v1/policies"] * module.TRIES
    with client(world) as rapha, pytest.raises(HubRefused, match="BudgetTooSmall"):
        submit(rapha, budget=1)


def test_bundle_is_a_folders_sources_alone(tmp_path: Path) -> None:
    for name, data in {**FILES, "notes.txt": b"mine"}.items():
        (tmp_path / name).write_bytes(data)
    assert read_bundle(tmp_path) == read_bundle(FILES) == read_bundle(read_bundle(FILES))


def test_async_client_has_what_the_blocking_one_has() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(Rapha) == public(AsyncRapha)
    assert public(module.Job) == public(module.AsyncJob)
