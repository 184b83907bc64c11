"""A world in the middle of its life, and the numbers that must agree there whatever is called.

Everything that the ledger can hold is present: jobs in each state, fresh and matured earnings of
present and earlier payees, balances and a dispute. What was signed for is kept as calls that would
succeed, so that a random call has something near the truth to start from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import boa
from eth_utils import function_signature_to_4byte_selector, keccak
from quoting import Maker, dev_platform
from world import DAY, ENCRYPTION_KEY, GRACE, MEASUREMENT, World, actor, create_committee

from settlement.contracts import Claim, abi_value, artifact, order, terms_ref
from settlement.eip712 import receive_authorization_digest, sign_digest, struct_hash
from settlement.models import Deposit, JobTerms, OpenJobs, Withdrawal
from settlement.reverts import reason_of
from settlement.types import ZERO_ADDRESS

WINDOW = 3_600
CLOSED = 4
NAMES = {
    "vault": "RaphaClearingVault",
    "nodes": "RaphaNodeRegistry",
    "enclaves": "EnclaveRegistry",
    "timelock": "RaphaTimelock",
}
PEOPLE = (
    "payer",
    "sponsor",
    "hospital",
    "hospital 2",
    "node owner",
    "node owner 2",
    "onboarder",
    "protocol",
    "guardian",
    "arbiter",
    "registrar",
    "proposer",
    "treasury",
    "anyone",
)
OF_OWNER = {
    "transfer_ownership",
    "set_guardian",
    "set_arbiter",
    "set_registrar",
    "set_shares",
    "set_committee",
    "allow_measurement",
    "allow_authority",
    "set_quoting_enclave",
    "recover",
    "unpause",
    "resume",
}
OF_PEOPLE = {
    ("vault", "cancel"): ("payer", "sponsor"),
    ("vault", "checkpoint"): ("nodes",),
    ("vault", "deposit"): ("payer", "sponsor"),
    ("vault", "dispute"): ("guardian", "payer", "sponsor"),
    ("vault", "open_job"): ("payer", "sponsor"),
    ("vault", "open_job_with_permit"): ("payer",),
    ("vault", "pause"): ("guardian",),
    ("vault", "resolve"): ("arbiter",),
    ("vault", "set_active"): ("nodes",),
    ("vault", "sponsor_job"): ("sponsor",),
    ("vault", "top_up"): ("payer", "sponsor"),
    ("vault", "void_job"): ("payer",),
    ("vault", "withdraw"): ("payer", "sponsor", "hospital", "node owner"),
    ("vault", "withdraw_to"): ("payer", "sponsor", "hospital", "node owner"),
    ("nodes", "accept_treasury"): ("treasury",),
    ("nodes", "approve"): ("node owner 2",),
    ("nodes", "propose_treasury"): ("hospital", "hospital 2"),
    ("nodes", "register_node"): ("registrar",),
    ("nodes", "retire"): ("hospital", "hospital 2"),
    ("nodes", "safeTransferFrom"): ("node owner 2",),
    ("nodes", "suspend"): ("guardian",),
    ("nodes", "transferFrom"): ("node owner 2",),
    ("enclaves", "revoke"): ("guardian",),
    ("enclaves", "revoke_measurement"): ("guardian",),
    ("enclaves", "revoke_platform"): ("guardian",),
    ("enclaves", "revoke_certificate"): ("guardian",),
    ("enclaves", "revoke_authority"): ("guardian",),
}
JOB_OPENED = int.from_bytes(
    keccak(
        text="JobOpened(bytes32,address,uint256,uint256,uint256,uint256,uint256,"
        "(bytes32,bytes32,bytes32,bytes32),bytes32)"
    )
)


@dataclass(frozen=True)
class Outcome:
    """What a call did. `data` is what it returned, or reverted with."""

    reverted: bool
    data: bytes

    @property
    def reason(self) -> str | None:
        """The reason of a revert, None for one without data."""
        return reason_of(self.data)


@dataclass
class Scene:
    """The world, and what was found in its ledger when it was built."""

    world: World
    maker: Maker
    job_ids: set[bytes] = field(default_factory=set)

    @classmethod
    def create(cls) -> "Scene":
        """In boa's EVM as it is; the caller undoes it."""
        platform = dev_platform(int(boa.env.timestamp))
        world = World.create(window=WINDOW, trust=platform.trust)
        scene = cls(world, Maker(world, platform))
        scene._live()
        return scene

    def _live(self) -> None:
        world = self.world
        world.start_period()
        world.register_node(hospital="hospital 2", owner="node owner 2")
        world.fund(actor("sponsor"))
        for name in ("payer", "sponsor"):
            world.deposit(name, 500_000_000)
        salts = iter(range(100))
        self.waiting = world.terms(next(salts), node_id=0)
        self.worked = [world.terms(next(salts)) for _ in range(2)]
        self.cancelling, self.closed, self.disputed = (world.terms(next(salts)) for _ in range(3))
        self.sponsored = world.terms(next(salts))
        jobs = [self.waiting, *self.worked, self.cancelling, self.closed, self.disputed]
        for terms in jobs:
            world.open(terms)
        world.sponsor(self.sponsored)
        self.job_ids = {world.job_id(terms) for terms in (*jobs, self.sponsored)}
        world.settle(*(world.claim(terms, 100) for terms in (*self.worked, self.disputed)))
        world.settle(world.claim(self.closed, 10, complete=True))
        world.cancel(self.cancelling)
        world.dispute(self.disputed)
        world.nodes.transferFrom(
            actor("node owner").address,
            actor("node owner 2").address,
            1,
            sender=actor("node owner").address,
        )
        world.pass_time(2 * WINDOW)
        for records in (200, 300, 350):
            world.settle(world.claim(self.worked[0], records), world.claim(self.sponsored, records))
            world.pass_time(WINDOW)
        world.settle(world.claim(self.worked[1], 300))
        deployer = actor("deployer").address
        world.usdc.mint(world.vault.address, 1_000, sender=deployer)
        unpause = function_signature_to_4byte_selector("unpause()")
        self.announced = (str(world.vault.address), 0, unpause, bytes(32), bytes(32))
        world.timelock.schedule(*self.announced, 2 * DAY, sender=actor("proposer").address)
        quote = self.maker.sgx(actor("new enclave").address)
        world.register_platform(quote)
        world.judge(world.verdict(quote))
        self.unopened = world.terms(next(salts))
        self.intended = world.terms(next(salts), node_id=2)
        self.consented = world.terms(next(salts))

    @cached_property
    def contracts(self) -> dict[str, Any]:
        """The deployable contracts by name."""
        return {name: getattr(self.world, name) for name in NAMES}

    @cached_property
    def accounts(self) -> list[str]:
        """All addresses that calls name: people, contracts, extremes. The thief is none of them."""
        contracts = [str(contract.address) for contract in self.contracts.values()]
        return [
            *(actor(name).address for name in PEOPLE),
            *contracts,
            str(self.world.usdc.address),
            ZERO_ADDRESS,
            "0x" + "00" * 19 + "01",
            "0x" + "ff" * 20,
        ]

    @cached_property
    def senders(self) -> list[str]:
        """Who calls: people, the owner of everything, each contract, and the thief."""
        contracts = [str(contract.address) for contract in self.contracts.values()]
        return [*(actor(name).address for name in PEOPLE), *contracts, actor("thief").address]

    def authorized(self, terms: JobTerms) -> tuple[Any, ...]:
        """Arguments that open a job by EIP-3009."""
        before = self.world.now + DAY
        signature = self.world.authorization(terms, valid_before=before)
        return terms.payer, order(terms), 0, before, signature

    @cached_property
    def near_calls(self) -> dict[tuple[str, str], list[tuple[Any, ...]]]:
        """(contract, function) -> arguments with which somebody could succeed now."""
        world = self.world
        payer, anyone = actor("payer").address, actor("anyone").address
        vault, role = str(world.vault.address), world.timelock.PROPOSER_ROLE()
        until = world.now + DAY
        live = [self.waiting, *self.worked, self.cancelling, self.disputed, self.sponsored]
        refs = [(terms_ref(terms),) for terms in live]
        permit = world.permit(actor("payer"), self.unopened.budget, until)
        deposit = Deposit(account=payer, amount=5_000_000, salt=bytes(32))
        authorized_deposit = sign_digest(
            receive_authorization_digest(
                world.deployment.usdc_domain,
                payer=payer,
                to=world.deployment.vault,
                value=deposit.amount,
                valid_after=0,
                valid_before=until,
                nonce=keccak(
                    b"\x19\x01" + world.deployment.vault_domain.separator + struct_hash(deposit)
                ),
            ),
            actor("payer").key,
        )
        leaving = Withdrawal(
            account=payer, to=actor("treasury").address, amount=7, nonce=0, deadline=until
        )
        opening = world.sign_intent(OpenJobs(jobs=(self.intended,)), actor("payer"))
        claims: list[Claim] = [
            *(world.claim(terms, 400) for terms in live),
            world.claim(self.worked[0], 400, complete=True),
            world.claim(self.cancelling, 5, complete=True),
        ]
        registration = world.registration(enclave_key=actor("new enclave").address)
        operators = sorted((actor(f"operator {i}").address for i in range(3)), key=str.lower)
        committee = str(create_committee(operators, 2).address)
        nothing = bytes(32)
        quote = self.maker.sgx(actor("new enclave").address)
        platform, issuer = quote.pck_key.digest, quote.issuer
        longer = datetime.fromtimestamp(world.now + 4_000 * DAY, UTC)
        renewed = self.maker.issue("pck", "pck_ca", not_after=longer, serial=7)
        verdict = world.verdict(quote, expiry=world.now + 8 * DAY)
        return {
            ("vault", "deposit"): [(payer, 1), (payer, 10**7)],
            ("vault", "deposit_with_authorization"): [
                (payer, deposit.amount, 0, until, deposit.salt, authorized_deposit)
            ],
            ("vault", "withdraw_for"): [(payer,), (actor("sponsor").address,)],
            ("vault", "withdraw_for_many"): [([payer, actor("hospital").address],)],
            ("vault", "withdraw_to"): [(actor("treasury").address, 1)],
            ("vault", "withdraw_by_signature"): [
                (
                    payer,
                    leaving.to,
                    leaving.amount,
                    leaving.deadline,
                    world.sign_intent(leaving, actor("payer")),
                )
            ],
            ("vault", "recover"): [(str(world.usdc.address), actor("treasury").address)],
            ("vault", "distribute"): [(1,), (2,)],
            ("vault", "distribute_many"): [([1, 2],)],
            ("vault", "distribute_past"): [(1, 0)],
            ("vault", "checkpoint"): [(1,), (2,)],
            ("vault", "open_job"): [(order(self.unopened),)],
            ("vault", "open_job_with_permit"): [(order(self.unopened), until, *permit)],
            ("vault", "open_job_with_authorization"): [self.authorized(self.unopened)],
            ("vault", "open_jobs"): [(payer, [order(self.intended)], opening)],
            ("vault", "sponsor_job"): [
                (payer, order(self.consented), world.consent(self.consented))
            ],
            ("vault", "top_up"): [(*ref, 5, flag) for ref in refs for flag in (True, False)],
            ("vault", "void_job"): [(order(self.unopened),)],
            ("vault", "assign"): [
                (terms_ref(self.waiting), node, world.assignment(self.waiting, node))
                for node in (1, 2)
            ],
            ("vault", "cancel"): refs,
            ("vault", "refund"): refs,
            ("vault", "funder_and_end"): refs,
            ("vault", "dispute"): [(*ref, version) for ref in refs for version in (0, 1)],
            ("vault", "resolve"): [(1, 0), (1, 3_000_000), (1, 10_000_000)],
            ("vault", "release"): [(1,)],
            ("vault", "settle"): [(claim.abi_value(),) for claim in claims],
            ("vault", "settle_many"): [([claim.abi_value() for claim in claims],)],
            ("vault", "set_arbiter"): [(anyone,)],
            ("vault", "set_active"): [(1, False), (2, True)],
            **{
                (contract, function): [(anyone,)]
                for contract in ("vault", "nodes", "enclaves")
                for function in ("transfer_ownership", "set_guardian")
            },
            ("nodes", "register_node"): [(payer, payer, payer, keccak(text="new hardware"))],
            ("nodes", "transferFrom"): [(actor("node owner 2").address, payer, n) for n in (1, 2)],
            ("nodes", "safeTransferFrom"): [
                (actor("node owner 2").address, payer, 2, b""),
                (actor("node owner 2").address, payer, 1),
            ],
            ("nodes", "propose_treasury"): [(1, actor("treasury").address)],
            ("nodes", "accept_treasury"): [(1,)],
            ("nodes", "set_shares"): [(1, 4_000, 500, 500), (2, 0, 0, 0)],
            ("nodes", "suspend"): [(1,)],
            ("nodes", "resume"): [(1,)],
            ("nodes", "retire"): [(1,), (2,)],
            ("nodes", "approve"): [(payer, 1)],
            ("nodes", "setApprovalForAll"): [(anyone, True)],
            ("nodes", "set_registrar"): [(anyone,)],
            ("nodes", "tokenURI"): [(1,)],
            ("enclaves", "register"): [
                (abi_value(registration), b"".join(world.co_sign(registration)))
            ],
            ("enclaves", "register_platform"): [(renewed, issuer.abi_value())],
            ("enclaves", "judge"): [(abi_value(verdict), world.signatures_on(verdict))],
            ("enclaves", "register_quote"): [
                (quote.abi_value(), actor("new enclave").address, keccak(ENCRYPTION_KEY))
            ],
            ("enclaves", "check_quote"): [(quote.abi_value(),)],
            ("enclaves", "revoke_platform"): [(platform,)],
            ("enclaves", "revoke_certificate"): [(issuer.digest, 7)],
            ("enclaves", "revoke_authority"): [(issuer.digest,)],
            ("enclaves", "allow_authority"): [(self.maker.certificate("pck_ca"),)],
            ("enclaves", "set_quoting_enclave"): [(0, self.maker.platform.trust.sgx.abi_value())],
            ("enclaves", "revoke"): [(actor("new enclave").address,)],
            ("enclaves", "revoke_measurement"): [(MEASUREMENT,)],
            ("enclaves", "allow_measurement"): [(MEASUREMENT,), (keccak(text="another"),)],
            ("enclaves", "set_committee"): [(committee,)],
            ("timelock", "update_delay"): [(3 * DAY,)],
            ("timelock", "schedule"): [(*self.announced, 3 * DAY)],
            ("timelock", "schedule_batch"): [
                ([vault], [0], [b""], nothing, nothing, 3 * DAY),
            ],
            ("timelock", "execute"): [self.announced],
            ("timelock", "execute_batch"): [([vault], [0], [b""], nothing, nothing)],
            ("timelock", "cancel"): [(world.timelock.hash_operation(*self.announced),)],
            ("timelock", "grantRole"): [(role, anyone)],
            ("timelock", "revokeRole"): [(role, actor("proposer").address)],
            ("timelock", "renounceRole"): [(role, actor("proposer").address)],
            ("timelock", "set_role_admin"): [(role, role)],
        }

    def fitting_senders(self, contract: str, function: str) -> list[str]:
        """Who may call a function, where not just anybody may."""
        owner = str(self.world.timelock.address)
        if contract == "timelock":
            return [owner, actor("proposer").address]
        if function in OF_OWNER:
            return [owner]
        names = OF_PEOPLE.get((contract, function))
        if names is None:
            return self.senders
        if names == ("nodes",):
            return [str(self.world.nodes.address)]
        return [actor(name).address for name in names]

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What happens in the block is undone after it."""
        known = set(self.job_ids)
        with boa.env.anchor():
            yield
        self.job_ids = known

    def call(self, name: str, data: bytes, sender: str, value: int = 0) -> Outcome:
        """Call a contract with this calldata; new jobs are noted."""
        computation = boa.env.execute_code(
            to_address=self.contracts[name].address, data=data, sender=sender, value=value
        )
        if not computation.is_error:
            vault = self.contracts["vault"].address.canonical_address
            self.job_ids |= {
                topics[1].to_bytes(32, "big")
                for address, topics, _ in computation.get_log_entries()
                if address == vault and topics[0] == JOB_OPENED
            }
        return Outcome(computation.is_error, bytes(computation.output))

    # what must always hold

    def check(self) -> None:
        """The vault covers what it owes, owes what its ledger says, and the thief has nothing."""
        world, thief = self.world, actor("thief").address
        owed = world.vault.owed()
        assert world.usdc.balanceOf(world.vault.address) >= owed
        assert owed == self.ledger()
        assert world.usdc.balanceOf(thief) == world.vault.balances(thief) == 0
        assert world.nodes.balanceOf(thief) == 0
        for contract in (world.vault, world.nodes, world.enclaves):
            assert thief not in (contract.owner(), contract.pending_owner(), contract.guardian())
        assert thief not in (world.vault.arbiter(), world.nodes.registrar())

    def ledger(self) -> int:
        """Escrow of jobs that are not closed, earnings, what is disputed, and balances."""
        vault = self.world.vault
        total = 0
        for job_id in self.job_ids:
            state, *_, paid, funded = vault.job(job_id)
            total += 0 if state == CLOSED else funded - paid
        for node in range(1, self.world.nodes.node_count() + 1):
            present = vault.earnings_of(node)
            total += sum(present[:3])
            for version in range(present[3]):
                total += sum(vault.past_earnings_of(node, version)[:3])
        for dispute in range(1, vault.dispute_count() + 1):
            total += vault.disputes(dispute)[3]
        return total + sum(vault.balances(account) for account in set(self.accounts))

    @cached_property
    def interesting(self) -> list[int]:
        """Numbers at which something changes."""
        now = self.world.now
        powers = (2**22, 2**46, 2**56, 2**64, 2**160, 2**255)
        edges = [edge + step for edge in powers for step in (-1, 0, 1)]
        amounts = [5_000, 10_000, 10**6, self.waiting.budget]
        times = [now, now + DAY, now + GRACE, self.waiting.deadline]
        return [0, 1, 2, 3, 4, *amounts, *times, *edges, 2**256 - 1]


def functions_of(name: str) -> list[dict[str, Any]]:
    """The external functions of a contract, as its ABI has them."""
    return [entry for entry in artifact(NAMES[name]).abi if entry["type"] == "function"]
