"""The hospital's records: what is trained on, and the commitment that the hospital publishes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oracle.clients.edge.durable import open_secret
from settlement.metering import merkle_root, record_leaf, record_salt

HOLDOUT_PERCENT = 20


@dataclass(frozen=True)
class Dataset:
    """Records with stable ids, split once and for all.

    `ids` ascend; everything else follows their order. `records` are the canonical bytes of what was
    recorded, before any scaling. `features` is float32 [records, features], standardised with the
    mean and deviation of the training split only, so that nothing of the held-out part leaks;
    `labels` is int64 [records]. `training` and `holdout` are the positions of the two parts.
    """

    modality: str
    columns: tuple[str, ...]
    ids: tuple[bytes, ...]
    records: tuple[bytes, ...]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    training: NDArray[np.intp]
    holdout: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class CommittedDataset:
    """A dataset with its salted leaves, one per record, and the root over all of them."""

    dataset: Dataset
    leaves: tuple[bytes, ...]
    digest: bytes


def commit(dataset: Dataset, dataset_key: bytes) -> CommittedDataset:
    """Digest each record once, at ingest, under the hospital's 32-byte dataset key.

    The digest is the RFC 6962 root over the leaves in the order of the ids.
    """
    leaves = tuple(
        record_leaf(record_salt(dataset_key, record_id), record_id, record)
        for record_id, record in zip(dataset.ids, dataset.records, strict=True)
    )
    return CommittedDataset(dataset, leaves, merkle_root(leaves))


def tabular(
    *,
    modality: str,
    columns: tuple[str, ...],
    ids: tuple[bytes, ...],
    values: NDArray[np.float64],
    labels: NDArray[np.int64],
) -> Dataset:
    """A dataset from a table: `values` float64 [records, columns], `labels` int64 [records].

    A record's canonical bytes are its values as little-endian float64, then its label as
    little-endian int64.

    Raises:
        ValueError: when ids are not ascending and unique, or lengths differ.
    """
    if list(ids) != sorted(set(ids)):
        raise ValueError("record ids must be unique and ascending")
    if values.shape != (len(ids), len(columns)) or labels.shape != (len(ids),):
        raise ValueError("ids, columns, values and labels do not fit each other")
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
