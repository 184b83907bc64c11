"""A relaying oracle's parts over the real contracts on anvil, one step at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anvil import Chain, key
from eth_account import Account
from hexbytes import HexBytes
from web3.contract.contract import ContractFunction

from oracle.chain import RpcChain
from oracle.facts import Chain as View
from oracle.facts import Settled
from oracle.intake import Intake
from oracle.keyring import Keyring, RelayPolicy
from oracle.outbox import Outbox
from oracle.relayer import Relayer
from oracle.signers.local import LocalKey
from oracle.store.database import Store
from oracle.store.tables import TransactionRow
from oracle.transactions import FeePolicy
from oracle.watcher import Watcher
from scripts.chain import rpc
from settlement.contracts import Claim
from settlement.eip712 import receipt_digest
from settlement.models import JobTerms

GWEI = 10**9
CAP = 100 * GWEI
PATIENCE = 3
POLICY = RelayPolicy(fees=FeePolicy(min_tip=GWEI, max_fee=CAP), patience=PATIENCE)


@dataclass
class Scene:
    """One process's relayer with its watcher and intake. Nothing is mined unless told to."""

    chain: Chain
    store: Store
    view: View
    policy: RelayPolicy = POLICY
    keys: tuple[str, ...] = ("relayer",)
    ahead: int = 0
    keyring: Keyring | None = field(init=False, default=None)

    @classmethod
    def create(cls, chain: Chain, directory: Path, **options: Any) -> "Scene":
        """On a database of its own; the enclave is registered, and the relaying keys have money."""
        store = Store(options.pop("url", None) or f"sqlite:///{directory / 'oracle.db'}")
        store.migrate()
        view = options.pop("view", None) or RpcChain(url_of(chain), chain.deployment)
        scene = cls(chain, store, view, **options)
        for name in scene.keys:
            scene.fund(name)
        return scene

    def __post_init__(self) -> None:
        self.restart()

    def restart(self, keys: tuple[str, ...] | None = None) -> None:
        """The process begins anew."""
        if self.keyring is not None:
            self.keyring.close()
        self.keys = keys or self.keys
        deployment = self.chain.deployment
        signers = [LocalKey(key(name)) for name in self.keys]
        self.watcher = Watcher(self.store, self.view, deployment)
        self.intake = Intake(self.store, deployment, self.clock)
        self.keyring = Keyring(self.store, self.view, deployment, signers, self.policy)
        self.relayer = Relayer(
            self.store, self.view, deployment, self.keyring, self.policy, self.clock
        )

    def close(self) -> None:
        """The process ends."""
        assert self.keyring is not None
        self.keyring.close()
        self.store.close()

    def clock(self) -> int:
        """The newest block's time, and what this process's clock is ahead of it, in seconds."""
        return self.chain.payer.now() + self.ahead

    def outbox(self, name: str = "relayer") -> Outbox:
        """A key's transactions."""
        assert self.keyring is not None
        return self.keyring.senders[self.keys.index(name)].outbox

    def attempts(self, nonce: int = 0, name: str = "relayer") -> list[TransactionRow]:
        """All attempts at a key's nonce."""
        return self.outbox(name).attempts(nonce)

    # The world

    def fund(self, name: str, wei: int = 10**21) -> None:
        """Give an account native coin."""
        rpc(self.chain.w3, "anvil_setBalance", key(name).address, hex(wei))

    def automine(self, on: bool) -> None:
        """Whether each transaction is mined at once."""
        rpc(self.chain.w3, "evm_setAutomine", on)

    def mine(self, blocks: int = 1, base_fee: int | None = None) -> None:
        """Blocks with whatever the pool holds, each at this base fee if one is given."""
        for _ in range(blocks):
            if base_fee is not None:
                rpc(self.chain.w3, "anvil_setNextBlockBaseFeePerGas", hex(base_fee))
            rpc(self.chain.w3, "evm_mine")

    def drop(self, transaction: bytes) -> None:
        """Take a transaction out of the pool."""
        rpc(self.chain.w3, "anvil_dropTransaction", "0x" + transaction.hex())

    def push(
        self,
        name: str,
        call: ContractFunction | None,
        *,
        nonce: int | None = None,
        tip: int = 20 * GWEI,
        max_fee: int = 2_000 * GWEI,
    ) -> bytes:
        """Somebody's transaction into the pool, without waiting; None pays oneself nothing."""
        account = key(name)
        if nonce is None:
            nonce = self.chain.w3.eth.get_transaction_count(account.address)
        fields = {
            "type": 2,
            "chainId": self.chain.deployment.chain_id,
            "nonce": nonce,
            "to": account.address if call is None else call.address,
            "value": 0,
            "data": b"" if call is None else HexBytes(call._encode_transaction_data()),
            "gas": 1_000_000,
            "maxFeePerGas": max_fee,
            "maxPriorityFeePerGas": tip,
        }
        raw = Account.sign_transaction(fields, account.key).raw_transaction
        return bytes(self.chain.w3.eth.send_raw_transaction(raw))

    # The oracle

    def open(self, *salts: int) -> list[JobTerms]:
        """Jobs in the vault that the oracle has seen, one for each salt."""
        jobs = [self.chain.open(self.chain.terms(salt=bytes([salt]) * 32)) for salt in salts]
        self.finalize()
        return jobs

    def finalize(self) -> None:
        """Mine until what is there is final, and have the oracle read it."""
        self.mine(4)
        self.watch()

    def watch(self) -> None:
        """Read all that is final."""
        while self.watcher.tick():
            pass

    def submit(self, terms: JobTerms, records: int, **changes: Any) -> Claim:
        """Hand in a receipt; returns it as a claim."""
        claim = self.chain.claim(terms, records, **changes)
        self.intake.submit_receipt(claim.signed)
        return claim

    def tick(self) -> bool:
        """One round of the relayer."""
        return self.relayer.tick()

    def rounds(self, count: int = 6) -> None:
        """Several rounds of everything, with blocks in between."""
        for _ in range(count):
            self.watch()
            self.tick()
            self.mine()
        self.finalize()
        self.tick()

    # What came of it

    def status(self, claim: Claim) -> tuple[str, str | None]:
        """A receipt's status and reason."""
        digest = receipt_digest(claim.signed.receipt, self.chain.deployment.vault_domain)
        status = self.intake.receipt(digest)
        return status.status, status.reason

    def payments(self, terms: JobTerms) -> list[int]:
        """What the vault's own events say that a job was paid, one by one; the sum is the ledger's.

        Read from anvil itself, whatever stands between it and the oracle.
        """
        view = RpcChain(url_of(self.chain), self.chain.deployment)
        events = view.events(self.chain.deployment.block, view.latest())
        job = self.chain.id(terms)
        amounts = [e.amount for e in events if isinstance(e, Settled) and e.job_id == job]
        assert sum(amounts) == self.chain.payer.job(job).paid
        return [amount for amount in amounts if amount]

    def unfinished(self) -> Sequence[TransactionRow]:
        """What is not final yet, of all keys."""
        return [row for name in self.keys for row in self.outbox(name).pending()]


def url_of(chain: Chain) -> str:
    """Where anvil listens."""
    return str(chain.w3.provider.endpoint_uri)  # type: ignore[attr-defined]
