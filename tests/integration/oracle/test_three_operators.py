"""Three operators as processes, the contracts on anvil: from evidence to a settled, closed job."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from anvil import key as actor
from eth_utils import keccak
from hexbytes import HexBytes
from web3 import HTTPProvider, Web3

from oracle.client import OracleClient, OracleRefused, OracleUnavailable
from oracle.clients.edge.devplatform import DevPlatform
from oracle.messages import (
    ChallengeSet,
    EscrowRequest,
    Evidence,
    JobState,
    Status,
    TpmEvidence,
)
from scripts.chain import ROOT, anvil_binary, die_with_parent, free_port, rpc
from settlement.client import Settlement
from settlement.dcap import Trust
from settlement.deploy import DeploymentParameters, deploy, deploy_test_usdc
from settlement.deployment import Deployment
from settlement.eip712 import job_id, receipt_digest, sign_digest
from settlement.enclave import report_data
from settlement.models import JobTerms, Receipt, SignedReceipt, Work
from settlement.signer import LocalSigner

MEASUREMENT = keccak(text="measurement")
CONFIGURATION = keccak(text="configuration")
ENCRYPTION_KEY = keccak(text="encryption key")
MOST_RECORDS = 900
"""Fewer than the budget pays for."""

TOKEN = "the operators' shared token, long enough"
T = TypeVar("T")
LIAR = '''
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Liar(BaseHTTPRequestHandler):
    """A peer that says yes to everything, and gives what is worth nothing."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        random = lambda size: "0x" + os.urandom(size).hex()
        answer = {
            "/v1/committee/challenges": {"challenge": random(32), "expires_at": 2**40},
            "/v1/committee/tpm/enrolments": {
                "challenge_id": random(32),
                "credential_blob": random(68),
                "encrypted_secret": random(70),
                "expires_at": 2**40,
            },
            "/v1/committee/tpm/activations": {"node_id": 1, "valid_until": 2**40},
            "/v1/committee/tpm": {"node_id": 1, "valid_until": 2**40},
            "/v1/committee/signatures": {"signature": "yes"},
        }[self.path]
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(sys.argv[1])), Liar).serve_forever()
'''


def until(ask: Callable[[], T | None], seconds: float = 120) -> T:
    """The first answer that is something, within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.1)  # other processes are waited for
    raise AssertionError("did not happen in time")


def spawn(stack: ExitStack, command: list[str], log: Path, **env: str) -> subprocess.Popen[bytes]:
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(
        command,
        stdout=output,
        stderr=output,
        env={**os.environ, **env},
        cwd=log.parent,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    stack.callback(end)
    return process


@dataclass
class Network:
    """Anvil with the contracts, and three operators of which the first relays."""

    w3: Web3
    deployment: Deployment
    platform: DevPlatform
    operators: list[subprocess.Popen[bytes]]
    start: Callable[[int], subprocess.Popen[bytes]]
    client: OracleClient
    directory: Path
    urls: list[str]

    def evidence(
        self, tpm: Callable[[ChallengeSet], TpmEvidence | None] = lambda _challenges: None
    ) -> Evidence:
        enclave = actor("enclave").address
        challenges = self.client.create_challenge(1, enclave)
        data = report_data(
            chain_id=self.deployment.chain_id,
            registry=self.deployment.enclave_registry,
            enclave_key=enclave,
            encryption_key=ENCRYPTION_KEY,
            nonce=challenges.nonce,
            configuration=CONFIGURATION,
        )
        return Evidence(
            node_id=1,
            enclave_key=enclave,
            encryption_key=ENCRYPTION_KEY,
            configuration=CONFIGURATION,
            challenges=challenges.challenges,
            quote=self.platform.quote(MEASUREMENT, data),
            tpm=tpm(challenges),
        )

    def terms(self) -> JobTerms:
        now = int(self.w3.eth.get_block("latest")["timestamp"])
        digest = keccak(text="work")
        return JobTerms(
            payer=actor("payer").address,
            node_id=1,
            price_per_record=100_000,
            price_per_epoch=1_000_000,
            budget=100_000_000,
            deadline=now + 86_400,
            work=Work(
                model_digest=digest,
                dataset_digest=digest,
                policy_digest=digest,
                result_key_digest=digest,
            ),
            salt=keccak(text="salt"),
        )

    def receipt(self, terms: JobTerms, records: int, *, by: str, done: bool) -> SignedReceipt:
        receipt = Receipt(
            job_id=job_id(terms, self.deployment.vault_domain),
            records=records,
            epochs=1,
            records_root=keccak(text=f"root {records}"),
            output_digest=keccak(text="output") if done else bytes(32),
            complete=done,
        )
        digest = receipt_digest(receipt, self.deployment.vault_domain)
        return SignedReceipt(receipt=receipt, signature=sign_digest(digest, actor(by).key))


@pytest.fixture
def operator_settings() -> dict[str, str]:
    """What all operators are told beside the rest."""
    return {}


@pytest.fixture
def network(tmp_path: Path, operator_settings: dict[str, str]) -> Iterator[Network]:
    with ExitStack() as stack:
        port = free_port()
        anvil = str(anvil_binary())
        chain = ["--block-time", "1", "--slots-in-an-epoch", "1", "--hardfork", "osaka"]
        spawn(stack, [anvil, "--port", str(port), *chain], tmp_path / "anvil.log")
        w3 = Web3(HTTPProvider(f"http://127.0.0.1:{port}"))
        until(w3.is_connected)
        rpc(w3, "evm_setIntervalMining", 0)
        rpc(w3, "evm_setAutomine", True)
        platform = DevPlatform.create(int(time.time()) - 3600, chain_id=w3.eth.chain_id)
        deployment = _deploy(w3, platform.trust)
        rpc(w3, "evm_setIntervalMining", 1)
        shared = {
            "RPC_URL": f"http://127.0.0.1:{port}",
            "DEPLOYMENT_FILE": _file(tmp_path, "deployment.json", deployment.model_dump_json()),
            "COLLATERAL_FILE": _file(tmp_path, "collateral.json", platform.collateral_json()),
            "PEER_TOKEN_FILE": _file(tmp_path, "token", TOKEN),
            "POLL_INTERVAL": "0.2",
            **operator_settings,
        }
        root = tmp_path / "root.der"
        root.write_bytes(platform.root_der)
        ports = [free_port() for _ in range(3)]

        def start(index: int) -> subprocess.Popen[bytes]:
            name = f"operator {index}"
            own = {
                "PORT": str(ports[index]),
                "DATABASE_URL": f"sqlite:///{tmp_path / name}.db",
                "COMMITTEE_KEY_FILE": _file(tmp_path, f"{name}.key", actor(name).key.hex()),
                "DEV_ROOT_FILE": str(root),
            }
            if index == 0:
                own["RELAY"] = "true"
                own["RELAYER_KEY_FILE"] = _file(tmp_path, "relayer", actor("relayer").key.hex())
                own["PEERS"] = ",".join(f"http://127.0.0.1:{port}" for port in ports[1:])
            env = {f"RAPHA_ORACLE_{key}": value for key, value in (shared | own).items()}
            command = [sys.executable, "-m", "oracle.cli", "serve"]
            return spawn(stack, command, tmp_path / f"{name}.log", **env, PYTHONPATH=str(ROOT))

        operators = [start(index) for index in range(3)]
        for operator_port in ports:
            _wait_ready(f"http://127.0.0.1:{operator_port}")
        client = stack.enter_context(OracleClient(f"http://127.0.0.1:{ports[0]}"))
        urls = [f"http://127.0.0.1:{operator_port}" for operator_port in ports]
        yield Network(w3, deployment, platform, operators, start, client, tmp_path, urls)


def _wait_ready(url: str) -> None:
    def ready() -> bool:
        try:
            with OracleClient(url) as client:
                return client.health().ready
        except OracleUnavailable:
            return False

    until(ready)


def lie(stack: ExitStack, network: Network) -> None:
    """Have a liar answer in the place of the third operator, which is dead."""
    script = network.directory / "liar.py"
    script.write_text(LIAR)
    port = network.urls[2].rpartition(":")[2]
    spawn(stack, [sys.executable, str(script), port], network.directory / "liar.log")
    enclave = actor("enclave").address
    until(lambda: len(network.client.create_challenge(1, enclave).challenges) == 3)


class Load:
    """Batches of receipts, one after the other on a thread, until the block ends."""

    def __init__(self, network: Network, terms: JobTerms, first: int) -> None:
        self.digests: list[bytes] = []
        self.records = first
        self._network, self._terms = network, terms
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "Load":
        self._done = self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._done.result()
        self._pool.shutdown()

    def _run(self) -> None:
        with OracleClient(self._network.client.base_url) as client:
            while not self._over.wait(0.2) and self.records < MOST_RECORDS:
                counts = range(self.records + 1, self.records + 11)
                batch = [
                    self._network.receipt(self._terms, n, by="enclave", done=False) for n in counts
                ]
                for answer in client.submit_receipts(batch):
                    assert answer.receipt is not None, answer
                    assert answer.receipt.status is Status.ACCEPTED, answer
                    self.digests.append(answer.receipt.digest)
                self.records += len(batch)


def _file(directory: Path, name: str, content: str) -> str:
    path = directory / name
    path.write_text(content)
    return str(path)


def _deploy(w3: Web3, trust: Trust) -> Deployment:
    for name in ("deployer", "registrar", "relayer"):
        rpc(w3, "anvil_setBalance", actor(name).address, hex(10**21))
    deployer = LocalSigner(actor("deployer"))
    usdc = deploy_test_usdc(w3, deployer)
    members = sorted((actor(f"operator {i}").address for i in range(3)), key=str.lower)
    deployment = deploy(
        w3,
        deployer,
        usdc,
        DeploymentParameters(
            proposers=(actor("proposer").address,),
            guardian=actor("guardian").address,
            registrar=actor("registrar").address,
            protocol=actor("protocol").address,
            arbiter=actor("arbiter").address,
            committee=tuple(members),
            threshold=2,
            measurements=(MEASUREMENT,),
            grace_period=86_400,
            timelock_delay=3600,
            trust=trust,
        ),
    )
    settlement = Settlement(w3, deployment, deployer)
    settlement.transact(settlement.usdc.functions.mint(actor("payer").address, 10**9))
    registrar = Settlement(w3, deployment, LocalSigner(actor("registrar")))
    registrar.transact(
        registrar.nodes.functions.register_node(
            actor("owner").address,
            actor("hospital").address,
            actor("onboarder").address,
            keccak(text="hardware"),
        )
    )
    return deployment


def settled(ask: Callable[[], Any]) -> Any:
    """Wait until what `ask` returns is SETTLED."""

    def check() -> Any:
        status = ask()
        assert status.status is not Status.REJECTED, status
        return status if status.status is Status.SETTLED else None

    return until(check)


def test_from_evidence_to_a_closed_job_through_a_killed_relayer_and_a_dead_and_a_lying_peer(
    network: Network,
) -> None:
    client = network.client
    digest = client.submit_attestation(network.evidence()).digest
    settled(lambda: client.attestation(digest))
    node = client.node(1)
    assert (node.valid, node.encryption_key) == (True, ENCRYPTION_KEY)

    terms = network.terms()
    payer = Settlement(network.w3, network.deployment, LocalSigner(actor("payer")))
    client.submit_escrow(EscrowRequest(terms=terms, authorization=payer.authorize(terms)))
    job = job_id(terms, network.deployment.vault_domain)
    settled(lambda: client.escrow(job))
    assert client.job(job).state is JobState.OPEN

    forged = client.submit_receipt(network.receipt(terms, 99, by="forger", done=False))
    assert (forged.status, forged.reason) == (Status.REJECTED, "EnclaveUnknown")
    first = client.submit_receipt(network.receipt(terms, 10, by="enclave", done=False))
    assert first.status is Status.ACCEPTED

    # The relaying operator dies without a word, and comes back to what it had promised.
    network.operators[0].kill()
    network.operators[0].wait()
    with pytest.raises(OracleUnavailable):
        client.receipt(first.digest)
    network.operators[2].kill()
    network.start(0)
    _wait_ready(client.base_url)
    paid = settled(lambda: client.receipt(first.digest))
    assert paid.amount == 2_000_000
    assert network.w3.eth.get_transaction_receipt(HexBytes(paid.transaction))["status"] == 1

    # With one peer dead, and then lying, there is still a quorum of two, while receipts pour in.
    with Load(network, terms, 10) as load, ExitStack() as stack:
        again = client.submit_attestation(network.evidence()).digest
        settled(lambda: client.attestation(again))
        lie(stack, network)
        again = client.submit_attestation(network.evidence()).digest
        settled(lambda: client.attestation(again))
    assert len(load.digests) >= 20

    last = network.receipt(terms, load.records + 10, by="enclave", done=True)
    digest = client.submit_receipt(last).digest
    settled(lambda: client.receipt(digest))
    amounts = [
        settled(lambda one=one: client.receipt(one)).amount
        for one in (first.digest, *load.digests, digest)
    ]
    earned = 1_000_000 + (load.records + 10) * 100_000
    assert sum(amounts) == earned
    closed = client.job(job)
    assert (closed.state, closed.paid, closed.refunded) == (
        JobState.CLOSED,
        earned,
        terms.budget - earned,
    )
    assert payer.job(job).paid == earned
    log = (network.directory / "operator 0.log").read_text()
    assert log.count('"peer did not help"') >= 2

    with pytest.raises(OracleRefused) as caught:
        client.job(bytes(32))
    assert caught.value.code == "JobUnknown"


def test_an_operator_ends_cleanly_when_it_is_told_to(network: Network) -> None:
    begun = time.monotonic()
    network.operators[0].send_signal(signal.SIGTERM)
    assert network.operators[0].wait(timeout=10) == 0
    assert time.monotonic() - begun < 3
    last = (network.directory / "operator 0.log").read_text().splitlines()[-1]
    assert '"oracle stopped"' in last
