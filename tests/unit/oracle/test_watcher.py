"""Facts that follow the finalized chain, whatever the chain does."""

import pytest
from sqlalchemy import select
from unit.oracle.bench import DEPLOYMENT, GRACE, Bench, digest_of, escrow, key_of, signed, terms

from oracle.errors import ChainUnavailable, DatabaseOfOtherDeployment
from oracle.messages import JobState, Status
from oracle.store.tables import CursorRow, EnclaveRow, JobRow
from oracle.watcher import Watcher


def cursor(bench: Bench) -> CursorRow:
    with bench.store.read() as session:
        return session.get_one(CursorRow, 1)


def test_nothing_counts_before_it_is_final(bench: Bench) -> None:
    bench.ledger.mine(lambda chain: chain.open(terms()))
    bench.watch()
    with bench.store.read() as session:
        assert session.get(JobRow, key_of(terms())) is None
    bench.finalize()
    with bench.store.read() as session:
        assert session.get_one(JobRow, key_of(terms())).funded == 100_000_000


def test_the_cursor_stands_at_the_finalized_block_with_its_hash(bench: Bench) -> None:
    assert (cursor(bench).block, cursor(bench).block_hash) == (
        bench.ledger.finalized().number,
        bench.ledger.finalized().hash,
    )
    assert bench.watcher.behind == 0


def test_an_endpoint_that_wants_small_ranges_is_asked_in_small_ranges(bench: Bench) -> None:
    bench.ledger.max_range = 3
    for salt in range(10):
        bench.ledger.mine(lambda chain, salt=salt: chain.open(terms(salt)))
    bench.finalize()
    with bench.store.read() as session:
        assert len(session.scalars(select(JobRow)).all()) == 10


def test_while_the_endpoint_is_down_the_cursor_stays(bench: Bench) -> None:
    before = cursor(bench).block
    bench.ledger.mine()
    bench.ledger.down = True
    with pytest.raises(ChainUnavailable):
        bench.watcher.tick()
    assert cursor(bench).block == before


def test_an_endpoint_that_lags_behind_the_cursor_changes_nothing(bench: Bench) -> None:
    before = cursor(bench).block
    bench.ledger._blocks = bench.ledger._blocks[:-2]
    assert bench.watcher.tick() is False
    assert cursor(bench).block == before


def test_when_a_final_block_is_gone_facts_are_rebuilt_and_receipts_are_kept(bench: Bench) -> None:
    bench.open(terms())
    it = signed(terms(), 10)
    bench.intake.submit_receipt(it)
    bench.rounds()
    assert bench.intake.receipt(digest_of(it.receipt)).status is Status.SETTLED
    # The job and all that followed is gone from the chain; the enclave is older and stays.
    with bench.store.read() as session:
        enclave_block = session.scalars(select(EnclaveRow.block)).one()
    bench.ledger.reorganise(bench.ledger.latest() - enclave_block)
    for _ in range(20):
        bench.ledger.hold()
    bench.watch()
    waiting = bench.intake.receipt(digest_of(it.receipt))
    assert (waiting.status, waiting.reason) == (Status.WAITING, "JobUnseen")
    assert (waiting.transaction, waiting.block, waiting.amount) == (None, None, 0)
    assert bench.intake.node(1).valid
    bench.open(terms())
    bench.rounds()
    assert bench.intake.receipt(digest_of(it.receipt)).status is Status.SETTLED
    assert bench.ledger.paid() == {key_of(terms()): (1_000_000, False)}


def test_a_payment_that_a_reorganisation_dropped_is_made_again(bench: Bench) -> None:
    bench.open(terms())
    height = bench.ledger.latest()
    bench.intake.submit_receipt(signed(terms(), 10))
    bench.rounds()
    bench.ledger.reorganise(bench.ledger.latest() - height)
    for _ in range(20):
        bench.ledger.hold()
    bench.rounds(12)
    assert bench.ledger.paid() == {key_of(terms()): (1_000_000, False)}
    status = bench.intake.receipt(digest_of(signed(terms(), 10).receipt))
    assert status.status is Status.SETTLED


def test_a_void_that_a_reorganisation_dropped_lets_the_escrow_open_again(bench: Bench) -> None:
    height = bench.ledger.latest()
    bench.ledger.mine(lambda chain: chain.void(terms()))
    bench.finalize()
    bench.intake.submit_escrow(escrow(terms()))
    assert bench.intake.escrow(key_of(terms())).reason == "JobVoided"
    bench.ledger.reorganise(bench.ledger.latest() - height)
    for _ in range(20):
        bench.ledger.hold()
    bench.rounds()
    status = bench.intake.escrow(key_of(terms()))
    assert (status.status, status.reason) == (Status.SETTLED, None)


def test_a_cancelling_that_a_reorganisation_dropped_is_forgotten(bench: Bench) -> None:
    bench.open(terms())
    height = bench.ledger.latest()
    bench.ledger.mine(lambda chain: chain.cancel(key_of(terms())))
    bench.finalize()
    assert bench.intake.job(key_of(terms())).state is JobState.CANCELLING
    bench.ledger.reorganise(bench.ledger.latest() - height)
    for _ in range(20):
        bench.ledger.hold()
    bench.watch()
    job = bench.intake.job(key_of(terms()))
    assert (job.state, job.payable_until) == (JobState.OPEN, terms().deadline + GRACE)


def test_a_database_of_another_vault_is_refused(bench: Bench) -> None:
    other = DEPLOYMENT.model_copy(update={"vault": "0x2000000000000000000000000000000000000001"})
    with pytest.raises(DatabaseOfOtherDeployment):
        Watcher(bench.store, bench.ledger, other).check_database()
    bench.watcher.check_database()
