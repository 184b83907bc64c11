"""A model bundle: a zip of source files with a `manifest.json`.

Unpacking reads the archive in memory within strict limits, executes nothing and writes nothing.
Formats that run code when they are loaded (pickles and their containers) are refused, and so is
machine code.
"""

import ast
import io
import math
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from settlement.errors import InvalidInput
from settlement.types import Frozen

MAX_ARCHIVE_BYTES = 8 * 2**20
MAX_FILES = 256
MAX_FILE_BYTES = 8 * 2**20
MAX_TOTAL_BYTES = 16 * 2**20
MANIFEST = "manifest.json"

FORBIDDEN_ENDINGS = frozenset({".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npz"})
NATIVE_ENDINGS = frozenset({".so", ".dll", ".dylib", ".pyd", ".exe", ".o", ".a", ".wasm"})
MAX_ELEMENTS = 1 << 40
"""Of one tensor: far beyond what can be delivered, and exact in every later reckoning."""

Framework = Literal["pytorch", "tensorflow", "jax", "scikit-learn", "numpy"]
Network = Literal["none", "host"]
TensorDtype = Literal[
    "BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "I16", "U16", "F16", "BF16",
    "I32", "U32", "F32", "I64", "U64", "F64",
]  # fmt: skip
"""Element types by the names of the safetensors format."""
TensorName = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,128}$")]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can carry
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MAX_PATH = 200
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_NATIVE_STARTS = (
    b"\x7fELF",
    b"MZ",  # PE, and DOS before it
    *(bytes.fromhex(magic) for magic in ("feedface", "feedfacf", "cefaedfe", "cffaedfe")),  # Mach-O
    bytes.fromhex("cafebabe"),  # Mach-O for several machines, and Java
    b"\x00asm",
)
_PLAIN_DTYPE = re.compile(r"[<>|=]?[biufc]\d+")
_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
    ValueError,
    OSError,
)


class BundleFault(StrEnum):
    """The closed list of what can be wrong with a bundle."""

    NOT_A_ZIP = "not-a-zip"
    TOO_LARGE = "too-large"
    TOO_MANY_FILES = "too-many-files"
    UNSAFE_PATH = "unsafe-path"
    NOT_A_FILE = "not-a-file"
    DUPLICATE = "duplicate"
    EXECUTABLE_FORMAT = "executable-format"
    NATIVE_CODE = "native-code"
    MANIFEST_MISSING = "manifest-missing"
    MANIFEST_MALFORMED = "manifest-malformed"
    ENTRY_POINT_MISSING = "entry-point-missing"


class BundleRefused(InvalidInput):
    """A bundle that is not opened any further; `path` is the offending file, where there is one."""

    def __init__(self, reason: BundleFault, detail: str, path: str | None = None) -> None:
        super().__init__(f"{path}: {detail}" if path is not None else detail)
        self.reason = reason
        self.path = path

    @property
    def data(self) -> dict[str, Any]:
        """What the error speaks of, for a machine."""
        return {"reason": self.reason.value, "path": self.path}


class DeclaredTensor(Frozen):
    """Element type and shape of a tensor that the bundle will give."""

    dtype: TensorDtype
    shape: tuple[Annotated[int, Field(ge=0, strict=True)], ...] = Field(max_length=64)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise ValueError(f"more than {MAX_ELEMENTS} elements")
        return self


class DeclaredResources(Frozen):
    """What the training needs, by the bundle's own word; a node rehearses one that is silent."""

    wall_seconds: int = Field(gt=0, lt=2**53, strict=True)
    memory_bytes: int = Field(gt=0, lt=2**53, strict=True)


class DeclaredGpus(Frozen):
    """How many GPUs the code can use, and how many it does not train without: "if present" is 0."""

    at_least: int = Field(0, ge=0, le=64, strict=True)
    at_most: int = Field(0, ge=0, le=64, strict=True)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.at_least > self.at_most:
            raise ValueError("at_least is more than at_most")
        return self


class DpSgd(Frozen):
    """Differentially private SGD as the bundle's code does it (Abadi et al. 2016).

    Of each batch the code adds up the records' gradients, each clipped to `clipping_norm` in L2,
    and Gaussian noise of deviation `noise_multiplier` · `clipping_norm`. `delta` is the δ that the
    job is accounted with.
    """

    noise_multiplier: float = Field(gt=0, le=1000, allow_inf_nan=False, strict=True)
    clipping_norm: float = Field(gt=0, le=1e6, allow_inf_nan=False, strict=True)
    delta: float = Field(gt=0, lt=1, allow_inf_nan=False, strict=True)


class Manifest(Frozen):
    """How a bundle is run: `entry_point` is ``module:callable`` of a module in the bundle.

    `outputs` are all the tensors that it will give, by name; a hospital trains no bundle that is
    silent about them. `network` is what it asks for, and a hospital grants none. `gpus` are used
    where the node has and grants them. `privacy` is what its code does about it: a hospital takes
    that from bundles only that it has reviewed.
    """

    framework: Framework
    entry_point: str = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")
    hyperparameters: dict[str, bool | int | FiniteFloat | str] = Field(max_length=256)
    outputs: dict[TensorName, DeclaredTensor] | None = Field(None, max_length=4096)
    network: Network = "none"
    resources: DeclaredResources | None = None
    gpus: DeclaredGpus = DeclaredGpus()
    privacy: DpSgd | None = None

    @property
    def module(self) -> str:
        """Dotted name of the entry point's module."""
        return self.entry_point.partition(":")[0]


def pack_bundle(files: Mapping[str, bytes]) -> bytes:
    """The zip of `files`: the same files give the same bytes, on any machine.

    Raises:
        BundleRefused: when `unpack_bundle` would refuse it.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, date_time=_EPOCH)
            info.create_system = 3  # Unix, so that the mode below is read as one
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, files[path])
    data = buffer.getvalue()
    unpack_bundle(data)
    return data


def unpack_bundle(data: bytes) -> dict[str, bytes]:
    """The files of a bundle by path, after every check.

    Raises:
        BundleRefused: naming the first thing that is wrong.
    """
    if len(data) > MAX_ARCHIVE_BYTES:
        raise BundleRefused(
            BundleFault.TOO_LARGE, f"{len(data)} bytes, more than {MAX_ARCHIVE_BYTES}"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = _read(archive)
    except BundleRefused:  # itself a ValueError, and already precise
        raise
    except _BROKEN_ARCHIVE as error:
        raise BundleRefused(BundleFault.NOT_A_ZIP, f"not a readable zip: {error}") from error
    for path, content in files.items():
        _check_content(path, content)
    read_manifest(files)
    return files


def read_manifest(files: Mapping[str, bytes]) -> Manifest:
    """The bundle's manifest, whose entry point is among the files.

    Raises:
        BundleRefused: when it is missing, malformed, or names a module that is not there.
    """
    if MANIFEST not in files:
        raise BundleRefused(BundleFault.MANIFEST_MISSING, f"the bundle has no {MANIFEST}")
    try:
        manifest = Manifest.model_validate_json(files[MANIFEST])
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise BundleRefused(BundleFault.MANIFEST_MALFORMED, faults, MANIFEST) from error
    module = manifest.module.replace(".", "/")
    if not {f"{module}.py", f"{module}/__init__.py"} & files.keys():
        raise BundleRefused(
            BundleFault.ENTRY_POINT_MISSING,
            f"module {manifest.module} of the entry point is not in the bundle",
            MANIFEST,
        )
    return manifest


def _read(archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise BundleRefused(
            BundleFault.TOO_MANY_FILES, f"{len(entries)} entries, more than {MAX_FILES}"
        )
    files: dict[str, bytes] = {}
    seen: set[str] = set()
    total = 0
    for info in entries:
        _check_entry(info)
        folded = info.orig_filename.rstrip("/").lower()
        if folded in seen:
            raise BundleRefused(
                BundleFault.DUPLICATE, "is there twice (letter case ignored)", info.filename
            )
        seen.add(folded)
        if info.is_dir():
            continue
        # Counted while reading: the sizes that a header declares are the sender's word.
        allowed = min(MAX_FILE_BYTES, MAX_TOTAL_BYTES - total)
        with archive.open(info) as stream:
            content = stream.read(allowed + 1)
        if len(content) > allowed:
            raise BundleRefused(
                BundleFault.TOO_LARGE,
                f"unpacks to more than {MAX_FILE_BYTES} bytes, or {MAX_TOTAL_BYTES} in all",
                info.filename,
            )
        total += len(content)
        files[info.filename] = content
    for path in files:
        for parent in PurePosixPath(path).parents:
            if str(parent) in files:
                raise BundleRefused(BundleFault.DUPLICATE, "is a file and a folder", str(parent))
    return files


def _check_entry(info: zipfile.ZipInfo) -> None:
    path = info.orig_filename  # as sent: `filename` is cut at a NUL and has separators replaced
    parts = path.removesuffix("/").split("/")
    if len(path) > _MAX_PATH or not all(_PATH_PART.fullmatch(part) for part in parts):
        raise BundleRefused(
            BundleFault.UNSAFE_PATH,
            f"a path is relative, at most {_MAX_PATH} long, of parts like model_v1.py",
            path[:_MAX_PATH],
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
        raise BundleRefused(BundleFault.NOT_A_FILE, "neither a plain file nor a folder", path)
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
        raise BundleRefused(BundleFault.NOT_A_ZIP, "is encrypted or not stored or deflated", path)


def _check_content(path: str, content: bytes) -> None:
    ending = PurePosixPath(path).suffix.lower()
    # By content too: a renamed pickle or torch archive (a zip) is still one.
    pickled = (
        content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and content[-1:] == b"."
    )
    if ending in FORBIDDEN_ENDINGS or pickled or content.startswith(b"PK\x03\x04"):
        raise BundleRefused(
            BundleFault.EXECUTABLE_FORMAT,
            "pickles and archives may run code when loaded; use safetensors",
            path,
        )
    if ending in NATIVE_ENDINGS or content.startswith(_NATIVE_STARTS):
        raise BundleRefused(
            BundleFault.NATIVE_CODE,
            "machine code cannot be reviewed, and no hospital runs it; send the sources",
            path,
        )
    if (ending == ".npy" or content.startswith(b"\x93NUMPY")) and not _is_plain_array(content):
        raise BundleRefused(
            BundleFault.EXECUTABLE_FORMAT,
            "not an array of plain numbers; objects are pickled",
            path,
        )


def _is_plain_array(content: bytes) -> bool:
    """Whether this is a `.npy` file (format 1 to 3) of numbers, judged by its header alone."""
    if not content.startswith(b"\x93NUMPY") or content[6:7] not in (b"\x01", b"\x02", b"\x03"):
        return False
    width = 2 if content[6] == 1 else 4
    length = int.from_bytes(content[8 : 8 + width], "little")
    if length > 4096:  # a header of plain numbers is far shorter; literal_eval gets no more
        return False
    try:
        header = ast.literal_eval(content[8 + width : 8 + width + length].decode("latin-1"))
        return _PLAIN_DTYPE.fullmatch(header["descr"]) is not None
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return False
