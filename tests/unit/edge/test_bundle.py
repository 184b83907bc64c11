import io
import stat
import zipfile

import pytest

from oracle.clients.edge.bundle import Bundle
from settlement.bundle import MAX_FILES, BundleFault, BundleRefused
from settlement.digests import bundle_digest

MANIFEST = b'{"framework":"jax","entry_point":"train:train","hyperparameters":{}}'
GOOD = {"train.py": b"def train(loader, hyperparameters): ...", "manifest.json": MANIFEST}


def archive(*extra: tuple[str | zipfile.ZipInfo, bytes], files=GOOD) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in [*files.items(), *extra]:
            out.writestr(name, data)
    return buffer.getvalue()


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link.py")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_the_digest_is_of_the_files_and_not_of_the_archive():
    bundle = Bundle.from_zip(archive())
    assert bundle.digest == bundle_digest(GOOD)
    assert bundle.files == GOOD
    assert Bundle.from_files(GOOD).digest == bundle.digest


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (("../train.py", b""), BundleFault.UNSAFE_PATH),
        (("/etc/passwd", b""), BundleFault.UNSAFE_PATH),
        (("a/../../b.py", b""), BundleFault.UNSAFE_PATH),
        (("a\\b.py", b""), BundleFault.UNSAFE_PATH),
        ((link(), b"/etc/passwd"), BundleFault.NOT_A_FILE),
        (("model.pt", b"x"), BundleFault.EXECUTABLE_FORMAT),
        (("model.PKL", b"x"), BundleFault.EXECUTABLE_FORMAT),
        (("model.bin", b"\x80\x04K\x01."), BundleFault.EXECUTABLE_FORMAT),
        (("bomb.txt", bytes(50_000_000)), BundleFault.TOO_LARGE),
        (("TRAIN.py", b""), BundleFault.DUPLICATE),
    ],
)
def test_a_hostile_archive_is_refused_by_name(extra, reason):
    with pytest.raises(BundleRefused) as caught:
        Bundle.from_zip(archive(extra))
    assert caught.value.reason is reason


def test_more_gpus_needed_than_used_mean_nothing():
    manifest = MANIFEST[:-1] + b',"gpus":{"at_least":2,"at_most":1}}'
    with pytest.raises(BundleRefused, match="at_least is more than at_most"):
        Bundle.from_files({**GOOD, "manifest.json": manifest})


def test_too_many_files_are_refused():
    extra = [(f"m{i}.py", b"") for i in range(MAX_FILES)]
    with pytest.raises(BundleRefused) as caught:
        Bundle.from_zip(archive(*extra))
    assert caught.value.reason is BundleFault.TOO_MANY_FILES


def test_a_bundle_without_manifest_is_refused():
    with pytest.raises(BundleRefused) as caught:
        Bundle.from_zip(archive(files={"train.py": b""}))
    assert caught.value.reason is BundleFault.MANIFEST_MISSING


def test_a_directory_gives_its_sources_only(tmp_path):
    for name, data in GOOD.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"x")
    assert Bundle.from_directory(tmp_path).files == GOOD
