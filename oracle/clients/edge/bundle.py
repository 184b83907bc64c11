"""A model bundle as the node runs it, and the example bundles that this package ships."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from settlement.bundle import Manifest, pack_bundle, read_manifest, unpack_bundle
from settlement.digests import bundle_digest

EXAMPLES = Path(__file__).parent / "examples"
_SOURCE_SUFFIXES = frozenset({".py", ".json", ".safetensors"})


@dataclass(frozen=True)
class Bundle:
    """A checked bundle: files by path, manifest, and the digest that terms name `model_digest`."""

    files: Mapping[str, bytes]
    manifest: Manifest
    digest: bytes

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """A bundle of these files.

        Raises:
            settlement.bundle.BundleRefused: naming the first thing that is wrong.
        """
        return cls.from_zip(pack_bundle(files))

    @classmethod
    def from_zip(cls, data: bytes) -> Self:
        """The bundle in an archive that a stranger sent.

        Raises:
            settlement.bundle.BundleRefused: naming the first thing that is wrong.
        """
        files = unpack_bundle(data)
        return cls(files, read_manifest(files), bundle_digest(files))

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """The sources in a directory: Python files, JSON and safetensors, nothing else.

        Raises:
            settlement.bundle.BundleRefused: naming the first thing that is wrong.
        """
        return cls.from_files(
            {
                path.relative_to(directory).as_posix(): path.read_bytes()
                for path in sorted(directory.rglob("*"))
                if path.is_file() and path.suffix in _SOURCE_SUFFIXES
            }
        )

    def to_zip(self) -> bytes:
        """The archive to send; the same files give the same bytes."""
        return pack_bundle(self.files)

    def write_to(self, directory: Path) -> None:
        """Lay the files out in a new directory, read-only."""
        directory.mkdir(mode=0o700)
        for name, data in self.files.items():
            path = directory / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o400)


def example(name: str) -> Bundle:
    """An example bundle of this package, ``breast_cancer_torch`` for one; see `example_names`.

    Raises:
        FileNotFoundError: when there is none of that name.
    """
    directory = EXAMPLES / name
    if not directory.is_dir():
        raise FileNotFoundError(f"no example bundle {name}; there are {example_names()}")
    return Bundle.from_directory(directory)


def example_names() -> list[str]:
    """The names of the example bundles."""
    return sorted(path.parent.name for path in EXAMPLES.glob("*/manifest.json"))
