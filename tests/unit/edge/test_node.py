"""The whole node against an oracle and a hub in memory, which check what a real one would check."""

import hashlib
import json
import threading
import time
from functools import cache, partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from eth_utils import keccak
from longrun import LONG
from safetensors.numpy import load
from structlog.testing import capture_logs
from unit.edge.conftest import HONEST, bundle_of
from unit.edge.small_disk import on_a_small_disk

import oracle.clients.edge.audit as audit_module
import oracle.clients.edge.node as node_module
import oracle.clients.edge.outbox as outbox_module
import oracle.clients.edge.patience as patience_module
import oracle.clients.edge.policy.guard as guard_module
import oracle.clients.edge.sandbox.launch as launch_module
import oracle.clients.edge.signer as signer_module
from oracle.client import (
    AttestationStatus,
    ChallengeSet,
    JobState,
    JobStatus,
    NodeStatus,
    OracleRefused,
    OracleUnavailable,
    ReceiptStatus,
    Status,
    TpmWanted,
)
from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.config import EdgeSettings
from oracle.clients.edge.dataset import commit
from oracle.clients.edge.devplatform import DevPlatform
from oracle.clients.edge.durable import write_atomically
from oracle.clients.edge.errors import AttestationRefused, AttestationTimedOut, StateInUse
from oracle.clients.edge.node import Node
from oracle.clients.edge.poisson import PoissonLoader
from oracle.clients.edge.policy.digest import policy_digest
from oracle.clients.edge.policy.privacy import PrivacyLedger
from oracle.clients.edge.sandbox import bubblewrap
from oracle.clients.edge.sandbox.errors import SandboxUnavailable
from oracle.clients.edge.sandbox.gpu import Gpus
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.signer import EnclaveSigner, measurement
from settlement.audit import Event, verify_log
from settlement.delivery import open_sealed
from settlement.digests import output_digest, result_key_digest
from settlement.eip712 import job_id, receipt_digest, recover_signer
from settlement.enclave import report_data
from settlement.hub.client import HubRefused, HubUnavailable
from settlement.hub.messages import JobAssignment
from settlement.models import JobTerms, SignedReceipt, Work
from settlement.verify import Output, ReceiptBundle

NOW = 1_800_000_000
DATASET_KEY = bytes(range(32))
NODE_ID = 7
EPOCHS = 2
BUDGET = 40 * 100 + EPOCHS * 10


class Killed(BaseException):
    """Stands for SIGKILL at one place."""


class Oracle:
    """Holds what an oracle would know; each receipt settles when it was asked for once."""

    def __init__(self, deployment, clock):
        self.deployment = deployment
        self.clock = clock
        self.validity = 3600
        self.registered: dict[str, int] = {}
        self.challenges = (bytes([1] * 32), bytes([2] * 32))
        self.refuse_attestation: list[OracleRefused] = []
        self.receipts: dict[bytes, SignedReceipt] = {}
        self.asked: set[bytes] = set()
        self.jobs: dict[bytes, JobStatus] = {}
        self.verdict: tuple[Status, str | None] = (Status.SETTLED, None)
        self.down = threading.Event()
        self.attestations = 0
        self.tpm: TpmWanted | None = None

    def _up(self):
        if self.down.is_set():
            raise OracleUnavailable("http://oracle", "connection refused")

    def create_challenge(self, node_id, enclave_key):
        self._up()
        nonce = keccak(b"".join(sorted(self.challenges)))
        return ChallengeSet(
            challenges=self.challenges, nonce=nonce, expires_at=NOW + 60, tpm=self.tpm
        )

    def submit_attestation(self, evidence):
        self._up()
        if self.refuse_attestation:
            raise self.refuse_attestation.pop(0)
        bound = report_data(
            chain_id=self.deployment.chain_id,
            registry=self.deployment.enclave_registry,
            enclave_key=evidence.enclave_key,
            encryption_key=evidence.encryption_key,
            nonce=keccak(b"".join(sorted(evidence.challenges))),
            configuration=evidence.configuration,
        )
        assert evidence.quote[48 + 320 : 48 + 384] == bound
        assert evidence.quote[48 + 64 : 48 + 96] == measurement()
        self.attestations += 1
        self.registered[evidence.enclave_key] = self.clock() + self.validity
        return self.attestation(bytes(32))

    def attestation(self, digest):
        return AttestationStatus(
            digest=digest, node_id=NODE_ID, enclave_key="0x" + "77" * 20, status=Status.SETTLED
        )

    def nodes(self):
        self._up()
        return tuple(
            NodeStatus(
                node_id=NODE_ID,
                enclave_key=key,
                encryption_key=None,
                measurement=measurement(),
                expiry=expiry,
                revoked=False,
                valid=expiry > self.clock(),
            )
            for key, expiry in self.registered.items()
        )

    def submit_receipt(self, signed):
        self._up()
        digest = receipt_digest(signed.receipt, self.deployment.vault_domain)
        assert recover_signer(digest, signed.signature) in self.registered
        self.receipts[digest] = signed
        return self._status(digest, Status.ACCEPTED)

    def receipt(self, digest):
        self._up()
        if digest not in self.receipts:
            raise OracleRefused("ReceiptUnknown", 404, "no such receipt", final=True, data={})
        if digest not in self.asked:
            self.asked.add(digest)
            return self._status(digest, Status.SUBMITTED)
        return self._status(digest, *self.verdict)

    def _status(self, digest, status, reason=None):
        receipt = self.receipts[digest].receipt
        return ReceiptStatus(
            digest=digest,
            job_id=receipt.job_id,
            records=receipt.records,
            epochs=receipt.epochs,
            complete=receipt.complete,
            status=status,
            reason=reason,
        )

    def job(self, wanted):
        self._up()
        if wanted not in self.jobs:
            raise OracleRefused("JobUnknown", 404, "no such job", final=True, data={})
        return self.jobs[wanted]

    def open(self, assignment, state=JobState.OPEN):
        terms = assignment.terms
        self.jobs[assignment.job_id] = JobStatus(
            job_id=assignment.job_id,
            terms=terms,
            state=state,
            node_id=terms.node_id or None,
            payable_until=terms.deadline + 3600,
            funded=terms.budget,
            paid=0,
            refunded=0,
            records=0,
            epochs=0,
            output_digest=None,
            receipts=(),
            transactions=(),
        )


class Hub:
    """Leases its job until it has all artifacts or a failure; then it stops the node."""

    def __init__(self):
        self.profile = None
        self.job = None
        self.artifacts: dict[str, bytes] = {}
        self.failure = None
        self.progress = []
        self.outages = 0
        self.stop = threading.Event()

    def put_profile(self, profile):
        self.profile = profile
        return profile

    def lease(self, node_id, *, wait=0):
        assert node_id == NODE_ID
        if self.outages:
            self.outages -= 1
            raise HubUnavailable("http://hub", "connection refused")
        if self.job is None or self.failure is not None or len(self.artifacts) == 4:
            self.stop.set()
            return None
        return self.job

    def report_progress(self, job_id, progress):
        self.progress.append(progress)

    def put_artifact(self, job_id, name, data):
        if self.artifacts.setdefault(name, data) != data:
            raise HubRefused("ArtifactConflict", 409, "other bytes", final=True, data={})

    def report_failure(self, job_id, failure):
        self.failure = failure


class Hospital:
    """A state directory, and the outside world that survives its node's crashes."""

    def __init__(self, directory: Path, committed, deployment):
        self.directory = directory
        self.committed = committed
        self.deployment = deployment
        self.now = NOW
        self.oracle = Oracle(deployment, self.clock)
        self.hub = Hub()
        self.developer = X25519PrivateKey.generate()
        self.platform = DevPlatform.create(NOW, chain_id=31337)
        self.settings = {}

    def clock(self):
        return self.now

    def wait(self, seconds):
        """A wait that only the clock notices, and takes for a hundred times as long."""
        self.now += round(100 * seconds) + 1

    def node(self) -> Node:
        self.hub.stop = threading.Event()
        return Node(
            EdgeSettings(
                node_id=NODE_ID,
                oracle_url="http://oracle",
                hub_url="http://hub",
                hub_key_file=self.directory / "key",
                deployment_file=self.directory / "deployment.json",
                state_dir=self.directory / "state",
                platform_dir=self.directory / "platform",
                price_per_record=100,
                price_per_epoch=10,
                **{
                    "receipt_every_records": 16,
                    "receipt_interval_seconds": 0.0,
                    "poll_seconds": 0.01,
                    "rejection_patience_seconds": 0.0,
                    "sandbox": "development",
                    "wan_guard": "off",
                    **self.settings,
                },
            ),
            self.deployment,
            committed=self.committed,
            signer=EnclaveSigner.open(self.directory / "state/enclave", chain_id=31337),
            platform=self.platform,
            oracle=self.oracle,
            hub=self.hub,
            clock=self.clock,
            stop=self.hub.stop,
        )

    def lease(self, bundle, policy, *, fund=True, **changes) -> JobAssignment:
        result_key = self.developer.public_key().public_bytes_raw()
        values = {
            "payer": "0x" + "99" * 20,
            "node_id": NODE_ID,
            "price_per_record": 100,
            "price_per_epoch": 10,
            "budget": BUDGET,
            "deadline": NOW + 1000,
            "work": Work(
                model_digest=bundle.digest,
                dataset_digest=self.committed.digest,
                policy_digest=policy_digest(policy),
                result_key_digest=result_key_digest(result_key),
            ),
            "salt": bytes(32),
        }
        terms = JobTerms(**{**values, **changes})
        self.hub.job = JobAssignment(
            job_id=job_id(terms, self.deployment.vault_domain),
            terms=terms,
            bundle=bundle.to_zip(),
            policy=policy,
            epochs=EPOCHS,
            result_key=result_key,
        )
        if fund:
            self.oracle.open(self.hub.job)
        return self.hub.job

    @property
    def job_directory(self) -> Path:
        return self.directory / "state/jobs" / self.hub.job.job_id.hex()

    def check_delivery(self):
        """Everything that must hold at the end of a job, whatever happened on the way."""
        assert self.hub.failure is None
        place = {
            "chain_id": 31337,
            "vault": self.deployment.vault,
            "job_id": self.hub.job.job_id,
        }
        weights = open_sealed(
            self.hub.artifacts["weights"], self.developer.private_bytes_raw(), **place
        )
        assert set(load(weights)) == {"weight", "bias"}
        metrics = self.hub.artifacts["metrics"]
        assert json.loads(metrics)["holdout_accuracy"] == 1.0
        receipts = [
            SignedReceipt.model_validate(entry)
            for entry in json.loads(self.hub.artifacts["receipts"])
        ]
        counters = [(r.receipt.records, r.receipt.epochs) for r in receipts]
        assert counters == sorted(counters)
        assert [r.receipt.complete for r in receipts] == [False] * (len(receipts) - 1) + [True]
        last = receipts[-1].receipt
        assert (last.records, last.epochs) == (40, EPOCHS)
        evidence = self.hub.artifacts["evidence"]
        assert json.loads(evidence)["wan"].keys() == {"guard", "why"}
        assert last.output_digest == output_digest(weights, metrics, evidence)
        assert self.hub.job.terms.earned(last.records, last.epochs) == BUDGET
        known = [receipt_digest(r.receipt, self.deployment.vault_domain) for r in receipts]
        assert set(known) == set(self.oracle.receipts)
        assert list((self.directory / "state/scratch").iterdir()) == []
        assert not (self.job_directory / "weights.safetensors").exists()
        self.check_audit(receipts, weights, metrics, evidence)

    def check_audit(self, receipts, weights, metrics, evidence):
        """The audit log tells of the whole job, and the receipts were signed over it."""
        (enclave_key,) = self.oracle.registered
        bundle = ReceiptBundle(
            deployment=self.deployment,
            terms=self.hub.job.terms,
            enclave_key=enclave_key,
            receipts=tuple(receipts),
            transactions=(),
            output=Output(
                weights=hashlib.sha256(weights).digest(),
                metrics=hashlib.sha256(metrics).digest(),
                evidence=evidence.decode(),
            ),
        )
        directory = self.directory / "state/audit"
        lines = (directory / "log.jsonl").read_bytes().splitlines()
        audit = verify_log(lines, log_key=(directory / "key").read_bytes(), bundles=[bundle])
        assert [check for check in audit.checks if not check.holds] == []
        told = [entry.event for entry in audit.entries if entry.job == self.hub.job.job_id]
        for event in (
            Event.OFFERED,
            Event.DECIDED,
            Event.ISOLATED,
            Event.TRAINED,
            Event.SIGNED,
            Event.SETTLED,
            Event.RELEASED,
            Event.PURGED,
        ):
            assert event in told
        trained = [e.number for e in audit.entries if e.event is Event.TRAINED]
        assert audit.anchored > trained[-1], "the last receipt binds what came before"
        decided = [e.facts["gate"] for e in audit.entries if e.event is Event.DECIDED]
        assert {"training", "release"} == set(decided)


@pytest.fixture(autouse=True, scope="module")
def _one_probe():
    """Whether there is a sandbox is found out once, and not by each node again."""
    probe = launch_module.obstacle
    once = cache(lambda program: probe())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch_module, "obstacle", lambda: once(bubblewrap.PROGRAM))
        yield


@pytest.fixture
def hospital(tmp_path, committed, deployment):
    return Hospital(tmp_path, committed, deployment)


def test_a_job_is_trained_settled_and_delivered(hospital, make_bundle, policy):
    hospital.lease(make_bundle(), policy)
    hospital.node().run()
    hospital.check_delivery()
    assert hospital.oracle.attestations == 1
    assert hospital.hub.profile.dataset_digest == hospital.committed.digest
    assert hospital.hub.profile.record_count == 40
    receipts = list(hospital.oracle.receipts.values())
    assert [r.receipt.records for r in receipts][:2] == [16, 32]
    assert (40, EPOCHS) in [(p.records, p.epochs) for p in hospital.hub.progress]


def test_a_buyer_who_paid_for_all_records_pays_for_epochs_only(
    tmp_path, committed, deployment, make_bundle, policy
):
    deduplicated = commit(committed.dataset, DATASET_KEY, deduplicate=True)
    hospital = Hospital(tmp_path, deduplicated, deployment)
    hospital.lease(make_bundle(), policy)
    hospital.node().run()
    hospital.check_delivery()
    hospital.hub.artifacts.clear()
    hospital.oracle.receipts.clear()
    hospital.lease(make_bundle(), policy, salt=bytes([1] * 32))
    hospital.node().run()
    assert hospital.hub.failure is None
    assert set(hospital.hub.artifacts) == {"weights", "metrics", "receipts", "evidence"}
    receipts = [signed.receipt for signed in hospital.oracle.receipts.values()]
    assert {receipt.records for receipt in receipts} == {0}
    assert [receipt.epochs for receipt in receipts if receipt.complete] == [EPOCHS]


def test_weights_are_not_delivered_before_the_receipt_is_settled(hospital, make_bundle, policy):
    hospital.lease(make_bundle(), policy)
    hospital.oracle.verdict = (Status.SUBMITTED, None)
    node = hospital.node()
    thread = threading.Thread(target=node.run)
    thread.start()
    completing = hospital.job_directory / "metrics.json"
    until = time.monotonic() + 30
    while not (completing.exists() and hospital.oracle.asked) and time.monotonic() < until:
        hospital.hub.stop.wait(0.01)
    assert hospital.oracle.asked
    assert hospital.hub.artifacts == {}
    hospital.oracle.verdict = (Status.SETTLED, None)
    thread.join(timeout=30)
    hospital.check_delivery()


def count_writes(monkeypatch, die_at=None, before=True):
    """Count the durable writes of a node; die before or after one of them."""
    count = [0]
    lock = threading.Lock()

    def counting(path, data, mode=0o600):
        with lock:
            count[0] += 1
            mine = count[0]
        if mine == die_at and before:
            raise Killed
        write_atomically(path, data, mode)
        if mine == die_at:
            raise Killed

    for module in (node_module, outbox_module, signer_module, audit_module, guard_module):
        monkeypatch.setattr(module, "write_atomically", counting)
    return count


@pytest.mark.parametrize("part", range(4 if LONG else 2))
def test_killed_at_any_write_the_job_still_ends_as_if_undisturbed(
    tmp_path, committed, deployment, make_bundle, policy, monkeypatch, part
):
    bundle = make_bundle()
    undisturbed = Hospital(tmp_path / "twin", committed, deployment)
    undisturbed.settings = {"receipt_every_records": 32}
    undisturbed.lease(bundle, policy)
    undisturbed.node()
    writes = count_writes(monkeypatch)
    undisturbed.node().run()
    undisturbed.check_delivery()
    assert writes[0] > 8
    # every sixth write; in the long run each
    first, step = (1 + part, 4) if LONG else (1 + 6 * part, 12)
    for die_at in range(first, writes[0] + 1, step):
        hospital = Hospital(tmp_path / str(die_at), committed, deployment)
        hospital.settings = undisturbed.settings
        hospital.lease(bundle, policy)
        node = hospital.node()
        count_writes(monkeypatch, die_at, before=die_at // 4 % 2 == 0)
        with pytest.raises(Killed):
            node.run()
        count_writes(monkeypatch)
        hospital.node().run()
        hospital.check_delivery()


def test_trained_work_is_delivered_after_a_restart_without_training_again(
    hospital, make_bundle, policy, monkeypatch
):
    hospital.lease(make_bundle(), policy)
    hospital.hub.put_artifact, real = (
        lambda *_: (_ for _ in ()).throw(Killed),
        (hospital.hub.put_artifact),
    )
    with pytest.raises(Killed):
        hospital.node().run()
    hospital.hub.put_artifact = real
    monkeypatch.setattr(node_module, "train", lambda *a, **k: pytest.fail("trained again"))
    hospital.now = NOW + 2000  # past the deadline, within the grace period
    hospital.node().run()
    hospital.check_delivery()


def test_a_dead_oracle_delays_the_receipts_and_loses_none(hospital, make_bundle, policy):
    hospital.lease(make_bundle(), policy)
    real = hospital.oracle.submit_receipt
    outages = iter(range(3))

    def flaky(signed):
        if next(outages, None) is not None:
            raise OracleUnavailable("http://oracle", "connection refused")
        return real(signed)

    hospital.oracle.submit_receipt = flaky
    hospital.node().run()
    hospital.check_delivery()


def test_stopped_while_the_oracle_is_dead_the_receipts_go_out_next_time(
    hospital, make_bundle, policy
):
    hospital.lease(make_bundle(), policy)
    real = hospital.oracle.submit_receipt

    def dead(signed):
        raise OracleUnavailable("http://oracle", "connection refused")

    hospital.oracle.submit_receipt = dead
    node = hospital.node()
    thread = threading.Thread(target=node.run)
    thread.start()
    until = time.monotonic() + 30
    while not (hospital.job_directory / "weights.safetensors").exists():
        assert time.monotonic() < until
        hospital.hub.stop.wait(0.01)
    hospital.hub.stop.set()
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert hospital.oracle.receipts == {}
    hospital.oracle.submit_receipt = real
    hospital.node().run()
    hospital.check_delivery()


def test_an_oracle_that_lost_a_receipt_gets_it_again(hospital, make_bundle, policy):
    hospital.lease(make_bundle(), policy)
    real = hospital.oracle.receipt
    lost = []

    def forgetful(digest):
        if not lost:
            lost.append(hospital.oracle.receipts.pop(digest))
        return real(digest)

    hospital.oracle.receipt = forgetful
    hospital.node().run()
    assert lost
    hospital.check_delivery()


def test_a_hub_that_is_away_for_a_moment_is_asked_again(hospital, make_bundle, policy):
    hospital.hub.outages = 2
    hospital.lease(make_bundle(), policy)
    hospital.node().run()
    hospital.check_delivery()


@pytest.mark.parametrize("who", ["oracle", "hub"])
def test_an_oracle_or_a_hub_that_is_away_for_a_day_costs_nothing(
    hospital, make_bundle, policy, who, monkeypatch
):
    """By a clock that each waiting moves on."""
    monkeypatch.setattr(patience_module, "sleep_using_event", lambda stop: hospital.wait)
    hospital.lease(make_bundle(), policy, deadline=NOW + 5 * 86_400)
    hospital.oracle.validity = 10 * 86_400
    server = hospital.oracle if who == "oracle" else hospital.hub
    away_until = NOW + 86_400
    error = OracleUnavailable if who == "oracle" else HubUnavailable

    def away(real, *arguments):
        if hospital.now < away_until:
            raise error("http://away", "connection refused")
        return real(*arguments)

    calls = ["submit_receipt", "receipt"] if who == "oracle" else ["put_artifact"]
    for name in calls:
        setattr(server, name, partial(away, getattr(server, name)))
    hospital.node().run()
    assert hospital.now >= away_until
    hospital.check_delivery()


def test_a_private_job_is_charged_and_its_batches_are_drawn_in_secret(
    hospital, policy, monkeypatch
):
    bundle = private_bundle()
    hospital.settings = {
        "policy": {
            "privacy": {"epsilon_micro": 10**8, "delta_femto": 10**11},
            "private_bundles": [bundle.digest],
            "min_cohort": 1,
        }
    }
    kinds = []
    real = node_module.train
    monkeypatch.setattr(
        node_module, "train", lambda b, source, **k: kinds.append(source) or real(b, source, **k)
    )
    quiet = policy.model_copy(update={"allowed_metrics": (), "min_records": 1})
    hospital.lease(bundle, quiet)
    hospital.node().run()
    assert hospital.hub.failure is None
    assert json.loads(hospital.hub.artifacts["metrics"]) == {}
    assert type(kinds[0]) is PoissonLoader
    ledger = PrivacyLedger(hospital.directory / "state/privacy")
    total = ledger.total(hospital.committed.digest, hospital.hub.job.terms.payer)
    assert total.epsilon > 0
    assert total.delta == 10**10
    # The same code that the hospital did not review is denied, and charged nothing.
    other = private_bundle(note="1")
    hospital.hub.artifacts.clear()
    hospital.lease(other, quiet)
    hospital.node().run()
    assert hospital.hub.failure.code == "PolicyDenied"
    assert "has not reviewed this bundle" in hospital.hub.failure.detail
    assert ledger.total(hospital.committed.digest, hospital.hub.job.terms.payer) == total


def private_bundle(**hyperparameters):
    source = HONEST.replace("        loader.report(loss=sum(losses) / len(losses))\n", "")
    files = dict(bundle_of(source, **hyperparameters).files)
    manifest = json.loads(files["manifest.json"])
    manifest["privacy"] = {"noise_multiplier": 1.0, "clipping_norm": 1.0, "delta": 1e-5}
    return Bundle.from_files({**files, "manifest.json": json.dumps(manifest).encode()})


def test_a_job_that_does_not_fit_is_refused_before_any_record_is_touched(hospital, policy):
    files = dict(bundle_of().files)
    manifest = json.loads(files["manifest.json"])
    manifest["resources"]["wall_seconds"] = 1001
    hospital.lease(
        Bundle.from_files({**files, "manifest.json": json.dumps(manifest).encode()}), policy
    )
    hospital.node().run()
    assert hospital.hub.failure.code == "EstimateExceeded"
    assert "1001 s of time are needed, and 1000 are granted" in hospital.hub.failure.detail
    assert not (hospital.job_directory / "meter.journal").exists()


@pytest.mark.parametrize(
    ("gpus", "granted", "code", "detail"),
    [
        ({"at_least": 1, "at_most": 1}, None, "EstimateExceeded", "the node grants none"),
        ({"at_most": 1}, Gpus(1), "PolicyDenied", "the hospital lets it have 0 at most"),
    ],
)
def test_a_job_with_a_gpu_that_it_cannot_or_may_not_have_is_refused(
    hospital, policy, monkeypatch, gpus, granted, code, detail
):
    if granted is not None:
        monkeypatch.setattr(launch_module.Isolation, "grant", lambda *arguments: granted)
    files = dict(bundle_of().files)
    manifest = json.loads(files["manifest.json"]) | {"gpus": gpus}
    hospital.lease(
        Bundle.from_files({**files, "manifest.json": json.dumps(manifest).encode()}), policy
    )
    hospital.node().run()
    assert hospital.hub.failure.code == code
    assert detail in hospital.hub.failure.detail
    assert not (hospital.job_directory / "meter.journal").exists()


def test_no_value_of_a_record_is_left_on_disk_or_sent(hospital, make_bundle, policy):
    """Scanned for each record's bytes, as the job saw them and as the hospital has them."""
    hospital.lease(make_bundle(), policy)
    hospital.node().run()
    hospital.check_delivery()
    dataset = hospital.committed.dataset
    wanted = {record[:16] for record in dataset.records} | {
        row.tobytes() for row in dataset.features
    }
    texts = {repr(float(value)).encode() for value in dataset.features.ravel()}
    found = [path for path in hospital.directory.rglob("*") if path.is_file()]
    assert len(found) > 10
    places = {str(path): path.read_bytes() for path in found} | dict(hospital.hub.artifacts)
    for place, data in places.items():
        assert not any(piece in data for piece in wanted), place
        assert not any(text in data for text in texts if len(text) > 6), place


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"price_per_record": 1}, "price_per_record"),
        ({"node_id": 8}, "node_id"),
        ({"budget": BUDGET - 1}, "budget"),
        ({"deadline": NOW - 1}, "deadline"),
    ],
)
def test_terms_that_do_not_fit_are_refused_before_any_record_is_touched(
    hospital, make_bundle, policy, changes, code
):
    hospital.lease(make_bundle(), policy, **changes)
    hospital.node().run()
    assert hospital.hub.failure.code == "TermsRefused"
    assert f"the job's {code} is" in hospital.hub.failure.detail
    assert not (hospital.job_directory / "meter.journal").exists()


def test_a_job_that_is_not_escrowed_is_refused_whatever_the_hub_says(hospital, make_bundle, policy):
    hospital.lease(make_bundle(), policy, fund=False)
    hospital.node().run()
    assert hospital.hub.failure.code == "TermsRefused"
    assert "JobUnknown" in hospital.hub.failure.detail
    assert not (hospital.job_directory / "meter.journal").exists()


@pytest.mark.parametrize("state", [JobState.UNASSIGNED, JobState.CANCELLING, JobState.CLOSED])
def test_a_job_that_is_not_open_is_refused(hospital, make_bundle, policy, state):
    hospital.oracle.open(hospital.lease(make_bundle(), policy), state)
    hospital.node().run()
    assert hospital.hub.failure.code == "TermsRefused"
    assert state in hospital.hub.failure.detail


def test_a_job_with_less_money_than_agreed_is_refused(hospital, make_bundle, policy):
    job = hospital.lease(make_bundle(), policy)
    known = hospital.oracle.jobs[job.job_id]
    hospital.oracle.jobs[job.job_id] = known.model_copy(update={"funded": BUDGET - 1})
    hospital.node().run()
    assert hospital.hub.failure.code == "TermsRefused"
    assert f"OPEN with {BUDGET - 1}" in hospital.hub.failure.detail


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("def train(loader, hyperparameters): raise ValueError('patient 17')", "TrainingFailed"),
        ("def train(loader, hyperparameters): return {}", "ProtocolViolation"),
        ("import time\ndef train(loader, hyperparameters): time.sleep(60)", "TrainingTimedOut"),
        (
            "def train(loader, hyperparameters):\n"
            "    for epoch in loader.epochs():\n"
            "        for batch in epoch: pass\n"
            "        loader.report(secret=1.0)\n",
            "PolicyDenied",
        ),
        (
            "import numpy as np\n"
            "def train(loader, hyperparameters):\n"
            "    rows = [x for epoch in loader.epochs(1) for x, y in epoch]\n"
            "    loader.evaluate(lambda x: np.zeros(len(x)))\n"
            "    return {'w': np.concatenate(rows)}\n",
            "PolicyDenied",
        ),
    ],
)
def test_a_failed_training_is_reported_by_name_and_shows_no_data(
    hospital, make_bundle, policy, source, code
):
    hospital.settings = {"limits": ChildLimits(wall_seconds=3)}
    hospital.lease(make_bundle(source), policy)
    hospital.node().run()
    assert hospital.hub.failure.code == code
    assert "patient" not in hospital.hub.failure.detail
    assert "secret" not in hospital.hub.failure.detail
    assert hospital.hub.artifacts == {}
    assert not any(r.receipt.complete for r in hospital.oracle.receipts.values())


def test_what_a_failed_training_wrote_stays_at_the_hospital(hospital, make_bundle, policy):
    source = "def train(loader, hyperparameters): raise ValueError('patient 17')"
    hospital.lease(make_bundle(source), policy)
    hospital.node().run()
    assert b"patient 17" in (hospital.job_directory / "stderr.txt").read_bytes()


def test_a_failed_job_that_comes_again_is_reported_again_and_not_run(
    hospital, make_bundle, policy, monkeypatch
):
    hospital.lease(make_bundle("def train(loader, hyperparameters): 1/0"), policy)
    hospital.node().run()
    first, hospital.hub.failure = hospital.hub.failure, None
    monkeypatch.setattr(node_module, "train", lambda *a, **k: pytest.fail("trained again"))
    hospital.node().run()
    assert hospital.hub.failure == first


def test_a_rejected_completion_fails_the_job_and_delivers_nothing(hospital, make_bundle, policy):
    hospital.lease(make_bundle(), policy)
    hospital.oracle.verdict = (Status.REJECTED, "EnclaveNotRegistered")
    hospital.node().run()
    assert hospital.hub.failure.code == "ReceiptRejected"
    assert "EnclaveNotRegistered" in hospital.hub.failure.detail
    assert hospital.hub.artifacts == {}


def test_a_completion_that_is_never_settled_fails_after_the_grace_period(
    hospital, make_bundle, policy
):
    hospital.lease(make_bundle(), policy)
    real = hospital.oracle.receipt

    def late(digest):
        hospital.now += 1000
        hospital.oracle.asked.discard(digest)
        return real(digest)

    hospital.oracle.receipt = late
    hospital.node().run()
    assert hospital.hub.failure.code == "SettlementTimedOut"
    assert hospital.hub.artifacts == {}


def test_a_final_refusal_of_the_evidence_ends_the_node_by_name(hospital):
    refused = OracleRefused("MeasurementNotAllowed", 422, "not allowed", final=True, data={})
    hospital.oracle.refuse_attestation = [refused]
    with pytest.raises(AttestationRefused) as caught:
        hospital.node().run()
    assert caught.value.reason == "MeasurementNotAllowed"
    assert hospital.hub.profile is None


def test_a_node_without_a_tpm_ends_by_name_where_one_is_required(hospital):
    hospital.oracle.tpm = TpmWanted(required=True, selection="sha256:8", event_log=False)
    with pytest.raises(AttestationRefused) as caught:
        hospital.node().run()
    assert caught.value.reason == "TpmRequired"
    assert hospital.oracle.attestations == 0


def test_a_node_without_a_tpm_says_so_where_none_is_required(hospital):
    hospital.oracle.tpm = TpmWanted(required=False, selection="sha256:8", event_log=False)
    with capture_logs() as logs:
        hospital.node().run()
    assert [entry["event"] for entry in logs].count("running_without_tpm") == 1
    assert hospital.oracle.attestations == 1


def test_a_stale_challenge_is_replaced_by_a_fresh_one(hospital):
    stale = OracleRefused("StaleChallenge", 409, "too old", final=True, data={})
    hospital.oracle.refuse_attestation = [stale, stale]
    hospital.node().run()
    assert hospital.oracle.attestations == 1


def test_a_challenge_that_is_always_stale_is_refused_in_the_end(hospital):
    stale = OracleRefused("StaleChallenge", 409, "too old", final=True, data={})
    hospital.oracle.refuse_attestation = [stale] * 4
    with pytest.raises(AttestationRefused) as caught:
        hospital.node().run()
    assert caught.value.reason == "StaleChallenge"
    assert len(hospital.oracle.refuse_attestation) == 1


def test_a_registration_that_still_holds_is_not_renewed(hospital):
    hospital.node().run()
    hospital.node().run()
    assert hospital.oracle.attestations == 1


def test_a_registration_about_to_expire_is_renewed(hospital):
    hospital.node().run()
    hospital.now += 3600 - 600
    hospital.node().run()
    assert hospital.oracle.attestations == 2


def test_a_registration_that_never_comes_is_timed_out_as_passing(hospital):
    hospital.settings = {"attestation_seconds": 0.05}
    hospital.oracle.validity = 0
    with pytest.raises(AttestationTimedOut) as caught:
        hospital.node()._attestor.ensure()
    assert not caught.value.final


FULL_DISK = """
from unit.edge import conftest
from unit.edge.test_node import Hospital
from oracle.clients.edge.dataset import commit
from oracle.clients.edge.errors import StateUnwritable

committed = commit(conftest.small_dataset(), conftest.DATASET_KEY)
hospital = Hospital(disk, committed, conftest.DEPLOYMENT)
hospital.lease(conftest.bundle_of(), conftest.POLICY)
node = hospital.node()
filler = disk / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        file.truncate(file.tell() - {left})
try:
    node.run()
except StateUnwritable as error:
    assert not error.final and hospital.hub.failure is None and hospital.hub.artifacts == {{}}
else:
    raise AssertionError("the disk was not full")
grow()
hospital.node().run()
hospital.check_delivery()
"""


@pytest.mark.parametrize("left", [4096, 24576, 49152] if LONG else [24576])
def test_a_full_disk_stops_the_node_by_name_and_the_job_goes_on_when_there_is_room(tmp_path, left):
    on_a_small_disk(tmp_path, FULL_DISK.format(left=left), kilobytes=256)


def test_a_second_node_on_the_same_state_is_refused(hospital):
    node = hospital.node()
    with node._exclusive_state(), pytest.raises(StateInUse):
        hospital.node().run()


def test_scratch_left_by_a_crash_is_removed(hospital):
    left = hospital.directory / "state/scratch/job-1"
    left.mkdir(parents=True)
    (left / "record").write_bytes(b"x")
    hospital.node().run()
    assert not left.exists()


def test_a_node_without_the_sandbox_that_it_requires_takes_no_job(
    hospital, make_bundle, policy, monkeypatch
):
    monkeypatch.setattr("oracle.clients.edge.sandbox.bubblewrap.PROGRAM", "no-such-bwrap")
    hospital.settings = {"sandbox": "required"}
    hospital.lease(make_bundle(), policy)
    with pytest.raises(SandboxUnavailable, match="bubblewrap is not installed"):
        hospital.node().run()
    assert hospital.hub.profile is None
    assert hospital.hub.failure is None
