"""One relaying oracle over the real contracts: its parts in this process, or as a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anvil import Chain, key
from integration.oracle.scene import GWEI, Scene, url_of
from sqlalchemy import select

from oracle.chain import RpcChain
from oracle.client import OracleClient, OracleUnavailable
from oracle.clients.edge.devplatform import DevPlatform
from oracle.keyring import RelayPolicy
from oracle.messages import EscrowRequest, ReceiptStatus, Status
from oracle.reconcile import reconcile
from oracle.store.database import Store
from oracle.store.tables import ReceiptRow
from oracle.transactions import FeePolicy
from scripts.chain import ROOT, die_with_parent, free_port, rpc
from settlement.contracts import Claim
from settlement.models import JobTerms, SignedReceipt

PRICE = 50_000
TOKEN = "the operators' shared token, long enough"
WAIT = 600.0
"""Seconds that a process may take for anything before the test gives up on it."""
POLICY = RelayPolicy(fees=FeePolicy(min_tip=GWEI, max_fee=1_000 * GWEI), patience=5)


def until(what: str, ask: Callable[[], Any]) -> Any:
    """The first answer that is something; another process is waited for."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen")


class Oracle(Scene):
    """One more scene, on a database of its own. `ahead` is what its clock is wrong by."""

    def __init__(
        self,
        chain: Chain,
        database: Path,
        *,
        url: str | None = None,
        ahead: int = 0,
        keys: tuple[str, ...] = ("relayer",),
    ) -> None:
        store = Store(f"sqlite:///{database}")
        store.migrate()
        view = RpcChain(url or url_of(chain), chain.deployment)
        super().__init__(chain, store, view, POLICY, keys, ahead)
        for name in keys:
            self.fund(name)

    def round(self) -> None:
        """The watcher and the relayer once, then a block."""
        self.watch()
        self.tick()
        self.mine()

    def rounds(self, count: int = 8) -> None:
        for _ in range(count):
            self.round()

    def hand_in(self, claim: Claim) -> ReceiptStatus:
        return self.intake.submit_receipt(claim.signed)

    def escrow(self, terms: JobTerms) -> EscrowRequest:
        return EscrowRequest(terms=terms, authorization=self.chain.payer.authorize(terms))

    def statuses(self) -> dict[int, tuple[str, str | None]]:
        """By records each receipt's status and reason."""
        with self.store.read() as session:
            return {
                row.records: (row.status, row.reason) for row in session.scalars(select(ReceiptRow))
            }


def check_ledger(chain: Chain, store: Store, paid: dict[bytes, int]) -> None:
    """Each job has been paid exactly this; and store, events, vault and USDC agree."""
    assert {job: chain.payer.job(job).paid for job in paid} == paid
    report = reconcile(chain.w3, chain.deployment, store=store)
    assert [str(difference) for difference in report.differences] == []


# The oracle as a process


class Process:
    """`rapha-oracle serve` for a chain, in a folder of its own."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        self.chain, self.folder = chain, folder
        self.port = free_port()
        self.database = folder / "oracle.db"
        platform = DevPlatform.create(
            int(chain.w3.eth.get_block("latest")["timestamp"]) - 3600,
            chain_id=chain.deployment.chain_id,
        )
        rpc(chain.w3, "anvil_setBalance", key("relayer").address, hex(10**21))
        (folder / "root.der").write_bytes(platform.root_der)
        self.settings = {
            "PORT": str(self.port),
            "RPC_URL": url_of(chain),
            "DATABASE_URL": f"sqlite:///{self.database}",
            "DEPLOYMENT_FILE": self._file("deployment.json", chain.deployment.model_dump_json()),
            "COLLATERAL_FILE": self._file("collateral.json", platform.collateral_json()),
            "DEV_ROOT_FILE": str(folder / "root.der"),
            "PEER_TOKEN_FILE": self._file("token", TOKEN),
            "COMMITTEE_KEY_FILE": self._file("committee.key", key("operator 0").key.hex()),
            "RELAY": "true",
            "RELAYER_KEY_FILE": self._file("relayer.key", key("relayer").key.hex()),
            "POLL_INTERVAL": "0.2",
            "MIN_TIP": str(GWEI),
        }
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def _file(self, name: str, content: str) -> str:
        path = self.folder / name
        path.write_text(content)
        return str(path)

    @property
    def env(self) -> dict[str, str]:
        own = {f"RAPHA_ORACLE_{name}": value for name, value in self.settings.items()}
        return {**os.environ, **own, "PYTHONPATH": str(ROOT)}

    def start(self, log: Path | None = None) -> None:
        """Start it, and wait until it is ready."""
        output = (log or Path(os.devnull)).open("ab")
        with output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "oracle.cli", "serve"],
                stdout=output,
                stderr=output,
                env=self.env,
                cwd=self.folder,
                preexec_fn=die_with_parent,
            )
        until("getting ready", self.is_ready)

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the oracle ended"
        try:
            with OracleClient(self.url) as client:
                return client.health().ready
        except OracleUnavailable:
            return False

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(WAIT)

    def command(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """`rapha-oracle` with these arguments."""
        env = {**self.env, **{f"RAPHA_ORACLE_{name}": value for name, value in changes.items()}}
        return subprocess.run(
            [sys.executable, "-m", "oracle.cli", *arguments],
            capture_output=True,
            text=True,
            env=env,
            cwd=self.folder,
            timeout=WAIT,
            check=False,
        )

    def hand_in(self, signed: SignedReceipt) -> ReceiptStatus:
        with OracleClient(self.url) as client:
            return client.submit_receipt(signed)

    def wait_until_seen(self, digest: bytes) -> None:
        """Until the facts reach to the receipt's job."""

        def seen() -> bool:
            with OracleClient(self.url) as client:
                status = client.receipt(digest).status
            if status is Status.WAITING:
                rpc(self.chain.w3, "evm_mine")
            return status is not Status.WAITING

        until("the job's opening being seen", seen)

    def wait_until_settled(self, digest: bytes) -> ReceiptStatus:
        def settled() -> ReceiptStatus | None:
            with OracleClient(self.url) as client:
                status = client.receipt(digest)
            assert status.status is not Status.REJECTED, status
            if status.status is Status.SETTLED:
                return status
            # what is mined becomes final by new blocks, and others may wait for that
            rpc(self.chain.w3, "evm_mine")
            return None

        found = until("settling", settled)
        assert isinstance(found, ReceiptStatus)
        return found
