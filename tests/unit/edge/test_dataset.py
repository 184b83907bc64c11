import stat
import struct
from pathlib import Path

import numpy as np
import pytest

from oracle.clients.edge.dataset import (
    breast_cancer,
    commit,
    open_dataset_key,
    stratified_split,
    tabular,
)
from oracle.clients.edge.errors import KeyFileInvalid
from settlement.metering import inclusion_proof, merkle_root, verify_inclusion


@pytest.fixture(scope="module")
def wisconsin():
    return breast_cancer()


def test_breast_cancer_has_569_records_of_30_features(wisconsin):
    assert len(wisconsin) == 569
    assert wisconsin.features.shape == (569, 30)
    assert wisconsin.features.dtype == np.float32
    assert np.bincount(wisconsin.labels).tolist() == [212, 357]
    assert list(wisconsin.ids) == sorted(set(wisconsin.ids))


def test_holdout_is_a_fifth_of_each_class_and_disjoint_from_training(wisconsin):
    held = np.bincount(wisconsin.labels[wisconsin.holdout]).tolist()
    assert held == [42, 71]
    both = np.concatenate([wisconsin.training, wisconsin.holdout])
    assert sorted(both.tolist()) == list(range(569))


def test_split_depends_on_the_ids_alone():
    ids = tuple(b"%d" % i for i in range(10))
    labels = np.array([0, 1] * 5)
    first = stratified_split(ids, labels)
    again = stratified_split(ids, labels)
    assert first[1].tolist() == again[1].tolist()
    assert len(first[1]) == 2


def test_features_are_standardised_by_the_training_part_only(wisconsin):
    part = wisconsin.features[wisconsin.training].astype(np.float64)
    assert np.abs(part.mean(axis=0)).max() < 1e-5
    assert np.abs(part.std(axis=0) - 1).max() < 1e-5
    held = wisconsin.features[wisconsin.holdout].astype(np.float64)
    assert np.abs(held.mean(axis=0)).max() > 1e-3


def test_record_bytes_are_the_raw_values_and_the_label(wisconsin):
    values = struct.unpack("<30dq", wisconsin.records[0])
    assert values[0] == 17.99
    assert values[-1] == 0


def test_digest_commits_to_the_root_over_the_leaves_in_order_of_ids(wisconsin):
    committed = commit(wisconsin, bytes(32))
    root = committed.commitment.records_root
    assert root == merkle_root(committed.leaves)
    assert committed.digest == committed.commitment.digest
    proof = inclusion_proof(committed.leaves, 7)
    assert verify_inclusion(committed.leaves[7], 7, 569, proof, root)


def test_another_dataset_key_gives_another_digest(wisconsin):
    assert commit(wisconsin, bytes(32)).digest != commit(wisconsin, bytes(31) + b"\1").digest


def test_ids_that_do_not_ascend_are_refused():
    with pytest.raises(ValueError, match="unique and ascending"):
        tabular(
            modality="m",
            columns=("a",),
            ids=(b"2", b"1"),
            values=np.zeros((2, 1)),
            labels=np.zeros(2, np.int64),
        )


def test_a_constant_column_becomes_zero():
    dataset = tabular(
        modality="m",
        columns=("a",),
        ids=(b"1", b"2"),
        values=np.full((2, 1), 3.0),
        labels=np.zeros(2, np.int64),
    )
    assert dataset.features.tolist() == [[0.0], [0.0]]


def test_dataset_key_is_created_private_and_kept(tmp_path: Path):
    path = tmp_path / "dataset.key"
    key = open_dataset_key(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_dataset_key(path) == key


def test_a_short_dataset_key_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "dataset.key"
    path.write_bytes(b"short")
    with pytest.raises(KeyFileInvalid, match="a 32-byte dataset key"):
        open_dataset_key(path)
