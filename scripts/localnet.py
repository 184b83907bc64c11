"""A whole settlement on this machine: a chain, the contracts, oracles, a hub and a hospital's node.

Every part is the program that runs anywhere else, in a process of its own; only the chain is local
and the enclave's hardware simulated. All keys are made for the one run.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from web3 import HTTPProvider, Web3

from oracle.client import OracleClient
from oracle.clients.edge.devplatform import DevPlatform
from oracle.clients.edge.signer import measurement
from scripts.chain import (
    ROOT,
    START_SECONDS,
    TookTooLong,
    anvil_binary,
    die_with_parent,
    free_port,
    rpc,
)
from scripts.devtpm import DevTpm, is_installed
from settlement.client import Settlement
from settlement.deploy import DeploymentParameters, deploy, deploy_test_usdc
from settlement.deployment import Deployment
from settlement.errors import RaphaError
from settlement.hub.client import HubClient
from settlement.hub.messages import CatalogueEntry
from settlement.signer import LocalSigner

CHAIN_ID = 31337
BLOCK_SECONDS = 1
OPERATORS = 3
THRESHOLD = 2
GRACE_SECONDS = 60 * 60
READY_SECONDS = 240.0
"""What a part may take to start on a machine that is busy with others."""
_ETHER = 10**18
_LOG_LINES = 15

T = TypeVar("T")


class ProcessDied(RaphaError, RuntimeError):
    """A process of the local network ended on its own."""

    def __init__(self, name: str, status: int, log: Path) -> None:
        self.name, self.status, self.log = name, status, log
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        super().__init__(f"{name} ended with status {status}; its last words:\n" + "\n".join(lines))


@dataclass(frozen=True)
class Actors:
    """Everybody with a key, made afresh for each network."""

    deployer: LocalAccount
    guardian: LocalAccount
    arbiter: LocalAccount
    protocol: LocalAccount
    hospital: LocalAccount
    node_owner: LocalAccount
    onboarder: LocalAccount
    payer: LocalAccount
    relayer: LocalAccount
    operators: tuple[LocalAccount, ...]

    @classmethod
    def create(cls) -> Self:
        """Random keys for all."""
        names = [name for name in cls.__dataclass_fields__ if name != "operators"]
        return cls(
            operators=tuple(Account.create() for _ in range(OPERATORS)),
            **{name: Account.create() for name in names},
        )


@dataclass
class Process:
    """One running program and how to start it again."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a process group of its own; it dies with us, whatever becomes of us."""
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
                cwd=ROOT,
            )

    def stop(self, *, gently: bool = True, patience: float = 5) -> None:
        """End it and its children: by SIGTERM, then, or at once if not `gently`, by SIGKILL."""
        if self.running is None:
            return
        if gently and self.running.poll() is None:
            self.running.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.running.wait(patience)
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()
        self.running = None


@dataclass
class Localnet:
    """The network. Use it as a context: whatever happens inside, no process is left behind.

    `folder` takes every state and log; whoever made it removes it.
    """

    folder: Path
    price_per_record: int = 50_000
    price_per_epoch: int = 200_000
    node_environment: Mapping[str, str] = field(default_factory=dict)
    actors: Actors = field(default_factory=Actors.create)
    processes: dict[str, Process] = field(default_factory=dict)
    _ports: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        for name in ("logs", "keys"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process, clients before what they talk to."""
        for process in reversed(list(self.processes.values())):
            process.stop()

    def check(self) -> None:
        """Make sure that everything started still runs.

        Raises:
            ProcessDied: for the first one that ended on its own.
        """
        for process in self.processes.values():
            if process.running is not None and (status := process.running.poll()) is not None:
                raise ProcessDied(process.name, status, process.log)

    def wait(self, what: str, ready: Callable[[], T | None], seconds: float) -> T:
        """The first answer of `ready` that is not None.

        Raises:
            TookTooLong: when there was none within `seconds`.
            ProcessDied: when a process ended meanwhile.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            if (answer := ready()) is not None:
                return answer
            time.sleep(0.1)
        raise TookTooLong(what, seconds)

    def url(self, name: str) -> str:
        """Where a process listens."""
        return f"http://127.0.0.1:{self._port(name)}"

    def start_chain(self) -> Web3:
        """Start anvil, mining at once until `start_blocks`."""
        port = self._port("chain")
        self._spawn(
            "chain",
            [
                str(anvil_binary()),
                *("--port", str(port)),
                *("--chain-id", str(CHAIN_ID)),
                *("--hardfork", "osaka"),
                *("--accounts", "1"),
                # `finalized` then lags two blocks behind, so confirmation is real, and short
                *("--slots-in-an-epoch", "1"),
                "--quiet",
            ],
            {"HOME": str(self.folder)},
        )
        self.w3 = Web3(HTTPProvider(self.url("chain")))
        self.wait("the chain's start", lambda: self.w3.is_connected() or None, START_SECONDS)
        for account in (self.actors.deployer, self.actors.relayer, self.actors.hospital):
            rpc(self.w3, "anvil_setBalance", account.address, hex(100 * _ETHER))
        return self.w3

    def deploy(self) -> Deployment:
        """Deploy the test USDC and the contracts, and register the hospital's node.

        The enclave registry trusts the root of this network's own development platform.
        """
        actors = self.actors
        signer = LocalSigner(actors.deployer)
        platform = DevPlatform.open(self._platform, int(time.time()), chain_id=CHAIN_ID)
        usdc = deploy_test_usdc(self.w3, signer)
        self.deployment = deploy(
            self.w3,
            signer,
            usdc,
            DeploymentParameters(
                proposers=(actors.deployer.address,),
                guardian=actors.guardian.address,
                registrar=actors.deployer.address,
                protocol=actors.protocol.address,
                arbiter=actors.arbiter.address,
                committee=tuple(operator.address for operator in actors.operators),
                threshold=THRESHOLD,
                measurements=(measurement(),),
                grace_period=GRACE_SECONDS,
                # what is earned can be paid out at once
                challenge_window=0,
                timelock_delay=2 * 24 * 60 * 60,
                trust=platform.trust,
            ),
        )
        (self.folder / "deployment.json").write_text(self.deployment.model_dump_json(indent=2))
        self.governance = Settlement(self.w3, self.deployment, signer)
        self.governance.transact(
            self.governance.nodes.functions.register_node(
                actors.node_owner.address,
                actors.hospital.address,
                actors.onboarder.address,
                keccak(secrets.token_bytes(32)),
            )
        )
        self.node_id = int(self.governance.nodes.functions.node_count().call())
        return self.deployment

    def fund_payer(self, amount: int) -> None:
        """Give the payer USDC, in base units, and no native token: it only signs."""
        mint = self.governance.usdc.functions.mint(self.actors.payer.address, amount)
        self.governance.transact(mint)

    def hand_out(self, password: str) -> None:
        """Leave in the folder what a person at a shell needs: keystores, a password, settings.

        `payer.json` and `hospital.json` have gas money; `env` is to be sourced.
        """
        (self.folder / "password").write_text(password)
        for name in ("payer", "hospital"):
            account: LocalAccount = getattr(self.actors, name)
            rpc(self.w3, "anvil_setBalance", account.address, hex(100 * _ETHER))
            sealed = Account.encrypt(account.key, password, kdf="pbkdf2", iterations=1)
            (self.folder / f"{name}.json").write_text(json.dumps(sealed))
        settings = {
            "RAPHA_RPC_URL": self.url("chain"),
            "RAPHA_DEPLOYMENT_FILE": str(self.folder / "deployment.json"),
            "RAPHA_ORACLE_URL": self.url("oracle-1"),
            "HUB_URL": self.url("hub"),
            "PAYER": self.actors.payer.address,
            "HOSPITAL": self.actors.hospital.address,
            "RAPHA_KEYSTORE": str(self.folder / "payer.json"),
            "RAPHA_PASSWORD_FILE": str(self.folder / "password"),
            "NETWORK": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}:$PATH",
        }
        lines = [f'export {name}="{value}"' for name, value in settings.items()]
        (self.folder / "env").write_text("\n".join(lines) + "\n")

    def start_blocks(self) -> None:
        """From now on a block each second, as on a live chain."""
        rpc(self.w3, "evm_setIntervalMining", BLOCK_SECONDS)

    def start_tpm(self) -> None:
        """Give the node's machine a TPM that the operators require, where swtpm is installed."""
        self.tpm = DevTpm(self.folder / "tpm") if is_installed() else None
        if self.tpm is None:
            return
        self._spawn("tpm", self.tpm.command, {})
        self.wait("the TPM's start", self.tpm.answers, START_SECONDS)
        self.tpm.provision(measurement())

    def start_oracles(self) -> None:
        """Start the operators; the first relays and asks the others for their signatures."""
        self.start_tpm()
        token = self._secret("peer-token", secrets.token_hex(32))
        names = [f"oracle-{number}" for number in range(1, OPERATORS + 1)]
        for name, operator in zip(names, self.actors.operators, strict=True):
            state = self.folder / name
            state.mkdir(exist_ok=True)
            environment = {
                "PORT": str(self._port(name)),
                "RPC_URL": self.url("chain"),
                "DEPLOYMENT_FILE": str(self.folder / "deployment.json"),
                "DATABASE_URL": f"sqlite:///{state}/oracle.sqlite",
                "COMMITTEE_KEY_FILE": self._secret(f"{name}.key", operator.key.hex()),
                "PEER_TOKEN_FILE": token,
                "DEV_ROOT_FILE": str(self._platform / "root.der"),
                "COLLATERAL_FILE": str(self._platform / "collateral.json"),
                "POLL_INTERVAL": "0.5",
                "RELAY": "false",
                # the local chain has the P-256 precompile, and checks the enclave's quote itself
                "VOUCH_FOR": "platform",
                **(self.tpm.operator_settings() if self.tpm else {}),
            }
            if name == names[0]:
                environment |= {
                    "RELAY": "true",
                    "RELAYER_KEY_FILE": self._secret("relayer.key", self.actors.relayer.key.hex()),
                    "PEERS": ",".join(self.url(peer) for peer in names[1:]),
                }
            self._spawn(name, [_program("rapha-oracle"), "serve"], _prefixed("ORACLE", environment))

    def start_hub(self) -> None:
        """Start the hub with one developer's and one node's API key."""
        self.developer_key, node_key = secrets.token_hex(32), secrets.token_hex(32)
        keys = {
            "developers": {"developer": self.developer_key},
            "nodes": {str(self.node_id): node_key},
        }
        self._secret("node-hub.key", node_key)
        state = self.folder / "hub"
        state.mkdir(exist_ok=True)
        environment = {
            "PORT": str(self._port("hub")),
            "ORACLE_URL": self.url("oracle-1"),
            "DEPLOYMENT_FILE": str(self.folder / "deployment.json"),
            "DATABASE_URL": f"sqlite:///{state}/hub.sqlite",
            "ARTIFACTS_DIR": str(state / "artifacts"),
            "KEYS_FILE": self._secret("hub-keys.json", json.dumps(keys)),
            "HASH_KEY_FILE": str(state / "hash.key"),
            "RPC_URL": self.url("chain"),
            "REGISTRATION": "wallet",
            "NULLIFIER_KEY_FILE": str(state / "nullifier.key"),
            "OPERATORS": json.dumps([self.actors.deployer.address]),
        }
        self._spawn("hub", [_program("rapha-hub"), "serve"], _prefixed("HUB", environment))

    def wait_for_services(self) -> None:
        """Wait until the oracles are ready and the hub answers."""
        for name in [name for name in self.processes if name.startswith("oracle-")]:
            with OracleClient(self.url(name)) as oracle:
                self.wait(f"{name} getting ready", lambda: _ready(oracle), READY_SECONDS)
        with self.hub() as hub:
            self.wait("the hub's start", lambda: _answers(hub), READY_SECONDS)

    def start_node(self) -> None:
        """Start the hospital's node."""
        environment = {
            "NODE_ID": str(self.node_id),
            "ORACLE_URL": self.url("oracle-1"),
            "HUB_URL": self.url("hub"),
            "HUB_KEY_FILE": str(self.folder / "keys" / "node-hub.key"),
            "DEPLOYMENT_FILE": str(self.folder / "deployment.json"),
            "STATE_DIR": str(self.folder / "node"),
            "PLATFORM_DIR": str(self._platform),
            "PRICE_PER_RECORD": str(self.price_per_record),
            "PRICE_PER_EPOCH": str(self.price_per_epoch),
            # each settlement costs gas: about one per block is live enough
            "RECEIPT_INTERVAL_SECONDS": "2",
            **(self.tpm.node_settings() if self.tpm else {}),
            # a machine that forbids user namespaces still shows the rest; the evidence says so
            "SANDBOX": "development",
            # the developer's own network is not the node's to close
            "WAN_GUARD": "off",
            **self.node_environment,
        }
        self._spawn("node", [_program("rapha-edge"), "run"], _prefixed("EDGE", environment))

    def wait_for_node(self) -> CatalogueEntry:
        """The hub's catalogue entry of the node, once its attestation is valid on chain."""
        with self.hub() as hub:

            def valid() -> CatalogueEntry | None:
                return next((entry for entry in hub.catalogue() if entry.valid), None)

            return self.wait("the node's attestation", valid, READY_SECONDS)

    def oracle(self) -> OracleClient:
        """A client of the relaying oracle."""
        return OracleClient(self.url("oracle-1"))

    def hub(self) -> HubClient:
        """The developer's client of the hub."""
        return HubClient(self.url("hub"), self.developer_key)

    def payer(self) -> Settlement:
        """The contracts as the payer uses them."""
        return Settlement(self.w3, self.deployment, LocalSigner(self.actors.payer))

    @property
    def _platform(self) -> Path:
        """Where the development platform is kept, which these contracts trust and no others."""
        return self.folder / "platform"

    def _port(self, name: str) -> int:
        return self._ports.setdefault(name, free_port())

    def _spawn(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        log = self.folder / "logs" / f"{name}.log"
        self.processes[name] = Process(name, command, environment, log)
        self.processes[name].start()

    def _secret(self, name: str, text: str) -> str:
        path = self.folder / "keys" / name
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _prefixed(part: str, environment: Mapping[str, str]) -> dict[str, str]:
    return {f"RAPHA_{part}_{name}": value for name, value in environment.items()}


def _ready(oracle: OracleClient) -> bool | None:
    try:
        return oracle.health().ready or None
    except RaphaError as error:
        if error.final:
            raise
        return None


def _answers(hub: HubClient) -> bool | None:
    try:
        hub.health()
    except RaphaError as error:
        if error.final:
            raise
        return None
    return True
