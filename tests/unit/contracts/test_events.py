"""Whoever follows the events alone knows the whole ledger."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boa
import pytest
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes
from world import ARBITRATION, COMMITTEE, DAY, GRACE, World, actor, logs_of

from settlement.contracts import JobState, JobStatus, abi_value, artifact, order, terms_ref
from settlement.eip712 import (
    assignment_digest,
    hash_struct,
    intent_digest,
    receive_authorization_digest,
    sign_digest,
)
from settlement.events import decode_events, terms_from_event
from settlement.ledger import Ledger
from settlement.models import Assignment, Deposit, OpenJobs, Sponsorship, Withdrawal
from settlement.types import ZERO_ADDRESS

WINDOW = 2 * 60 * 60


class Recorder:
    """All logs since it began, as `eth_getLogs` gives them, and all that was called."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []
        self.times: list[int] = []
        self.called: set[tuple[str, bytes]] = set()

    @classmethod
    @contextmanager
    def running(cls, monkeypatch: pytest.MonkeyPatch) -> Iterator["Recorder"]:
        """Every transaction of boa's EVM is a block."""
        recorder, execute, deploy = cls(), boa.env.execute_code, boa.env.deploy

        def executing(*arguments: Any, **named: Any) -> Any:
            computation = execute(*arguments, **named)
            if not computation.is_error:
                to = to_checksum_address(named["to_address"])
                recorder.called.add((to, bytes(named["data"][:4])))
            recorder.keep(computation)
            return computation

        def deploying(*arguments: Any, **named: Any) -> Any:
            address, computation = deploy(*arguments, **named)
            recorder.keep(computation)
            return address, computation

        with monkeypatch.context() as patch:
            patch.setattr(boa.env, "execute_code", executing)
            patch.setattr(boa.env, "deploy", deploying)
            yield recorder

    def keep(self, computation: Any) -> None:
        if computation.is_error or not computation.get_log_entries():
            return
        block = len(self.times)
        self.times.append(int(boa.env.timestamp))
        self.logs += [
            {
                "address": to_checksum_address(address),
                "topics": [HexBytes(topic.to_bytes(32, "big")) for topic in topics],
                "data": HexBytes(data),
                "blockNumber": block,
                "blockHash": HexBytes(bytes(32)),
                "transactionHash": HexBytes(bytes(32)),
                "transactionIndex": 0,
                "logIndex": index,
            }
            for index, (address, topics, data) in enumerate(computation.get_log_entries())
        ]

    def ledger(self, world: World) -> Ledger:
        """The ledger rebuilt from nothing else."""
        ledger = Ledger(world.deployment)
        for event in decode_events(world.deployment, self.logs):
            ledger.apply(event, self.times[event.block])
        return ledger


def compare(recorder: Recorder, world: World) -> None:
    """Every view of the vault and the node registry, now."""
    vault, nodes, ledger = world.vault, world.nodes, recorder.ledger(world)
    assert ledger.owed == vault.owed()
    assert ledger.paused_until == vault.paused_until()
    assert ledger.dispute_count == vault.dispute_count()
    assert [ledger.owner, ledger.guardian, ledger.arbiter] == [
        str(vault.owner()),
        str(vault.guardian()),
        str(vault.arbiter()),
    ]
    for job_id, job in ledger.jobs.items():
        found = dict(zip(JobStatus.model_fields, vault.job(job_id), strict=True))
        assert ledger.job_status(job_id) == JobStatus(
            **{**found, "sponsored": bool(found["sponsored"])}
        )
        if job.terms is not None and job.state != JobState.CLOSED:
            funder, end = vault.funder_and_end(terms_ref(job.terms))
            assert (job.funder, job.payable_until) == (str(funder), end)
    for number in range(1, ledger.dispute_count + 2):
        dispute = ledger.disputes.get(number)
        expected = (
            (
                dispute.funder,
                dispute.node_id,
                dispute.version,
                dispute.amount,
                dispute.answer_until,
            )
            if dispute
            else (ZERO_ADDRESS, 0, 0, 0, 0)
        )
        funder, *rest = vault.disputes(number)
        assert (str(funder), *rest) == expected
    for account, balance in ledger.balances.items():
        assert balance == vault.balances(account)
    assert ledger.registrar == str(nodes.registrar())
    assert nodes.node_count() == len(ledger.nodes)
    for number, node in ledger.nodes.items():
        assert ledger.earnings(number, world.now) == world.earnings(number)
        # one beyond the present payee set too
        for version in range(node.version + 2):
            assert ledger.earnings(number, world.now, version) == world.earnings(number, version)
        *people, owner_bps, onboarder_bps, protocol_bps = nodes.payees(number)
        payees = ledger.payees(number)
        known = [payees.hospital, payees.node_owner, payees.onboarder]
        assert known == [str(person) for person in people[:3]]
        assert payees.protocol in (None, str(people[3]))
        assert (payees.node_owner_bps, payees.onboarder_bps, payees.protocol_bps) == (
            owner_bps,
            onboarder_bps,
            protocol_bps,
        )
        status, hospital, onboarder, hardware_hash = nodes.node(number)
        assert (node.status, node.hospital) == (status, str(hospital))
        assert (node.onboarder, node.hardware_hash) == (str(onboarder), hardware_hash)
        assert (node.proposed_treasury or ZERO_ADDRESS) == str(nodes.proposed_treasury(number))
        assert node.node_owner == str(nodes.ownerOf(number))


def test_whole_ledger_is_rebuilt_from_the_logs_of_every_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Money comes in by every way, is earned, disputed, split and taken out by every way."""
    with Recorder.running(monkeypatch) as recorder, World.temporary(window=WINDOW) as world:
        live(world, recorder)
        called = recorder.called
        functions = {
            (contract.address, bytes(keccak(text=signature_of(entry))[:4])): entry["name"]
            for contract, name in (
                (world.vault, "RaphaClearingVault"),
                (world.nodes, "RaphaNodeRegistry"),
            )
            for entry in artifact(name).abi
            if entry["type"] == "function" and entry["stateMutability"] == "nonpayable"
        }
        missed = {name for key, name in functions.items() if key not in called}
        # those are the registry's to call
        assert missed == {"checkpoint", "set_active"}


def signature_of(entry: dict[str, Any]) -> str:
    return f"{entry['name']}({','.join(_type_of(i) for i in entry['inputs'])})"


def _type_of(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        return f"({','.join(_type_of(c) for c in entry['components'])}){kind.removeprefix('tuple')}"
    return kind


def live(world: World, recorder: Recorder) -> None:
    vault, nodes, anyone = world.vault, world.nodes, actor("anyone").address
    payer, sponsor, buyer = actor("payer"), actor("sponsor"), actor("buyer")
    domain = world.deployment.vault_domain
    world.fund(sponsor)
    # at the beginning of a period, so that what follows is in it
    world.travel_to((world.now // WINDOW + 1) * WINDOW)

    # in
    plain, other = world.terms(1), world.terms(2, budget=3_000_000)
    world.open(plain)
    world.open(other)
    permitted = world.terms(3)
    permit = hash_struct(
        "Permit",
        [payer.address, world.deployment.vault, permitted.budget, 0, world.now],
    )
    signed = sign_digest(
        keccak(b"\x19\x01" + world.deployment.usdc_domain.separator + permit), payer.key
    )
    vault.open_job_with_permit(
        order(permitted), world.now, signed[64], signed[:32], signed[32:64], sender=payer.address
    )
    world.usdc.approve(vault.address, 2**256 - 1, sender=payer.address)
    authorized = world.terms(4)
    vault.open_job_with_authorization(
        payer.address,
        order(authorized),
        0,
        world.now + DAY,
        world.authorization(authorized),
        sender=anyone,
    )
    vault.deposit(payer.address, 400_000_000, sender=sponsor.address)
    deposit = Deposit(account=payer.address, amount=5_000_000, salt=bytes(32))
    digest = receive_authorization_digest(
        world.deployment.usdc_domain,
        payer=payer.address,
        to=world.deployment.vault,
        value=deposit.amount,
        valid_after=0,
        valid_before=world.now + DAY,
        nonce=intent_digest(deposit, domain),
    )
    vault.deposit_with_authorization(
        payer.address,
        deposit.amount,
        0,
        world.now + DAY,
        deposit.salt,
        sign_digest(digest, payer.key),
        sender=anyone,
    )
    batch = world.terms(5), world.terms(6, node_id=0), world.terms(7, node_id=0)
    vault.open_jobs(
        payer.address,
        [order(terms) for terms in batch],
        sign_digest(intent_digest(OpenJobs(jobs=batch), domain), payer.key),
        sender=anyone,
    )
    sponsored = world.terms(8, deadline=world.now + DAY)
    consent = intent_digest(Sponsorship(terms=sponsored, sponsor=sponsor.address), domain)
    vault.sponsor_job(
        payer.address, order(sponsored), sign_digest(consent, payer.key), sender=sponsor.address
    )
    vault.top_up(terms_ref(sponsored), 7_000_000, False, sender=sponsor.address)
    vault.top_up(terms_ref(plain), 1_000_000, True, sender=payer.address)
    vault.void_job(order(world.terms(9)), sender=payer.address)
    compare(recorder, world)

    # work: for present payees, then for those after a sale
    waiting, unwanted = batch[1:]
    assignment = Assignment(
        job_id=world.job_id(waiting), node_id=1, epoch=int(world.enclaves.epoch())
    )
    digest = assignment_digest(assignment, domain)
    vault.assign(
        terms_ref(waiting),
        1,
        b"".join(sign_digest(digest, member.key) for member in COMMITTEE[:2]),
        sender=anyone,
    )
    vault.cancel(terms_ref(unwanted), sender=payer.address)
    world.settle(
        world.claim(plain, 10),
        world.claim(plain, 900, signer=actor("thief")),
        world.claim(other, 7, 1),
        world.claim(waiting, 30, complete=True),
        world.claim(unwanted, 30),
    )
    world.settle_one(world.claim(sponsored, 20))
    compare(recorder, world)
    world.pass_time(WINDOW)
    compare(recorder, world)
    world.settle_one(world.claim(plain, 25))
    owner = actor("node owner").address
    nodes.transferFrom(owner, buyer.address, 1, sender=owner)
    world.settle(world.claim(plain, 40), world.claim(sponsored, 50))
    nodes.approve(anyone, 1, sender=buyer.address)
    nodes.safeTransferFrom(buyer.address, owner, 1, sender=anyone)
    hospital, treasury = actor("hospital").address, actor("treasury").address
    world.settle_one(world.claim(plain, 41))
    nodes.propose_treasury(1, treasury, sender=hospital)
    nodes.accept_treasury(1, sender=treasury)
    world.settle_one(world.claim(plain, 42))
    world.govern(nodes, "set_shares", 1, 1_234, 567, 890)
    compare(recorder, world)

    # disputes: about each payee set, answered, and not answered
    guardian, arbiter = actor("guardian").address, actor("arbiter").address
    for version in range(4):
        vault.dispute(terms_ref(plain), version, sender=payer.address)
    vault.dispute(terms_ref(sponsored), 1, sender=guardian)
    vault.resolve(1, 600_000, sender=arbiter)
    vault.resolve(5, 0, sender=arbiter)
    compare(recorder, world)
    world.settle_one(world.claim(plain, 43))
    world.govern(vault, "set_arbiter", actor("arbiter 2").address)
    world.govern(vault, "set_guardian", actor("guardian 2").address)
    compare(recorder, world)

    # the end: a wish, time, a stranger's hand, and a pause in the middle
    vault.cancel(terms_ref(plain), sender=payer.address)
    vault.pause(sender=actor("guardian 2").address)
    compare(recorder, world)
    world.govern(vault, "unpause")
    world.usdc.transfer(vault.address, 77, sender=payer.address)
    world.govern(vault, "recover", world.usdc.address, sponsor.address)
    world.pass_time(2 * WINDOW)
    compare(recorder, world)
    vault.distribute(1, sender=anyone)
    world.register_node(hospital="hospital 2", owner="payer")
    vault.distribute_many([1, 2], sender=anyone)
    for version in range(4):
        vault.distribute_past(1, version, sender=anyone)
    compare(recorder, world)
    world.travel_to(sponsored.deadline + GRACE + 1)
    assert world.refund(sponsored) == 107_000_000 - 5_000_000
    world.travel_to(plain.deadline + GRACE + ARBITRATION + 1)
    for terms in (plain, other, permitted, authorized, batch[0]):
        world.refund(terms)
    for dispute_id in (2, 3, 4):
        vault.release(dispute_id, sender=anyone)
    for version in range(4):
        vault.distribute_past(1, version, sender=anyone)
    nodes.suspend(2, sender=guardian)
    compare(recorder, world)
    world.govern(nodes, "resume", 2)
    nodes.retire(2, sender=actor("hospital 2").address)
    nodes.setApprovalForAll(anyone, True, sender=payer.address)
    nodes.safeTransferFrom(payer.address, buyer.address, 2, b"", sender=anyone)
    world.govern(nodes, "set_registrar", buyer.address)
    world.govern(nodes, "set_guardian", actor("guardian 2").address)

    # out
    vault.withdraw_to(buyer.address, 1_000_000, sender=payer.address)
    withdrawal = Withdrawal(
        account=payer.address, to=buyer.address, amount=9, nonce=0, deadline=world.now
    )
    vault.withdraw_by_signature(
        *abi_value(withdrawal)[:3],
        withdrawal.deadline,
        sign_digest(intent_digest(withdrawal, domain), payer.key),
        sender=anyone,
    )
    vault.withdraw(sender=payer.address)
    vault.withdraw_for(sponsor.address, sender=anyone)
    world.usdc.blacklist(hospital, sender=actor("deployer").address)
    vault.withdraw_for_many([hospital, treasury, owner], sender=anyone)
    compare(recorder, world)
    assert world.balance("hospital") > 0 == world.balance("treasury") == world.balance("node owner")
    for contract in (vault, nodes):
        world.govern(contract, "transfer_ownership", buyer.address)
        contract.accept_ownership(sender=buyer.address)
    compare(recorder, world)


def test_terms_from_the_opening_event_give_the_same_job_id(world: World) -> None:
    terms = world.terms(2**256 - 1)
    job = world.open(terms)
    ((_, args),) = world.events(world.vault)
    assert terms_from_event(args) == terms
    assert world.job_id(terms_from_event(args)) == job == args["job_id"]


def test_foreign_logs_are_left_out(world: World) -> None:
    """USDC's own transfer is among the logs; so is another vault's opening of the same terms."""
    terms = world.terms()
    world.open(terms)
    logs = logs_of(world.vault)
    assert len(logs) == 2
    assert [event.name for event in decode_events(world.deployment, logs)] == ["JobOpened"]
    assert decode_events(World.create().deployment, logs) == []


def test_decoded_event_says_where_it_was(world: World) -> None:
    world.open(world.terms())
    logs = logs_of(world.vault)
    (event,) = decode_events(world.deployment, logs)
    (log,) = [log for log in logs if log["address"] == world.deployment.vault]
    assert (event.contract, event.block, event.log_index) == (
        "vault",
        log["blockNumber"],
        log["logIndex"],
    )


def test_nothing_but_digests_and_amounts_is_in_an_event() -> None:
    """Invariant 7: no field of an event is free text or free bytes."""
    for contract in ("RaphaClearingVault", "RaphaNodeRegistry", "EnclaveRegistry"):
        for entry in artifact(contract).abi:
            if entry["type"] == "event":
                assert not {i["type"] for i in entry["inputs"]} & {"string", "bytes"}
