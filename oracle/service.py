"""The oracle put together from its settings."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy.exc import SQLAlchemyError

from oracle.attestation.collateral import CollateralSource, FileCollateral
from oracle.attestation.pccs import PccsClient, PccsCollateral
from oracle.attestation.policy import TcbPolicy
from oracle.attestation.verify import QuoteVerifier
from oracle.chain import RpcChain
from oracle.client import PeerClient
from oracle.committee import CommitteePolicy, Operator
from oracle.config import OracleSettings, check_for_real_money, read_key, read_token
from oracle.errors import ChainUnavailable, NotRelaying, SecretFileInvalid
from oracle.facts import Chain
from oracle.intake import Intake
from oracle.loops import Loop
from oracle.messages import Readiness
from oracle.metrics import Metrics
from oracle.quorum import Quorum
from oracle.relayer import Relayer, RelayPolicy
from oracle.store.database import Store
from oracle.tpm import NodeTpms, TpmPolicy, read_policies, read_roots
from oracle.transactions import FeePolicy
from oracle.watcher import Watcher
from settlement.deployment import Deployment, load_deployment

STOP_TIMEOUT = 1.0
"""Seconds that each loop has to end."""

_OK = "ok"
_log = structlog.get_logger(__name__)


def wall_clock() -> int:
    """Unix seconds."""
    return int(time.time())


@dataclass
class Service:
    """One oracle, as the HTTP API sees it; quorum and relayer only where it relays."""

    store: Store
    chain: Chain
    intake: Intake
    operator: Operator
    watcher: Watcher
    peer_token: str
    max_lag: int
    poll_interval: float
    _quorum: Quorum | None = None
    relayer: Relayer | None = None
    peers: tuple[PeerClient, ...] = ()
    loops: list[Loop] = field(init=False)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.loops = [Loop("watcher", self.watcher.tick, self.poll_interval)]
        if self._quorum is not None:
            self.loops.append(Loop("quorum", self._quorum.tick, self.poll_interval))
        if self.relayer is not None:
            self.loops.append(Loop("relayer", self.relayer.tick, self.poll_interval))
        self.metrics = Metrics(self.store, self.watcher, self.loops)

    @property
    def quorum(self) -> Quorum:
        """The collector of quorums. Raises NotRelaying where this operator only signs."""
        if self._quorum is None:
            raise NotRelaying
        return self._quorum

    @property
    def relayed_intake(self) -> Intake:
        """The intake for what has to go on chain. Raises NotRelaying."""
        if self.relayer is None:
            raise NotRelaying
        return self.intake

    def prepare(self) -> None:
        """Migrate the database, and make sure of it and of the chain before anything starts.

        Raises:
            WrongChain: the endpoint or the contracts are not those of the deployment.
            DatabaseOfOtherDeployment: the database is not this deployment's.
            ChainUnavailable: the endpoint gives no answer.
        """
        self.store.migrate()
        self.chain.check()
        self.watcher.check_database()
        if not self.chain.is_member(self.operator.address):
            _log.warning("operator is not in the committee", operator=self.operator.address)

    def start(self) -> None:
        """Start the background loops."""
        for loop in self.loops:
            loop.start()

    def wake(self, name: str) -> None:
        """Have a loop's next round come now, if there is such a loop."""
        for loop in self.loops:
            if loop.name == name:
                loop.wake()

    def stop(self) -> None:
        """End the background loops and close connections. What is unfinished is on disk."""
        for loop in self.loops:
            loop.stop(0)
        for loop in self.loops:
            loop.stop(STOP_TIMEOUT)
        for peer in self.peers:
            peer.close()
        self.store.close()

    def readiness(self) -> Readiness:
        """Whether every part does its work now; each is asked, none is remembered as well."""
        checks = {"database": self._database(), "chain": self._rpc()}
        checks |= {loop.name: loop.trouble() or _OK for loop in self.loops}
        behind = self.watcher.behind
        if behind is None or behind > self.max_lag:
            checks["lag"] = "nothing read yet" if behind is None else f"{behind} blocks behind"
        else:
            checks["lag"] = _OK
        return Readiness(ready=all(state == _OK for state in checks.values()), checks=checks)

    def _database(self) -> str:
        try:
            self.store.check()
        except SQLAlchemyError as error:
            return type(error).__name__
        return _OK

    def _rpc(self) -> str:
        try:
            self.chain.latest()
        except ChainUnavailable as error:
            return str(error)
        return _OK


def build(settings: OracleSettings, clock: Callable[[], int] = wall_clock) -> Service:
    """Put an oracle together; nothing runs yet.

    Raises:
        ConfigurationRefused, DevelopmentRootRefused: what must not be configured this way.
        InvalidInput: when a file does not hold what it should.
    """
    deployment = load_deployment(settings.deployment_file)
    operator_account = read_key(settings.committee_key_file)
    relayer_account = None
    if settings.relay and settings.relayer_key_file:
        relayer_account = read_key(settings.relayer_key_file)
    accounts = [account for account in (operator_account, relayer_account) if account]
    check_for_real_money(settings, deployment.chain_id, accounts)

    store = Store(settings.database_url.get_secret_value())
    chain = RpcChain(settings.rpc_url.get_secret_value(), deployment)
    token = read_token(settings.peer_token_file)
    root = read_root(settings.dev_root_file) if settings.dev_root_file else None
    verifier = QuoteVerifier(
        chain_id=deployment.chain_id,
        collateral=collateral_source(settings, root),
        policy=TcbPolicy(
            allowances=settings.tcb_allowances, minimum_evaluation=settings.min_tcb_evaluation
        ),
        development_root=root,
    )
    policy = CommitteePolicy(settings.registration_ttl, settings.challenge_ttl)
    tpms = _tpms(settings, store, deployment, clock)
    operator = Operator(store, chain, deployment, verifier, operator_account, policy, clock, tpms)
    peers: tuple[PeerClient, ...] = ()
    quorum, relayer = None, None
    if relayer_account is not None:
        peers = tuple(
            PeerClient(url, timeout=settings.peer_timeout, token=token) for url in settings.peers
        )
        quorum = Quorum(store, chain, deployment, operator, peers)
        relay_policy = RelayPolicy(
            fees=FeePolicy(min_tip=settings.min_tip, max_fee=settings.max_fee),
            max_batch=settings.max_batch,
            patience=settings.patience,
        )
        relayer = Relayer(store, chain, deployment, relayer_account, relay_policy, clock)
    return Service(
        store=store,
        chain=chain,
        intake=Intake(store, deployment, clock, tpms),
        operator=operator,
        watcher=Watcher(store, chain, deployment),
        peer_token=token,
        max_lag=settings.max_lag,
        poll_interval=settings.poll_interval,
        _quorum=quorum,
        relayer=relayer,
        peers=peers,
    )


def _tpms(
    settings: OracleSettings, store: Store, deployment: Deployment, clock: Callable[[], int]
) -> NodeTpms | None:
    if settings.tpm_roots_file is None or settings.tpm_policies_file is None:
        return None
    return NodeTpms(
        store,
        deployment,
        read_roots(settings.tpm_roots_file, settings.tpm_revoked_keys),
        read_policies(settings.tpm_policies_file),
        TpmPolicy(settings.tpm_ttl, settings.challenge_ttl, settings.tpm_required),
        clock,
    )


def collateral_source(settings: OracleSettings, root: bytes | None) -> CollateralSource:
    """Where the settings say that collateral comes from; `root` is the development root (DER).

    Raises:
        InvalidInput: when the root is not a certificate.
    """
    if settings.collateral_file is not None:
        return FileCollateral(settings.collateral_file)
    client = PccsClient(
        str(settings.pccs_url),
        root_crl_url=settings.pccs_root_crl_url,
        ca_file=settings.pccs_ca_file,
    )
    return PccsCollateral(
        client,
        settings.pccs_directory,
        minimum_evaluation=settings.min_tcb_evaluation,
        development_root=root,
        refresh=settings.pccs_refresh,
    )


def read_root(path: Path) -> bytes:
    """A development root's certificate as DER; the file holds DER or PEM.

    Raises:
        SecretFileInvalid: when it holds neither.
    """
    try:
        data = path.read_bytes()
        if data.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
    except OSError as error:
        raise SecretFileInvalid(str(path), error.strerror or "cannot be read") from error
    except ValueError as error:
        raise SecretFileInvalid(str(path), "is not a certificate") from error
    return data
