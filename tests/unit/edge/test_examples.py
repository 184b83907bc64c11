import importlib.util
import json
import threading
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import load

from oracle.clients.edge.bundle import EXAMPLES, Bundle, example, example_names
from oracle.clients.edge.dataset import breast_cancer, commit
from oracle.clients.edge.loader import Meter, RaphaDataLoader, loader_settings
from oracle.clients.edge.poisson import PoissonLoader, sampling_rate, steps_per_epoch
from oracle.clients.edge.policy.accountant import DpSgdAccountant
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.trainer import train

EPOCHS = 8


@pytest.fixture(scope="module")
def wisconsin():
    return commit(breast_cancer(), bytes(32))


@pytest.fixture(scope="module")
def trained(wisconsin, isolation, tmp_path_factory):
    """The example of a framework, and what training it gave; each is trained once."""

    @cache
    def trained(framework):
        if importlib.util.find_spec(framework) is None:
            pytest.skip(f"no {framework}")
        bundle = example(f"breast_cancer_{framework}")
        return bundle, *run(bundle, wisconsin, isolation, tmp_path_factory.mktemp("of") / framework)

    return trained


def run(bundle, wisconsin, isolation, directory, epochs=EPOCHS, kind=RaphaDataLoader):
    batch_size, seed = loader_settings(bundle.manifest.hyperparameters)
    directory.mkdir()
    with Meter(directory / "journal", wisconsin, bytes(32)) as meter:
        loader = kind(wisconsin, meter, batch_size=batch_size, seed=seed)
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
            admitted=lambda evidence: None,
            keep=lambda checkpoint: None,
        )
        return result, loader.counters


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow", "sklearn", "numpy"])
def test_example_reaches_95_percent_on_held_out_records(framework, trained):
    bundle, result, counters = trained(framework)
    assert result.accuracy >= 0.95
    assert counters[:2] == (569, EPOCHS)
    assert {len(values) for values in result.reports.values()} == {EPOCHS}
    losses = result.reports.get("loss", [1.0, 0.0])
    assert losses[-1] < losses[0]
    declared = bundle.manifest.outputs
    found = {name: array.shape for name, array in load(result.weights).items()}
    assert found == {name: tensor.shape for name, tensor in declared.items()}


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_example_is_deterministic(framework, trained, wisconsin, isolation, tmp_path):
    bundle, first, _ = trained(framework)
    second = run(bundle, wisconsin, isolation, tmp_path / "second")[0]
    assert second[:3] == first[:3]


def test_the_private_example_learns_within_a_budget_and_reports_nothing(
    wisconsin, isolation, tmp_path
):
    bundle = example("breast_cancer_dp")
    epochs = bundle.manifest.hyperparameters["epochs"]
    result, counters = run(bundle, wisconsin, isolation, tmp_path / "dp", epochs, PoissonLoader)
    # Noise leaves 0.93 to 0.98 of it; a constant has 0.63.
    assert result.accuracy >= 0.85
    assert result.reports == {}
    assert counters.epochs == epochs
    size, records = loader_settings(bundle.manifest.hyperparameters)[0], 455
    steps = epochs * steps_per_epoch(size, records)
    accountant = DpSgdAccountant([bundle.digest])
    spend = accountant.spend(bundle, rate=sampling_rate(size, records), steps=steps)
    assert 0 < spend.epsilon < 8_000_000


def test_the_private_example_clips_each_record_by_itself():
    source = EXAMPLES / "breast_cancer_dp" / "train.py"
    spec = importlib.util.spec_from_file_location("private_example", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gradients = np.array([[30.0, 40.0], [0.3, 0.4], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(module.clipped_sum(gradients, 1.0), [0.6 + 0.3, 0.8 + 0.4], 1e-6)
    assert module.clipped_sum(np.zeros((0, 2), np.float32), 1.0).tolist() == [0.0, 0.0]


def test_examples_ship_with_the_package():
    frameworks = ("dp", "jax", "numpy", "sklearn", "tensorflow", "torch")
    assert example_names() == [f"breast_cancer_{framework}" for framework in frameworks]


def test_an_unknown_example_is_named():
    with pytest.raises(FileNotFoundError, match="no example bundle other"):
        example("other")


def test_examples_state_their_epochs_and_loader_settings():
    for name in ("breast_cancer_jax", "breast_cancer_torch"):
        manifest = json.loads(example(name).files["manifest.json"])
        assert manifest["hyperparameters"]["epochs"] == 100
        batch_size = 16 if manifest["framework"] == "tensorflow" else 4
        assert loader_settings(manifest["hyperparameters"]) == (batch_size, 7)


def test_an_example_goes_through_its_archive_unchanged():
    bundle = example("breast_cancer_torch")
    assert Bundle.from_zip(bundle.to_zip()) == bundle
