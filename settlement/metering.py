"""Commitments to records: salted keyed leaves and an append-only Merkle tree.

A leaf is keyed by a salt that only its hospital can derive, so a leaf tells nothing about its
record, and opening one opens no other. The tree is that of RFC 6962 (section 2.1): each receipt's
root extends the one before, and both inclusion and order can be proven later.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

EMPTY_ROOT = hashlib.sha256(b"").digest()


def record_salt(dataset_key: bytes, record_id: bytes) -> bytes:
    """The 32-byte salt of one record, derived from the hospital's 32-byte dataset key."""
    return hmac.digest(dataset_key, b"rapha.record.salt.v1" + record_id, "sha256")


def record_leaf(salt: bytes, record_id: bytes, record: bytes) -> bytes:
    """The 32-byte commitment to a record: BLAKE2b keyed by its salt, over its id and its bytes."""
    hasher = hashlib.blake2b(key=salt, digest_size=32, person=b"rapha.leaf.v1")
    hasher.update(len(record_id).to_bytes(8, "big") + record_id + record)
    return hasher.digest()


def _hash_leaf(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def _hash_pair(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass
class MerkleLog:
    """An append-only RFC 6962 tree that keeps only its peaks: `append` and `root` are O(log n)."""

    size: int = 0
    _peaks: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> None:
        """Add a 32-byte leaf at the end."""
        node, size = _hash_leaf(leaf), self.size
        while size & 1:
            node, size = _hash_pair(self._peaks.pop(), node), size >> 1
        self._peaks.append(node)
        self.size += 1

    @property
    def root(self) -> bytes:
        """The 32-byte root over all leaves so far; `EMPTY_ROOT` when there are none."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = _hash_pair(peak, root)
        return root


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The RFC 6962 root over `leaves` in order."""
    log = MerkleLog()
    for leaf in leaves:
        log.append(leaf)
    return log.root


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of `leaves[index]`, from the leaf up (RFC 6962, 2.1.1).

    Raises:
        IndexError: when there is no such leaf.
    """
    return inclusion_proofs(leaves, [index])[0]


def inclusion_proofs(leaves: Sequence[bytes], indexes: Iterable[int]) -> list[list[bytes]]:
    """The audit paths of several leaves; what they share is hashed once.

    Raises:
        IndexError: when there is no such leaf.
    """

    @cache
    def root(start: int, end: int) -> bytes:
        return merkle_root(leaves[start:end])

    proofs = []
    for index in indexes:
        if not 0 <= index < len(leaves):
            raise IndexError(f"no leaf {index} in a tree of {len(leaves)}")
        path: list[bytes] = []
        start, end = 0, len(leaves)
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(root(middle, end))
                end = middle
            else:
                path.append(root(start, middle))
                start = middle
        proofs.append(path[::-1])
    return proofs


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `leaf` is the `index`-th of the `size` leaves under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, position, last = _hash_leaf(leaf), index, size - 1
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = _hash_pair(sibling, node)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            node = _hash_pair(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and hmac.compare_digest(node, root)
