"""Any history, with any reorganisations: the facts are what the ledger makes of the events."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from unit.oracle.bench import (
    DEPLOYMENT,
    MEASUREMENT,
    Bench,
    actor,
    key_of,
    signed,
    terms,
)
from unit.oracle.bench import registration as registered
from unit.oracle.ledger import FINALITY, START
from unit.oracle.ledger import Ledger as FakeChain

from oracle.facts import Event, JobCancelled, JobOpened, JobVoided, Settled
from oracle.messages import JobState, Status
from oracle.rebuild import rebuild
from oracle.store.tables import JobRow, MeasurementRow, ReceiptRow
from settlement import events
from settlement.contracts import Claim
from settlement.contracts import JobState as VaultState
from settlement.ledger import Ledger
from settlement.models import JobTerms
from settlement.types import ZERO_ADDRESS

JOBS = 4
STATES = {
    VaultState.OPEN: JobState.UNASSIGNED,
    VaultState.ASSIGNED: JobState.OPEN,
    VaultState.CANCELLING: JobState.CANCELLING,
    VaultState.CLOSED: JobState.CLOSED,
}
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(
                ["open", "assign", "top_up", "settle", "complete", "cancel", "void", "refund"]
            ),
            st.integers(0, JOBS - 1),
            st.integers(1, 60),
        ),
        st.tuples(st.just("toggle"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("renew"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("hand_in"), st.integers(0, JOBS - 1), st.integers(1, 60)),
        st.tuples(st.just("watch"), st.just(0), st.just(0)),
        st.tuples(st.just("reorganise"), st.integers(1, 12), st.integers(0, 3)),
    ),
    min_size=1,
    max_size=40,
)


def job(number: int) -> JobTerms:
    """Half of the jobs leave their node to the committee."""
    return terms(number, node_id=number % 2)


def act(chain: FakeChain, what: str, number: int, count: int) -> None:
    """One action, where the contracts would allow it."""
    it, state = job(number), chain.state
    key = key_of(it)
    known = state.jobs.get(key)
    if what == "open" and known is None and key not in state.voided:
        chain.open(it)
    elif what == "void" and known is None and key not in state.voided:
        chain.void(it)
    elif known is None or known.closed:
        return
    elif what == "assign" and known.node_id == 0:
        chain.assign(key, 1)
    elif what == "top_up" and known.cancelled_until is None:
        chain.top_up(key, count)
    elif what in ("settle", "complete"):
        chain._settle([Claim(it, signed(it, count, complete=what == "complete"))])
    elif what == "cancel" and known.cancelled_until is None:
        chain.cancel(key)
    elif what == "refund" and known.node_id == 0:
        chain.refund(key)


@contextmanager
def benches() -> Iterator[Bench]:
    with TemporaryDirectory() as directory:
        bench = Bench.create(Path(directory))
        try:
            yield bench
        finally:
            bench.store.close()


def play(bench: Bench, steps: list[tuple[str, int, int]]) -> None:
    # deeper than this nothing may go: the enclave stays registered
    floor = bench.ledger.latest()
    for what, first, second in steps:
        if what == "watch":
            bench.ledger.mine()
            bench.watch()
        elif what == "reorganise":
            depth = min(first, bench.ledger.latest() - floor)
            if depth:
                bench.ledger.reorganise(depth)
            # the other chain is longer once all is final again
            for _ in range(depth + second):
                bench.ledger.mine()
        elif what == "hand_in":
            bench.intake.submit_receipt(signed(job(first), second))
        elif what == "toggle":
            allow = partial(FakeChain.allow, measurement=MEASUREMENT, allowed=bool(first))
            bench.ledger.mine(allow)
        elif what == "renew":
            renewed = registered(
                expiry=registered().expiry + 1 + first,
                attestation_digest=keccak(text=f"quote {first}"),
            )
            bench.ledger.mine(partial(FakeChain.register, registration=renewed))
        else:
            bench.ledger.mine(partial(act, what=what, number=first, count=second))


def replayed(bench: Bench) -> Ledger:
    """The settlement's ledger, from the events of the final chain."""
    ledger = Ledger(DEPLOYMENT)
    for log in node_events():
        ledger.apply(log, START - 1)
    final = bench.ledger.finalized()
    times = {block.number: block.time for block, _ in bench.ledger._blocks}
    funders: dict[bytes, str] = {}
    for event in bench.ledger.events(0, final.number):
        if (log := log_of(event, funders)) is not None:
            ledger.apply(log, times[event.place.block])
    return ledger


def node_events() -> list[events.Event]:
    """The registry's events of both nodes, before the first block of the history."""
    owner = actor("node owner").address
    found: list[events.Event] = []
    for node in (1, 2):
        minted = {"sender": ZERO_ADDRESS, "receiver": owner, "token_id": node}
        named = {
            "node_id": node,
            "node_owner": owner,
            "hospital": actor("hospital").address,
            "onboarder": actor("onboarder").address,
            "hardware_hash": bytes(32),
        }
        for name, args in (("Transfer", minted), ("NodeRegistered", named)):
            place = (-1, bytes(32), bytes(32), len(found) + 1)
            found.append(events.Event(name, "node_registry", args, *place))
    return found


def log_of(event: Event, funders: dict[bytes, str]) -> events.Event | None:
    """A fact as the log that it came from; what the oracle leaves out of it is filled in."""
    name = type(event).__name__
    if name.startswith(("Enclave", "Measurement")):
        return None
    args: dict[str, Any] = {
        field.name: getattr(event, field.name) for field in fields(event) if field.name != "place"
    }
    payer = actor("payer").address
    if isinstance(event, JobOpened):
        it = args.pop("terms")
        args |= {field: getattr(it, field) for field in JobTerms.model_fields}
        args["work"] = it.work.model_dump()
    elif isinstance(event, Settled):
        args["node_id"] = 1
    elif isinstance(event, JobCancelled):
        args["canceller"] = payer
    elif isinstance(event, JobVoided):
        args["payer"] = payer
    args["funder"] = payer
    place = event.place
    return events.Event(name, "vault", args, place.block, bytes(32), place.transaction, place.index)


def check(bench: Bench) -> None:
    """Facts, receipts and the ledger agree on the final chain."""
    ledger = replayed(bench)
    opened = {key for key, found in ledger.jobs.items() if found.terms is not None}
    with bench.store.read() as session:
        rows = {row.job_id: row for row in session.scalars(select(JobRow))}
        receipts = list(session.scalars(select(ReceiptRow)))
        allowed = {row.measurement: row.allowed for row in session.scalars(select(MeasurementRow))}
    assert rows.keys() == opened
    for key, row in rows.items():
        found = ledger.jobs[key]
        assert row.state == STATES[found.state]
        for name in ("node_id", "funded", "paid", "refunded", "records", "epochs"):
            assert getattr(row, name) == getattr(found, name), name
    final = bench.ledger.finalized().number
    assert allowed == bench.ledger._blocks[final][1].measurements
    paid = {e.receipt_digest for e in bench.ledger.events(0, final) if isinstance(e, Settled)}
    for row in receipts:
        if row.status == Status.SETTLED and row.reason is None:
            assert row.digest in paid
    assert rebuild(bench.store, bench.ledger, DEPLOYMENT, check_only=True).differences == ()


@settings(max_examples=60)
@given(steps=STEPS)
def test_facts_are_what_the_ledger_makes_of_the_final_chain(
    steps: list[tuple[str, int, int]],
) -> None:
    with benches() as bench:
        play(bench, steps)
        for _ in range(FINALITY + 1):
            bench.ledger.mine()
        bench.watch()
        check(bench)


def test_the_check_sees_a_wrong_amount() -> None:
    with benches() as bench:
        play(bench, [("open", 1, 1), ("settle", 1, 10)])
        bench.finalize()
        check(bench)
        with bench.store.write() as session:
            session.get_one(JobRow, key_of(job(1))).paid += 1
        with pytest.raises(AssertionError, match="paid"):
            check(bench)
