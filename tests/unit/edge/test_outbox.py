import threading

import pytest

from oracle.client import OracleRefused, OracleUnavailable, ReceiptStatus, Status
from oracle.clients.edge.courier import Courier, Daemon, Reporter
from oracle.clients.edge.errors import AttestationRefused, NodeStopping
from oracle.clients.edge.outbox import POSTED, Outbox
from oracle.clients.edge.patience import Patience
from oracle.clients.edge.signer import EnclaveSigner
from settlement.hub.client import HubUnavailable
from settlement.hub.messages import Progress
from settlement.models import Receipt
from settlement.types import ZERO_BYTES32


@pytest.fixture
def sign(tmp_path, deployment):
    enclave = EnclaveSigner.open(tmp_path / "enclave", chain_id=31337)

    def sign(records):
        receipt = Receipt(
            job_id=bytes([1] * 32),
            records=records,
            epochs=0,
            records_root=records.to_bytes(32, "big"),
            output_digest=ZERO_BYTES32,
            complete=False,
        )
        return enclave.sign_receipt(receipt, deployment.vault_domain)

    return sign


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "receipts"


@pytest.fixture
def outbox(directory):
    return Outbox(directory)


class Answers:
    """An oracle that answers each submission with the next of `answers`, then accepts."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.received = []

    def submit_receipt(self, receipt):
        if self.answers:
            raise self.answers.pop(0)
        self.received.append(receipt)
        return ReceiptStatus(
            digest=bytes(32),
            job_id=receipt.receipt.job_id,
            records=receipt.receipt.records,
            epochs=0,
            complete=False,
            status=Status.ACCEPTED,
        )

    def receipt(self, digest):
        raise AssertionError("not asked for")


def refusal(code="ReceiptMalformed", final=True):
    return OracleRefused(code, 422, "no", final=final, data={})


def test_receipts_keep_their_order_and_survive_a_restart(outbox, directory, sign):
    signed = [sign(n) for n in range(1, 13)]
    for one in signed:
        outbox.add(one)
    assert Outbox(directory).receipts == signed
    assert [entry.signed for entry in Outbox(directory).pending] == signed


def test_the_last_receipt_again_keeps_its_place(outbox, directory, sign):
    outbox.add(sign(1))
    assert outbox.add(sign(1)).number == 0
    assert Outbox(directory).add(sign(1)).number == 0


def test_what_is_posted_stays_posted_after_a_restart(outbox, directory, sign):
    first, second = outbox.add(sign(1)), outbox.add(sign(2))
    outbox.settle_fate(first, POSTED)
    again = Outbox(directory)
    assert again.pending == [second]
    assert again.fate(first) == POSTED
    again.reopen(first)
    assert Outbox(directory).pending == [first, second]


def test_the_courier_posts_in_order_and_once(outbox, sign, stop):
    signed = [sign(1), sign(2)]
    for one in signed:
        outbox.add(one)
    oracle = Answers()
    courier = Courier(oracle, Patience(stop))
    courier.serve(outbox)
    courier.serve(outbox)
    courier.step()
    courier.step()
    assert oracle.received == signed
    assert outbox.pending == []


def test_an_oracle_that_is_down_delays_but_loses_nothing(outbox, sign, stop):
    outbox.add(sign(1))
    down = OracleUnavailable("http://oracle", "refused")
    oracle = Answers(down, down, refusal("JobUnknown", final=False))
    courier = Courier(oracle, Patience(stop, longest_wait=0.01))
    courier.serve(outbox)
    courier.step()
    assert len(oracle.received) == 1
    assert outbox.pending == []


def test_stopping_while_the_oracle_is_down_keeps_the_receipt(outbox, directory, sign, stop):
    outbox.add(sign(1))
    stop.set()
    courier = Courier(Answers(OracleUnavailable("http://oracle", "refused")), Patience(stop))
    courier.serve(outbox)
    with pytest.raises(NodeStopping):
        courier.step()
    assert len(Outbox(directory).pending) == 1


def test_a_final_refusal_is_noted_and_the_next_receipt_still_goes(outbox, sign, stop):
    first = outbox.add(sign(1))
    outbox.add(sign(2))
    oracle = Answers(refusal())
    courier = Courier(oracle, Patience(stop))
    courier.serve(outbox)
    courier.step()
    assert outbox.fate(first) == "ReceiptMalformed"
    assert [one.receipt.records for one in oracle.received] == [2]


def test_a_final_error_beside_the_training_stops_the_node(stop):
    def step():
        raise AttestationRefused("MeasurementNotAllowed", "no")

    daemon = Daemon("attestor", step, 0.01, stop)
    daemon.start()
    daemon.join(timeout=5)
    assert stop.is_set()
    assert isinstance(daemon.failure, AttestationRefused)


def test_a_passing_error_beside_the_training_is_tried_again(stop):
    calls = []
    done = threading.Event()

    def step():
        calls.append(1)
        if len(calls) == 1:
            raise OracleUnavailable("http://oracle", "refused")
        done.set()

    daemon = Daemon("courier", step, 0.01, stop)
    daemon.start()
    assert done.wait(5)
    stop.set()
    daemon.join(timeout=5)
    assert daemon.failure is None


def test_only_the_latest_progress_is_told_and_a_dead_hub_is_no_error():
    told = []

    class Hub:
        def report_progress(self, job_id, progress):
            told.append(progress.records)
            raise HubUnavailable("http://hub", "refused")

    reporter = Reporter(Hub())
    reporter.step()
    for records in (1, 2):
        reporter.update(bytes(32), Progress(records=records, epochs=0, epochs_total=1))
    reporter.step()
    reporter.step()
    assert told == [2]
