"""The oracle put together from its settings."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from oracle.accountant import Accountant
from oracle.attestation.collateral import CollateralSource, FileCollateral
from oracle.attestation.pccs import PccsClient, PccsCollateral
from oracle.attestation.policy import TcbPolicy
from oracle.attestation.verify import QuoteVerifier
from oracle.batching import BatchPolicy
from oracle.chain import ATTEMPTS, RpcChain
from oracle.client import PeerClient
from oracle.committee import CommitteePolicy, Operator
from oracle.config import OracleSettings, check_for_real_money, read_token
from oracle.endpoints import EndpointPolicy, Endpoints, names_of
from oracle.errors import ChainUnavailable, NotRelaying, SecretFileInvalid
from oracle.facts import Chain
from oracle.feed import Feed
from oracle.gas import GasPolicy
from oracle.gate import Gate
from oracle.group_commit import GroupCommit
from oracle.intake import Intake
from oracle.keyfiles import read_member_key
from oracle.keyring import Keyring, RelayPolicy
from oracle.keys import ApiKeys
from oracle.limits import AccessPolicy, RateLimits
from oracle.loops import Loop
from oracle.messages import Readiness
from oracle.metrics import Metrics
from oracle.quorum import Quorum
from oracle.quotes import Quotes
from oracle.relayer import Relayer
from oracle.signers.configured import configured_signers
from oracle.store.database import Store
from oracle.store.leases import Leader, Lease, Leases
from oracle.store.tables import CursorRow
from oracle.tpm import NodeTpms, TpmPolicy, read_policies, read_roots
from oracle.transactions import FeePolicy
from oracle.watcher import Watcher
from settlement.deployment import Deployment, load_deployment

STOP_TIMEOUT = 1.0
"""Seconds that each loop has to end."""

FEE_INTERVAL = 15.0
"""Seconds between looks for transactions whose cost is not known yet."""

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
    clock: Callable[[], int] = wall_clock
    access: AccessPolicy = field(default_factory=AccessPolicy)
    leaders: Mapping[str, Leader] = field(default_factory=dict)
    endpoints: Endpoints | None = None
    loops: list[Loop] = field(init=False)
    gate: Gate = field(init=False)
    metrics: Metrics = field(init=False)
    keys: ApiKeys = field(init=False)
    rates: RateLimits = field(init=False)
    commits: GroupCommit = field(init=False)
    feed: Feed = field(init=False)

    def __post_init__(self) -> None:
        self.keys = ApiKeys(self.store, wall_clock)
        self.rates = RateLimits(self.access)
        self.commits = GroupCommit(self.intake.keep)
        self.feed = Feed(self.store)
        self._alone: Lease | None = None
        self.loops = [self._loop("watcher", self.watcher.tick)]
        if self._quorum is not None:
            self.loops.append(self._loop("quorum", self._quorum.tick))
        if self.relayer is not None:
            self.loops.append(self._loop("relayer", self.relayer.tick))
            self.loops.append(Loop("fees", Accountant(self.store, self.chain).tick, FEE_INTERVAL))
        self.gate = Gate(self.store)
        self.metrics = Metrics(
            self.store,
            self.chain,
            self.watcher,
            self.gate,
            self.loops,
            self.clock,
            keyring=self.relayer.keyring if self.relayer is not None else None,
            endpoints=self.endpoints,
        )

    def _loop(self, name: str, tick: Callable[[], bool]) -> Loop:
        """A loop that runs in one instance at a time, where there can be several."""
        if name in self.leaders:
            tick = self.leaders[name].led(tick)
        return Loop(name, tick, self.poll_interval)

    @property
    def quorum(self) -> Quorum:
        """The collector of quorums. Raises NotRelaying where this operator only signs."""
        if self._quorum is None:
            raise NotRelaying
        return self._quorum

    @property
    def quotes(self) -> Quotes:
        """The intake of quotes for the chain to check. Raises NotRelaying."""
        if self.relayer is None:
            raise NotRelaying
        return Quotes(self.store, self.chain, self.relayer.keyring.senders[0].address)

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
            LeaseTaken: another process has this database, and it is SQLite's.
        """
        self.store.migrate()
        if not self.store.is_postgresql:
            self._alone = Leases(self.store, wall_clock).acquire("process")
        self.chain.check()
        self.watcher.check_database()
        if self.relayer is not None:
            self.relayer.keyring.prepare()
        if not self.operator.is_member_of(self.chain.committee().committee):
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
        self.commits.close(STOP_TIMEOUT)
        for loop in self.loops:
            loop.stop(0)
        for loop in self.loops:
            loop.stop(STOP_TIMEOUT)
        for leader in self.leaders.values():
            leader.resign()
        if self._alone is not None:
            self._alone.release()
        for peer in self.peers:
            peer.close()
        if self.relayer is not None:
            self.relayer.keyring.close()
        self.store.close()

    def readiness(self) -> Readiness:
        """Whether every part does its work now; each is asked, none is remembered as well."""
        checks = {"database": self._database(), "chain": self._rpc(), "intake": self._intake()}
        checks |= {loop.name: loop.trouble() or _OK for loop in self.loops}
        behind = self._behind()
        if behind is None or behind > self.max_lag:
            checks["lag"] = "nothing read yet" if behind is None else f"{behind} blocks behind"
        else:
            checks["lag"] = _OK
        ready = all(state == _OK for state in checks.values())
        return Readiness(ready=ready, checks=checks, warnings=self._warnings())

    def _warnings(self) -> dict[str, str]:
        """What an operator should look at before it stops the oracle."""
        warnings = {}
        for key in self.relayer.keyring.states() if self.relayer is not None else ():
            if key.trouble is not None:
                warnings[f"key {key.address}"] = key.trouble
            elif key.low:
                warnings[f"key {key.address}"] = f"gas money for {key.batches} batches is left"
        for endpoint in self.endpoints.states() if self.endpoints is not None else ():
            if endpoint.fault is not None:
                warnings[f"endpoint {endpoint.name}"] = endpoint.fault
        return warnings

    def _behind(self) -> int | None:
        """How many final blocks the facts lack, also where another instance watches."""
        leader = self.leaders.get("watcher")
        if leader is None or leader.leading:
            return self.watcher.behind
        try:
            with self.store.read() as session:
                block = session.scalar(select(CursorRow.block))
            return None if block is None else self.chain.finalized().number - block
        except (ChainUnavailable, SQLAlchemyError):
            return None  # the checks of chain and database tell why

    def _database(self) -> str:
        try:
            self.store.check()
        except SQLAlchemyError as error:
            return type(error).__name__
        return _OK

    def _intake(self) -> str:
        try:
            pause = self.gate.pause()
        except SQLAlchemyError as error:
            return type(error).__name__
        return f"paused: {pause.reason}" if pause else _OK

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
    member = read_member_key(settings.committee_key_file)
    signers = configured_signers(settings) if settings.relay else []
    addresses = [member.address, *(signer.address for signer in signers)]
    check_for_real_money(settings, deployment.chain_id, addresses)

    store = Store(settings.database_url.get_secret_value())
    leases = Leases(store, clock)
    leaders = {name: Leader(leases, name) for name in ("watcher", "quorum")}
    chain = connect(settings, deployment)
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
    policy = CommitteePolicy(settings.registration_ttl, settings.challenge_ttl, settings.vouch_for)
    tpms = _tpms(settings, store, deployment, clock)
    operator = Operator(store, chain, deployment, verifier, member, policy, clock, tpms)
    peers: tuple[PeerClient, ...] = ()
    quorum, relayer = None, None
    if signers:
        peers = tuple(
            PeerClient(url, timeout=settings.peer_timeout, token=token) for url in settings.peers
        )
        quorum = Quorum(store, chain, deployment, operator, peers)
        relay_policy = policy_of(settings)
        keyring = Keyring(store, chain, deployment, signers, relay_policy)
        relayer = Relayer(store, chain, deployment, keyring, relay_policy, clock)
    return Service(
        store=store,
        chain=chain,
        intake=Intake(store, deployment, clock, tpms),
        operator=operator,
        watcher=Watcher(store.fenced(leaders["watcher"].guard), chain, deployment),
        peer_token=token,
        max_lag=settings.max_lag,
        poll_interval=settings.poll_interval,
        _quorum=quorum,
        relayer=relayer,
        peers=peers,
        clock=clock,
        access=settings.access,
        leaders=leaders,
        endpoints=chain,
    )


def connect(settings: OracleSettings, deployment: Deployment) -> Endpoints:
    """The chain over the endpoints that the settings name."""
    urls = settings.rpc_urls
    attempts = ATTEMPTS if len(urls) == 1 else 1  # with others, asking one of them is quicker
    chains = [
        RpcChain(url, deployment, attempts=attempts, timeout=settings.rpc_timeout) for url in urls
    ]
    policy = EndpointPolicy(agree=settings.rpc_agree, max_lag=settings.rpc_max_lag)
    return Endpoints(list(zip(names_of(urls), chains, strict=True)), policy)


def policy_of(settings: OracleSettings) -> RelayPolicy:
    """How the settings want the relayer to work."""
    return RelayPolicy(
        fees=FeePolicy(min_tip=settings.min_tip, max_fee=settings.max_fee),
        batch=BatchPolicy(
            max_batch=settings.max_batch,
            min_value=settings.batch_value,
            max_age=settings.batch_age,
            completing_age=settings.completing_age,
            cheap_gas=settings.cheap_gas,
            max_gas_share=settings.max_gas_share,
            coin_price=settings.coin_price,
        ),
        gas=GasPolicy(alarm_batches=settings.alarm_batches, max_batch=settings.max_batch),
        max_in_flight=settings.max_in_flight,
        patience=settings.patience,
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
