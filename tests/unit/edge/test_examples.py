import importlib.util
import json
import threading

import pytest
from safetensors.numpy import load

from oracle.clients.edge.bundle import Bundle, example, example_names
from oracle.clients.edge.dataset import breast_cancer, commit
from oracle.clients.edge.loader import Meter, RaphaDataLoader
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.trainer import loader_settings, train

EPOCHS = 8


@pytest.fixture(scope="module")
def wisconsin():
    return commit(breast_cancer(), bytes(32))


def run(bundle, wisconsin, isolation, directory, epochs=EPOCHS):
    batch_size, seed = loader_settings(bundle.manifest.hyperparameters)
    directory.mkdir()
    with Meter(directory / "journal", wisconsin, bytes(32)) as meter:
        loader = RaphaDataLoader(wisconsin, meter, batch_size=batch_size, seed=seed)
        result = train(
            bundle,
            loader,
            epochs=epochs,
            max_output_bytes=1_000_000,
            limits=ChildLimits(),
            wall_seconds=240,
            scratch_root=directory,
            isolation=isolation,
            stop=threading.Event(),
            progress=lambda counters, metrics: None,
        )
        return result, loader.counters


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow", "sklearn", "numpy"])
def test_example_reaches_95_percent_on_held_out_records(framework, wisconsin, isolation, tmp_path):
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"no {framework}")
    bundle = example(f"breast_cancer_{framework}")
    result, counters = run(bundle, wisconsin, isolation, tmp_path / "first")
    assert result.accuracy >= 0.95
    assert counters[:2] == (569, EPOCHS)
    assert {len(values) for values in result.reports.values()} == {EPOCHS}
    losses = result.reports.get("loss", [1.0, 0.0])
    assert losses[-1] < losses[0]
    declared = bundle.manifest.outputs
    found = {name: array.shape for name, array in load(result.weights).items()}
    assert found == {name: tensor.shape for name, tensor in declared.items()}


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_example_is_deterministic(framework, wisconsin, isolation, tmp_path):
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"no {framework}")
    bundle = example(f"breast_cancer_{framework}")
    first = run(bundle, wisconsin, isolation, tmp_path / "first", epochs=1)[0]
    second = run(bundle, wisconsin, isolation, tmp_path / "second", epochs=1)[0]
    assert second[:3] == first[:3]


def test_examples_ship_with_the_package():
    frameworks = ("jax", "numpy", "sklearn", "tensorflow", "torch")
    assert example_names() == [f"breast_cancer_{framework}" for framework in frameworks]


def test_an_unknown_example_is_named():
    with pytest.raises(FileNotFoundError, match="no example bundle other"):
        example("other")


def test_examples_state_their_epochs_and_loader_settings():
    for name in example_names():
        manifest = json.loads(example(name).files["manifest.json"])
        assert manifest["hyperparameters"]["epochs"] == 100
        batch_size = 16 if manifest["framework"] == "tensorflow" else 4
        assert loader_settings(manifest["hyperparameters"]) == (batch_size, 7)


def test_an_example_goes_through_its_archive_unchanged():
    bundle = example("breast_cancer_torch")
    assert Bundle.from_zip(bundle.to_zip()) == bundle
