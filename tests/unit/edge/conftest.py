"""A hospital with a small dataset, and bundles that need nothing but numpy."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.dataset import CommittedDataset, Dataset, commit, tabular
from oracle.clients.edge.sandbox.launch import Isolation
from oracle.clients.edge.sandbox.wan import WanGuard
from settlement.dataset import DatasetCommitment
from settlement.deployment import Deployment
from settlement.hub.messages import DatasetProfile, OutputPolicy

DATASET_KEY = bytes(range(32))
FEATURES = 3

HONEST = """
import numpy as np

def train(loader, hyperparameters):
    weight, bias = np.zeros(loader.features, np.float32), np.zeros(1, np.float32)
    for epoch in loader.epochs():
        losses = []
        for x, y in epoch:
            p = 1 / (1 + np.exp(-(x @ weight + bias)))
            weight -= 0.5 * x.T @ (p - y) / len(y)
            bias -= 0.5 * np.mean(p - y)
            losses.append(float(np.mean((p - y) ** 2)))
        loader.report(loss=sum(losses) / len(losses))
    loader.evaluate(lambda x: x @ weight + bias > 0)
    return {"weight": weight, "bias": bias}
"""


def small_dataset(size: int = 40) -> Dataset:
    """Two classes that a line separates."""
    generator = np.random.default_rng(1)
    labels = np.arange(size, dtype=np.int64) % 2
    values = generator.normal(size=(size, FEATURES)) + 6.0 * labels[:, None]
    return tabular(
        modality="tabular/test",
        columns=("a", "b", "c"),
        ids=tuple(b"record-%04d" % i for i in range(size)),
        values=values,
        labels=labels,
    )


@pytest.fixture(autouse=True)
def _default_logging() -> None:
    """Another test's command line may have configured logging to a stream that is closed by now."""
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def committed() -> CommittedDataset:
    return commit(small_dataset(), DATASET_KEY)


def bundle_of(source: str = HONEST, **hyperparameters: object) -> Bundle:
    """A bundle that gives the two tensors of `HONEST`."""
    manifest = {
        "framework": "jax",
        "entry_point": "train:train",
        "hyperparameters": {"batch_size": 4, "seed": 5, **hyperparameters},
        "outputs": {
            "weight": {"dtype": "F32", "shape": [FEATURES]},
            "bias": {"dtype": "F32", "shape": [1]},
        },
        "resources": {"wall_seconds": 1, "memory_bytes": 1},
    }
    return Bundle.from_files(
        {"train.py": source.encode(), "manifest.json": json.dumps(manifest).encode()}
    )


@pytest.fixture
def make_bundle() -> Callable[..., Bundle]:
    return bundle_of


POLICY = OutputPolicy(
    min_records=10,
    max_output_bytes=100_000,
    max_tensors=4,
    allowed_dtypes=("F32",),
    allowed_metrics=("loss", "holdout_accuracy"),
)


@pytest.fixture
def policy() -> OutputPolicy:
    return POLICY


DEPLOYMENT = Deployment(
    chain_id=31337,
    block=0,
    vault="0x" + "11" * 20,
    node_registry="0x" + "22" * 20,
    enclave_registry="0x" + "33" * 20,
    timelock="0x" + "44" * 20,
    usdc="0x" + "55" * 20,
    grace_period=3600,
)


@pytest.fixture
def profile() -> DatasetProfile:
    """What a node offers: forty records at 100 each, and 10 for an epoch."""
    commitment = DatasetCommitment(
        records_root=bytes([3] * 32),
        record_count=40,
        modality="tabular/test",
        columns=("a:float32",),
        deduplicate=False,
    )
    return DatasetProfile(
        node_id=7,
        dataset_digest=commitment.digest,
        records_root=commitment.records_root,
        modality=commitment.modality,
        schema_=commitment.columns,
        record_count=commitment.record_count,
        price_per_record=100,
        price_per_epoch=10,
        description="",
    )


@pytest.fixture
def deployment() -> Deployment:
    return DEPLOYMENT


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture(scope="session")
def isolation() -> Isolation:
    """The sandbox; a machine without one runs what does not concern it without."""
    return Isolation("development", WanGuard("off", ()))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory
