"""A buyer pays once for a record of one version of a dataset, whatever its jobs come to."""

import itertools
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from longrun import LONG

from oracle.clients.edge.dataset import commit
from oracle.clients.edge.errors import JournalInvalid
from oracle.clients.edge.loader import Meter, RaphaDataLoader
from oracle.clients.edge.outbox import POSTED, Outbox
from oracle.clients.edge.paid import ACCOUNT, FAILURE, JOURNAL, RECEIPTS, PaidRecords
from settlement.metering import EMPTY_ROOT
from settlement.models import Receipt, SignedReceipt
from settlement.types import ZERO_BYTES32

BUYER = "0x" + "99" * 20
OTHER = "0x" + "98" * 20


def job(number: int) -> bytes:
    return bytes([number] * 32)


def signed(job_id: bytes, records: int) -> SignedReceipt:
    receipt = Receipt(
        job_id=job_id,
        records=records,
        epochs=0,
        records_root=bytes([1] * 32),
        output_digest=ZERO_BYTES32,
        complete=False,
    )
    return SignedReceipt(receipt=receipt, signature=bytes(65))


class Jobs:
    """The node's folder of jobs, and what each run of one does to it."""

    def __init__(self, directory: Path, committed) -> None:
        self.directory = directory
        self.committed = committed
        self.paid = PaidRecords(directory, committed)

    def run(self, number, buyer=BUYER, batches=1000, *, sign=True, fail=False, fate=POSTED):
        """One run of a job of one epoch and the held-out part; it may stop after some batches."""
        folder = self.directory / job(number).hex()
        folder.mkdir(exist_ok=True)
        free = self.paid.open_account(job(number), buyer)
        with Meter(folder / JOURNAL, self.committed, job(number), paid=free) as meter:
            loader = RaphaDataLoader(self.committed, meter, batch_size=4, seed=number)
            for _ in itertools.islice(loader.epoch(0), batches):
                pass
            if batches >= 8:
                loader.holdout()
            counted, delivered = meter.counted, meter.delivered
            counters = meter.counters
        if sign:
            outbox = Outbox(folder / RECEIPTS)
            outbox.settle_fate(outbox.add(signed(job(number), len(counted))), fate)
        if fail:
            (folder / FAILURE).write_text("{}")
        return counted, delivered, counters


@pytest.fixture
def jobs(tmp_path, committed):
    return Jobs(tmp_path, committed)


def test_a_second_job_counts_nothing_again_and_still_rests_on_all_records(jobs):
    assert len(jobs.run(1)[0]) == 40
    counted, delivered, counters = jobs.run(2)
    assert (counted, delivered) == ((), 40)
    assert counters == (0, 1, EMPTY_ROOT)


def test_another_buyer_pays_for_itself(jobs):
    jobs.run(1)
    assert len(jobs.run(2, OTHER)[0]) == 40


def test_another_version_of_the_dataset_is_paid_for_anew(jobs, committed):
    jobs.run(1)
    again = commit(committed.dataset, bytes(32))
    assert len(Jobs(jobs.directory, again).run(2)[0]) == 40


def test_of_a_failed_job_only_what_it_signed_for_is_paid(jobs):
    first = jobs.run(1, batches=3, fail=True)[0]
    jobs.run(3, OTHER, batches=2, sign=False, fail=True)
    counted, delivered, _ = jobs.run(2)
    assert len(first) == 12
    assert set(counted) == set(range(40)) - set(first)
    assert delivered == 40
    assert len(jobs.run(4, OTHER)[0]) == 40


def test_a_receipt_that_the_oracle_refused_for_good_paid_for_nothing(jobs):
    jobs.run(1, fail=True, fate="JobUnknown")
    assert len(jobs.run(2)[0]) == 40


def test_the_letter_case_of_an_address_makes_no_other_buyer(jobs):
    jobs.run(1, "0x" + "AB" * 20)
    assert jobs.run(2, "0x" + "ab" * 20)[0] == ()


@pytest.mark.parametrize("data", [b"", b"{", b"\xff"])
def test_a_damaged_account_stops_the_job_and_is_named(jobs, data):
    jobs.run(1)
    path = jobs.directory / job(1).hex() / ACCOUNT
    path.write_bytes(data)
    with pytest.raises(JournalInvalid, match="names no buyer and dataset"):
        jobs.run(2)


def test_a_damaged_journal_of_an_earlier_job_stops_the_job(jobs):
    jobs.run(1)
    path = jobs.directory / job(1).hex() / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'{"epochs":0', b"nonsense", 1))
    with pytest.raises(JournalInvalid, match="line 2 is damaged"):
        jobs.run(2)


runs = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([BUYER, OTHER]), st.integers(0, 9), st.booleans()),
    min_size=1,
    max_size=8,
)


@settings(max_examples=1_000 if LONG else 25)
@given(runs)
def test_however_jobs_crash_resume_and_interleave_no_record_is_billed_twice_or_free(
    committed, history
):
    """Each run dies after some batches, signed for or not; at the end every job is finished."""
    with TemporaryDirectory() as directory:
        jobs = Jobs(Path(directory), committed)
        buyers: dict[int, str] = {}
        for number, buyer, batches, sign in history:
            jobs.run(number, buyers.setdefault(number, buyer), batches, sign=sign)
        for number, buyer in buyers.items():
            jobs.run(number, buyer)
        for buyer in set(buyers.values()):
            billed = [
                position
                for number, owner in buyers.items()
                if owner == buyer
                for line in (Path(directory) / job(number).hex() / JOURNAL)
                .read_bytes()
                .splitlines()[1:]
                for position in json.loads(line)["records"]
            ]
            assert sorted(billed) == list(range(40))
