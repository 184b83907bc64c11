"""Facts that follow the finalized chain, whatever the chain does."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import select
from unit.oracle.bench import (
    DEPLOYMENT,
    GRACE,
    Bench,
    actor,
    digest_of,
    escrow,
    evidence,
    key_of,
    signed,
    terms,
)
from unit.oracle.ledger import FINALITY, Ledger

from oracle.errors import (
    ChainUnavailable,
    DatabaseOfOtherDeployment,
    FinalityWentBack,
    ForkNotLonger,
    HistoryIncomplete,
    JobUnknown,
)
from oracle.facts import Event, Header, JobClosed, JobOpened, JobToppedUp, Settled
from oracle.messages import ChallengeRequest, JobState, Status
from oracle.projection import roll_back
from oracle.rebuild import rebuild
from oracle.store.tables import CheckpointRow, CursorRow, EnclaveRow, JobRow
from oracle.watcher import MAX_HEADERS, Watcher
from settlement.contracts import Claim
from settlement.types import to_hex


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


def test_an_endpoint_whose_finality_goes_back_is_not_followed(bench: Bench) -> None:
    before = cursor(bench).block
    del bench.ledger._blocks[-2:]
    with pytest.raises(FinalityWentBack) as caught:
        bench.watcher.tick()
    assert (caught.value.block, caught.value.finalized) == (before, before - 2)
    assert cursor(bench).block == before


def test_another_final_block_without_a_longer_chain_changes_nothing(bench: Bench) -> None:
    bench.open(terms())
    before = cursor(bench)
    bench.ledger.reorganise(FINALITY + 2)
    for _ in range(FINALITY + 2):
        bench.ledger.hold()
    with pytest.raises(ForkNotLonger) as caught:
        bench.watcher.tick()
    assert (caught.value.block, caught.value.known) == (before.block, before.block_hash)
    assert caught.value.found == bench.ledger.finalized().hash
    assert cursor(bench).block_hash == before.block_hash
    assert bench.intake.job(key_of(terms())).funded == 100_000_000
    bench.ledger.hold()
    bench.watch()
    with pytest.raises(JobUnknown):
        bench.intake.job(key_of(terms()))


@pytest.mark.parametrize("depth", [1, 2, 5, 20])
def test_facts_go_back_to_the_last_common_block_and_no_further(bench: Bench, depth: int) -> None:
    bench.open(terms(1))
    bench.intake.submit_receipt(signed(terms(1), 10))
    bench.rounds()
    old = bench.intake.receipt(digest_of(signed(terms(1), 10).receipt))
    assert old.status is Status.SETTLED
    for salt in range(depth):
        bench.ledger.mine(lambda chain, salt=salt: chain.open(terms(100 + salt)))
        bench.watch()
    bench.finalize()
    with bench.store.read() as session:
        known = set(session.scalars(select(CheckpointRow.block)))
    asked: list[int] = []
    block = bench.ledger.block
    bench.ledger.block = lambda number: asked.append(number) or block(number)  # type: ignore[func-returns-value, method-assign]
    bench.ledger.reorganise(depth + 3)  # all that came since, with the blocks that made it final
    fork = bench.ledger.latest()
    for _ in range(depth + 4):
        bench.ledger.hold()
    assert bench.watcher.tick() is True
    went_back = max(number for number in known if number <= fork)
    assert cursor(bench).block == went_back
    assert fork - went_back <= 1
    # found by halving, not block by block
    assert len(asked) <= 2 + len(known).bit_length()
    bench.watch()
    assert bench.watcher.reorgs == 1
    assert bench.intake.receipt(old.digest) == old
    for salt in range(depth):
        with pytest.raises(JobUnknown):
            bench.intake.job(key_of(terms(100 + salt)))
    check_rebuilt(bench)


def check_rebuilt(bench: Bench) -> None:
    """The live facts are what building from scratch makes."""
    again = rebuild(bench.store, bench.ledger, DEPLOYMENT, check_only=True)
    assert again.differences == ()


class Holey(Ledger):
    """An endpoint that leaves logs out of its answers: `hides` says which, of which range."""

    hides: Callable[[Event, int, int], bool] = staticmethod(lambda event, first, last: False)

    def events(self, first: int, last: int) -> Sequence[Event]:
        return [
            event for event in super().events(first, last) if not self.hides(event, first, last)
        ]


def holey(bench: Bench) -> Holey:
    """The bench's ledger, which can leave logs out from here on."""
    bench.ledger.__class__ = Holey
    assert isinstance(bench.ledger, Holey)
    return bench.ledger


def test_logs_that_a_range_lacks_and_the_block_has_are_missed(bench: Bench) -> None:
    before = cursor(bench).block
    bench.ledger.mine(lambda chain: chain.open(terms()))
    at = bench.ledger.latest()
    bench.ledger.mine(), bench.ledger.mine(), bench.ledger.mine()
    holey(bench).hides = lambda event, first, last: first != last
    with pytest.raises(HistoryIncomplete) as caught:
        bench.watcher.tick()
    what = f"asked twice for the logs up to block {at}, the endpoint gave 0 and then 1 of ours"
    assert (caught.value.block, caught.value.what) == (at, what)
    assert (cursor(bench).block, bench.watcher.incomplete) == (before, 1)
    holey(bench).hides = lambda event, first, last: False
    bench.watch()
    assert bench.intake.job(key_of(terms())).funded == 100_000_000


def test_an_endpoint_that_cuts_long_answers_short_is_caught_by_halves(bench: Bench) -> None:
    before = cursor(bench).block
    for salt in range(MAX_HEADERS + 8):
        bench.ledger.mine(lambda chain, salt=salt: chain.open(terms(salt)))
    events = Ledger.events

    class Short(Ledger):
        def events(self, first: int, last: int) -> Sequence[Event]:
            return events(self, first, last)[:30]

    bench.ledger.__class__ = Short
    with pytest.raises(HistoryIncomplete) as caught:
        bench.watcher.tick()
    last = bench.ledger.finalized().number
    what = f"asked twice for the logs up to block {last}, the endpoint gave 30 and then 38 of ours"
    assert (caught.value.block, caught.value.what) == (before + 1, what)
    assert cursor(bench).block == before


@pytest.mark.parametrize("other", ["watcher", "rebuilding"])
def test_facts_that_another_process_moved_meanwhile_get_no_hole_and_nothing_twice(
    bench: Bench, other: str
) -> None:
    bench.ledger.mine(lambda chain: chain.open(terms(1)))
    bench.ledger.mine(lambda chain: chain.open(terms(2)))
    bench.ledger.mine(), bench.ledger.mine()
    height = len(bench.ledger._blocks)
    headers = bench.ledger.headers
    meanwhile = iter([True])

    def slow(first: int, last: int) -> Sequence[Header]:
        if next(meanwhile, False):
            if other == "watcher":
                Watcher(bench.store, bench.ledger, DEPLOYMENT).tick()
            else:  # from the beginning
                with bench.store.write() as session:
                    roll_back(session, -1)
                    session.delete(session.get_one(CursorRow, 1))
        return headers(first, last)

    bench.ledger.headers = slow  # type: ignore[method-assign]
    assert bench.watcher.tick() is True
    bench.watch()
    assert cursor(bench).block == height - 1 - FINALITY
    assert bench.intake.job(key_of(terms(1))).funded == 100_000_000
    assert bench.intake.job(key_of(terms(2))).funded == 100_000_000
    check_rebuilt(bench)


def test_an_attestation_that_somebody_else_brought_collects_its_quorum_if_that_is_gone(
    bench: Bench,
) -> None:
    request = ChallengeRequest(node_id=1, enclave_key=actor("new").address)
    it = evidence(bench.quorum.challenges(request), enclave="new")
    digest = bench.quorum.submit(it).digest
    fork = bench.ledger.latest()
    brought, _ = bench.quorum.collect(it)
    bench.ledger.mine(lambda chain: chain.register(brought))
    bench.finalize()
    assert bench.quorum.status(digest).status is Status.SETTLED
    bench.ledger.reorganise(bench.ledger.latest() - fork)
    for _ in range(8):
        bench.ledger.hold()
    bench.watch()
    assert bench.quorum.status(digest).status is Status.WAITING
    bench.rounds()
    assert bench.quorum.status(digest).status is Status.SETTLED


def test_blocks_that_do_not_follow_each_other_are_refused(bench: Bench) -> None:
    bench.ledger.mine(), bench.ledger.mine()
    headers = bench.ledger.headers

    def other(first: int, last: int) -> list[Header]:
        found = list(headers(first, last))
        return [*found[:-1], replace(found[-1], parent=bytes(32))]

    bench.ledger.headers = other  # type: ignore[method-assign]
    with pytest.raises(HistoryIncomplete, match=f"its parent is {to_hex(bytes(32))}") as caught:
        bench.watcher.tick()
    assert caught.value.block == bench.ledger.finalized().number


def test_logs_where_the_bloom_filter_admits_none_are_refused(bench: Bench) -> None:
    bench.ledger.mine(lambda chain: chain.open(terms()))
    at = bench.ledger.latest()
    bench.ledger.mine(), bench.ledger.mine()
    headers = bench.ledger.headers
    bench.ledger.headers = lambda first, last: [  # type: ignore[method-assign]
        replace(header, logged=False) for header in headers(first, last)
    ]
    with pytest.raises(HistoryIncomplete) as caught:
        bench.watcher.tick()
    what = "there are logs, and its bloom filter admits none"
    assert (caught.value.block, caught.value.what) == (at, what)


@pytest.mark.parametrize(
    ("hidden", "refused", "what"),
    [
        (JobOpened, "JobToppedUp", "was never opened"),
        (JobToppedUp, "JobToppedUp", "was funded with 100000000"),
        (Settled, "Settled", "had 0 paid of 2000000 earned, 1000000 is new"),
        (JobClosed, "JobClosed", "is closed"),
    ],
)
def test_an_event_that_cannot_follow_from_those_before_it_is_refused(
    bench: Bench, hidden: type[Event], refused: str, what: str
) -> None:
    job = terms()
    key = key_of(job)
    claim = Claim(job, signed(job, 10))
    actions: list[Callable[[Ledger], object]] = [
        lambda chain: chain.open(job),
        lambda chain: chain.top_up(key, 5),
        lambda chain: chain.top_up(key, 6),
        lambda chain: chain._settle([claim]),
        lambda chain: chain._settle([Claim(job, signed(job, 20))]),
        lambda chain: chain._close(key, bytes(32)),
    ]
    if hidden is JobClosed:
        actions.append(lambda chain: chain._close(key, bytes(32)))
    for action in actions:
        bench.ledger.mine(action)  # type: ignore[arg-type]
    first = next(e for e in bench.ledger.state.events if isinstance(e, hidden))
    if hidden is not JobClosed:
        holey(bench).hides = lambda event, first_, last: event == first
    for _ in range(3):
        bench.ledger.mine()
    with pytest.raises(HistoryIncomplete) as caught:
        bench.watch()
    assert caught.value.what == f"{refused} of job {to_hex(key)}, which {what}"


def test_of_old_checkpoints_one_in_a_long_stretch_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oracle.watcher.RECENT", 4)
    monkeypatch.setattr("oracle.watcher.SPACING", 8)
    for _ in range(30):
        bench.ledger.mine()
        bench.watch()
    end = cursor(bench).block
    with bench.store.read() as session:
        kept = list(session.scalars(select(CheckpointRow.block).order_by(CheckpointRow.block)))
    assert kept == [3, *range(8, end - 3, 8), *range(end - 3, end + 1)]


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
