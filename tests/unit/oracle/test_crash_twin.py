"""The oracle killed between any two steps, started again, and compared with an undisturbed twin."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from longrun import LONG
from sqlalchemy import select
from sqlalchemy.orm import Session
from unit.oracle.bench import (
    PLATFORM,
    POLICY,
    Bench,
    actor,
    digest_of,
    escrow,
    evidence,
    key_of,
    quote_for,
    signed,
    terms,
)

from oracle.batching import BatchPolicy
from oracle.facts import EnclaveRegistered, PlatformJudged
from oracle.messages import ChallengeRequest, Status, VouchFor
from oracle.outbox import CARRYING
from oracle.store.database import Store
from oracle.store.tables import ReceiptRow, TransactionRow

JOBS = [terms(1), terms(2)]
RECEIPTS = [
    signed(JOBS[0], 10),
    signed(JOBS[1], 7, 1),
    signed(JOBS[0], 20, 1),
    signed(JOBS[0], 30, 2, complete=True),
    signed(JOBS[1], 9, 1),
]
FORGED = signed(JOBS[1], 99, by="forger")


class Killed(BaseException):
    """The process is gone; nothing in it may catch this."""


class Steps:
    """Counts the steps of a process, and kills it before one of them.

    Between two steps nothing happens that lasts, so dying after one is dying before the next.
    """

    def __init__(self, kill_at: int | None = None) -> None:
        self.count = 0
        self.kill_at = kill_at

    def step(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            raise Killed


class SteppedChain:
    """The ledger, with a step before each request that the oracle makes."""

    def __init__(self, ledger: Any, steps: Steps) -> None:
        self._ledger = ledger
        self._steps = steps

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._ledger, name)
        if name.endswith("_call"):  # encoding asks nobody
            return method

        def request(*args: Any, **kwargs: Any) -> Any:
            self._steps.step()
            return method(*args, **kwargs)

        return request


class SteppedStore(Store):
    """The database, with a step before each commit."""

    steps = Steps()

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
            self.steps.step()

    @contextmanager
    def share(self) -> Iterator[Session]:
        with super().share() as session:
            yield session
            self.steps.step()


KEYS = ("relayer", "relayer 2")
ONE_EACH = replace(POLICY, max_in_flight=1, batch=BatchPolicy(max_batch=1))
"""What makes several keys work side by side: one receipt in each transaction, one for each key."""


def note_moves(bench: Bench) -> None:
    """Have the database itself note each change of a receipt's status."""
    table = ReceiptRow.__tablename__
    with bench.store.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE moves (before TEXT, after TEXT)")
        connection.exec_driver_sql(
            f"CREATE TRIGGER noted AFTER UPDATE OF status ON {table} WHEN OLD.status != NEW.status "
            "BEGIN INSERT INTO moves VALUES (OLD.status, NEW.status); END"
        )


def moves(bench: Bench) -> set[tuple[Status, Status | None]]:
    """The changes that `docs/states.md` has to know; facts may give any status but SUBMITTED."""
    with bench.store.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT before, after FROM moves").all()
    found = {(Status(before), Status(after)) for before, after in rows}
    return {
        (before, after if (before, after) in CARRYING or after is Status.SUBMITTED else None)
        for before, after in found
        if Status.SUBMITTED in (before, after)
    }


def play(
    directory: Path, kill_at: int | None, vouch_for: VouchFor = VouchFor.KEY, **options: Any
) -> tuple[Bench, Steps]:
    """Register an enclave, escrow and settle two jobs; the process dies once, at step `kill_at`.

    Where the operators vouch for the platform, only the enclave is registered, by a quote.
    """
    bench = Bench.create(directory, attested=False, vouch_for=vouch_for, **options)
    note_moves(bench)
    steps = Steps(kill_at)
    store = SteppedStore(str(bench.store.engine.url))
    store.steps = steps
    whole_store = bench.store
    bench.restart(store, SteppedChain(bench.ledger, steps))  # type: ignore[arg-type]
    client = Client(bench) if vouch_for is VouchFor.KEY else QuotingClient(bench)
    for _ in range(16):
        try:
            client.hand_in()
            bench.watch()
            bench.quorum.tick()
            bench.relayer.tick()
        except Killed:
            store.close()
            bench.restart(whole_store, bench.ledger)
        bench.ledger.mine()
    bench.restart(whole_store, bench.ledger)
    bench.finalize()
    return bench, steps


class Client:
    """Hands in one thing after the other, each again until it is acknowledged."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._evidence: Any = None
        self._left: list[Callable[[], Any]] = [
            self._attest,
            self._wait_for_enclave,
            *(lambda job=job: bench.intake.submit_escrow(escrow(job)) for job in JOBS),
            self._wait_for_jobs,
            *(lambda it=it: bench.intake.submit_receipt(it) for it in (*RECEIPTS, FORGED)),
        ]

    def hand_in(self) -> None:
        while self._left and self._left[0]() is not None:
            self._left.pop(0)

    def _attest(self) -> object:
        request = ChallengeRequest(node_id=1, enclave_key=actor("enclave").address)
        if self._evidence is None:
            self._evidence = evidence(self._bench.quorum.challenges(request))
        return self._bench.quorum.submit(self._evidence)

    def _wait_for_enclave(self) -> object:
        return self._bench.intake.nodes() or None

    def _wait_for_jobs(self) -> object:
        statuses = [self._bench.intake.escrow(key_of(job)).status for job in JOBS]
        return statuses if statuses == [Status.SETTLED] * len(JOBS) else None


class QuotingClient(Client):
    """Has the platform judged, and then quotes for the chain's challenge."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._left = [self._attest, self._wait_for_verdict, self._quote, self._wait_for_enclave]

    def _wait_for_verdict(self) -> object:
        return self._bench.quotes.platform(PLATFORM).expiry or None

    def _quote(self) -> object:
        challenge = self._bench.quotes.platform(PLATFORM).challenge
        return self._bench.quotes.submit(quote_for(challenge))


def outcome(bench: Bench) -> object:
    """What must be the same, whatever happened on the way."""
    statuses = []
    for it in (*RECEIPTS, FORGED):
        status = bench.intake.receipt(digest_of(it.receipt))
        # Which cumulative receipt got a transaction of its own may differ; the sum may not.
        statuses.append(
            (status.status, status.reason if status.status is Status.REJECTED else None)
        )
    enclaves = [(node.node_id, node.enclave_key, node.valid) for node in bench.intake.nodes()]
    return bench.ledger.paid(), statuses, enclaves


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, int]:
    bench, steps = play(tmp_path_factory.mktemp("undisturbed"), None)
    return outcome(bench), steps.count


def test_the_undisturbed_twin_settles_everything(undisturbed: tuple[object, int]) -> None:
    (paid, statuses, enclaves), steps = undisturbed  # type: ignore[misc]
    assert paid == {key_of(JOBS[0]): (5_000_000, True), key_of(JOBS[1]): (1_900_000, False)}
    assert statuses == [(Status.SETTLED, None)] * 5 + [(Status.REJECTED, "EnclaveUnknown")]
    assert [valid for _, _, valid in enclaves] == [True]
    assert steps > 80


@pytest.mark.parametrize("part", range(4))
def test_killed_at_any_step_it_ends_like_its_twin_and_never_reuses_a_nonce(
    part: int, undisturbed: tuple[object, int], tmp_path: Path
) -> None:
    expected, steps = undisturbed
    # every step in the long run, else every third
    stride = 4 if LONG else 12
    for kill_at in range(1 + part, steps + 1, stride):
        bench, _ = play(_made(tmp_path / str(kill_at)), kill_at)
        check(bench, expected, kill_at)


def test_killed_with_several_keys_at_work_it_ends_like_the_twin_with_one(
    undisturbed: tuple[object, int], tmp_path: Path
) -> None:
    """Every step in the long run, else every thirty-seventh."""
    expected, _ = undisturbed
    options: dict[str, Any] = {"keys": KEYS, "policy": ONE_EACH}
    bench, steps = play(_made(tmp_path / "undisturbed"), None, **options)
    at_work = {sender for sender, _ in bench.ledger.calldata_by_nonce()}
    assert at_work == {actor(name).address for name in KEYS}
    check(bench, expected, None)
    stride = 1 if LONG else 37
    for kill_at in range(1, steps.count + 1, stride):
        bench, _ = play(_made(tmp_path / str(kill_at)), kill_at, **options)
        check(bench, expected, kill_at)


def check(bench: Bench, expected: object, kill_at: int | None) -> None:
    """The outcome is the twin's, no nonce was used twice, and all that was sent had been kept."""
    assert outcome(bench) == expected, f"killed at step {kill_at}"
    assert moves(bench) <= CARRYING.keys(), f"killed at step {kill_at}"
    for nonce, calls in bench.ledger.calldata_by_nonce().items():
        assert len(calls) == 1, f"nonce {nonce} carried two calls, killed at step {kill_at}"
    with bench.store.read() as session:
        persisted = set(session.scalars(select(TransactionRow.raw)))
    assert set(bench.ledger.sent) <= persisted, f"sent unpersisted, killed at step {kill_at}"
    bench.store.close()


def test_killed_at_any_step_a_quote_registers_its_key_once(tmp_path: Path) -> None:
    """Every step in the long run, else every thirty-seventh."""
    stride = 1 if LONG else 37
    bench, undisturbed = play(_made(tmp_path / "undisturbed"), None, VouchFor.PLATFORM)
    assert undisturbed.count > 100
    for kill_at in range(1, undisturbed.count + 1, stride):
        bench.store.close()
        bench, _ = play(_made(tmp_path / str(kill_at)), kill_at, VouchFor.PLATFORM)
        assert [node.valid for node in bench.intake.nodes()] == [True], f"killed at {kill_at}"
        for kind in (PlatformJudged, EnclaveRegistered):
            found = [event for event in bench.ledger.state.events if isinstance(event, kind)]
            assert len(found) == 1, f"killed at step {kill_at}"


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
