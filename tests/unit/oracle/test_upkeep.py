"""By hand: what was rejected is judged anew, and what is on its way is counted."""

import pytest
from eth_utils import keccak
from sqlalchemy import update
from unit.oracle.bench import (
    DEPLOYMENT,
    MEASUREMENT,
    Bench,
    actor,
    digest_of,
    escrow,
    evidence,
    key_of,
    receipt,
    signed,
    terms,
)

from oracle.errors import ItemUnknown, NotRejected
from oracle.messages import ChallengeRequest, Status
from oracle.store.tables import EscrowRow
from oracle.upkeep import Retried, Unfinished, retry, unfinished


def again(bench: Bench, digest: bytes) -> tuple[Retried, ...]:
    return retry(bench.store, DEPLOYMENT, digest)


def test_a_receipt_that_the_vault_refused_for_good_is_judged_by_the_facts(bench: Bench) -> None:
    bench.open(terms())
    bench.ledger.malformed.add(key_of(terms()))
    bench.intake.submit_receipt(signed(terms(), 10))
    bench.rounds()
    digest = digest_of(receipt(terms(), 10))
    assert bench.intake.receipt(digest).reason == "Malformed"
    bench.ledger.malformed.clear()
    bench.rounds()
    assert bench.intake.receipt(digest).status is Status.REJECTED
    signer = actor("enclave").address
    assert again(bench, digest) == (
        Retried(kind="receipt", digest=digest, signer=signer, status=Status.ACCEPTED, reason=None),
    )
    bench.rounds()
    assert bench.ledger.paid() == {key_of(terms()): (1_000_000, False)}


def test_a_forged_receipt_is_judged_anew_and_refused_again(bench: Bench) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 10, by="forger"))
    (retried,) = again(bench, digest_of(receipt(terms(), 10)))
    assert (retried.status, retried.reason) == (Status.REJECTED, "EnclaveUnknown")
    assert retried.signer == actor("forger").address


def test_an_escrow_is_due_again_and_opens_the_job(bench: Bench) -> None:
    bench.intake.submit_escrow(escrow(terms()))
    with bench.store.write() as session:
        session.execute(update(EscrowRow).values(status=Status.REJECTED, reason="Test"))
    (retried,) = again(bench, key_of(terms()))
    assert (retried.kind, retried.status, retried.reason) == ("escrow", Status.ACCEPTED, None)
    bench.rounds()
    assert bench.intake.escrow(key_of(terms())).status is Status.SETTLED


def test_an_escrow_of_a_voided_job_stays_rejected(bench: Bench) -> None:
    bench.ledger.mine(lambda chain: chain.void(terms()))
    bench.finalize()
    bench.intake.submit_escrow(escrow(terms()))
    (retried,) = again(bench, key_of(terms()))
    assert (retried.status, retried.reason) == (Status.REJECTED, "JobVoided")


def test_an_attestation_collects_its_quorum_again(bench: Bench) -> None:
    request = ChallengeRequest(node_id=1, enclave_key=actor("new").address)
    it = evidence(bench.quorum.challenges(request), enclave="new")
    digest = bench.quorum.submit(it).digest
    bench.ledger.mine(lambda chain: chain.allow(MEASUREMENT, False))
    bench.quorum.tick()
    assert bench.quorum.status(digest).status is Status.REJECTED
    bench.ledger.mine(lambda chain: chain.allow(MEASUREMENT))
    (retried,) = again(bench, digest)
    assert (retried.kind, retried.status) == ("attestation", Status.WAITING)
    bench.rounds()
    assert bench.quorum.status(digest).status is Status.SETTLED


def test_what_was_not_rejected_or_never_came_is_named(bench: Bench) -> None:
    bench.open(terms())
    digest = bench.intake.submit_receipt(signed(terms(), 10)).digest
    with pytest.raises(NotRejected, match="is ACCEPTED") as caught:
        again(bench, digest)
    assert (caught.value.digest, caught.value.item_status) == (digest, "ACCEPTED")
    with pytest.raises(ItemUnknown) as unknown:
        again(bench, keccak(text="nothing"))
    assert unknown.value.digest == keccak(text="nothing")


def test_what_is_on_its_way_is_counted_until_it_is_final(bench: Bench) -> None:
    bench.open(terms(1))
    bench.intake.submit_receipt(signed(terms(1), 10))
    bench.intake.submit_receipt(signed(terms(9), 10))
    bench.intake.submit_escrow(escrow(terms(2)))
    due = {"receipts": 1, "escrows": 1, "attestations": 0, "quotes": 0, "waiting": 1}
    assert unfinished(bench.store) == Unfinished(**due, transactions=0)
    bench.relayer.tick()
    assert unfinished(bench.store) == Unfinished(**due, transactions=2)
    assert unfinished(bench.store).total == 4
    bench.rounds()
    none = {"receipts": 0, "escrows": 0, "attestations": 0, "quotes": 0, "transactions": 0}
    assert unfinished(bench.store) == Unfinished(**none, waiting=1)
    assert unfinished(bench.store).total == 0
