"""A hospital's own rules: a directory of Rego files that can deny more, and nothing else.

They are read once, when the node starts, and evaluated by themselves: of the base rules they see
nothing, and of their answer only `deny` counts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

from oracle.clients.edge.policy.input import Gate
from settlement.errors import InvalidInput

MAX_FILES = 64
MAX_FILE_BYTES = 1 << 18
GATES: tuple[Gate, ...] = ("training", "release")
_PACKAGE = re.compile(r"^package\s+([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)\s*(?:#.*)?$")


class HospitalRulesInvalid(InvalidInput):
    """The hospital's rules cannot be used, so the node does not start; `path` is the file."""

    def __init__(self, path: object, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.path = str(path)
        self.detail = detail


@dataclass(frozen=True)
class HospitalRules:
    """The files by name, and the package of each."""

    files: Mapping[str, bytes]
    packages: Mapping[str, str]

    @classmethod
    def none(cls) -> Self:
        """A hospital that adds no rule."""
        return cls(MappingProxyType({}), MappingProxyType({}))

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The `.rego` files of a directory; other files in it are left alone.

        Raises:
            HospitalRulesInvalid: naming the first file that cannot be used, or the directory.
        """
        if not directory.is_dir():
            raise HospitalRulesInvalid(directory, "is no directory")
        paths = sorted(directory.glob("*.rego"))
        if not 0 < len(paths) <= MAX_FILES:
            raise HospitalRulesInvalid(
                directory, f"{len(paths)} files named *.rego, where 1 to {MAX_FILES} may be"
            )
        files, packages = {}, {}
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise HospitalRulesInvalid(path, error.strerror or "cannot be read") from error
            packages[path.name] = _package(path, data)
            files[path.name] = data
        return cls(MappingProxyType(files), MappingProxyType(packages))

    def speaks(self, gate: Gate) -> bool:
        """Whether there are rules of this gate."""
        return _of_gate(gate) in self.packages.values()

    def spells(self, rule: str) -> bool:
        """Whether a file spells this id out: one that is put together could carry a name out."""
        return any(f'"{rule}"'.encode() in data for data in self.files.values())


def _of_gate(gate: Gate) -> str:
    return f"hospital.{gate}"


def _package(path: Path, data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise HospitalRulesInvalid(path, f"{len(data)} bytes, more than {MAX_FILE_BYTES}")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise HospitalRulesInvalid(path, "is not UTF-8") from error
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    found = _PACKAGE.match(first)
    name = found[1] if found else ""
    if name not in map(_of_gate, GATES) and not name.startswith("hospital.lib."):
        raise HospitalRulesInvalid(
            path, "its package must be hospital.training, hospital.release or hospital.lib.<name>"
        )
    return name
