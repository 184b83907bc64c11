"""Several oracles on one PostgreSQL: one dies under load, another joins, and nothing is lost."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from anvil import Chain, key
from eth_utils import keccak
from integration.oracle.test_three_operators import spawn, until
from postgres import cluster as cluster
from sqlalchemy import func, select

from oracle.client import OracleClient, OracleUnavailable
from oracle.clients.edge.devplatform import DevPlatform
from oracle.errors import LeaseTaken
from oracle.messages import Status
from oracle.store.database import Store
from oracle.store.intake_tables import ChangeRow, LeaseRow
from oracle.store.tables import CursorRow, ReceiptRow
from scripts.chain import ROOT, free_port, rpc
from scripts.postgres import Cluster
from settlement.eip712 import job_id, receipt_digest, sign_digest
from settlement.models import JobTerms, Receipt, SignedReceipt

COUNT, BATCH = 600, 20


class Instances:
    """Oracles that share a database and all they are configured with."""

    def __init__(self, stack: ExitStack, chain: Chain, url: str, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self.clients: list[OracleClient] = []
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        deployment = chain.deployment
        collateral = DevPlatform.create(1, chain_id=deployment.chain_id).collateral_json()
        self._env = {
            "RPC_URL": str(chain.w3.provider.endpoint_uri),  # type: ignore[attr-defined]
            "DEPLOYMENT_FILE": self._file("deployment.json", deployment.model_dump_json()),
            "COLLATERAL_FILE": self._file("collateral.json", collateral),
            "PEER_TOKEN_FILE": self._file("token", "x" * 64),
            "COMMITTEE_KEY_FILE": self._file("committee", key("operator 0").key.hex()),
            "RELAYER_KEY_FILE": self._file("relayer", key("relayer").key.hex()),
            "RELAY": "true",
            "DATABASE_URL": url,
            "POLL_INTERVAL": "0.2",
            "RATE_PER_ADDRESS": "1000000/minute",
        }

    def _file(self, name: str, content: str) -> str:
        path = self._directory / name
        path.write_text(content)
        return str(path)

    def start(self) -> subprocess.Popen[bytes]:
        """One more."""
        port = free_port()
        env = {f"RAPHA_ORACLE_{k}": v for k, v in {**self._env, "PORT": str(port)}.items()}
        command = [sys.executable, "-m", "oracle.cli", "serve"]
        log = self._directory / f"{port}.log"
        process = spawn(self._stack, command, log, **env, PYTHONPATH=str(ROOT))
        client = self._stack.enter_context(OracleClient(f"http://127.0.0.1:{port}", timeout=60))
        self.clients.append(client)
        self.processes[process.pid] = process
        return process

    def wait_for_all(self) -> None:
        """Until each one answers."""
        for client in self.clients:
            until(lambda client=client: _answers(client), 200)


def _answers(client: OracleClient) -> bool:
    try:
        client.health()
    except OracleUnavailable:
        return False
    return True


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Store]:
    store = Store(cluster.create())
    yield store
    store.close()


def receipts(chain: Chain, terms: JobTerms) -> list[SignedReceipt]:
    domain = chain.deployment.vault_domain
    made = []
    for records in range(1, COUNT + 1):
        receipt = Receipt(
            job_id=job_id(terms, domain),
            records=records,
            epochs=0,
            records_root=keccak(text=f"root {records}"),
            output_digest=bytes(32),
            complete=False,
        )
        signature = sign_digest(receipt_digest(receipt, domain), key("enclave").key)
        made.append(SignedReceipt(receipt=receipt, signature=signature))
    return made


def finalize(chain: Chain) -> None:
    """Have all that is there become final: anvil counts two epochs of 32 blocks."""
    rpc(chain.w3, "anvil_mine", hex(70))


def leader(store: Store, name: str) -> tuple[int, int]:
    """Epoch and process id of whoever leads, or led last."""
    with store.read() as session:
        row = session.get(LeaseRow, name)
    return (row.epoch, int(row.holder.rsplit(":", 1)[1])) if row else (0, 0)


def cursor(store: Store) -> int:
    with store.read() as session:
        return session.scalar(select(CursorRow.block)) or 0


@pytest.mark.timeout(900)
def test_instances_die_and_join_under_load_and_each_receipt_is_there_once(
    chain: Chain, store: Store, stack: ExitStack, tmp_path: Path
) -> None:
    finalize(chain)
    url = store.engine.url.render_as_string(hide_password=False)
    instances = Instances(stack, chain, url, tmp_path)
    for _ in range(3):
        instances.start()
    instances.wait_for_all()
    until(lambda: cursor(store), 120)
    epoch, first = leader(store, "watcher")
    assert first in instances.processes

    everything = receipts(chain, chain.terms())
    batches = [everything[at : at + BATCH] for at in range(0, COUNT, BATCH)]
    work = [*batches, *batches]  # each is brought twice, to different instances
    half = threading.Semaphore(0)

    def bring(index: int, batch: Sequence[SignedReceipt]) -> None:
        """To one instance after the other, until one says that they are durable."""
        for attempt in range(200):
            clients = instances.clients
            try:
                answers = clients[(index + attempt) % len(clients)].submit_receipts(batch)
            except OracleUnavailable:
                continue
            assert all(a.receipt and a.receipt.status is Status.WAITING for a in answers)
            half.release()
            return
        raise AssertionError("nobody took them")

    with ThreadPoolExecutor(6) as pool:
        brought = [pool.submit(bring, index, batch) for index, batch in enumerate(work)]
        for _ in range(len(work) // 4):
            assert half.acquire(timeout=300)
        os.kill(first, signal.SIGKILL)
        instances.processes[first].wait()
        instances.start()
        for future in brought:
            future.result(600)

    with store.read() as session:
        rows = session.scalars(select(ReceiptRow.records)).all()
        told = session.scalar(
            select(func.count()).where(ChangeRow.kind == "receipt", ChangeRow.status == "WAITING")
        )
    assert sorted(rows) == list(range(1, COUNT + 1))
    assert told == COUNT

    later, second = until(
        lambda: found if (found := leader(store, "watcher"))[0] > epoch else None, 60
    )
    assert (later, second != first) == (epoch + 1, True)

    # The new leader goes on where the dead one was: the job is seen, and each receipt judged.
    reached = cursor(store)
    chain.open(chain.terms())
    finalize(chain)
    until(lambda: cursor(store) > reached, 120)

    def judged() -> bool:
        with store.read() as session:
            waiting = select(func.count()).where(ReceiptRow.status == Status.WAITING)
            return session.scalar(waiting) == 0

    until(judged, 120)


@pytest.mark.timeout(300)
def test_a_second_process_on_sqlite_is_refused_by_name(
    chain: Chain, stack: ExitStack, tmp_path: Path
) -> None:
    instances = Instances(stack, chain, f"sqlite:///{tmp_path / 'oracle.db'}", tmp_path)
    first = instances.start()
    instances.wait_for_all()
    second = instances.start()
    assert second.wait(120) == 1
    log = (tmp_path / f"{instances.clients[1].base_url.rsplit(':', 1)[1]}.log").read_text()
    assert f'"code": "{LeaseTaken.__name__}"' in log
    assert f":{first.pid} holds 'process'" in log
    assert first.poll() is None
