"""An oracle put together by hand, with the actors that a test needs around it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from unit.oracle.ledger import START, Ledger

from oracle.attestation.verify import QuoteVerifier
from oracle.client import PeerClient
from oracle.clients.edge.devplatform import DevPlatform
from oracle.committee import CommitteePolicy, Operator
from oracle.facts import Chain
from oracle.intake import Intake
from oracle.keyring import Keyring, RelayPolicy
from oracle.messages import (
    ChallengeSet,
    EscrowRequest,
    Evidence,
    PeerChallenge,
    QuoteRequest,
    VouchFor,
)
from oracle.outbox import Outbox
from oracle.quorum import Quorum
from oracle.quotes import Quotes
from oracle.relayer import Relayer
from oracle.service import Service
from oracle.signers.local import LocalKey
from oracle.store.database import Store
from oracle.tpm import NodeTpms
from oracle.transactions import FeePolicy
from oracle.watcher import Watcher
from settlement.committee import MemberKey
from settlement.dcap import split_quote
from settlement.deployment import Deployment
from settlement.eip712 import job_id, receipt_digest, receive_authorization_digest, sign_digest
from settlement.enclave import report_data
from settlement.models import (
    Authorization,
    EnclaveRegistration,
    JobTerms,
    Receipt,
    SignedReceipt,
    Work,
)

GRACE = 24 * 3600
DAY = 24 * 3600
MEASUREMENT = keccak(text="measurement")
CONFIGURATION = keccak(text="configuration")
ENCRYPTION_KEY = keccak(text="encryption key")
OUTPUT = keccak(text="output")
TOKEN = "the operators' shared token, long enough"
POLICY = RelayPolicy(fees=FeePolicy(min_tip=1, max_fee=1_000), patience=5)

DEPLOYMENT = Deployment(
    chain_id=31337,
    block=0,
    vault="0x1000000000000000000000000000000000000001",
    node_registry="0x1000000000000000000000000000000000000002",
    enclave_registry="0x1000000000000000000000000000000000000003",
    timelock="0x1000000000000000000000000000000000000004",
    usdc="0x1000000000000000000000000000000000000005",
    grace_period=GRACE,
)


def actor(name: str) -> LocalAccount:
    """The account of a role."""
    account: LocalAccount = Account.from_key(keccak(text=f"rapha oracle test {name}"))
    return account


def terms(salt: int = 0, **changes: Any) -> JobTerms:
    """Terms for 100 USDC at 0.10 a record and 1.00 an epoch."""
    fields: dict[str, Any] = {
        "payer": actor("payer").address,
        "node_id": 1,
        "price_per_record": 100_000,
        "price_per_epoch": 1_000_000,
        "budget": 100_000_000,
        "deadline": START + 3 * DAY,
        "work": Work(
            model_digest=keccak(text="model"),
            dataset_digest=keccak(text="dataset"),
            policy_digest=keccak(text="policy"),
            result_key_digest=keccak(text="result key"),
        ),
        "salt": salt.to_bytes(32, "big"),
    }
    return JobTerms(**{**fields, **changes})


def key_of(job: JobTerms) -> bytes:
    """The job's id."""
    return job_id(job, DEPLOYMENT.vault_domain)


def receipt(job: JobTerms, records: int, epochs: int = 0, **changes: Any) -> Receipt:
    """A receipt for a job."""
    complete = changes.get("complete", False)
    fields: dict[str, Any] = {
        "job_id": key_of(job),
        "records": records,
        "epochs": epochs,
        "records_root": keccak(text=f"root {records}"),
        "output_digest": OUTPUT if complete else bytes(32),
        "complete": False,
    }
    return Receipt(**{**fields, **changes})


def digest_of(it: Receipt) -> bytes:
    """What the enclave signs."""
    return receipt_digest(it, DEPLOYMENT.vault_domain)


def signed(
    job: JobTerms, records: int, epochs: int = 0, *, by: str = "enclave", **changes: Any
) -> SignedReceipt:
    """A receipt signed by the node's enclave, unless told otherwise."""
    it = receipt(job, records, epochs, **changes)
    return SignedReceipt(receipt=it, signature=sign_digest(digest_of(it), actor(by).key))


def escrow(job: JobTerms, *, by: str = "payer", valid_before: int = START + DAY) -> EscrowRequest:
    """Terms with the payer's authorization."""
    digest = receive_authorization_digest(
        DEPLOYMENT.usdc_domain,
        payer=job.payer,
        to=DEPLOYMENT.vault,
        value=job.budget,
        valid_after=0,
        valid_before=valid_before,
        nonce=key_of(job),
    )
    signature = sign_digest(digest, actor(by).key)
    authorization = Authorization(valid_after=0, valid_before=valid_before, signature=signature)
    return EscrowRequest(terms=job, authorization=authorization)


def registration(**changes: Any) -> EnclaveRegistration:
    """The registration of node 1's enclave, good for a week."""
    fields: dict[str, Any] = {
        "enclave_key": actor("enclave").address,
        "node_id": 1,
        "measurement": MEASUREMENT,
        "attestation_digest": keccak(text="quote"),
        "encryption_key_digest": keccak(ENCRYPTION_KEY),
        "expiry": START + 7 * DAY,
        "epoch": 1,
    }
    return EnclaveRegistration(**{**fields, **changes})


_PLATFORM = DevPlatform.create(START - DAY, chain_id=DEPLOYMENT.chain_id)


class _Collateral:
    def collateral(self, quote: object) -> str:
        return _PLATFORM.collateral_json()


def verifier() -> QuoteVerifier:
    """A verifier that accepts the development platform."""
    return QuoteVerifier(
        chain_id=DEPLOYMENT.chain_id,
        collateral=_Collateral(),
        development_root=_PLATFORM.root_der,
    )


def evidence(
    challenge: ChallengeSet | PeerChallenge, *, enclave: str = "enclave", **changes: Any
) -> Evidence:
    """An enclave's evidence for its challenges, with a real quote by the development platform."""
    if isinstance(challenge, ChallengeSet):
        challenges, nonce = challenge.challenges, challenge.nonce
    else:
        challenges, nonce = (challenge.challenge,), keccak(challenge.challenge)
    enclave_key = actor(enclave).address
    data = report_data(
        chain_id=DEPLOYMENT.chain_id,
        registry=DEPLOYMENT.enclave_registry,
        enclave_key=enclave_key,
        encryption_key=ENCRYPTION_KEY,
        nonce=changes.pop("nonce", nonce),
        configuration=CONFIGURATION,
    )
    measurement = changes.pop("measurement", MEASUREMENT)
    fields: dict[str, Any] = {
        "node_id": 1,
        "enclave_key": enclave_key,
        "encryption_key": ENCRYPTION_KEY,
        "configuration": CONFIGURATION,
        "challenges": challenges,
        "quote": _PLATFORM.quote(measurement, data),
    }
    return Evidence(**{**fields, **changes})


PLATFORM = split_quote(_PLATFORM.quote(MEASUREMENT, bytes(64))).platform
"""The development platform, as the registry knows it."""


def quote_for(challenge: bytes, *, enclave: str = "enclave", **changes: Any) -> QuoteRequest:
    """A quote for the chain's challenge, by the development platform."""
    enclave_key = actor(enclave).address
    data = report_data(
        chain_id=DEPLOYMENT.chain_id,
        registry=DEPLOYMENT.enclave_registry,
        enclave_key=enclave_key,
        encryption_key=ENCRYPTION_KEY,
        nonce=challenge,
        configuration=CONFIGURATION,
    )
    fields: dict[str, Any] = {
        "node_id": 1,
        "enclave_key": enclave_key,
        "encryption_key": ENCRYPTION_KEY,
        "quote": _PLATFORM.quote(changes.pop("measurement", MEASUREMENT), data),
    }
    return QuoteRequest(**{**fields, **changes})


@dataclass
class Bench:
    """One oracle's parts over one ledger. `restart` makes them anew on the same database."""

    ledger: Ledger
    store: Store
    chain: Chain
    peers: tuple[PeerClient, ...] = ()
    policy: RelayPolicy = POLICY
    keys: tuple[str, ...] = ("relayer",)
    tpms: Callable[[Store, Callable[[], int]], NodeTpms] | None = None
    vouch_for: VouchFor = VouchFor.KEY
    now: Callable[[], int] = field(init=False)
    keyring: Keyring | None = field(init=False, default=None)

    @classmethod
    def create(cls, directory: Path, *, attested: bool = True, **options: Any) -> "Bench":
        """A bench with its ledger; `attested` has node 1's enclave registered already.

        The database is SQLite's in `directory`, unless `url` names another.
        """
        ledger = Ledger(DEPLOYMENT)
        ledger.state.nodes = {1, 2}
        ledger.seat(actor("operator").address)
        url = options.pop("url", f"sqlite:///{directory / 'oracle.db'}")
        store = Store(url)
        store.migrate()
        bench = cls(ledger, store, options.pop("chain", ledger), **options)
        ledger.mine(lambda chain: chain.allow(MEASUREMENT))
        if attested:
            ledger.mine(lambda chain: chain.register(registration()))
        bench.finalize()
        return bench

    def __post_init__(self) -> None:
        self.now = lambda: self.ledger.time
        self.restart()

    def restart(self, store: Store | None = None, chain: Chain | None = None) -> None:
        """The process begins anew: only the database and the chain know what was."""
        if self.keyring is not None:  # with a process its locks are gone
            self.keyring.close()
        self.store, self.chain = store or self.store, chain or self.chain
        self.intake = Intake(self.store, DEPLOYMENT, self.now, self._tpms_of(self.store))
        self.watcher = Watcher(self.store, self.chain, DEPLOYMENT)
        self.operator = self.operator_of("operator", self.store)
        self.quorum = Quorum(self.store, self.chain, DEPLOYMENT, self.operator, self.peers)
        signers = [LocalKey(actor(name)) for name in self.keys]
        self.quotes = Quotes(self.store, self.chain, signers[0].address)
        self.keyring = Keyring(self.store, self.chain, DEPLOYMENT, signers, self.policy)
        self.relayer = Relayer(
            self.store, self.chain, DEPLOYMENT, self.keyring, self.policy, self.now
        )

    def outbox(self, key: int = 0) -> Outbox:
        """The transactions of one of the relaying keys."""
        return self.relayer.keyring.senders[key].outbox

    def operator_of(self, name: str, store: Store, vouch_for: VouchFor | None = None) -> Operator:
        """An operator of the committee with this actor's key, in the bench's mode or another."""
        policy = CommitteePolicy(
            registration_ttl=7 * DAY, challenge_ttl=600, vouch_for=vouch_for or self.vouch_for
        )
        return Operator(
            store,
            self.chain,
            DEPLOYMENT,
            verifier(),
            MemberKey(bytes(actor(name).key)),
            policy,
            self.now,
            self._tpms_of(store),
        )

    def _tpms_of(self, store: Store) -> NodeTpms | None:
        return self.tpms(store, self.now) if self.tpms else None

    def service(self, *, relay: bool = True) -> Service:
        """The same parts as a service for the HTTP API."""
        return Service(
            store=self.store,
            chain=self.chain,
            intake=self.intake,
            operator=self.operator,
            watcher=self.watcher,
            peer_token=TOKEN,
            max_lag=10,
            poll_interval=0.01,
            _quorum=self.quorum if relay else None,
            relayer=self.relayer if relay else None,
            clock=self.now,
        )

    def watch(self) -> None:
        """Read all that is final."""
        while self.watcher.tick():
            pass

    def finalize(self) -> None:
        """Mine until what is there is final, and have it read."""
        for _ in range(3):
            self.ledger.mine()
        self.watch()

    def round(self) -> None:
        """One round of everything: the watcher, the quorum, the relayer, a block."""
        self.watch()
        self.quorum.tick()
        self.relayer.tick()
        self.ledger.mine()

    def rounds(self, count: int = 8) -> None:
        """Several rounds."""
        for _ in range(count):
            self.round()

    def open(self, *jobs: JobTerms) -> None:
        """Open jobs on the ledger, and have that read."""
        self.ledger.mine(*(lambda chain, job=job: chain.open(job) for job in jobs))
        self.finalize()
