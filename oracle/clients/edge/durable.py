"""Files that survive a crash whole, or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oracle.clients.edge.errors import KeyFileInvalid, StateUnwritable
from settlement.errors import RaphaError

SECRET_BYTES = 32
_NOT_WRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`: after a crash it holds the old or the new bytes, never a mixture.

    Returns once the bytes and the name are on disk.
    """
    temporary = path.with_name(f".{path.name}.new")
    # A temporary file of an earlier crash may have another mode; never reuse it.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_secret(path: Path, meaning: str) -> bytes:
    """The 32-byte key in a file; created with mode 0600 when the file is missing.

    Raises:
        KeyFileInvalid: when the file holds anything but 32 bytes; `meaning` says of what.
    """
    if not path.exists():
        write_atomically(path, os.urandom(SECRET_BYTES), 0o600)
    key = path.read_bytes()
    if len(key) != SECRET_BYTES:
        raise KeyFileInvalid(path, f"a {SECRET_BYTES}-byte {meaning}")
    return key


@contextmanager
def naming_full_disk(directory: Path) -> Iterator[None]:
    """A disk within that is full, over its quota, read-only or broken is `StateUnwritable`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, RaphaError) or error.errno not in _NOT_WRITABLE:
            raise
        raise StateUnwritable(directory, error.strerror or "it cannot be written") from error
