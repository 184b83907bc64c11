"""What reaches the chain, and in which transactions."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import NoResultFound
from unit.oracle.bench import (
    DAY,
    DEPLOYMENT,
    POLICY,
    Bench,
    actor,
    digest_of,
    escrow,
    evidence,
    key_of,
    receipt,
    registration,
    signed,
    terms,
)
from unit.oracle.ledger import START

from oracle.batching import BatchPolicy
from oracle.candidates import candidates
from oracle.errors import ChainUnavailable, TransactionRefused
from oracle.facts import Settled
from oracle.messages import ChallengeRequest, Status
from oracle.relayer import receipt_rows
from oracle.transactions import TransactionState
from settlement.models import SignedReceipt


def status_of(bench: Bench, it: SignedReceipt) -> tuple[Status, str | None]:
    status = bench.intake.receipt(digest_of(it.receipt))
    return status.status, status.reason


def test_a_receipt_goes_from_accepted_over_submitted_to_settled(bench: Bench) -> None:
    bench.open(terms())
    it = signed(terms(), 100)
    assert bench.intake.submit_receipt(it).status is Status.ACCEPTED
    bench.relayer.tick()
    submitted = bench.intake.receipt(digest_of(it.receipt))
    assert submitted.status is Status.SUBMITTED
    assert submitted.transaction is not None
    bench.finalize()
    settled = bench.intake.receipt(digest_of(it.receipt))
    assert (settled.status, settled.reason, settled.amount) == (Status.SETTLED, None, 10_000_000)
    assert settled.transaction == submitted.transaction
    bench.relayer.tick()
    assert bench.outbox().pending() == []


def test_only_the_newest_receipt_of_a_job_is_sent_and_covers_the_others(bench: Bench) -> None:
    bench.open(terms())
    receipts = [signed(terms(), records) for records in (10, 30, 20)]
    for it in receipts:
        bench.intake.submit_receipt(it)
    bench.rounds()
    assert len(bench.ledger.sent) == 1
    assert [status_of(bench, it) for it in receipts] == [
        (Status.SETTLED, "Covered"),
        (Status.SETTLED, None),
        (Status.SETTLED, "Covered"),
    ]
    assert bench.ledger.paid()[key_of(terms())] == (3_000_000, False)


def test_an_older_receipt_is_not_sent_while_a_newer_one_is_on_its_way(bench: Bench) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 30))
    bench.relayer.tick()
    bench.intake.submit_receipt(signed(terms(), 20))
    bench.relayer.tick()
    assert len(bench.ledger.sent) == 1


def test_a_completing_receipt_that_claims_less_is_settled_after_what_was_earned(
    bench: Bench,
) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 20, complete=True))
    bench.intake.submit_receipt(signed(terms(), 30))
    bench.rounds()
    assert bench.ledger.paid()[key_of(terms())] == (3_000_000, True)
    assert len(bench.ledger.sent) == 1


def test_receipts_of_many_jobs_share_one_transaction(bench: Bench) -> None:
    jobs = [terms(salt) for salt in range(5)]
    bench.open(*jobs)
    for job in jobs:
        bench.intake.submit_receipt(signed(job, 1, complete=True))
    bench.rounds()
    assert len(bench.ledger.sent) == 1
    assert set(bench.ledger.paid().values()) == {(100_000, True)}


def test_a_receipt_that_the_newest_block_refuses_is_rejected_and_the_rest_settles(
    bench: Bench,
) -> None:
    bench.open(terms(1), terms(2, deadline=START + 60))
    good, late = signed(terms(1), 5), signed(terms(2, deadline=START + 60), 5)
    bench.intake.submit_receipt(good)
    bench.intake.submit_receipt(late)
    bench.ledger.mine(seconds=60 + DAY)
    bench.relayer.tick()
    assert status_of(bench, late) == (Status.REJECTED, "TooLate")
    assert status_of(bench, good)[0] is Status.SUBMITTED


def test_a_receipt_that_the_vault_calls_malformed_is_rejected_for_good(bench: Bench) -> None:
    bench.open(terms(1), terms(2))
    good, bad = signed(terms(1), 5), signed(terms(2), 5)
    bench.intake.submit_receipt(good)
    bench.intake.submit_receipt(bad)
    bench.ledger.malformed = {key_of(terms(2))}
    bench.rounds()
    assert status_of(bench, good) == (Status.SETTLED, None)
    assert status_of(bench, bad) == (Status.REJECTED, "Malformed")
    # neither a new fact about its job nor handing it in again brings it back
    bench.ledger.mine(lambda chain: chain.top_up(key_of(terms(2)), 1))
    bench.finalize()
    again = bench.intake.submit_receipt(bad)
    assert (again.status, again.reason) == (Status.REJECTED, "Malformed")
    bench.rounds()
    assert len(bench.ledger.sent) == 1


def test_a_receipt_whose_job_the_newest_block_has_unassigned_waits(bench: Bench) -> None:
    job = terms(node_id=0)
    bench.open(job)
    bench.ledger.mine(lambda chain: chain.assign(key_of(job), 1))
    bench.finalize()
    it = signed(job, 5)
    bench.intake.submit_receipt(it)
    bench.ledger.state.jobs[key_of(job)].node_id = 0
    bench.relayer.tick()
    assert bench.ledger.sent == []
    assert status_of(bench, it) == (Status.ACCEPTED, None)
    bench.ledger.state.jobs[key_of(job)].node_id = 1
    bench.rounds()
    assert status_of(bench, it) == (Status.SETTLED, None)


def test_receipts_of_one_node_stand_side_by_side_also_where_the_committee_chose_it(
    bench: Bench,
) -> None:
    key = actor("second enclave").address
    bench.ledger.mine(lambda chain: chain.register(registration(enclave_key=key, node_id=2)))
    jobs = [terms(1, node_id=0), terms(2, node_id=2), terms(3, node_id=0), terms(4)]
    bench.open(*jobs)
    nodes = {key_of(jobs[0]): 2, key_of(jobs[2]): 1}
    bench.ledger.mine(
        *(lambda chain, job=job, node=node: chain.assign(job, node) for job, node in nodes.items())
    )
    bench.finalize()
    for job in jobs:
        node = nodes.get(key_of(job), job.node_id)
        bench.intake.submit_receipt(signed(job, 5, by="enclave" if node == 1 else "second enclave"))
    bench.rounds()
    assert len(bench.ledger.sent) == 1
    settled = [event for event in bench.ledger.state.events if isinstance(event, Settled)]
    order = [bench.ledger.state.jobs[event.job_id].node_id for event in settled]
    assert order == [1, 1, 2, 2]


def test_while_the_vault_is_paused_receipts_wait(bench: Bench) -> None:
    bench.open(terms(1), terms(2))
    bench.intake.submit_receipt(signed(terms(1), 5))
    bench.intake.submit_receipt(signed(terms(2), 5))
    bench.ledger.state.paused = True
    bench.relayer.tick()
    assert bench.ledger.sent == []
    assert status_of(bench, signed(terms(1), 5)) == (Status.ACCEPTED, None)
    bench.ledger.state.paused = False
    bench.rounds()
    assert status_of(bench, signed(terms(1), 5)) == (Status.SETTLED, None)


def test_a_mined_but_reverted_batch_is_settled_by_another_transaction(bench: Bench) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    bench.relayer.tick()
    bench.ledger.state.paused = True
    bench.ledger.mine()
    bench.ledger.state.paused = False
    bench.finalize()
    bench.relayer.tick()
    states = [row.state for nonce in (0, 1) for row in bench.outbox().attempts(nonce)]
    assert states == [TransactionState.REVERTED, TransactionState.PENDING]
    bench.rounds()
    assert bench.ledger.paid()[key_of(terms())] == (500_000, False)


def test_an_unmined_transaction_is_replaced_at_the_same_nonce_for_an_eighth_more(
    bench: Bench,
) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    bench.relayer.tick()
    for _ in range(5):
        bench.ledger.hold()
    bench.relayer.tick()
    first, second = bench.outbox().attempts(0)
    assert (first.state, second.state) == (TransactionState.REPLACED, TransactionState.PENDING)
    assert second.max_fee * 8 >= first.max_fee * 9
    assert second.tip * 8 >= first.tip * 9
    assert second.data == first.data
    assert bench.intake.receipt(digest_of(receipt(terms(), 5))).transaction == second.hash
    bench.rounds()
    assert status_of(bench, signed(terms(), 5)) == (Status.SETTLED, None)


def test_the_first_attempt_counts_when_it_is_the_one_that_gets_mined(bench: Bench) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    bench.relayer.tick()
    original = dict(bench.ledger.mempool)
    for _ in range(5):
        bench.ledger.hold()
    bench.relayer.tick()
    bench.ledger.mempool = original
    bench.finalize()
    bench.relayer.tick()
    states = [row.state for row in bench.outbox().attempts(0)]
    assert states == [TransactionState.FINAL, TransactionState.REPLACED]


def test_at_the_fee_cap_a_transaction_is_sent_again_as_it_is(bench: Bench) -> None:
    bench.ledger.base_fee = 600
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    bench.relayer.tick()
    for _ in range(5):
        bench.ledger.hold()
    bench.relayer.tick()
    assert len(bench.outbox().attempts(0)) == 1
    assert len(bench.ledger.sent) == 2
    assert bench.ledger.sent[0] == bench.ledger.sent[1]


def test_what_could_not_be_sent_is_sent_later_and_before_any_new_nonce(bench: Bench) -> None:
    bench.open(terms(1), terms(2))
    bench.intake.submit_receipt(signed(terms(1), 5))
    bench.ledger.refuse_sends = True
    with pytest.raises(TransactionRefused, match="insufficient funds"):
        bench.relayer.tick()
    bench.intake.submit_receipt(signed(terms(2), 5))
    with pytest.raises(TransactionRefused):
        bench.relayer.tick()
    assert len(bench.outbox().pending()) == 1
    bench.ledger.refuse_sends = False
    bench.rounds()
    assert sorted(nonce for _, nonce in bench.ledger.calldata_by_nonce()) == [0, 1]
    assert set(bench.ledger.paid().values()) == {(500_000, False)}


def test_a_nonce_that_a_foreign_transaction_used_is_given_up_and_its_receipt_sent_again(
    bench: Bench,
) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    bench.relayer.tick()
    (sender, nonce), _ = bench.ledger.mempool.popitem()
    bench.ledger.state.nonces[sender] = nonce + 1
    bench.finalize()
    bench.relayer.tick()
    assert [row.state for row in bench.outbox().attempts(0)] == [TransactionState.LOST]
    bench.rounds()
    assert bench.ledger.paid()[key_of(terms())] == (500_000, False)


def test_nothing_is_decided_while_the_endpoint_is_down(bench: Bench) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    bench.ledger.down = True
    with pytest.raises(ChainUnavailable):
        bench.relayer.tick()
    bench.ledger.down = False
    assert status_of(bench, signed(terms(), 5)) == (Status.ACCEPTED, None)
    assert bench.outbox().pending() == []


def test_an_escrow_is_opened_by_the_payers_signature(bench: Bench) -> None:
    assert bench.intake.submit_escrow(escrow(terms())).status is Status.ACCEPTED
    bench.rounds()
    assert bench.intake.escrow(key_of(terms())).status is Status.SETTLED
    assert bench.intake.job(key_of(terms())).funded == 100_000_000


def test_an_escrow_that_somebody_else_signed_is_rejected_by_the_tokens_reason(
    bench: Bench,
) -> None:
    bench.intake.submit_escrow(escrow(terms(), by="thief"))
    bench.relayer.tick()
    status = bench.intake.escrow(key_of(terms()))
    assert (status.status, status.reason) == (Status.REJECTED, "USDC_INVALID_SIGNATURE")
    assert bench.ledger.sent == []


def test_an_escrow_for_a_suspended_node_waits_until_its_authorization_runs_out(
    bench: Bench,
) -> None:
    job = terms(node_id=7)
    bench.intake.submit_escrow(escrow(job))
    bench.relayer.tick()
    waiting = bench.intake.escrow(key_of(job))
    assert (waiting.status, waiting.reason) == (Status.ACCEPTED, "VAULT_NODE_IS_NOT_ACTIVE")
    bench.ledger.mine(seconds=DAY)
    bench.finalize()
    bench.relayer.tick()
    late = bench.intake.escrow(key_of(job))
    assert (late.status, late.reason) == (Status.REJECTED, "AuthorizationLate")


def test_an_attested_enclave_is_registered(tmp_path: Path) -> None:
    bench = Bench.create(tmp_path, attested=False)
    it = evidence(bench.quorum.challenges(_request()))
    digest = bench.quorum.submit(it).digest
    bench.rounds()
    assert bench.quorum.status(digest).status is Status.SETTLED
    node = bench.intake.node(1)
    assert (node.valid, node.encryption_key) == (True, it.encryption_key)


def test_a_registration_for_a_committee_that_changed_is_signed_anew(tmp_path: Path) -> None:
    bench = Bench.create(tmp_path, attested=False)
    digest = bench.quorum.submit(evidence(bench.quorum.challenges(_request()))).digest
    bench.quorum.tick()
    assert bench.quorum.status(digest).status is Status.ACCEPTED
    bench.ledger.state.epoch = 2
    bench.relayer.tick()
    waiting = bench.quorum.status(digest)
    assert waiting.status is Status.WAITING
    assert waiting.reason == "ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE"
    bench.rounds()
    assert bench.quorum.status(digest).status is Status.SETTLED


def _request() -> ChallengeRequest:
    return ChallengeRequest(node_id=1, enclave_key=actor("enclave").address)


TWO_KEYS = ("relayer", "second")


def test_a_completing_receipt_never_overtakes_what_was_earned_by_another_key(
    tmp_path: Path,
) -> None:
    bench = Bench.create(tmp_path, keys=TWO_KEYS)
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 30))
    bench.relayer.tick()
    bench.intake.submit_receipt(signed(terms(), 20, complete=True))
    bench.relayer.tick()
    bench.relayer.tick()
    # by the other key it might be mined first, and close the job
    assert len(bench.ledger.sent) == 1
    bench.rounds()
    assert bench.ledger.paid()[key_of(terms())] == (3_000_000, True)


def test_a_completing_receipt_is_not_parted_from_what_was_earned_by_a_batchs_end(
    tmp_path: Path,
) -> None:
    policy = replace(POLICY, batch=BatchPolicy(max_batch=1))
    bench = Bench.create(tmp_path, keys=TWO_KEYS, policy=policy)
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 20, complete=True))
    bench.intake.submit_receipt(signed(terms(), 30))
    bench.relayer.tick()
    assert len(bench.ledger.sent) == 1
    bench.rounds()
    assert bench.ledger.paid()[key_of(terms())] == (3_000_000, True)


def test_a_batch_waits_for_its_policy_and_then_goes(tmp_path: Path) -> None:
    policy = replace(POLICY, batch=BatchPolicy(min_value=10**9, max_age=30, urgency=0))
    bench = Bench.create(tmp_path, policy=policy)
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    bench.ledger.mine(seconds=29)
    assert not bench.relayer.tick()
    assert bench.ledger.sent == []
    bench.ledger.mine(seconds=1)
    assert bench.relayer.tick()
    bench.rounds(2)
    assert bench.ledger.paid()[key_of(terms())] == (500_000, False)


def test_a_receipt_whose_enclave_soon_expires_does_not_wait_for_its_batch(tmp_path: Path) -> None:
    policy = replace(POLICY, batch=BatchPolicy(min_value=10**9, max_age=10**6, urgency=60))
    bench = Bench.create(tmp_path, policy=policy)
    job = terms(deadline=START + 30 * DAY)
    bench.open(job)
    bench.intake.submit_receipt(signed(job, 5))
    expiry = START + 7 * DAY
    bench.ledger.mine(seconds=expiry - 62 - bench.ledger.time)
    assert not bench.relayer.tick()
    bench.ledger.mine(seconds=1)
    assert bench.relayer.tick()
    bench.rounds()
    assert status_of(bench, signed(job, 5)) == (Status.SETTLED, None)


def test_while_one_key_is_in_trouble_the_service_is_ready_and_says_so(tmp_path: Path) -> None:
    bench = Bench.create(tmp_path, keys=TWO_KEYS)
    poor = actor("relayer").address
    bench.ledger.balances[poor] = 1
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    bench.rounds()
    assert status_of(bench, signed(terms(), 5)) == (Status.SETTLED, None)
    service = bench.service()
    assert service.readiness().warnings == {f"key {poor}": "gas money for 0 batches is left"}
    metrics = service.metrics.text().decode()
    assert f'rapha_oracle_relayer_balance_wei{{key="{poor}"}} 1.0' in metrics
    assert f'rapha_oracle_relayer_low{{key="{poor}"}} 1.0' in metrics
    rich = actor("second").address
    assert f'rapha_oracle_relayer_low{{key="{rich}"}} 0.0' in metrics


def test_a_lost_process_leaves_no_mark_that_stops_its_successor(bench: Bench) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    bench.relayer.tick()
    bench.restart()
    bench.relayer.keyring.prepare()
    bench.rounds()
    assert bench.ledger.paid()[key_of(terms())] == (500_000, False)
    assert len(bench.outbox().attempts(0)) == 1


def test_a_batch_is_entered_only_when_each_of_its_receipts_is_stored(tmp_path: Path) -> None:
    bench = Bench.create(tmp_path)
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 5))
    with bench.store.read() as session:
        ((_, stored),) = candidates(session, DEPLOYMENT)
        assert len(receipt_rows([stored], session)) == 1
        lost = replace(stored, digest=bytes(32))
        with pytest.raises(NoResultFound, match="1 receipts of the batch"):
            receipt_rows([stored, lost], session)
