"""The node's audit log on disk: appended to, never changed, and never behind what the node did.

An entry is on disk before `append` returns, so whoever tells it first and acts afterwards can be
killed at any time. Beside the log lies its head, how many entries there are and the last link: a
log that is shorter than its head was cut, and the node does not go on with it.
"""

import hmac
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from oracle.clients.edge.durable import open_secret, sync_directory, write_atomically
from oracle.clients.edge.errors import AuditDamaged
from settlement.audit import (
    GENESIS,
    Entry,
    Event,
    Fact,
    Line,
    LineInvalid,
    entry_key,
    entry_leaf,
    next_link,
    parse_line,
    read_links,
)
from settlement.digests import canonical_json

LOG, HEAD, KEY = "log.jsonl", "head.json", "key"


class AuditLog:
    """The log in a directory. Use as a context manager; one process at a time, any of its threads.

    `clock` gives Unix seconds.

    Raises:
        AuditDamaged: when it is not as it was left, but for a last line that a crash tore.
        KeyFileInvalid: when its key is damaged.
    """

    def __init__(self, directory: Path, clock: Callable[[], int]) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / LOG
        self._head = directory / HEAD
        self._clock = clock
        self._lock = threading.Lock()
        self._key = open_secret(directory / KEY, "audit key")
        self._length, self._link, self._size = 0, GENESIS, 0
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            torn = self._resume()
            sync_directory(directory)
            if torn:
                self.append(Event.REPAIRED, bytes=torn)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    @property
    def link(self) -> bytes:
        """What binds everything told so far: 32 bytes, to be put under a signature."""
        return self._link

    def append(self, event: Event, job: bytes | None = None, **facts: Fact) -> None:
        """Tell one thing; it is on disk when this returns.

        Raises:
            OSError: when the disk does not take it; then nothing of it is left, and nothing is to
                be done that it would have told of.
        """
        with self._lock:
            number = self._length
            entry = Entry(number=number, time=self._clock(), event=event, job=job, facts=facts)
            link = next_link(self._link, entry_leaf(entry_key(self._key, number), entry))
            data = Line(entry=entry, link=link).encoded
            try:
                written = 0
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
                os.fdatasync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, self._size)
                raise
            self._length, self._link, self._size = number + 1, link, self._size + len(data)
            write_atomically(self._head, _head(self._length, link))

    def _resume(self) -> int:
        """Read the log; how many bytes of a torn last line were dropped."""
        length, link = self._read_head()
        data = self._path.read_bytes()
        lines = data.split(b"\n")
        lines.pop()  # what follows the last line's end: nothing, or a torn line
        if lines and len(lines) > length and not _is_line(len(lines) - 1, lines[-1]):
            lines.pop()
        try:
            links, _ = read_links(lines, self._key)
        except LineInvalid as error:
            raise AuditDamaged(self._path, str(error)) from error
        links.insert(0, GENESIS)
        if len(lines) < length:
            raise AuditDamaged(self._path, f"{length} entries were written, {len(lines)} are left")
        if not hmac.compare_digest(links[length], link):
            raise AuditDamaged(self._path, "another log is in its place")
        if len(lines) > length + 1:
            raise AuditDamaged(self._head, f"it is {len(lines) - length} entries behind")
        self._length, self._link = len(lines), links[-1]
        self._size = sum(len(line) + 1 for line in lines)
        os.ftruncate(self._descriptor, self._size)
        os.fdatasync(self._descriptor)
        return len(data) - self._size

    def _read_head(self) -> tuple[int, bytes]:
        try:
            head = json.loads(self._head.read_bytes())
            length, link = head["entries"], bytes.fromhex(head["link"])
            if type(length) is not int or length < 0:
                raise ValueError("no natural number")
            return length, link
        except FileNotFoundError:
            return 0, GENESIS
        except (ValueError, KeyError, TypeError) as error:
            raise AuditDamaged(self._head, "it cannot be read") from error


def export(directory: Path, job: bytes | None = None) -> Iterator[bytes]:
    """The lines of a log for somebody without its key: open where they are of `job`, else closed.

    Without `job` all are open. May be used while the node runs.

    Raises:
        AuditDamaged: when the log does not hold together.
    """
    for name in (KEY, LOG):
        if not (directory / name).exists():
            raise AuditDamaged(directory / name, "it is not there")
    key = open_secret(directory / KEY, "audit key")
    # A line that the node is just writing has no end yet.
    lines = (directory / LOG).read_bytes().split(b"\n")[:-1]
    try:
        read_links(lines, key)
        for number, data in enumerate(lines):
            line = parse_line(number, data)
            assert line.entry is not None  # the node writes no other
            own = entry_key(key, number)
            if job is None or line.entry.job in (None, job):
                yield line.model_copy(update={"key": own}).encoded
            else:
                yield Line(leaf=entry_leaf(own, line.entry), link=line.link).encoded
    except LineInvalid as error:
        raise AuditDamaged(directory / LOG, str(error)) from error


def _head(length: int, link: bytes) -> bytes:
    return canonical_json({"entries": length, "link": link.hex()})


def _is_line(number: int, data: bytes) -> bool:
    try:
        parse_line(number, data)
    except LineInvalid:
        return False
    return True
