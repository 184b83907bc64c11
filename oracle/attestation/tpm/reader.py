"""Reads binary structures from the front, and refuses whatever does not fit by name."""

from typing import Literal

from oracle.attestation.errors import TpmMalformed, TpmTrailingBytes


class Reader:
    """A position in `data`, which is to be one `structure`; that name goes into each refusal."""

    def __init__(
        self, data: bytes, structure: str, byte_order: Literal["big", "little"] = "big"
    ) -> None:
        self._data = data
        self._structure = structure
        self._byte_order: Literal["big", "little"] = byte_order
        self.position = 0

    def take(self, count: int, field: str) -> bytes:
        """The next `count` bytes.

        Raises:
            TpmMalformed: when fewer are left.
        """
        end = self.position + count
        if end > len(self._data):
            raise self.malformed(f"it ends inside {field}")
        start, self.position = self.position, end
        return self._data[start:end]

    def integer(self, size: int, field: str) -> int:
        """The next `size` bytes as an unsigned integer."""
        return int.from_bytes(self.take(size, field), self._byte_order)

    def sized(self, field: str) -> bytes:
        """The bytes of a TPM2B: two bytes of size, then so many bytes."""
        return self.take(self.integer(2, f"{field} size"), field)

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.position == len(self._data)

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            TpmTrailingBytes: when something is.
        """
        if not self.at_end:
            raise TpmTrailingBytes(self._structure, self.position, len(self._data))

    def malformed(self, reason: str) -> TpmMalformed:
        """The refusal of this structure for `reason`."""
        return TpmMalformed(self._structure, reason)
