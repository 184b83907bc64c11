"""Checkpoints: what a bundle wants back when its training goes on after a crash.

A checkpoint is the bundle's own tensors, so it goes to nobody but the same bundle, in its sandbox.
It is read as safetensors and never as anything that could run. Records are not billed by it: the
meter knows what was delivered, whatever a checkpoint says.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple, Self

from oracle.clients.edge.durable import write_atomically
from oracle.clients.edge.errors import JournalInvalid, TensorsInvalid
from oracle.clients.edge.tensors import read_header

VERSION = "rapha.checkpoint.v1"


class Checkpoint(NamedTuple):
    """After so many completed epochs: the metrics reported so far, and safetensors bytes."""

    epochs: int
    reports: dict[str, list[float]]
    tensors: bytes

    def write(self, path: Path) -> None:
        """Put it in the place of the one before; whole, or not at all."""
        header = {
            "version": VERSION,
            "epochs": self.epochs,
            "reports": self.reports,
            "sha256": hashlib.sha256(self.tensors).hexdigest(),
        }
        write_atomically(path, json.dumps(header).encode() + b"\n" + self.tensors)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The checkpoint at `path`, or None where there is none.

        Raises:
            JournalInvalid: when it is damaged.
        """
        if not path.exists():
            return None
        text, _, tensors = path.read_bytes().partition(b"\n")
        try:
            header = json.loads(text)
            if header["version"] != VERSION:
                raise ValueError("another version")
            if header["sha256"] != hashlib.sha256(tensors).hexdigest():
                raise ValueError("other tensors")
            read_header(tensors)
            return cls(header["epochs"], header["reports"], tensors)
        except (ValueError, KeyError, TypeError, TensorsInvalid) as error:
            raise JournalInvalid(path, f"the checkpoint is damaged: {error}") from error
