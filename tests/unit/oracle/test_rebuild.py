"""The facts built from scratch: equal to the live ones, or each difference by name."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from unit.oracle.bench import (
    DEPLOYMENT,
    Bench,
    actor,
    digest_of,
    escrow,
    key_of,
    receipt,
    registration,
    signed,
    terms,
)

from oracle.errors import ChainUnavailable, DatabaseOfOtherDeployment
from oracle.messages import Status
from oracle.rebuild import FactDifference, rebuild
from oracle.store.database import Store
from oracle.store.tables import (
    ChainEventRow,
    CheckpointRow,
    CursorRow,
    JobEventRow,
    JobRow,
    MeasurementRow,
    PauseRow,
)
from settlement.types import to_hex


@pytest.fixture
def busy(bench: Bench) -> Bench:
    """A bench after a bit of everything: two jobs, one of them completed, and a renewed enclave."""
    bench.open(terms(1))
    bench.intake.submit_escrow(escrow(terms(2)))
    bench.intake.submit_receipt(signed(terms(1), 10))
    bench.rounds()
    bench.ledger.mine(lambda chain: chain.top_up(key_of(terms(1)), 7))
    bench.intake.submit_receipt(signed(terms(2), 30, complete=True))
    bench.rounds()
    bench.ledger.mine(lambda chain: chain.revoke(actor("enclave").address))
    bench.finalize()
    return bench


def test_what_is_live_is_what_the_chain_makes(busy: Bench) -> None:
    found = rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=True)
    assert found.differences == ()
    assert (found.block, found.replaced) == (busy.ledger.finalized().number, False)
    assert found.events == 9


def test_every_difference_is_named_and_rebuilding_mends_it(busy: Bench) -> None:
    one, two = key_of(terms(1)), key_of(terms(2))
    settled = busy.intake.receipt(digest_of(receipt(terms(1), 10)))
    with busy.store.write() as session:
        session.execute(update(JobRow).where(JobRow.job_id == one).values(paid=999))
        session.execute(delete(JobRow).where(JobRow.job_id == two))
        session.add(MeasurementRow(measurement=bytes(32), allowed=True))
    found = rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=True)
    wrong = FactDifference(
        table="jobs", key=to_hex(one), column="paid", live="999", rebuilt="1000000"
    )
    extra = FactDifference(
        table="measurements",
        key=to_hex(bytes(32)),
        column="row",
        live="there",
        rebuilt=None,
    )
    missing = FactDifference(
        table="jobs", key=to_hex(two), column="row", live=None, rebuilt="there"
    )
    assert set(found.differences) == {wrong, extra, missing}
    assert {str(difference) for difference in found.differences} == {
        f"jobs {to_hex(one)}: paid is 999, rebuilt 1000000",
        f"jobs {to_hex(two)} is missing",
        f"measurements {to_hex(bytes(32))} is not on the chain",
    }
    again = rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=False)
    assert (again.differences, again.replaced) == (found.differences, True)
    after = rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=True)
    assert after.differences == ()
    assert busy.intake.receipt(settled.digest) == settled
    assert busy.intake.escrow(two).status is Status.SETTLED
    busy.rounds()
    assert busy.ledger.paid() == {one: (1_000_000, False), two: (3_000_000, True)}


def test_checking_changes_nothing(busy: Bench) -> None:
    with busy.store.write() as session:
        session.execute(update(JobRow).values(paid=999))
    rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=True)
    with busy.store.read() as session:
        assert session.get_one(JobRow, key_of(terms(1))).paid == 999


def test_a_log_with_a_hole_is_mended_by_the_chain(busy: Bench) -> None:
    key = key_of(terms(1))
    with busy.store.write() as session:
        opened = ChainEventRow.subject == to_hex(key)
        session.execute(delete(ChainEventRow).where(opened, ChainEventRow.kind == "Settled"))
        session.execute(
            delete(JobEventRow).where(JobEventRow.job_id == key, JobEventRow.event == "settled")
        )
    assert rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=False).differences
    assert rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=True).differences == ()


def test_while_the_chain_is_away_nothing_changes(busy: Bench) -> None:
    busy.ledger.down = True
    with pytest.raises(ChainUnavailable):
        rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=False)
    assert busy.intake.job(key_of(terms(1))).paid == 1_000_000


def test_the_database_of_another_vault_is_not_rebuilt(busy: Bench) -> None:
    other = DEPLOYMENT.model_copy(update={"vault": "0x2000000000000000000000000000000000000001"})
    with pytest.raises(DatabaseOfOtherDeployment):
        rebuild(busy.store, busy.ledger, other, check_only=False)


def test_after_rebuilding_a_reorganisation_is_still_followed(busy: Bench) -> None:
    rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=False)
    with busy.store.read() as session:
        assert session.query(CheckpointRow).count() == 1
    busy.ledger.reorganise(4)
    for _ in range(6):
        busy.ledger.hold()
    busy.watch()
    assert busy.watcher.reorgs == 1
    assert busy.intake.node(1).valid  # the revoking was dropped
    assert rebuild(busy.store, busy.ledger, DEPLOYMENT, check_only=True).differences == ()


def test_a_lost_database_comes_back_and_receipts_handed_in_again_are_settled(
    busy: Bench, tmp_path: Path
) -> None:
    lost = Store(f"sqlite:///{tmp_path / 'empty.db'}")
    lost.migrate()
    before = busy.ledger.paid()
    found = rebuild(lost, busy.ledger, DEPLOYMENT, check_only=False)
    assert found.events == 9
    busy.restart(store=lost)
    for it in (signed(terms(1), 10), signed(terms(2), 30, complete=True)):
        status = busy.intake.submit_receipt(it)
        assert (status.status, status.reason) == (Status.SETTLED, None)
    assert busy.intake.submit_escrow(escrow(terms(2))).status is Status.SETTLED
    busy.rounds()
    assert busy.ledger.paid() == before


def test_a_backup_from_before_catches_up_and_pays_nothing_twice(
    bench: Bench, tmp_path: Path
) -> None:
    bench.open(terms(1))
    bench.store.close()
    backup = tmp_path / "backup.db"
    shutil.copy(tmp_path / "oracle.db", backup)
    bench.intake.submit_receipt(signed(terms(1), 10))
    bench.rounds()
    assert bench.ledger.paid() == {key_of(terms(1)): (1_000_000, False)}
    bench.restart(store=Store(f"sqlite:///{backup}"))
    assert bench.intake.submit_receipt(signed(terms(1), 10)).status is Status.ACCEPTED
    bench.rounds()
    assert bench.ledger.paid() == {key_of(terms(1)): (1_000_000, False)}
    status = bench.intake.receipt(digest_of(receipt(terms(1), 10)))
    assert (status.status, status.amount) == (Status.SETTLED, 1_000_000)


def test_facts_from_before_the_log_are_read_again(bench: Bench) -> None:
    bench.open(terms(1))
    bench.store.downgrade("0002")
    bench.store.migrate("0003")
    with bench.store.read() as session:
        assert session.get(CursorRow, 1) is None
        assert session.get(JobRow, key_of(terms(1))) is None
        assert session.get(PauseRow, 1) is None
    bench.store.migrate()
    bench.watch()
    assert bench.intake.job(key_of(terms(1))).funded == 100_000_000
    assert bench.intake.node(1).expiry == registration().expiry
