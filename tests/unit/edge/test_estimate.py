"""What a job takes, told before it begins."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
from unit.edge.conftest import HONEST, bundle_of

import oracle.clients.edge.estimate as estimating
from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.errors import EstimateExceeded, TrainingFailed
from oracle.clients.edge.estimate import Rehearsal, estimate
from oracle.clients.edge.sandbox.gpu import NONE, Gpus
from oracle.clients.edge.sandbox.limits import ChildLimits


@pytest.fixture
def ask(committed, profile, scratch, isolation, stop):
    def ask(bundle, *, epochs=2, budget=None, wall=60, gpus=NONE, **limits):
        try:
            return estimate(
                bundle,
                profile,
                committed.dataset,
                epochs=epochs,
                budget=budget,
                limits=ChildLimits(**limits),
                wall_seconds=wall,
                scratch_root=scratch,
                isolation=isolation,
                stop=stop,
                gpus=gpus,
            )
        finally:
            assert list(scratch.iterdir()) == []

    return ask


def declaring(
    source: str = HONEST, gpus: Mapping[str, int] | None = None, **resources: int
) -> Bundle:
    files = dict(bundle_of(source).files)
    manifest = json.loads(files["manifest.json"])
    manifest |= {"resources": resources or None, "gpus": gpus or {}}
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


@pytest.mark.parametrize("declares", [{"wall_seconds": 9, "memory_bytes": 7}, {}])
def test_gpus_that_are_needed_and_not_granted_are_an_excess_with_the_reason(ask, declares):
    bundle = declaring(gpus={"at_least": 2, "at_most": 4}, **declares)
    found = ask(bundle, gpus=Gpus(1, why="no more are on this machine"))
    assert (found.gpus, found.basis) == (1, "declared" if declares else "unknown")
    assert found.excesses == ("2 GPUs are needed, and 1 are granted: no more are on this machine",)


def test_gpus_that_are_used_if_present_are_no_excess(ask):
    bundle = declaring(wall_seconds=9, memory_bytes=7, gpus={"at_least": 0, "at_most": 1})
    found = ask(bundle, gpus=Gpus(why="this machine shows none"))
    assert (found.gpus, found.gpus_why, found.excesses) == (0, "this machine shows none", ())


def test_a_rehearsal_is_given_the_gpus_of_the_job(ask, monkeypatch):
    given = []
    train = estimating.train
    monkeypatch.setattr(
        estimating,
        "train",
        lambda *arguments, gpus, **options: given.append(gpus) or train(*arguments, **options),
    )
    granted = Gpus(1, why="no more are granted by the node")
    found = ask(declaring(gpus={"at_most": 2}), gpus=granted)
    assert (given, found.gpus, found.basis) == ([granted], 1, "rehearsed")


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
