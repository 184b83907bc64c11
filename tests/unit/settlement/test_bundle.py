"""What a bundle may be, and every attack on the reader of one."""

import io
import json
import pickle
import stat
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement import bundle
from settlement.bundle import BundleFault, BundleRefused, pack_bundle, unpack_bundle
from settlement.digests import bundle_digest

MANIFEST = json.dumps(
    {"framework": "jax", "entry_point": "pkg.model:train", "hyperparameters": {"lr": 0.1, "n": 3}}
).encode()
GOOD = {"manifest.json": MANIFEST, "pkg/model.py": b"def train(): ..."}


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for path, content in entries.items():
            archive.writestr(path, content)
    return buffer.getvalue()


def with_entry(change: Callable[[zipfile.ZipInfo], None], path: str = "extra") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
        info = zipfile.ZipInfo(path)
        change(info)
        archive.writestr(info, b"/etc/passwd")
    return buffer.getvalue()


def refusal(data: bytes) -> BundleRefused:
    with pytest.raises(BundleRefused) as caught:
        unpack_bundle(data)
    return caught.value


def array(values: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values), allow_pickle=True)
    return buffer.getvalue()


def test_packed_files_come_back_and_order_does_not_matter() -> None:
    backwards = dict(reversed(GOOD.items()))
    assert pack_bundle(GOOD) == pack_bundle(backwards)
    assert unpack_bundle(pack_bundle(GOOD)) == GOOD


def test_digest_is_of_the_files_not_of_the_archive() -> None:
    deflated, stored = zipped(GOOD), zipped(GOOD, zipfile.ZIP_STORED)
    assert deflated != stored
    assert bundle_digest(unpack_bundle(deflated)) == bundle_digest(unpack_bundle(stored))


def test_folders_in_the_archive_are_not_files() -> None:
    assert unpack_bundle(zipped({"pkg/": b"", **GOOD})) == GOOD


def test_manifest_is_read() -> None:
    manifest = bundle.read_manifest(GOOD)
    assert (manifest.framework, manifest.module) == ("jax", "pkg.model")


def test_small_archive_of_a_huge_file_is_refused_while_it_is_read() -> None:
    bomb = zipped({**GOOD, "zeros.bin": bytes(bundle.MAX_FILE_BYTES + 1)})
    assert len(bomb) < 20_000
    error = refusal(bomb)
    assert (error.reason, error.path) == (BundleFault.TOO_LARGE, "zeros.bin")


def test_header_that_lies_about_the_size_does_not_help() -> None:
    content = bytes(bundle.MAX_FILE_BYTES + 1)
    honest = zipped({**GOOD, "zeros.bin": content})
    lying = honest.replace(len(content).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != honest
    assert refusal(lying).reason in (BundleFault.NOT_A_ZIP, BundleFault.TOO_LARGE)


def test_many_files_within_their_limit_are_refused_by_their_sum() -> None:
    size = bundle.MAX_FILE_BYTES - 1
    entries = {f"zeros{i}.bin": bytes(size) for i in range(3)}
    assert refusal(zipped({**GOOD, **entries})).reason is BundleFault.TOO_LARGE


def test_archive_above_the_limit_is_not_even_parsed() -> None:
    assert refusal(bytes(bundle.MAX_ARCHIVE_BYTES + 1)).reason is BundleFault.TOO_LARGE


def test_too_many_entries_are_refused() -> None:
    entries = {f"f{i}.txt": b"" for i in range(bundle.MAX_FILES)}
    assert refusal(zipped({**GOOD, **entries})).reason is BundleFault.TOO_MANY_FILES


@pytest.mark.parametrize(
    "path",
    [
        "../escape.py",
        "pkg/../../escape.py",
        "/etc/cron.d/job",
        "pkg\\..\\escape.py",
        "C:\\escape.py",
        "pkg//model2.py",
        "./model2.py",
        ".hidden",
        "-rf",
        "na me.py",
        "mödel.py",
        "x" * 201,
    ],
)
def test_path_that_could_leave_or_mislead_is_refused(path: str) -> None:
    assert refusal(with_entry(lambda info: None, path)).reason is BundleFault.UNSAFE_PATH


def test_path_cut_by_a_nul_is_refused() -> None:
    data = zipped({**GOOD, "model.pyXpkl": b""}).replace(b"model.pyXpkl", b"model.py\x00pkl")
    assert refusal(data).reason is BundleFault.UNSAFE_PATH


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_link_or_device_is_refused(kind: int) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16

    error = refusal(with_entry(change))
    assert (error.reason, error.path) == (BundleFault.NOT_A_FILE, "extra")


@pytest.mark.parametrize("path", ["pkg/model.py", "PKG/Model.py"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_same_path_twice_is_refused_whatever_its_letter_case(path: str) -> None:
    assert refusal(with_entry(lambda info: None, path)).reason is BundleFault.DUPLICATE


def test_path_that_is_file_and_folder_is_refused() -> None:
    error = refusal(zipped({**GOOD, "pkg": b"a file"}))
    assert (error.reason, error.path) == (BundleFault.DUPLICATE, "pkg")


@pytest.mark.parametrize("ending", ["pkl", "pickle", "pt", "pth", "joblib", "npz", "PKL"])
def test_format_that_runs_code_is_refused_by_its_ending(ending: str) -> None:
    error = refusal(zipped({**GOOD, f"weights.{ending}": b"harmless"}))
    assert (error.reason, error.path) == (BundleFault.EXECUTABLE_FORMAT, f"weights.{ending}")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_renamed_pickle_is_refused_by_its_content(protocol: int) -> None:
    data = zipped({**GOOD, "weights.dat": pickle.dumps({"a": 1}, protocol)})
    assert refusal(data).reason is BundleFault.EXECUTABLE_FORMAT


def test_renamed_archive_is_refused_by_its_content() -> None:
    data = zipped({**GOOD, "weights.dat": zipped({"data.pkl": b"x"})})
    assert refusal(data).reason is BundleFault.EXECUTABLE_FORMAT


@pytest.mark.parametrize("values", [[1.0, 2.0], [1, 2], [[True], [False]], [1 + 2j]])
def test_array_of_numbers_is_welcome(values: object) -> None:
    assert "a.npy" in unpack_bundle(zipped({**GOOD, "a.npy": array(values)}))


@pytest.mark.parametrize("name", ["a.npy", "a.dat"])
@pytest.mark.parametrize("values", [[{"a": 1}, None], np.zeros(2, dtype=[("x", "O")])])
def test_array_of_objects_is_refused_whatever_its_name(name: str, values: object) -> None:
    error = refusal(zipped({**GOOD, name: array(values)}))
    assert error.reason is BundleFault.EXECUTABLE_FORMAT


@pytest.mark.parametrize(
    "header", [b"", b"{'descr': " + b"(" * 3000, b"__import__('os')", b"{'shape': ()}", b"7"]
)
def test_array_with_a_hostile_header_is_refused(header: bytes) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    error = refusal(zipped({**GOOD, "a.npy": content}))
    assert error.reason is BundleFault.EXECUTABLE_FORMAT


def test_missing_manifest_is_refused() -> None:
    error = refusal(zipped({"pkg/model.py": b""}))
    assert error.reason is BundleFault.MANIFEST_MISSING
    assert error.data == {"reason": "manifest-missing", "path": None}


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b'{"framework":"sklearn","entry_point":"pkg.model:train","hyperparameters":{}}',
        b'{"framework":"jax","entry_point":"pkg/model.py","hyperparameters":{}}',
        b'{"framework":"jax","entry_point":"pkg.model:train","hyperparameters":{"x":[1]}}',
        b'{"framework":"jax","entry_point":"pkg.model:train","hyperparameters":{"x":NaN}}',
        b'{"framework":"jax","entry_point":"pkg.model:train","hyperparameters":{},"shell":"x"}',
    ],
)
def test_malformed_manifest_is_refused(manifest: bytes) -> None:
    error = refusal(zipped({**GOOD, "manifest.json": manifest}))
    assert (error.reason, error.path) == (BundleFault.MANIFEST_MALFORMED, "manifest.json")


def test_entry_point_outside_the_bundle_is_refused() -> None:
    error = refusal(zipped({"manifest.json": MANIFEST, "other.py": b""}))
    assert error.reason is BundleFault.ENTRY_POINT_MISSING


def test_encrypted_entry_is_refused() -> None:
    data = bytearray(zipped(GOOD))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(magic) + offset] |= 1
    assert refusal(bytes(data)).reason is BundleFault.NOT_A_ZIP


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_with_larger_bombs_is_refused(method: int) -> None:
    assert refusal(zipped(GOOD, method)).reason is BundleFault.NOT_A_ZIP


def test_packing_refuses_what_unpacking_would() -> None:
    with pytest.raises(BundleRefused) as caught:
        pack_bundle({**GOOD, "../x.py": b""})
    assert caught.value.reason is BundleFault.UNSAFE_PATH


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    assert refusal(data).reason is BundleFault.NOT_A_ZIP


@given(st.data())
def test_any_damage_is_refused_by_name_or_harmless(data: st.DataObject) -> None:
    damaged = bytearray(pack_bundle(GOOD))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] = data.draw(st.integers(0, 255))
    try:
        files = unpack_bundle(bytes(damaged))
    except BundleRefused:
        return
    assert files["manifest.json"] == MANIFEST
