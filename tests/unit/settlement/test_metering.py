"""Commitments to records: RFC 6962's tree and the salted leaves under it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.metering import (
    EMPTY_ROOT,
    MerkleLog,
    inclusion_proof,
    merkle_root,
    record_leaf,
    record_salt,
    verify_inclusion,
)

# the leaves and roots that Certificate Transparency's implementations publish for RFC 6962
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

KEY = bytes(range(32))
leaves = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40, unique=True)


def naive_root(items: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not items:
        return hashlib.sha256(b"").digest()
    if len(items) == 1:
        return hashlib.sha256(b"\x00" + items[0]).digest()
    k = 1
    while k * 2 < len(items):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(items[:k]) + naive_root(items[k:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_root_is_the_published_one(size: int) -> None:
    assert merkle_root(LEAVES[:size]).hex() == ROOTS[size]


def test_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert MerkleLog().root == EMPTY_ROOT == hashlib.sha256().digest()


def test_published_audit_paths() -> None:
    """The paths of RFC 6962's eight-leaf tree for the first and the sixth leaf."""
    assert [node.hex() for node in inclusion_proof(LEAVES, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [node.hex() for node in inclusion_proof(LEAVES, 5)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(leaves)
def test_log_that_grows_has_the_root_of_the_definition(items: list[bytes]) -> None:
    log = MerkleLog()
    for size, leaf in enumerate(items, 1):
        log.append(leaf)
        assert log.size == size
        assert log.root == naive_root(items[:size])


@given(leaves, st.data())
def test_every_leaf_is_proven_at_its_place_only(items: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(items) - 1))
    root, proof = merkle_root(items), inclusion_proof(items, index)
    assert verify_inclusion(items[index], index, len(items), proof, root)
    for other in range(len(items)):
        if other != index:
            assert not verify_inclusion(items[index], other, len(items), proof, root)


@given(leaves, st.data())
def test_tampered_proof_is_refused(items: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(items) - 1))
    size, root, proof = len(items), merkle_root(items), inclusion_proof(items, index)
    leaf = items[index]
    assert not verify_inclusion(bytes(32 * [1]) + leaf, index, size, proof, root)
    assert not verify_inclusion(leaf, index, size, [*proof, bytes(32)], root)
    assert not verify_inclusion(leaf, index, size, proof, bytes(32))
    if proof:
        assert not verify_inclusion(leaf, index, size, proof[:-1], root)
        changed = data.draw(st.integers(0, len(proof) - 1))
        bad = [*proof[:changed], bytes(32), *proof[changed + 1 :]]
        assert not verify_inclusion(leaf, index, size, bad, root)


@pytest.mark.parametrize(("index", "size"), [(-1, 1), (1, 1), (0, 0), (5, 3)])
def test_place_outside_the_tree_is_not_proven(index: int, size: int) -> None:
    assert not verify_inclusion(b"leaf", index, size, [], merkle_root([b"leaf"]))


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_path_to_a_leaf_outside_the_tree(index: int) -> None:
    with pytest.raises(IndexError, match=f"no leaf {index} in a tree of 3"):
        inclusion_proof(LEAVES[:3], index)


def test_inner_node_does_not_pass_for_a_leaf() -> None:
    """Leaves and nodes are hashed under different prefixes: no second preimage."""
    left, right = (hashlib.sha256(b"\x00" + leaf).digest() for leaf in LEAVES[:2])
    assert merkle_root([left + right]) != merkle_root(LEAVES[:2])


# leaves


def test_leaf_is_the_same_for_the_same_record_only() -> None:
    salt = record_salt(KEY, b"7")
    leaf = record_leaf(salt, b"7", b"data")
    assert len(leaf) == 32
    assert leaf == record_leaf(salt, b"7", b"data")
    assert leaf != record_leaf(salt, b"7", b"dat4")
    assert leaf != record_leaf(salt, b"8", b"data")


def test_id_and_record_cannot_flow_into_each_other() -> None:
    salt = bytes(32)
    assert record_leaf(salt, b"ab", b"c") != record_leaf(salt, b"a", b"bc")


def test_salt_hides_equal_records_from_each_other() -> None:
    salts = {record_salt(KEY, str(n).encode()) for n in range(100)}
    assert len(salts) == 100
    assert len({record_leaf(salt, b"", b"same record") for salt in salts}) == 100


def test_another_hospitals_key_gives_other_leaves() -> None:
    other = bytes(32)
    assert record_salt(KEY, b"7") != record_salt(other, b"7")
    assert record_salt(KEY, b"7") == record_salt(bytes(range(32)), b"7")


def test_leaf_is_not_the_plain_hash_of_its_record() -> None:
    record = b"age=50"
    leaf = record_leaf(record_salt(KEY, b"1"), b"1", record)
    for name in ("sha256", "sha3_256", "blake2s"):
        assert leaf != hashlib.new(name, record).digest()
    assert leaf != hashlib.blake2b(record, digest_size=32).digest()


@given(st.lists(st.binary(max_size=40), min_size=2, max_size=20), st.integers(1, 19))
def test_earlier_root_is_the_root_of_a_prefix(items: list[bytes], cut: int) -> None:
    """A later receipt extends the one before: nothing delivered earlier can be exchanged."""
    log, seen = MerkleLog(), []
    for item in items:
        log.append(item)
        seen.append(log.root)
    cut = min(cut, len(items) - 1)
    assert seen[cut - 1] == merkle_root(items[:cut])
    forged = [b"forged" + items[0], *items[1:]]
    assert merkle_root(forged) != seen[-1]
