import itertools
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from longrun import LONG

from oracle.clients.edge.dataset import CommittedDataset
from oracle.clients.edge.errors import JournalInvalid
from oracle.clients.edge.loader import Meter, RaphaDataLoader
from settlement.metering import EMPTY_ROOT, merkle_root

JOB = bytes([7] * 32)


def loader_of(committed: CommittedDataset, meter: Meter, *, batch_size=4, seed=3):
    return RaphaDataLoader(committed, meter, batch_size=batch_size, seed=seed)


def journal_positions(path: Path) -> list[int]:
    lines = path.read_bytes().splitlines()[1:]
    return [p for line in lines for p in json.loads(line)["records"]]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "meter.journal"


def test_nothing_delivered_counts_nothing(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        assert meter.counters == (0, 0, EMPTY_ROOT)


def test_a_full_job_counts_each_record_once_and_each_epoch(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        loader = loader_of(committed, meter)
        for number in range(3):
            delivered = sum(len(batch.labels) for batch in loader.epoch(number))
            assert delivered == loader.training_records == 32
        assert loader.counters[:2] == (32, 3)
        assert loader.holdout().shape == (8, 3)
        assert loader.counters[:2] == (40, 3)
        loader.holdout()
        assert loader.counters[:2] == (40, 3)


def test_a_prefetching_consumer_pays_for_what_it_took_only(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        loader = loader_of(committed, meter)
        batches = loader.epoch(0)
        next(batches)
        next(batches)
        assert loader.counters[:2] == (8, 0)


def test_an_epoch_left_early_does_not_count_but_its_records_do(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        loader = loader_of(committed, meter)
        list(itertools.islice(loader.epoch(0), 3))
        list(loader.epoch(1))
        assert loader.counters[:2] == (32, 1)


def test_the_last_batch_completes_the_epoch_without_asking_further(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        loader = loader_of(committed, meter)
        list(itertools.islice(loader.epoch(0), 8))
        assert loader.counters[:2] == (32, 1)


def test_order_depends_on_seed_and_epoch(committed, journal):
    def order(loader, number):
        return [batch.features.tobytes() for batch in loader.epoch(number)]

    with Meter(journal, committed, JOB) as meter:
        one, same = loader_of(committed, meter), loader_of(committed, meter)
        other = loader_of(committed, meter, seed=4)
        assert order(one, 0) == order(same, 0)
        assert order(one, 0) != order(one, 1)
        assert order(one, 0) != order(other, 0)


def test_root_is_over_the_leaves_in_order_of_first_delivery(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        loader = loader_of(committed, meter)
        list(loader.epoch(0))
        list(loader.epoch(1))
        expected = merkle_root([committed.leaves[p] for p in journal_positions(journal)])
        assert loader.counters.records_root == expected


def test_what_is_delivered_is_on_disk_before(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        for batch in loader_of(committed, meter).epoch(0):
            features = {row.tobytes() for row in batch.features}
            on_disk = journal_positions(journal)
            dataset = committed.dataset
            assert features <= {dataset.features[p].tobytes() for p in on_disk}


@settings(max_examples=1_000 if LONG else 25)
@given(
    cuts=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    tail=st.binary(max_size=12).filter(lambda data: b"\n" not in data),
    seed=st.integers(0, 5),
)
def test_killed_anywhere_bills_no_record_twice_and_none_free(committed, cuts, tail, seed):
    """Each run delivers so many batches and dies, perhaps within its next write."""
    seen: set[bytes] = set()
    best = (0, 0)
    with TemporaryDirectory() as directory:
        journal = Path(directory) / "journal"
        for cut in cuts:
            meter = Meter(journal, committed, JOB)
            loader = loader_of(committed, meter, seed=seed)
            assert loader.counters[:2] == best
            batches = itertools.chain.from_iterable(loader.epoch(n) for n in range(4))
            completed = 0
            for number, batch in enumerate(itertools.islice(batches, cut), start=1):
                seen.update(row.tobytes() for row in batch.features)
                completed = number // 8
                records, epochs, root = loader.counters
                assert records == len(seen)
                assert epochs == max(best[1], completed)
                positions = journal_positions(journal)
                assert len(positions) == len(set(positions)) == records
                assert root == merkle_root([committed.leaves[p] for p in positions])
            best = (len(seen), max(best[1], completed))
            meter.close()
            with journal.open("ab") as file:
                file.write(tail)
        with Meter(journal, committed, JOB) as meter:
            assert meter.counters[:2] == best
            loader = loader_of(committed, meter, seed=seed)
            for number in range(4):
                list(loader.epoch(number))
            loader.holdout()
            assert loader.counters[:2] == (40, 4)
            assert sorted(journal_positions(journal)) == list(range(40))


def test_a_batch_counted_but_lost_in_a_crash_is_delivered_by_the_next_run(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        meter.record([0, 1, 2, 3], 0)
    with Meter(journal, committed, JOB) as meter:
        loader = loader_of(committed, meter)
        rows = {row.tobytes() for batch in loader.epoch(0) for row in batch.features}
        training = committed.dataset.features[committed.dataset.training]
        assert rows == {row.tobytes() for row in training}


def test_a_journal_torn_in_its_first_line_starts_anew(committed, journal):
    journal.write_bytes(b'{"versi')
    with Meter(journal, committed, JOB) as meter:
        meter.record([1], 0)
        assert meter.counters.records == 1
    with Meter(journal, committed, JOB) as meter:
        assert meter.counters.records == 1


def test_a_whole_last_line_of_nonsense_is_dropped(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        meter.record([1, 2], 0)
    with journal.open("ab") as file:
        file.write(b"\0\0\0\0\n")
    with Meter(journal, committed, JOB) as meter:
        assert meter.counters.records == 2
        meter.record([3], 0)
    with Meter(journal, committed, JOB) as meter:
        assert meter.counters.records == 3


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b'{"records":[1],"epochs":0}\n',
        b'{"records":[400],"epochs":0}\n',
        b'{"records":[5,5],"epochs":0}\n',
        b'{"records":[[5]],"epochs":0}\n',
        b'{"records":[5],"epochs":"1"}\n',
    ],
)
def test_damage_before_the_last_line_is_refused(committed, journal, line):
    with Meter(journal, committed, JOB) as meter:
        meter.record([1], 0)
    with journal.open("ab") as file:
        file.write(line + b'{"epochs":1,"records":[9]}\n')
    with pytest.raises(JournalInvalid, match="line 3 is damaged"):
        Meter(journal, committed, JOB)


def test_a_journal_of_another_job_is_refused(committed, journal):
    Meter(journal, committed, JOB).close()
    with pytest.raises(JournalInvalid, match="of another job"):
        Meter(journal, committed, bytes(32))


def test_accuracy_compares_with_labels_that_stay_here(committed, journal):
    with Meter(journal, committed, JOB) as meter:
        loader = loader_of(committed, meter)
        labels = committed.dataset.labels[committed.dataset.holdout]
        assert loader.accuracy(labels) == 1.0
        assert loader.accuracy(1 - labels) == 0.0
        assert np.isclose(loader.accuracy(np.zeros(8, np.int64)), np.mean(labels == 0))
