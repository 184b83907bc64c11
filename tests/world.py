"""The contracts in an in-process EVM, with named actors: the world of the contract tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import boa
from boa import BoaError
from boa.contracts.abi.abi_contract import ABIContractFactory
from boa.util.abi import Address
from eth.exceptions import Revert as FailedCreation
from eth_abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes
from p256 import install as install_p256

from settlement.contracts import (
    Claim,
    Earnings,
    JobState,
    JobStatus,
    Outcome,
    abi_value,
    artifact,
    order,
    terms_ref,
)
from settlement.dcap import INTEL, QuoteParts, Trust
from settlement.deploy import create_address
from settlement.deployment import Deployment
from settlement.eip712 import (
    assignment_digest,
    hash_struct,
    intent_digest,
    job_id,
    receipt_digest,
    receive_authorization_digest,
    registration_digest,
    sign_digest,
    verdict_digest,
)
from settlement.events import decode_events
from settlement.models import (
    Assignment,
    Deposit,
    EnclaveRegistration,
    JobTerms,
    OpenJobs,
    PlatformVerdict,
    Receipt,
    SignedReceipt,
    Sponsorship,
    Withdrawal,
    Work,
)
from settlement.reverts import Revert, reason_of

GRACE = 24 * 60 * 60
ARBITRATION = 7 * 24 * 60 * 60
DAY = 24 * 60 * 60
MEASUREMENT = keccak(text="measurement")
ENCRYPTION_KEY = keccak(text="encryption key")
WITHOUT_PLATFORMS = replace(INTEL, authorities=())
OUTPUT = keccak(text="output")
RICH = 10**12  # a million USDC
LOCAL_CHAIN = 31337

# as Polygon has it; a test that wants a chain without takes it away
install_p256()
# boa's own is Ethereum's, where nothing but Intel's root is taken
boa.env.evm.patch.chain_id = LOCAL_CHAIN


@cache
def actor(name: str) -> LocalAccount:
    """The account of a role; the same name is always the same key."""
    account: LocalAccount = Account.from_key(keccak(text=f"rapha test actor {name}"))
    return account


@contextmanager
def reverts(expected: Revert | str | None) -> Iterator[None]:
    """The block reverts with exactly this reason; None for none, as of a bad encoding."""
    reason = expected.value if isinstance(expected, Revert) else expected
    try:
        yield
    except BoaError as error:
        found = reason_of(error.call_trace.computation.output)
    except FailedCreation as error:
        found = reason_of(error.args[0])
    else:
        raise AssertionError(f"did not revert; expected {reason!r}")
    assert found == reason, f"reverted with {found!r}; expected {reason!r}"


def logs_of(contract: Any) -> list[dict[str, Any]]:
    """The logs of the last call to a contract, as `eth_getLogs` gives them."""
    return [
        {
            "address": to_checksum_address(address),
            "topics": [HexBytes(topic.to_bytes(32, "big")) for topic in topics],
            "data": HexBytes(data),
            "blockNumber": boa.env.evm.patch.block_number,
            "blockHash": HexBytes(bytes(32)),
            "transactionHash": HexBytes(bytes(32)),
            "transactionIndex": 0,
            "logIndex": index,
        }
        for index, (address, topics, data) in enumerate(contract._computation.get_log_entries())
    ]


COMMITTEE = sorted((actor(f"operator {i}") for i in range(3)), key=lambda a: a.address.lower())


def deploy(contract: str, *arguments: Any, sender: str) -> Any:
    """Create a shipped artifact in boa's EVM."""
    built = artifact(contract)
    factory = ABIContractFactory(contract, built.abi)
    encoder = boa.util.abi.abi_encode
    constructor = next((e for e in built.abi if e["type"] == "constructor"), None)
    types = [_abi_type(i) for i in constructor["inputs"]] if constructor else []
    data = built.bytecode + (encoder(f"({','.join(types)})", list(arguments)) if types else b"")
    address, _ = boa.env.deploy_code(bytecode=data, sender=sender)[:2]
    return factory.at(address)


def _abi_type(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        inner = ",".join(_abi_type(c) for c in entry["components"])
        return f"({inner}){kind.removeprefix('tuple')}"
    return kind


def create_committee(members: list[str], threshold: int) -> Any:
    """A committee that signs by ECDSA; members sorted by address."""
    return deploy("EcdsaCommittee", members, threshold, sender=actor("deployer").address)


@dataclass
class World:
    """One deployment with a registered node, a registered enclave and a funded payer."""

    usdc: Any
    timelock: Any
    enclaves: Any
    nodes: Any
    vault: Any
    deployment: Deployment

    @classmethod
    def create(
        cls,
        *,
        threshold: int = 2,
        grace: int = GRACE,
        window: int = 0,
        trust: Trust = WITHOUT_PLATFORMS,
    ) -> "World":
        deployer = actor("deployer").address
        usdc = deploy("TestUSDC", sender=deployer)
        proxy = deploy("TestUSDCProxy", usdc.address, sender=deployer)
        usdc = ABIContractFactory("TestUSDC", artifact("TestUSDC").abi).at(proxy.address)
        usdc.initialize(deployer, sender=deployer)
        proposers = [actor("proposer").address]
        timelock = deploy("RaphaTimelock", 2 * DAY, proposers, proposers, sender=deployer)
        guardian = actor("guardian").address
        certificates = deploy("PckCertificates", sender=deployer)
        enclaves = deploy(
            "EnclaveRegistry",
            timelock.address,
            guardian,
            create_committee([member.address for member in COMMITTEE], threshold).address,
            [MEASUREMENT],
            trust.abi_value(str(certificates.address)),
            sender=deployer,
        )
        vault_to_be = create_address(
            deployer, boa.env.evm.vm.state.get_nonce(Address(deployer).canonical_address) + 1
        )
        nodes = deploy(
            "RaphaNodeRegistry",
            timelock.address,
            guardian,
            actor("registrar").address,
            actor("protocol").address,
            vault_to_be,
            sender=deployer,
        )
        vault = deploy(
            "RaphaClearingVault",
            usdc.address,
            nodes.address,
            enclaves.address,
            timelock.address,
            guardian,
            actor("arbiter").address,
            grace,
            window,
            ARBITRATION,
            sender=deployer,
        )
        assert vault.address == vault_to_be
        deployment = Deployment(
            chain_id=boa.env.evm.patch.chain_id,
            block=0,
            vault=str(vault.address),
            node_registry=str(nodes.address),
            enclave_registry=str(enclaves.address),
            timelock=str(timelock.address),
            usdc=str(usdc.address),
            grace_period=grace,
            challenge_window=window,
        )
        world = cls(usdc, timelock, enclaves, nodes, vault, deployment)
        world.register_node()
        world.register_enclave()
        world.fund(actor("payer"))
        return world

    def create_vault(self, **changes: Any) -> "World":
        """A second vault with its own node registry over the same USDC, enclaves and timelock.

        `changes` are the vault's constructor arguments: usdc, enclaves, owner, guardian, arbiter,
        grace, window, arbitration.
        """
        deployer = actor("deployer").address
        given: dict[str, Any] = {
            "usdc": self.usdc.address,
            "enclaves": self.enclaves.address,
            "owner": self.timelock.address,
            "guardian": actor("guardian").address,
            "arbiter": actor("arbiter").address,
            "grace": GRACE,
            "window": 0,
            "arbitration": ARBITRATION,
            **changes,
        }
        nonce = boa.env.evm.vm.state.get_nonce(Address(deployer).canonical_address)
        nodes = deploy(
            "RaphaNodeRegistry",
            self.timelock.address,
            actor("guardian").address,
            actor("registrar").address,
            actor("protocol").address,
            create_address(deployer, nonce + 1),
            sender=deployer,
        )
        vault = deploy(
            "RaphaClearingVault",
            given.pop("usdc"),
            nodes.address,
            *given.values(),
            sender=deployer,
        )
        deployment = self.deployment.model_copy(
            update={
                "vault": str(vault.address),
                "node_registry": str(nodes.address),
                "grace_period": given["grace"],
                "challenge_window": given["window"],
            }
        )
        return World(self.usdc, self.timelock, self.enclaves, nodes, vault, deployment)

    def create_hostile_vault(self, **changes: Any) -> "World":
        """A vault over `TestHostileToken`, with money beyond the ledger that a theft would take.

        Its node 1 is registered, and payer and sponsor have its token.
        """
        token = deploy("TestHostileToken", sender=actor("deployer").address)
        other = self.create_vault(usdc=token.address, **changes)
        deployment = other.deployment.model_copy(update={"usdc": str(token.address)})
        other = replace(other, usdc=token, deployment=deployment)
        other.register_node()
        for account in (actor("payer").address, actor("sponsor").address, other.vault.address):
            token.mint(account, RICH)
        return other

    @classmethod
    @contextmanager
    def temporary(cls, **parameters: Any) -> Iterator["World"]:
        """A world of one's own that is undone afterwards: what each Hypothesis example plays in."""
        with boa.env.anchor():
            yield cls.create(**parameters)

    @property
    def now(self) -> int:
        """The block's time in Unix seconds."""
        return int(boa.env.timestamp)

    def pass_time(self, seconds: int) -> None:
        """Move the block's time on."""
        boa.env.time_travel(seconds=seconds)

    def travel_to(self, second: int) -> None:
        """Move the block's time to this second, forward only."""
        if second != self.now:
            assert second > self.now
            self.pass_time(second - self.now)

    def set_clock(self, second: int) -> None:
        """Set the block's time, backwards too: recorded quotes have their own."""
        boa.env.evm.patch.timestamp = second

    def events(self, contract: Any) -> list[tuple[str, dict[str, Any]]]:
        """Name and arguments of our events in the last call to a contract, decoded by the SDK.

        Reading anything from the contract is a call too: ask for the events first.
        """
        decoded = decode_events(self.deployment, logs_of(contract))
        return [(event.name, dict(event.args)) for event in decoded]

    def fund(self, account: LocalAccount, amount: int = RICH) -> None:
        """Give an account USDC and let the vault take it."""
        self.usdc.mint(account.address, amount, sender=actor("deployer").address)
        self.usdc.approve(self.vault.address, 2**256 - 1, sender=account.address)

    def register_node(self, hospital: str = "hospital", owner: str = "node owner") -> int:
        """Register a node; returns its id."""
        count = self.nodes.node_count()
        return int(
            self.nodes.register_node(
                actor(owner).address,
                actor(hospital).address,
                actor("onboarder").address,
                keccak(text=f"hardware {count}"),
                sender=actor("registrar").address,
            )
        )

    def registration(self, **changes: Any) -> EnclaveRegistration:
        """A registration for node 1's enclave, good for a week."""
        fields: dict[str, Any] = {
            "enclave_key": actor("enclave").address,
            "node_id": 1,
            "measurement": MEASUREMENT,
            "attestation_digest": keccak(text="quote"),
            "encryption_key_digest": keccak(text="encryption key"),
            "expiry": self.now + 7 * DAY,
            "epoch": int(self.enclaves.epoch()),
        }
        return EnclaveRegistration(**{**fields, **changes})

    def co_sign(
        self, registration: EnclaveRegistration, signers: list[LocalAccount] | None = None
    ) -> list[bytes]:
        """Signatures over a registration, by the first two members unless told otherwise."""
        digest = registration_digest(registration, self.deployment.enclave_domain)
        return [sign_digest(digest, signer.key) for signer in signers or COMMITTEE[:2]]

    def register_enclave(self, **changes: Any) -> EnclaveRegistration:
        """Register an enclave by committee."""
        registration = self.registration(**changes)
        self.enclaves.register(
            abi_value(registration),
            b"".join(self.co_sign(registration)),
            sender=actor("anyone").address,
        )
        return registration

    def register_platform(self, parts: QuoteParts) -> bytes:
        """Register the platform that made a quote, by the quote's certificates."""
        return bytes(
            self.enclaves.register_platform(
                parts.certificates[0], parts.issuer.abi_value(), sender=actor("anyone").address
            )
        )

    def verdict(self, parts: QuoteParts, **changes: Any) -> PlatformVerdict:
        """A verdict that the platform which made a quote is node 1's, good for a week."""
        fields: dict[str, Any] = {
            "platform": parts.pck_key.digest,
            "node_id": 1,
            "module_svn": parts.module_svn,
            "expiry": self.now + 7 * DAY,
            "epoch": int(self.enclaves.epoch()),
        }
        return PlatformVerdict(**{**fields, **changes})

    def judge(self, verdict: PlatformVerdict, signers: list[LocalAccount] | None = None) -> None:
        """Bring a verdict, signed by the first two members unless told otherwise."""
        signatures = self.signatures_on(verdict, signers)
        self.enclaves.judge(abi_value(verdict), signatures, sender=actor("anyone").address)

    def signatures_on(
        self, verdict: PlatformVerdict, signers: list[LocalAccount] | None = None
    ) -> bytes:
        """What the first two members, or others, sign over a verdict, one after the other."""
        digest = verdict_digest(verdict, self.deployment.enclave_domain)
        return b"".join(sign_digest(digest, member.key) for member in signers or COMMITTEE[:2])

    def register_quote(self, parts: QuoteParts, enclave_key: str, **changes: bytes) -> None:
        """Register an enclave key by quote."""
        given = {"encryption_key": ENCRYPTION_KEY, **changes}
        self.enclaves.register_quote(
            parts.abi_value(),
            enclave_key,
            keccak(given["encryption_key"]),
            sender=actor("anyone").address,
        )

    def terms(self, salt: int = 0, **changes: Any) -> JobTerms:
        """Terms of a job for 100 USDC at 0.10 a record and 1.00 an epoch, due in three days."""
        fields: dict[str, Any] = {
            "payer": actor("payer").address,
            "node_id": 1,
            "price_per_record": 100_000,
            "price_per_epoch": 1_000_000,
            "budget": 100_000_000,
            "deadline": self.now + 3 * DAY,
            "work": Work(
                model_digest=keccak(text="model"),
                dataset_digest=keccak(text="dataset"),
                policy_digest=keccak(text="policy"),
                result_key_digest=keccak(text="result key"),
            ),
            "salt": salt.to_bytes(32, "big"),
        }
        return JobTerms(**{**fields, **changes})

    def job_id(self, terms: JobTerms) -> bytes:
        """The job id of terms."""
        return job_id(terms, self.deployment.vault_domain)

    def open(self, terms: JobTerms) -> bytes:
        """Open a job by allowance, as its payer; returns the job id."""
        return bytes(self.vault.open_job(order(terms), sender=terms.payer))

    def authorization(
        self, terms: JobTerms, signer: LocalAccount | None = None, **changes: Any
    ) -> bytes:
        """The payer's EIP-3009 signature that escrows `terms`, valid for a day."""
        fields: dict[str, Any] = {
            "payer": terms.payer,
            "to": self.deployment.vault,
            "value": terms.budget,
            "valid_after": 0,
            "valid_before": self.now + DAY,
            "nonce": self.job_id(terms),
        }
        digest = receive_authorization_digest(self.deployment.usdc_domain, **{**fields, **changes})
        return sign_digest(digest, (signer or actor("payer")).key)

    def cancel_authorization(self, account: LocalAccount, nonce: bytes) -> None:
        """Cancel an EIP-3009 authorisation by its author's signature."""
        struct_hash = keccak(
            encode(
                ["bytes32", "address", "bytes32"],
                [
                    keccak(text="CancelAuthorization(address authorizer,bytes32 nonce)"),
                    account.address,
                    nonce,
                ],
            )
        )
        digest = keccak(b"\x19\x01" + self.deployment.usdc_domain.separator + struct_hash)
        signature = sign_digest(digest, account.key)
        self.usdc.cancelAuthorization(
            account.address, nonce, signature, sender=actor("anyone").address
        )

    def sign_intent(
        self, intent: OpenJobs | Sponsorship | Withdrawal | Deposit, signer: LocalAccount
    ) -> bytes:
        """A signature over what a payer or payee wants, in this vault's domain."""
        return sign_digest(intent_digest(intent, self.deployment.vault_domain), signer.key)

    def permit(
        self, owner: LocalAccount, amount: int, deadline: int, nonce: int = 0
    ) -> tuple[int, bytes, bytes]:
        """An owner's EIP-2612 signature (v, r, s) that lets the vault take `amount`."""
        values = [owner.address, self.deployment.vault, amount, nonce, deadline]
        struct_hash = hash_struct("Permit", values)
        digest = keccak(b"\x19\x01" + self.deployment.usdc_domain.separator + struct_hash)
        signature = sign_digest(digest, owner.key)
        return signature[64], signature[:32], signature[32:64]

    def wallet_of(self, owner: LocalAccount) -> Any:
        """A new smart wallet (ERC-1271) with USDC, whose signature is its owner's."""
        wallet = deploy("TestWallet", owner.address, sender=owner.address)
        self.usdc.mint(wallet.address, RICH, sender=actor("deployer").address)
        return wallet

    def deposit(self, name: str, amount: int) -> None:
        """Pay into an actor's own balance by its allowance."""
        account = actor(name).address
        self.vault.deposit(account, amount, sender=account)

    def open_many(
        self, *terms: JobTerms, signature: bytes | None = None, sender: str | None = None
    ) -> None:
        """Open jobs of one payer from its balance: by the payer itself unless told otherwise."""
        orders = [order(item) for item in terms]
        payer = terms[0].payer
        self.vault.open_jobs(payer, orders, signature or b"", sender=sender or payer)

    def consent(
        self, terms: JobTerms, sponsor: str = "sponsor", signer: LocalAccount | None = None
    ) -> bytes:
        """The payer's signature that lets an actor sponsor its job."""
        intent = Sponsorship(terms=terms, sponsor=actor(sponsor).address)
        return self.sign_intent(intent, signer or actor("payer"))

    def sponsor(
        self, terms: JobTerms, sponsor: str = "sponsor", signature: bytes | None = None
    ) -> bytes:
        """Open somebody's job with a sponsor's money; returns the job id."""
        signature = self.consent(terms, sponsor) if signature is None else signature
        return bytes(
            self.vault.sponsor_job(
                terms.payer, order(terms), signature, sender=actor(sponsor).address
            )
        )

    def assignment(
        self,
        terms: JobTerms,
        node_id: int = 1,
        signers: list[LocalAccount] | None = None,
        epoch: int | None = None,
    ) -> bytes:
        """The committee's signatures, one after the other, that give a job to a node."""
        assignment = Assignment(
            job_id=self.job_id(terms),
            node_id=node_id,
            epoch=int(self.enclaves.epoch()) if epoch is None else epoch,
        )
        digest = assignment_digest(assignment, self.deployment.vault_domain)
        members = COMMITTEE[:2] if signers is None else signers
        return b"".join(sign_digest(digest, signer.key) for signer in members)

    def assign(self, terms: JobTerms, node_id: int = 1, signatures: bytes | None = None) -> None:
        """Bring, as anyone, what the committee signed."""
        signatures = self.assignment(terms, node_id) if signatures is None else signatures
        self.vault.assign(terms_ref(terms), node_id, signatures, sender=actor("anyone").address)

    def top_up(
        self, terms: JobTerms, amount: int, by: str = "payer", *, from_balance: bool = False
    ) -> None:
        """Add to a job's escrow."""
        self.vault.top_up(terms_ref(terms), amount, from_balance, sender=actor(by).address)

    def cancel(self, terms: JobTerms, by: str = "payer") -> None:
        """End a job, as its payer unless told otherwise."""
        self.vault.cancel(terms_ref(terms), sender=actor(by).address)

    def dispute(self, terms: JobTerms, version: int = 0, by: str = "payer") -> int:
        """Dispute what a job has freshly earned; returns the dispute's id."""
        return int(self.vault.dispute(terms_ref(terms), version, sender=actor(by).address))

    def resolve(self, dispute_id: int, returned: int, by: str = "arbiter") -> None:
        """Split what is disputed."""
        self.vault.resolve(dispute_id, returned, sender=actor(by).address)

    def release(self, dispute_id: int) -> None:
        """End a dispute without an answer, as anyone."""
        self.vault.release(dispute_id, sender=actor("anyone").address)

    def distribute(self, node_id: int = 1) -> int:
        """Split, as anyone, what a node has earned."""
        return int(self.vault.distribute(node_id, sender=actor("anyone").address))

    def distribute_past(self, version: int, node_id: int = 1) -> int:
        """Split, as anyone, what a node's payees of an earlier version have earned."""
        return int(self.vault.distribute_past(node_id, version, sender=actor("anyone").address))

    def start_period(self) -> None:
        """Move to the first second of the next period: nothing matures within a window from it."""
        window = int(self.vault.challenge_window())
        self.travel_to((self.now // window + 1) * window)

    def receipt(
        self,
        terms: JobTerms,
        records: int = 0,
        epochs: int = 0,
        *,
        complete: bool = False,
        **changes: Any,
    ) -> Receipt:
        """A receipt for a job."""
        fields: dict[str, Any] = {
            "job_id": self.job_id(terms),
            "records": records,
            "epochs": epochs,
            "records_root": keccak(text=f"root {records}"),
            "output_digest": OUTPUT if complete else bytes(32),
            "complete": complete,
        }
        return Receipt(**{**fields, **changes})

    def claim(
        self,
        terms: JobTerms,
        records: int = 0,
        epochs: int = 0,
        *,
        signer: LocalAccount | None = None,
        **changes: Any,
    ) -> Claim:
        """A claim with a receipt signed by the node's enclave unless told otherwise."""
        receipt = self.receipt(terms, records, epochs, **changes)
        digest = receipt_digest(receipt, self.deployment.vault_domain)
        signature = sign_digest(digest, (signer or actor("enclave")).key)
        return Claim(terms, SignedReceipt(receipt=receipt, signature=signature))

    def settle(self, *claims: Claim) -> list[Outcome]:
        """Settle as anyone, in one batch."""
        values = [claim.abi_value() for claim in claims]
        return [Outcome(o) for o in self.vault.settle_many(values, sender=actor("anyone").address)]

    def settle_one(self, claim: Claim) -> Outcome:
        """Settle one receipt as anyone."""
        return Outcome(self.vault.settle(claim.abi_value(), sender=actor("anyone").address))

    def refund(self, terms: JobTerms) -> int:
        """Refund as anyone."""
        return int(self.vault.refund(terms_ref(terms), sender=actor("anyone").address))

    def call_raw(self, contract: Any, data: bytes, name: str) -> bytes:
        """Call with calldata that no ABI encoder would make; returns what came back."""
        computation = boa.env.execute_code(
            to_address=contract.address, data=data, sender=actor(name).address, contract=contract
        )
        if computation.is_error:
            raise BoaError.create(computation, contract)
        return bytes(computation.output)

    def slot_read_by(self, contract: Any, getter: str, *arguments: Any) -> int:
        """The one storage slot that a getter reads: where its answer is kept."""
        state = type(boa.env.evm.vm.state)
        original, slots = state.get_storage, set()

        def record(self: Any, address: bytes, slot: int, from_journal: bool = True) -> int:
            slots.add(slot)
            return int(original(self, address, slot, from_journal))

        state.get_storage = record
        try:
            getattr(contract, getter)(*arguments)
        finally:
            state.get_storage = original
        (slot,) = slots
        return slot

    def job(self, terms: JobTerms) -> JobStatus:
        """A job as the vault holds it."""
        values = dict(zip(JobStatus.model_fields, self.vault.job(self.job_id(terms)), strict=True))
        return JobStatus(**{**values, "sponsored": bool(values["sponsored"])})

    def state_of(self, terms: JobTerms) -> tuple[JobState, int, int]:
        """State, funded and paid of a job."""
        job = self.job(terms)
        return job.state, job.funded, job.paid

    def earnings(self, node_id: int = 1, version: int | None = None) -> Earnings:
        """What a node's present payees, or those of an earlier version, have earned."""
        values = (
            self.vault.earnings_of(node_id)
            if version is None
            else self.vault.past_earnings_of(node_id, version)
        )
        return Earnings(**dict(zip(Earnings.model_fields, values, strict=True)))

    def balance(self, name: str) -> int:
        """What an actor may withdraw."""
        return int(self.vault.balances(actor(name).address))

    def wallet(self, name: str) -> int:
        """What an actor holds in USDC."""
        return int(self.usdc.balanceOf(actor(name).address))

    def govern(self, contract: Any, function: str, *arguments: Any) -> None:
        """Call as the timelock: what governance does once its delay is over."""
        getattr(contract, function)(*arguments, sender=str(self.timelock.address))
