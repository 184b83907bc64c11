"""What a job takes, told before it begins."""

import json

import numpy as np
import pytest
from unit.edge.conftest import HONEST, bundle_of

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.errors import EstimateExceeded, TrainingFailed
from oracle.clients.edge.estimate import Rehearsal, estimate
from oracle.clients.edge.sandbox.limits import ChildLimits
from settlement.dataset import DatasetCommitment
from settlement.hub.messages import DatasetProfile

COMMITMENT = DatasetCommitment(
    records_root=bytes([3] * 32),
    record_count=40,
    modality="tabular/test",
    columns=("a:float32",),
    deduplicate=False,
)
PROFILE = DatasetProfile(
    node_id=1,
    dataset_digest=COMMITMENT.digest,
    records_root=COMMITMENT.records_root,
    modality=COMMITMENT.modality,
    schema_=COMMITMENT.columns,
    record_count=COMMITMENT.record_count,
    price_per_record=100,
    price_per_epoch=10,
    description="",
)


@pytest.fixture
def ask(committed, scratch, isolation, stop):
    def ask(bundle, *, epochs=2, budget=None, wall=60, **limits):
        try:
            return estimate(
                bundle,
                PROFILE,
                committed.dataset,
                epochs=epochs,
                budget=budget,
                limits=ChildLimits(**limits),
                wall_seconds=wall,
                scratch_root=scratch,
                isolation=isolation,
                stop=stop,
            )
        finally:
            assert list(scratch.iterdir()) == []

    return ask


def declaring(source: str = HONEST, **resources: int) -> Bundle:
    files = dict(bundle_of(source).files)
    manifest = json.loads(files["manifest.json"])
    manifest["resources"] = resources or None
    return Bundle.from_files({**files, "manifest.json": json.dumps(manifest).encode()})


def test_the_cost_is_records_and_epochs_by_their_prices(ask):
    found = ask(declaring(wall_seconds=9, memory_bytes=7), epochs=3)
    assert (found.cost_of_records, found.cost_of_epochs, found.cost) == (4000, 30, 4030)
    assert (found.basis, found.wall_seconds, found.memory_bytes) == ("declared", 9, 7)
    assert (found.batches, found.excesses) == (24, ())
    found.require()


@pytest.mark.parametrize(
    ("changes", "excess"),
    [
        ({"budget": 4019}, "4020 USDC base units are needed, and 4019 are granted"),
        ({"wall": 8}, "9 s of time are needed, and 8 are granted"),
        ({"memory_bytes": 6}, "7 bytes of memory are needed, and 6 are granted"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_what_just_fits_is_not(ask, changes, excess):
    bundle = declaring(wall_seconds=9, memory_bytes=7)
    found = ask(bundle, **changes)
    assert found.excesses == (excess,)
    with pytest.raises(EstimateExceeded, match=excess):
        found.require()
    ((name, value),) = changes.items()
    assert ask(bundle, **{name: value + 1}).excesses == ()


def test_a_silent_bundle_is_rehearsed_on_no_record(ask, committed):
    # The bundle gives back the first batch that it saw.
    source = (
        "import numpy as np\n"
        "def train(loader, hyperparameters):\n"
        "    seen = [x for epoch in loader.epochs() for x, y in epoch]\n"
        "    assert len(seen) == 4 and seen[0].shape == (4, 3), [x.shape for x in seen]\n"
        f"    features = np.array({committed.dataset.features.tolist()}, np.float32)\n"
        "    assert not any((row == x).all(axis=1).any() for x in seen for row in features)\n"
        "    def judge(x):\n"
        "        assert x.shape == (8, 3)\n"
        "        assert not any((row == x).all(axis=1).any() for row in features)\n"
        "        return np.zeros(len(x))\n"
        "    loader.evaluate(judge)\n"
        "    return {'w': np.zeros(1, np.float32)}\n"
    )
    found = ask(declaring(source))
    assert found.basis == "rehearsed"
    assert 1 <= found.wall_seconds < 60
    assert 10 * 2**20 < found.memory_bytes < 2**30


def test_a_bundle_that_takes_memory_shows_it(ask):
    hungry = "import numpy\nkept = numpy.ones(25_000_000)\n" + HONEST
    assert ask(declaring(hungry)).memory_bytes > 200_000_000 > ask(declaring()).memory_bytes


def test_a_bundle_that_fails_does_so_before_it_sees_a_record(ask):
    with pytest.raises(TrainingFailed, match="ZeroDivisionError"):
        ask(declaring("def train(loader, hyperparameters): 1/0"))


def test_time_is_extrapolated_from_the_later_batches(committed, monkeypatch):
    rehearsal = Rehearsal(committed.dataset, 4)
    # Started at 0, asked for batches at 5 (start), 15 (compiled), 17, 19, and for the end at 21.
    rehearsal._asked = [0.0, 5.0, 15.0, 17.0, 19.0, 21.0]
    monkeypatch.setattr("oracle.clients.edge.estimate.time.monotonic", lambda: 30.0)
    assert rehearsal.extrapolate(4) == 30
    assert rehearsal.extrapolate(104) == 230
    rehearsal._asked = [0.0]  # a bundle that asked for nothing
    assert rehearsal.extrapolate(104) == 30


def test_a_rehearsal_counts_nothing(committed):
    rehearsal = Rehearsal(committed.dataset, 4)
    assert len(list(rehearsal.epoch(0))) == 4
    assert rehearsal.counters[:2] == (0, 0)
    assert rehearsal.accuracy(np.zeros(8, np.int64)) == 0.0
