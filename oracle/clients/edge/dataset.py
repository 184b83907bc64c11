"""The hospital's records: what is trained on, and the commitment that the hospital publishes."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.clients.edge.durable import open_secret
from settlement.dataset import Answer, Challenge, DatasetCommitment, Record, open_leaves
from settlement.metering import merkle_root, record_leaf, record_salt

HOLDOUT_PERCENT = 20
_NO_LABEL = re.compile(r"[^A-Za-z0-9_.:/ -]")
_MAX_VALUE = 31


@dataclass(frozen=True)
class Dataset:
    """Records with stable ids, split once and for all.

    `ids` ascend; everything else follows their order. `records` are the canonical bytes of what was
    recorded, before any scaling. `features` is float32 [records, features], standardised with the
    mean and deviation of the training split only, so that nothing of the held-out part leaks;
    `labels` is int64 [records]. `training` and `holdout` are the positions of the two parts.
    `shape` is that of one record: a flat row of columns, or rows and columns of an image, whose
    pixels stand in `features` row by row. `groups` names a property of each record for the counts
    of the profile; what they say never reaches a job. `left_out` counts incomplete records.
    """

    modality: str
    columns: tuple[str, ...]
    ids: tuple[bytes, ...]
    records: tuple[bytes, ...]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    training: NDArray[np.intp]
    holdout: NDArray[np.intp]
    shape: tuple[int, ...]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left_out: int = 0

    @property
    def schema(self) -> tuple[str, ...]:
        """``column:type`` of everything in a record."""
        if len(self.shape) == 1:
            return (*(f"{column}:float32" for column in self.columns), "label:int64")
        size = "x".join(map(str, self.shape))
        return (*(f"{column}:float32:{size}" for column in self.columns), "label:int64")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class CommittedDataset:
    """A dataset with its salted leaves, one per record, and what is published about them."""

    dataset: Dataset
    leaves: tuple[bytes, ...]
    commitment: DatasetCommitment

    @property
    def digest(self) -> bytes:
        """What terms name `dataset_digest`."""
        return self.commitment.digest


def commit(dataset: Dataset, dataset_key: bytes, *, deduplicate: bool = False) -> CommittedDataset:
    """Digest each record once, at ingest, under the hospital's 32-byte dataset key.

    The root is RFC 6962's over the leaves in the order of the ids. With `deduplicate` no payer is
    billed for a record of this version again.
    """
    leaves = tuple(
        record_leaf(record_salt(dataset_key, record_id), record_id, record)
        for record_id, record in zip(dataset.ids, dataset.records, strict=True)
    )
    commitment = DatasetCommitment(
        records_root=merkle_root(leaves),
        record_count=len(leaves),
        modality=dataset.modality,
        columns=dataset.schema,
        deduplicate=deduplicate,
    )
    return CommittedDataset(dataset, leaves, commitment)


def answer_challenge(
    committed: CommittedDataset, dataset_key: bytes, challenge: Challenge
) -> Answer:
    """Open the leaves that an auditor's challenge draws, and no others.

    Raises:
        settlement.dataset.ChallengeInvalid: when it is not a challenge to this dataset.
    """
    dataset = committed.dataset
    records = _Records(dataset, dataset_key)
    return open_leaves(challenge, committed.commitment, committed.leaves, records)


class _Records(Sequence[Record]):
    """The records with their salts, derived when one is looked at."""

    def __init__(self, dataset: Dataset, dataset_key: bytes) -> None:
        self._dataset = dataset
        self._key = dataset_key

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        record_id = self._dataset.ids[index]
        return Record(record_id, record_salt(self._key, record_id), self._dataset.records[index])


def cohort_bands(groups: Mapping[str, Sequence[str]], k: int) -> tuple[tuple[str, int, int], ...]:
    """Counts of groups of records as (name, at least, at most), none of fewer than `k`.

    Each count is given as a band of width `k`. Groups of fewer than `k` are joined as ``other``,
    with the next smallest if they are still too few together, so that not even the difference to
    the whole speaks of fewer than `k`. A property with fewer than `k` records in all is left out.
    """
    bands = []
    for name, values in sorted(groups.items()):
        counts: dict[str, int] = {}
        for value in values:
            shown = _NO_LABEL.sub("_", value)[:_MAX_VALUE]
            counts[shown] = counts.get(shown, 0) + 1
        kept = sorted(counts.items(), key=lambda item: (item[1], item[0]))
        joined = 0
        while kept and (kept[0][1] < k or 0 < joined < k):
            joined += kept.pop(0)[1]
        named = [(f"{name}:{value}", count) for value, count in sorted(kept)]
        if joined >= k:
            named.append((f"{name}:other", joined))
        for label, count in named:
            lowest = count // k * k
            bands.append((label, lowest, lowest + k - 1))
    return tuple(bands)


def tabular(
    *,
    modality: str,
    columns: tuple[str, ...],
    ids: tuple[bytes, ...],
    values: NDArray[np.float64],
    labels: NDArray[np.int64],
    shape: tuple[int, ...] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    left_out: int = 0,
) -> Dataset:
    """A dataset from a table: `values` float64 [records, values], `labels` int64 [records].

    There is a value for each of `columns`, or, with `shape`, as many as that holds. A record's
    canonical bytes are its values as little-endian float64, then its label as little-endian int64.

    Raises:
        ValueError: when ids are not ascending and unique, lengths differ, or a value is not finite.
    """
    if list(ids) != sorted(set(ids)):
        raise ValueError("record ids must be unique and ascending")
    width = len(columns) if shape is None else math.prod(shape)
    if values.shape != (len(ids), width) or labels.shape != (len(ids),):
        raise ValueError("ids, columns, values and labels do not fit each other")
    if not np.isfinite(values).all():
        raise ValueError("a value is not a finite number")
    training, holdout = stratified_split(ids, labels)
    mean = values[training].mean(axis=0)
    deviation = values[training].std(axis=0)
    deviation[deviation == 0] = 1.0
    raw = np.ascontiguousarray(values, dtype="<f8")
    raw_labels = np.ascontiguousarray(labels, dtype="<i8")
    return Dataset(
        modality=modality,
        columns=columns,
        ids=ids,
        records=tuple(
            row.tobytes() + label.tobytes() for row, label in zip(raw, raw_labels, strict=True)
        ),
        features=((values - mean) / deviation).astype(np.float32),
        labels=labels.astype(np.int64),
        training=training,
        holdout=holdout,
        shape=(width,) if shape is None else shape,
        groups={"label": [str(label) for label in labels], **(groups or {})},
        left_out=left_out,
    )


def stratified_split(
    ids: tuple[bytes, ...], labels: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the training and the held-out part, 20 % of each class, both ascending.

    Chosen by the ids' SHA-256, so that it depends on no random generator and no library's version.
    """
    rank = [hashlib.sha256(b"rapha.split.v1" + record_id).digest() for record_id in ids]
    held: list[int] = []
    for label in np.unique(labels):
        members = sorted((int(i) for i in np.flatnonzero(labels == label)), key=rank.__getitem__)
        held += members[: round(len(members) * HOLDOUT_PERCENT / 100)]
    holdout = np.array(sorted(held), dtype=np.intp)
    training = np.setdiff1d(np.arange(len(ids), dtype=np.intp), holdout)
    return training, holdout


def breast_cancer() -> Dataset:
    """The 569 real records of the Breast Cancer Wisconsin (Diagnostic) data, 30 features each.

    Label 0 is malignant, 1 benign. Source: UCI Machine Learning Repository, from scikit-learn.
    """
    # Imported here: it takes a second and only ingest needs it.
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    values, labels = source.data, source.target
    return tabular(
        modality="tabular/breast-cancer-wisconsin",
        columns=tuple(str(name) for name in source.feature_names),
        ids=tuple(b"wdbc-%06d" % position for position in range(len(labels))),
        values=np.asarray(values, dtype=np.float64),
        labels=np.asarray(labels, dtype=np.int64),
    )


def open_dataset_key(path: Path) -> bytes:
    """The hospital's 32-byte dataset key; created with mode 0600 when the file is missing.

    Raises:
        KeyFileInvalid: when the file holds anything but 32 bytes.
    """
    return open_secret(path, "dataset key")
