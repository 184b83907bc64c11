"""What counting costs: the metered loader beside the same batches without a meter."""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.table import Table

from oracle.clients.edge.dataset import CommittedDataset, commit, tabular
from oracle.clients.edge.loader import Batch, Meter, RaphaDataLoader
from scripts.bench.report import FIGURES

RECORDS, COLUMNS = 20_000, 30
BATCH_SIZES = (4, 32, 256)
REPEATS = 3
FILE = FIGURES / "loader.json"

Figures = dict[str, dict[str, int]]
"""Records a second: bare, in the first epoch and in later ones, by batch size."""


def measure_loader() -> Figures:
    """The best of a few runs each, on one core."""
    committed = _dataset()
    return {
        str(size): {
            "bare": max(_rate(_bare(committed, size)) for _ in range(REPEATS)),
            **_metered(committed, size),
        }
        for size in BATCH_SIZES
    }


def loader_table(figures: Figures) -> Table:
    """The table as a terminal shows it."""
    table = Table("batch size", title="Training records a second", title_justify="left")
    columns = ("bare", "metered, first epoch", "metered, later epochs")
    for column in columns:
        table.add_column(column, justify="right")
    for size, row in figures.items():
        table.add_row(size, *(f"{row[column]:,}" for column in columns))
    return table


def save_loader(figures: Figures, machine: str) -> None:
    """Keep the figures."""
    kept = {"machine": machine, "records": RECORDS, "per_second": figures}
    FILE.write_text(json.dumps(kept, indent=2) + "\n")


def _dataset() -> CommittedDataset:
    generator = np.random.default_rng(1)
    return commit(
        tabular(
            modality="tabular/bench",
            columns=tuple(f"c{number}" for number in range(COLUMNS)),
            ids=tuple(b"%08d" % number for number in range(RECORDS)),
            values=generator.normal(size=(RECORDS, COLUMNS)),
            labels=np.arange(RECORDS, dtype=np.int64) % 2,
        ),
        bytes(32),
    )


def _bare(committed: CommittedDataset, batch_size: int) -> Iterator[Batch]:
    dataset = committed.dataset
    order = np.random.default_rng([1, 0]).permutation(dataset.training)
    for start in range(0, len(order), batch_size):
        positions = order[start : start + batch_size]
        yield Batch(dataset.features[positions], dataset.labels[positions])


def _metered(committed: CommittedDataset, batch_size: int) -> dict[str, int]:
    first, later = [], []
    for _ in range(REPEATS):
        # Beside the repository, as a node's state would be: /tmp may be in memory.
        with (
            tempfile.TemporaryDirectory(dir=FIGURES) as folder,
            Meter(Path(folder) / "journal", committed, bytes(32)) as meter,
        ):
            loader = RaphaDataLoader(committed, meter, batch_size=batch_size, seed=1)
            first.append(_rate(loader.epoch(0)))
            later.append(_rate(loader.epoch(1)))
    return {"metered, first epoch": max(first), "metered, later epochs": max(later)}


def _rate(batches: Iterator[Batch]) -> int:
    begun = time.perf_counter()
    count = sum(len(batch.labels) for batch in batches)
    return round(count / (time.perf_counter() - begun))
