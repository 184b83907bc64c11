"""Every metric moves with what it tells of."""

from pathlib import Path
from threading import Event

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from unit.oracle.bench import Bench, actor, escrow, evidence, signed, terms
from unit.oracle.ledger import FINALITY

from oracle.errors import HistoryIncomplete
from oracle.gate import Gate
from oracle.loops import STALLED, Loop
from oracle.messages import ChallengeRequest
from oracle.service import Service

Samples = dict[tuple[str, str], float]


def metrics(service: Service) -> Samples:
    """Each sample by its name without the prefix, and its label's value."""
    found: Samples = {}
    for family in text_string_to_metric_families(service.metrics.text().decode()):
        for sample in family.samples:
            label = next(iter(sample.labels.values()), "")
            found[sample.name.removeprefix("rapha_oracle_"), label] = sample.value
    return found


@pytest.fixture
def service(bench: Bench) -> Service:
    return bench.service()


def test_counts_by_status_are_there_also_when_there_is_none(service: Service) -> None:
    found = metrics(service)
    for name in ("receipts", "escrows", "attestations", "quotes"):
        for status in ("WAITING", "ACCEPTED", "SUBMITTED", "SETTLED", "REJECTED"):
            assert found[name, status] == 0
    for state in ("PENDING", "REPLACED", "FINAL", "REVERTED", "LOST"):
        assert found["transactions", state] == 0


def test_receipts_escrows_and_attestations_move_through_their_statuses(
    bench: Bench, service: Service
) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 10))
    bench.intake.submit_escrow(escrow(terms(2)))
    request = ChallengeRequest(node_id=1, enclave_key=actor("new").address)
    bench.quorum.submit(evidence(bench.quorum.challenges(request), enclave="new"))
    found = metrics(service)
    assert found["receipts", "ACCEPTED"] == 1
    assert found["escrows", "ACCEPTED"] == 1
    assert found["attestations", "WAITING"] == 1
    bench.rounds()
    found = metrics(service)
    assert (found["receipts", "ACCEPTED"], found["receipts", "SETTLED"]) == (0, 1)
    assert found["escrows", "SETTLED"] == 1
    assert found["attestations", "SETTLED"] == 1
    assert found["transactions", "FINAL"] == 3


def test_the_oldest_unsettled_receipt_ages_until_it_is_settled(
    bench: Bench, service: Service
) -> None:
    name = ("oldest_unsettled_receipt_age_seconds", "")
    assert metrics(service)[name] == 0
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 10))
    bench.ledger.time += 77
    bench.intake.submit_receipt(signed(terms(), 11))
    assert metrics(service)[name] == 77
    bench.rounds()
    assert metrics(service)[name] == 0


def test_what_waits_for_a_job_ages_nobody(bench: Bench, service: Service) -> None:
    bench.intake.submit_receipt(signed(terms(), 10))
    bench.ledger.time += 77
    assert metrics(service)["oldest_unsettled_receipt_age_seconds", ""] == 0


def test_transactions_in_flight_replacements_and_fees(bench: Bench, service: Service) -> None:
    bench.open(terms())
    bench.intake.submit_receipt(signed(terms(), 10))
    bench.relayer.tick()
    found = metrics(service)
    assert (found["transactions_in_flight", ""], found["replacements_total", ""]) == (1, 0)
    for _ in range(bench.policy.patience + 1):
        bench.ledger.hold()
    bench.relayer.tick()
    found = metrics(service)
    assert (found["transactions_in_flight", ""], found["replacements_total", ""]) == (1, 1)
    assert found["fees_wei_total", ""] == 0
    bench.rounds()
    fees = next(loop for loop in service.loops if loop.name == "fees")
    assert fees._tick() is False
    found = metrics(service)
    assert found["transactions_in_flight", ""] == 0
    assert found["fees_wei_total", ""] == 100_000 * bench.ledger.base_fee
    assert fees._tick() is False
    assert metrics(service)["fees_wei_total", ""] == 100_000 * bench.ledger.base_fee


def test_the_block_and_how_far_it_is_behind(bench: Bench, service: Service) -> None:
    bench.finalize()
    found = metrics(service)
    height = bench.ledger.latest()
    assert found["head_block", ""] == height
    assert (found["block", ""], found["blocks_behind", ""]) == (height - FINALITY, 0)
    bench.ledger.max_range = 2
    for _ in range(8):
        bench.ledger.mine()
    for _ in range(4):  # the range is halved until the endpoint takes it
        bench.watcher.tick()
    found = metrics(service)
    assert found["head_block", ""] == height + 8
    assert found["blocks_behind", ""] == bench.ledger.finalized().number - found["block", ""]
    assert 0 < found["blocks_behind", ""] < 8


def test_reorganisations_and_incomplete_histories_are_counted(
    bench: Bench, service: Service
) -> None:
    assert metrics(service)["reorgs_total", ""] == 0
    bench.finalize()
    bench.ledger.reorganise(4)
    for _ in range(6):
        bench.ledger.mine()
    bench.watch()
    assert metrics(service)["reorgs_total", ""] == 1
    headers = bench.ledger.headers
    bench.ledger.headers = lambda first, last: headers(first, last)[1:]  # type: ignore[method-assign]
    bench.ledger.mine()
    with pytest.raises(HistoryIncomplete, match="two blocks of this number"):
        bench.watcher.tick()
    assert metrics(service)["incomplete_histories_total", ""] == 1


def test_the_endpoint_and_the_database_are_down_and_up(
    bench: Bench, service: Service, tmp_path: Path
) -> None:
    found = metrics(service)
    assert (found["rpc_up", ""], found["database_up", ""]) == (1, 1)
    bench.ledger.down = True
    found = metrics(service)
    assert found["rpc_up", ""] == 0
    assert ("head_block", "") not in found
    bench.ledger.down = False
    with bench.store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE receipts RENAME TO gone"))
    found = metrics(service)
    assert (found["database_up", ""], found["rpc_up", ""]) == (0, 1)
    assert ("receipts", "SETTLED") not in found


def test_how_far_the_clock_is_from_the_chain(bench: Bench, service: Service) -> None:
    assert metrics(service)["clock_ahead_seconds", ""] == FINALITY  # a second a block
    bench.ledger.time += 900
    assert metrics(service)["clock_ahead_seconds", ""] == FINALITY + 900


def test_the_pause_shows(bench: Bench, service: Service) -> None:
    assert metrics(service)["intake_paused", ""] == 0
    Gate(bench.store).close("moving house", bench.now())
    assert metrics(service)["intake_paused", ""] == 1


def test_loops_show_whether_they_work(service: Service, bench: Bench) -> None:
    found = metrics(service)
    assert found["loop_up", "watcher"] == 0  # it has not been started
    assert ("loop_last_success_timestamp_seconds", "watcher") not in found
    ran = iter([True, False])
    loop = Loop("watcher", lambda: next(ran), 0)
    service.loops[0] = loop
    loop.start()
    while not loop.failures:  # the third round fails
        loop.wake()
    loop.stop(30)
    found = metrics(service)
    assert (found["loop_failures_total", "watcher"], found["loop_up", "watcher"]) == (
        loop.failures,
        0,
    )
    assert found["loop_last_success_timestamp_seconds", "watcher"] == loop.succeeded_at
    loop.stop(10)


def test_a_round_that_hangs_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, release = Event(), Event()

    def hang() -> bool:
        begun.set()
        release.wait(30)
        return False

    loop = Loop("hanging", hang, 60)
    loop.start()
    assert begun.wait(30)
    assert loop.trouble() == "has not run yet"
    monkeypatch.setattr("oracle.loops.STALLED", -1.0)
    assert loop.trouble() == "has been in one round for more than -1 seconds"
    assert STALLED == 300
    release.set()
    loop.stop(30)
