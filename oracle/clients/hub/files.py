"""Artifacts on disk, under the name of their own SHA-256: nothing is ever overwritten by others."""

import hashlib
import os
import time
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import Self

from oracle.clients.hub.errors import BodyTooLarge
from settlement.hub.messages import ArtifactName

MAX_BYTES = {
    ArtifactName.WEIGHTS: 256 * 2**20,
    ArtifactName.METRICS: 2**20,
    ArtifactName.RECEIPTS: 16 * 2**20,
    ArtifactName.EVIDENCE: 2**20,
}

ABANDONED = 3_600
"""Seconds after which an unfinished file is nobody's: another hub may be writing a younger one."""


class Upload:
    """Bytes on their way in: hashed and counted as they come, gone unless kept."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._file = NamedTemporaryFile(dir=folder, prefix="upload-", delete=False)  # noqa: SIM115
        self._hash = hashlib.sha256()
        self._durable = False
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Hex digest of what has come so far."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Take more bytes.

        Raises:
            BodyTooLarge: beyond the limit.
        """
        self.size += len(chunk)
        if self.size > self._limit:
            raise BodyTooLarge(self._limit)
        self._durable = False
        self._hash.update(chunk)
        self._file.write(chunk)

    def flush(self) -> None:
        """Make what has come durable, still nobody's."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._durable = True

    def keep(self) -> None:
        """Put the whole upload durably in its place."""
        if not self._durable:
            self.flush()
        os.replace(self._file.name, self._folder / self.sha256)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class ArtifactFiles:
    """The folder of artifacts, which hubs on one database share; equal bytes are kept once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for unfinished in folder.glob("upload-*"):  # what a crash left behind
            if unfinished.stat().st_mtime < time.time() - ABANDONED:
                unfinished.unlink(missing_ok=True)
        self._folder = folder

    def upload(self, name: ArtifactName) -> Upload:
        """Begin taking an artifact; use it as a context."""
        return Upload(self._folder, MAX_BYTES[name])

    def path(self, sha256: str) -> Path:
        """Where the bytes of that SHA-256 (hex) are."""
        return self._folder / sha256
