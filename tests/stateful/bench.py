"""One deployment with its people: who signs what, and how a transaction meets its prediction."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from stateful.evm import (
    Actor,
    Chain,
    Contract,
    Reverted,
    Tail,
    actor,
    arguments,
    keccak,
    word,
    words,
)
from stateful.reference import (
    ARBITRATION,
    GRACE,
    VAULT,
    Committee,
    Job,
    Receipt,
    Reference,
    Refusal,
    Signature,
    Terms,
)

from settlement.contracts import JobState
from settlement.dcap import INTEL
from settlement.deploy import create_address
from settlement.deployment import Deployment
from settlement.eip712 import type_hash
from settlement.reverts import Revert

HOUR = 60 * 60
DAY = 24 * HOUR
WINDOWS = (0, 2 * HOUR)

KEYED_PAYERS = ("payer 1", "payer 2")
PAYERS = (*KEYED_PAYERS, "wallet")
FUNDERS = ("sponsor", *KEYED_PAYERS)
HOSPITALS = ("hospital 1", "hospital 2", "hospital 3")
# one of them is a hospital and one a payer, so that one account has several roles
OWNERS = ("owner 1", "owner 2", "hospital 3", "payer 2")
OPERATORS = tuple(f"operator {i}" for i in range(5))
ACCOUNTS = (
    *PAYERS,
    "sponsor",
    *HOSPITALS,
    "owner 1",
    "owner 2",
    "onboarder",
    "protocol",
    "timelock",
    "thief",
)
RICH = (*PAYERS, "sponsor")
MOST_NODES = 5

TYPES = {
    name: type_hash(name)
    for name in (
        "Work",
        "JobTerms",
        "OpenJobs",
        "Sponsorship",
        "Assignment",
        "Withdrawal",
        "Receipt",
        "EnclaveRegistration",
        "Permit",
        "ReceiveWithAuthorization",
    )
}
DEPOSIT = type_hash("Deposit")
WORK = b"".join(keccak(name) for name in (b"model", b"dataset", b"policy", b"result key"))
WORK_DIGEST = keccak(TYPES["Work"] + WORK)
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OUTPUT = keccak(b"output")
MEASUREMENTS = {number: keccak(b"measurement " + bytes([number])) for number in (1, 2)}


class Disagreement(AssertionError):
    """The contracts did something else than the reference predicted."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"the contracts {found}; the reference expected {expected}")


class Person:
    """An account by its name; a smart wallet signs by its owner's key and sends nothing."""

    def __init__(self, name: str, address: str, signer: Actor) -> None:
        self.name, self.address = name, address
        self.word = word(int(address, 16))
        self.sign = signer.sign


class Bench:
    """One deployment and its reference, and the hands that sign and send."""

    def __init__(self, window: int, creation: dict[str, bytes] | None = None) -> None:
        """`creation` replaces the creation code of contracts, by name."""
        self.chain = Chain(creation)
        self.outcomes: dict[str, int] = {}
        self._people: dict[str, Person] = {}
        self._salt = 0
        self._keys = 0
        self._claims: list[tuple[bytes, Receipt]] = []
        # node -> its keys, the newest last
        self._keys_of: dict[int, list[str]] = {}
        self._job_views = bytearray()
        self._payee_views = bytearray()
        self._payee_sets: list[tuple[int, int]] = []
        self._dispute_views = bytearray()
        self._deploy(window)

    def _deploy(self, window: int) -> None:
        chain, deployer = self.chain, actor("deployer")
        members = tuple(sorted(OPERATORS[:3], key=lambda name: actor(name).number))
        committee = Committee(members, 2)
        self.reference = Reference(window, chain.now, committee, RICH)
        self.usdc = chain.create("TestUSDC", deployer)
        chain.call(deployer.address, self.usdc, self.usdc.data("initialize", deployer.word))
        wallet = chain.create("TestWallet", deployer, actor("wallet").address)
        self._people["wallet"] = Person("wallet", wallet.address, actor("wallet"))
        timelock, guardian = actor("timelock").address, actor("guardian").address
        certificates = chain.create("PckCertificates", deployer)
        self.enclaves = chain.create(
            "EnclaveRegistry",
            deployer,
            timelock,
            guardian,
            self.create_committee(members, committee.threshold).address,
            list(MEASUREMENTS.values()),
            replace(INTEL, authorities=()).abi_value(certificates.address),
        )
        vault_to_be = create_address(deployer.address, chain.nonce(deployer) + 1)
        self.nodes = chain.create(
            "RaphaNodeRegistry",
            deployer,
            timelock,
            guardian,
            actor("registrar").address,
            actor("protocol").address,
            vault_to_be,
        )
        self.vault = chain.create(
            "RaphaClearingVault",
            deployer,
            self.usdc.address,
            self.nodes.address,
            self.enclaves.address,
            timelock,
            guardian,
            actor("arbiter").address,
            GRACE,
            window,
            ARBITRATION,
        )
        assert self.vault.address == vault_to_be
        self._people[VAULT] = Person(VAULT, self.vault.address, deployer)
        self.deployment = Deployment(
            # revm's, unless it is told another
            chain_id=1,
            block=0,
            vault=self.vault.address,
            node_registry=self.nodes.address,
            enclave_registry=self.enclaves.address,
            timelock=timelock,
            usdc=self.usdc.address,
            grace_period=GRACE,
            challenge_window=window,
        )
        self._vault_domain = self.deployment.vault_domain.separator
        self._usdc_domain = self.deployment.usdc_domain.separator
        self._enclave_domain = self.deployment.enclave_domain.separator
        for name in RICH:
            self.circle("mint", self.person(name).word, 10**12)
            if name != "wallet":
                self.approve(name, 2**256 - 1)
        self._fixed_views = b"".join(
            (
                self.usdc.view("balanceOf", 1, self.vault.number),
                self.vault.view("owed", 1),
                self.vault.view("paused_until", 1),
                self.vault.view("dispute_count", 1),
                self.vault.view("arbiter", 1),
                self.enclaves.view("epoch", 1),
                *[self.usdc.view("balanceOf", 1, self.number(name)) for name in ACCOUNTS],
                *[self.vault.view("balances", 1, self.number(name)) for name in (*ACCOUNTS, VAULT)],
                *[self.vault.view("withdrawal_nonces", 1, self.number(name)) for name in PAYERS],
            )
        )

    # helpers

    def person(self, name: str) -> Person:
        """An account by its name."""
        if name not in self._people:
            self._people[name] = Person(name, actor(name).address, actor(name))
        return self._people[name]

    def number(self, name: str) -> int:
        return int(self.person(name).address, 16)

    def send(self, sender: str, contract: Contract, data: bytes, predict: Callable[[], Any]) -> Any:
        """Predict what a transaction answers, send it, and compare; None when it is refused.

        A prediction of None is an empty answer, of an integer or a truth value a word.
        """
        refusal, expected, answer = None, None, b""
        try:
            expected = predict()
        except Refusal as refused:
            refusal = refused.revert.value
        try:
            answer = self.chain.call(self.person(sender).address, contract, data)
            found = None
        except Reverted as reverted:
            found = reverted.reason or "no reason"
        if found != refusal:
            what = f"refused with {found!r}" if found else "did not refuse"
            raise Disagreement(what, repr(refusal or expected))
        if refusal:
            self.count(f"refused: {refusal}")
            return None
        if expected is None:
            wanted = b""
        elif isinstance(expected, list):
            wanted = arguments(Tail(len(expected), words(*expected)))
        else:
            wanted = word(expected) if isinstance(expected, int) else expected
        if answer != wanted:
            raise Disagreement(f"answered {answer.hex()}", repr(expected))
        return True if expected is None else expected

    def ask(self, sender: str, function: str, *values: Any, predict: Callable[[], Any]) -> Any:
        """A transaction to the vault."""
        self.count(function)
        return self.send(sender, self.vault, self.vault.data(function, *values), predict)

    def count(self, what: str) -> None:
        self.outcomes[what] = self.outcomes.get(what, 0) + 1

    def circle(self, function: str, *values: Any) -> None:
        data = self.usdc.data(function, *values)
        self.chain.call(actor("deployer").address, self.usdc, data)

    def approve(self, name: str, amount: int) -> None:
        """Give the vault an allowance, unless USDC is paused."""
        if not self.reference.usdc_paused:
            data = self.usdc.data("approve", self.vault.word, amount)
            self.chain.call(self.person(name).address, self.usdc, data)
            self.reference.allowances[name] = amount

    def travel(self, second: int) -> None:
        """Forward only."""
        if second > self.chain.now:
            self.chain.travel_to(second)
            self.reference.now = second

    def job(self, index: int) -> Job:
        """Mostly one that is open, and mostly one that can still be paid."""
        jobs = list(self.reference.jobs.values())
        if index % 4:
            jobs = [job for job in jobs if job.is_open] or jobs
        if index % 4 > 1:
            now, assigned = self.chain.now, (JobState.ASSIGNED, JobState.CANCELLING)
            payable = (job for job in jobs if job.state in assigned and now <= job.payable_until)
            jobs = list(payable) or jobs
        return jobs[index // 4 % len(jobs)]

    def make_terms(
        self, payer: str, node: int, prices: tuple[int, int], budget: int, deadline: int, salt: int
    ) -> Terms:
        numbers = words(node, *prices, budget, deadline)
        reference = self.person(payer).word + numbers + WORK_DIGEST + word(salt)
        struct_hash = keccak(TYPES["JobTerms"] + reference)
        return Terms(
            payer=payer,
            node=node,
            price_per_record=prices[0],
            price_per_epoch=prices[1],
            budget=budget,
            deadline=deadline,
            salt=salt,
            job_id=self.digest(self._vault_domain, struct_hash),
            order=numbers + WORK + word(salt),
            reference=reference,
            struct_hash=struct_hash,
        )

    def new_terms(
        self, payer: str, node: int, prices: tuple[int, int], budget: int, lifetime: int
    ) -> Terms:
        self._salt += 1
        return self.make_terms(payer, node, prices, budget, self.chain.now + lifetime, self._salt)

    def tampered(self, terms: Terms) -> Terms:
        """The same with a higher price."""
        prices = terms.price_per_record + 1, terms.price_per_epoch
        deadline, salt = terms.deadline, terms.salt
        return self.make_terms(terms.payer, terms.node, prices, terms.budget, deadline, salt)

    @staticmethod
    def digest(domain: bytes, struct_hash: bytes) -> bytes:
        return keccak(b"\x19\x01" + domain + struct_hash)

    def sign(self, name: str, digest: bytes, flaw: str) -> tuple[bytes, Signature]:
        """A signature that has or has not a flaw; `digest` is over something else where it has."""
        signer = "thief" if flaw == "thief" else name
        signature = self.person(signer).sign(digest)
        if flaw == "malformed":
            # its v says nothing
            return signature[:64] + b"\x01", Signature(None)
        return signature, Signature(signer, good=flaw != "other amount")

    def authorization(
        self, name: str, amount: int, nonce: bytes, flaw: str
    ) -> tuple[int, int, bytes, Signature]:
        """EIP-3009: after, before, signature and what it is worth."""
        now = self.chain.now
        after = now if flaw == "not yet" else 0
        before = now if flaw == "expired" else now + DAY
        signed = amount ^ 1 if flaw == "other amount" else amount
        message = self.person(name).word + self.vault.word + words(signed, after, before) + nonce
        digest = self.digest(self._usdc_domain, keccak(TYPES["ReceiveWithAuthorization"] + message))
        # USDC has its own words for a malformed signature; its tests have them
        flaw = "thief" if flaw == "malformed" else flaw
        return after, before, *self.sign(name, digest, flaw)

    def create_committee(self, members: Sequence[str], threshold: int) -> Contract:
        """A committee that signs by ECDSA; members sorted by address."""
        addresses = [actor(name).address for name in members]
        return self.chain.create("EcdsaCommittee", actor("deployer"), addresses, threshold)

    def co_sign(self, digest: bytes, flaw: str) -> tuple[Tail, Revert | None]:
        """The committee's signatures, and what they deserve."""
        committee = self.reference.committee
        names = list(committee.members[: committee.threshold])
        refusal = None
        if flaw == "all":
            names = list(committee.members)
        elif flaw == "too few":
            names, refusal = names[:-1], Revert.COMMITTEE_TOO_FEW_SIGNATURES
        elif flaw == "unsorted" and len(names) > 1:
            names, refusal = names[::-1], Revert.COMMITTEE_SIGNATURES_NOT_SORTED
        elif flaw in ("twice", "unsorted"):
            names, refusal = [names[0], *names], Revert.COMMITTEE_SIGNATURES_NOT_SORTED
        elif flaw == "stranger":
            names = sorted([*names[1:], "thief"], key=lambda name: actor(name).number)
            refusal = Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER
        elif flaw == "other epoch":
            digest, refusal = keccak(digest), Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER
        signatures = b"".join(actor(name).sign(digest) for name in names)
        if flaw == "cut":
            signatures = signatures[:-1]
            refusal = Revert.COMMITTEE_SIGNATURES_NOT_OF_65_BYTES
        elif flaw == "malformed":
            signatures = signatures[:64] + b"\x05" + signatures[65:]
            refusal = Revert.ECDSA_INVALID_SIGNATURE
        return Tail.of_bytes(signatures), refusal
