"""What a bundle trains from, with the real frameworks, against the real meter."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.clients.edge import trainee
from oracle.clients.edge.errors import ProtocolViolation
from oracle.clients.edge.loader import Meter, RaphaDataLoader
from oracle.clients.edge.trainer import _Conversation

JOB = bytes([7] * 32)
TRAINING = 32


class Parent:
    """The trusted side, asked by a call where it is asked through a pipe otherwise."""

    def __init__(self, loader, epochs):
        self.answer = None
        self.conversation = _Conversation(
            self, loader, epochs, 1 << 20, lambda *_: None, lambda _: None, None
        )
        self.answers = {"next": self.conversation._next, "metrics": self.conversation._metrics}
        self.asking = threading.Lock()

    def send(self, header, payload=b""):
        self.answer = header, payload

    def ask(self, header, payload):
        assert self.asking.acquire(blocking=False), "two requests at a time"
        try:
            header = json.loads(json.dumps(header))
            self.answers[header.pop("kind")](header, payload)
            return self.answer
        finally:
            self.asking.release()


class Direct(trainee.Loader):
    """The child's loader without the pipes."""

    def __init__(self, parent, loader, epochs, batch_size):
        self.parent = parent
        super().__init__(
            None,
            None,
            {
                "features": loader.features,
                "shape": loader.shape,
                "records": loader.training_records,
                "batch_size": batch_size,
                "completed": 0,
                "epochs": epochs,
            },
        )

    def _ask(self, header, payload=b""):
        with self._turn:
            return self.parent.ask(header, payload)


@pytest.fixture
def make(tmp_path, committed):
    meters = []

    def make(*, epochs=2, batch_size=4, name="journal"):
        meter = Meter(tmp_path / name, committed, JOB)
        meters.append(meter)
        trusted = RaphaDataLoader(committed, meter, batch_size=batch_size, seed=5)
        child = Direct(Parent(trusted, epochs), trusted, epochs, batch_size)
        return child, meter

    yield make
    for meter in meters:
        meter.close()


def rows(batches):
    return [row.tobytes() for x, _ in batches for row in np.asarray(x)]


def test_pytorch_gets_tensors_and_the_number_of_batches(make):
    torch = pytest.importorskip("torch")
    loader, meter = make()
    for epoch in loader.torch():
        assert len(epoch) == 8
        batches = list(epoch)
        assert [tuple(x.shape) for x, _ in batches] == [(4, 3)] * 8
        assert all(isinstance(t, torch.Tensor) and t.dtype == torch.float32 for t in batches[0])
    assert meter.counters[:2] == (TRAINING, 2)


@pytest.mark.parametrize("workers", [0, 1, 3, 100])
def test_workers_change_neither_order_nor_count(make, workers):
    pytest.importorskip("torch")
    loader, meter = make(epochs=1, batch_size=5)
    names = []

    def collate(x, y):
        names.append(threading.current_thread().name)
        return x + 1, y

    (epoch,) = loader.torch(workers=workers, collate=collate)
    plain, _ = make(epochs=1, batch_size=5, name="other")
    (expected,) = plain.epochs()
    assert rows(epoch) == rows((x + 1, y) for x, y in expected)
    assert meter.counters[:2] == (TRAINING, 1)
    assert ("MainThread" in names) == (workers == 0)


@pytest.mark.parametrize(("workers", "counted"), [(0, 8), (1, 12), (3, 20)])
def test_an_epoch_left_early_counts_what_workers_fetched(make, workers, counted):
    pytest.importorskip("torch")
    loader, meter = make()
    epoch = iter(next(loader.torch(workers=workers)))
    next(epoch)
    next(epoch)
    assert meter.counters[:2] == (counted, 0)


def test_an_error_in_a_worker_reaches_the_bundle(make):
    pytest.importorskip("torch")

    def collate(x, y):
        raise ZeroDivisionError

    (epoch,) = list(make(epochs=1)[0].torch(workers=2, collate=collate))
    with pytest.raises(ZeroDivisionError):
        list(epoch)


def test_negative_workers_are_refused(make):
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="must not be negative"):
        next(make()[0].torch(workers=-1))


def test_jax_gets_whole_batches_on_its_device(make):
    jax = pytest.importorskip("jax")
    loader, meter = make(batch_size=5, epochs=1)
    (epoch,) = loader.jax()
    batches = list(epoch)
    assert len(epoch) == len(batches) == 6
    assert all(isinstance(x, jax.Array) and x.shape == (5, 3) for x, _ in batches)
    assert meter.counters[:2] == (30, 1)


def test_scikit_learn_fits_batch_by_batch(make):
    from sklearn.linear_model import SGDClassifier

    loader, meter = make(epochs=5)
    model = SGDClassifier(random_state=1)
    assert sum(1 for _ in loader.partial_fit(model, [0, 1])) == 5
    x, y = rows_and_labels(make)
    assert model.score(x, y) == 1.0
    assert meter.counters[:2] == (TRAINING, 5)


def rows_and_labels(make):
    return make(epochs=1, name="whole")[0].whole()


def test_the_whole_array_is_one_epoch_in_the_order_of_ids(make, committed):
    loader, meter = make(epochs=1)
    x, y = loader.whole()
    training = committed.dataset.training
    assert np.array_equal(x, committed.dataset.features[training])
    assert np.array_equal(y, committed.dataset.labels[training])
    assert y.dtype == np.int64
    assert meter.counters[:2] == (TRAINING, 1)
    with pytest.raises(RuntimeError, match="no epoch left"):
        loader.whole()


def test_an_epoch_can_be_gone_through_once(make):
    epoch = next(make()[0].epochs())
    list(epoch)
    with pytest.raises(RuntimeError, match="once"):
        list(epoch)


@pytest.mark.parametrize("order", [{"shuffle": 1}, {"drop_last": None}, {"seed": True}])
def test_an_unknown_order_breaks_the_protocol(make, order):
    loader, meter = make()
    with pytest.raises(ProtocolViolation, match="unknown order"):
        loader._ask({"kind": "next", "epoch": 0, **order})
    assert meter.counters.records == 0


@settings(max_examples=40)
@given(
    batch_size=st.integers(1, 40),
    workers=st.integers(0, 4),
    plan=st.lists(
        st.tuples(st.booleans(), st.booleans(), st.integers(0, 34)), min_size=1, max_size=4
    ),
)
def test_any_order_workers_and_stops_count_exactly_what_was_delivered(
    tmp_path_factory, committed, batch_size, workers, plan
):
    path = tmp_path_factory.mktemp("meter") / "journal"
    with Meter(path, committed, JOB) as meter:
        trusted = RaphaDataLoader(committed, meter, batch_size=batch_size, seed=5)
        loader = Direct(Parent(trusted, len(plan)), trusted, len(plan), batch_size)
        fetched: set[bytes] = set()
        epochs = 0
        for shuffle, drop_last, stop in plan:
            epoch = next(loader.epochs(shuffle=shuffle, drop_last=drop_last))
            taken = 0

            def note(x, y):
                return x, y

            ahead = epoch.mapped(note, workers)
            source = loader.parent.conversation
            for _ in ahead:
                taken += 1
                if taken > stop:
                    break
            reached = min(len(ahead), taken + workers if taken > stop else len(ahead))
            epochs += reached == len(ahead) > 0
            order = trusted_order(committed, source._epoch, shuffle)
            fetched.update(order[: reached * batch_size])
        assert meter.counters[:2] == (len(fetched), epochs)
    with Meter(path, committed, JOB) as resumed:
        assert resumed.counters[:2] == (len(fetched), epochs)


def trusted_order(committed, number, shuffle):
    order = committed.dataset.training
    if shuffle:
        order = np.random.default_rng([5, number]).permutation(order)
    return order.tolist()
