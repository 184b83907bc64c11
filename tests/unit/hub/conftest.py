"""A hub on a real database and folder, with an oracle that answers as on the wire."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from eth_account import Account
from fastapi.testclient import TestClient
from sqlalchemy import update

from oracle.client import OracleClient
from oracle.clients.hub.access import Access, AccessPolicy
from oracle.clients.hub.api import create_app
from oracle.clients.hub.callers import Hub
from oracle.clients.hub.chain import ChainView
from oracle.clients.hub.database import open_database
from oracle.clients.hub.files import ArtifactFiles
from oracle.clients.hub.identity import Identities
from oracle.clients.hub.keys import KeyRing, KeysFile, Principal, hash_api_key
from oracle.clients.hub.service import HubPolicy, HubService
from oracle.clients.hub.sessions import Sessions, Site
from oracle.clients.hub.store import Store
from oracle.clients.hub.tables import api_keys
from oracle.clients.hub.uploads import Uploads
from oracle.clients.hub.wakeups import Wakeups
from settlement import eip712
from settlement.bundle import MAX_ARCHIVE_BYTES, pack_bundle
from settlement.dataset import DatasetCommitment
from settlement.deployment import Deployment
from settlement.hub.account import HubInfo, Role, Scope
from settlement.hub.client import HubClient
from settlement.hub.messages import (
    ArtifactName,
    DatasetProfile,
    JobCreated,
    JobRequest,
    OutputPolicy,
)
from settlement.models import JobTerms
from settlement.types import to_hex

START = 1_800_000_000
SITE = "http://localhost:8100"
HASH_KEY = bytes(range(32))
KEYS = {
    "acme": "acme-developer-key-of-enough-length-1",
    "rival": "rival-developer-key-of-enough-length-",
    "1": "node-one-key-of-quite-enough-length-11",
    "2": "node-two-key-of-quite-enough-length-22",
    "boss": "operator-key-of-quite-enough-length-33",
}
OPERATOR = Account.from_key(bytes([201]) * 32)
ACCESS = AccessPolicy(operators=frozenset({OPERATOR.address}))
POLICY = HubPolicy()
MANIFEST = {"framework": "pytorch", "entry_point": "model:train", "hyperparameters": {"lr": 0.01}}
FILES = {"manifest.json": json.dumps(MANIFEST).encode(), "model.py": b"def train(): ...\n"}


def address(number: int) -> str:
    """The address of that number."""
    return f"0x{number:040x}"


@dataclass
class WireOracle:
    """The oracle's HTTP answers, from facts that a test sets."""

    down: bool = False
    refusing: bool = False
    vault: eip712.Domain | None = None
    nodes: dict[int, dict[str, Any]] = field(default_factory=dict)
    escrows: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    handed: list[dict[str, Any]] = field(default_factory=list)

    def attest(
        self, node_id: int, *, expiry: int = START + 10**6, valid: bool = True, tpm: bool = True
    ) -> None:
        """A node's enclave is registered; `valid` and `tpm` say whether both parts count."""
        reasons = [
            reason
            for reason, holds in (("enclave_revoked", not valid), ("tpm_expired", not tpm))
            if holds
        ]
        self.nodes[node_id] = {
            "node_id": node_id,
            "enclave_key": address(node_id + 100),
            "encryption_key": to_hex(bytes([node_id]) * 32),
            "measurement": to_hex(bytes([9]) * 32),
            "expiry": expiry,
            "revoked": not valid,
            "valid": valid,
            "routable": not reasons,
            "routable_until": None if reasons else expiry,
            "reasons": reasons,
        }

    def escrow(self, job_id: bytes, terms: JobTerms) -> None:
        """The budget is in the vault."""
        self.escrows[to_hex(job_id)] = {
            "job_id": to_hex(job_id),
            "terms": terms.model_dump(mode="json"),
            "state": "OPEN",
            "node_id": terms.node_id,
            "payable_until": terms.deadline + 3600,
            "funded": terms.budget,
            "paid": 0,
            "refunded": 0,
            "records": 0,
            "epochs": 0,
            "output_digest": None,
            "receipts": [],
            "transactions": [],
        }

    def relayed(self) -> dict[str, Any]:
        """An escrow that is taken in; it comes into the `vault`, if there is one."""
        terms = JobTerms.model_validate(self.handed[-1]["terms"])
        job_id = eip712.job_id(terms, self.vault or eip712.vault_domain(1, address(1)))
        if self.vault is not None:
            self.escrow(job_id, terms)
        return {"job_id": to_hex(job_id), "status": "ACCEPTED"}

    def cancel(self, job_id: bytes) -> None:
        """The payer wants the job ended."""
        self.escrows[to_hex(job_id)]["state"] = "CANCELLING"

    def close(self, job_id: bytes, *, completed: bool) -> None:
        """The escrow is closed: by a completing receipt, or by a refund."""
        escrow = self.escrows[to_hex(job_id)]
        escrow["state"] = "CLOSED"
        escrow["output_digest"] = to_hex(bytes([8]) * 32) if completed else None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.down:
            raise httpx.ConnectError("connection refused", request=request)
        if self.refusing:
            return _problem(403, "OperatorOnly", "not for you")
        match request.url.path.strip("/").split("/"):
            case ["readyz"]:
                return httpx.Response(200, json={"ready": True, "checks": {"database": "ok"}})
            case ["v1", "nodes"]:
                return httpx.Response(200, json=list(self.nodes.values()))
            case ["v1", "escrows", job_id] if job_id in self.escrows:
                return httpx.Response(200, json={"job_id": job_id, "status": "SETTLED"})
            case ["v1", "escrows", _]:
                return _problem(404, "EscrowUnknown", "no such escrow")
            case ["v1", "escrows"]:
                self.handed.append(json.loads(request.content))
                return httpx.Response(202, json=self.relayed())
            case ["v1", "jobs", job_id] if job_id in self.escrows:
                return httpx.Response(200, json=self.escrows[job_id])
            case ["v1", "jobs", _]:
                return _problem(404, "JobUnknown", "no such job")
        return _problem(404, "NotFound", "no such path")


def _problem(status: int, code: str, detail: str) -> httpx.Response:
    members = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "detail": detail,
        "code": code,
        "final": True,
    }
    headers = {"content-type": "application/problem+json"}
    return httpx.Response(status, json=members, headers=headers)


@dataclass
class World:
    """A hub and everyone around it."""

    oracle: WireOracle
    http: TestClient
    service: HubService
    deployment: Deployment
    folder: Path
    now: list[int]
    store: Store
    hub: Hub
    uploads: Uploads

    def stranger(self) -> HubClient:
        """The client of somebody without a key."""
        return HubClient("http://hub", None, httpx.MockTransport(self._relay))

    def party(self, name: str) -> HubClient:
        """The client of a developer by name, or of a node by its id."""
        return HubClient("http://hub", KEYS[name], httpx.MockTransport(self._relay))

    def node_principal(self, node_id: int) -> Principal:
        """A node without a key here."""
        return Principal(Role.NODE, str(node_id))

    def headers(self, name: str) -> dict[str, str]:
        """That party's authorization."""
        return {"authorization": f"Bearer {KEYS[name]}"}

    def narrow(self, name: str, scopes: set[Scope]) -> None:
        """From now on a party's key is for these things alone."""
        digest = hash_api_key(KEYS[name], HASH_KEY).hex()
        with self.store.write() as tx:
            tx.execute(
                update(api_keys)
                .where(api_keys.c.digest == digest)
                .values(scopes=" ".join(sorted(scopes)))
            )

    def _relay(self, request: httpx.Request) -> httpx.Response:
        headers = {k: v for k, v in request.headers.items() if k != "host"}
        answer = self.http.request(
            request.method,
            request.url.raw_path.decode(),
            headers=headers,
            content=request.read(),
            follow_redirects=False,
        )
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def funded(self, request: JobRequest, tenant: str = "acme") -> JobCreated:
        """A job that is quoted and in escrow."""
        created = self.party(tenant).create_job(request)
        self.oracle.escrow(created.job_id, created.terms)
        return created

    def running(self, request: JobRequest, tenant: str = "acme") -> JobCreated:
        """A job that its node has leased."""
        created = self.funded(request, tenant)
        assignment = self.party(str(created.terms.node_id)).lease(created.terms.node_id)
        assert assignment is not None
        assert assignment.job_id == created.job_id
        return created

    def delivered(self, request: JobRequest) -> JobCreated:
        """A job with all four artifacts."""
        created = self.running(request)
        node = self.party(str(created.terms.node_id))
        for name in ArtifactName:
            node.put_artifact(created.job_id, name, f"the {name}".encode())
        return created


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    return Deployment(
        chain_id=31337,
        block=1,
        vault=address(1),
        node_registry=address(2),
        enclave_registry=address(3),
        timelock=address(4),
        usdc=address(5),
        grace_period=3600,
    )


@pytest.fixture(scope="session")
def make_profile() -> Callable[..., DatasetProfile]:
    def make(node_id: int = 1, **changes: Any) -> DatasetProfile:
        values: dict[str, Any] = {
            "node_id": node_id,
            "records_root": bytes([node_id]) * 32,
            "modality": "tabular",
            "schema": ("mean radius:F64", "malignant:U8"),
            "record_count": 569,
            "price_per_record": 10_000,
            "price_per_epoch": 50_000,
            "description": "UCI Wisconsin Diagnostic",
        }
        values |= changes
        committed = DatasetCommitment(
            records_root=values["records_root"],
            record_count=values["record_count"],
            modality=values["modality"],
            columns=values["schema"],
            deduplicate=False,
        )
        return DatasetProfile.model_validate({"dataset_digest": committed.digest} | values)

    return make


@pytest.fixture(scope="session")
def make_request() -> Callable[..., JobRequest]:
    result_key = X25519PrivateKey.from_private_bytes(bytes([5]) * 32).public_key()

    def make(**changes: Any) -> JobRequest:
        values: dict[str, Any] = {
            "bundle": pack_bundle(FILES),
            "modality": "tabular",
            "min_records": 500,
            "policy": OutputPolicy(
                min_records=100,
                max_output_bytes=10**6,
                max_tensors=16,
                allowed_dtypes=("F32",),
                allowed_metrics=("accuracy", "loss"),
            ),
            "epochs": 2,
            "budget": 10_000_000,
            "result_key": result_key.public_bytes_raw(),
            "payer": address(77),
            "deadline": START + 3600,
        }
        return JobRequest.model_validate(values | changes)

    return make


def make_hub(
    store: Store,
    oracle: WireOracle,
    deployment: Deployment,
    folder: Path,
    clock: Callable[[], int],
    *,
    identities: Identities | None = None,
    access: AccessPolicy = ACCESS,
    chain: ChainView | None = None,
    policy: HubPolicy = POLICY,
) -> Hub:
    """A hub on this store; `oracle` answers it."""
    uploads = Uploads(store, store.bundle_by_digest, lifetime=3600, clock=clock)
    service = HubService(
        store,
        ArtifactFiles(folder / "artifacts"),
        OracleClient("http://oracle", transport=httpx.MockTransport(oracle)),
        deployment,
        uploads=uploads,
        chain=chain,
        policy=policy,
        clock=clock,
    )
    sessions = Sessions(
        store, deployment, Site.at(SITE), HASH_KEY, chain, lifetime=43_200, clock=clock
    )
    keys = KeyRing(store.api_key, HASH_KEY, clock)
    return Hub(
        service,
        Access(store, keys, sessions, HASH_KEY, identities=identities, policy=access, clock=clock),
        uploads,
        Wakeups(),
        HubInfo(
            deployment=deployment,
            registration=access.registering,
            smart_wallets=chain is not None,
            max_bundle_bytes=MAX_ARCHIVE_BYTES,
            upload_seconds=3600,
            delivery_seconds=policy.retention,
        ),
    )


@pytest.fixture
def world(
    tmp_path: Path,
    deployment: Deployment,
    make_profile: Callable[..., DatasetProfile],
    migrated: Path,
) -> Iterator[World]:
    shutil.copy(migrated, tmp_path / "hub.sqlite")
    with build_world(tmp_path, deployment, make_profile) as built:
        yield built


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database on the newest schema: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "hub.sqlite"
    open_database(f"sqlite:///{path}").dispose()
    return path


@contextmanager
def build_world(
    tmp_path: Path, deployment: Deployment, make_profile: Callable[..., DatasetProfile]
) -> Iterator[World]:
    """A hub in this folder, with one attested node."""
    oracle = WireOracle()
    oracle.attest(1)
    now = [START]
    store = Store(open_database(f"sqlite:///{tmp_path}/hub.sqlite"))
    keys = KeysFile.model_validate(
        {
            "developers": {name: KEYS[name] for name in ("acme", "rival")},
            "nodes": {name: KEYS[name] for name in ("1", "2")},
            "operators": {"boss": KEYS["boss"]},
        }
    )
    store.replace_api_keys(keys.records(HASH_KEY))
    hub = make_hub(store, oracle, deployment, tmp_path, lambda: now[0])
    with TestClient(create_app(hub), base_url=SITE) as http:
        built = World(oracle, http, hub.service, deployment, tmp_path, now, store, hub, hub.uploads)
        built.party("1").put_profile(make_profile(1))
        yield built
