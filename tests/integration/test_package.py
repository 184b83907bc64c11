"""The package as people get it: the same bytes wherever it is built, whole, and it installs."""

import json
import os
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from unit.commands.test_verify import bundle_of

from oracle.clients.edge.signer import measurement
from scripts.package import UV, package
from settlement.types import to_hex

EPOCH = 1_800_000_000
SHARED = {"docs/operations/": "operations/", "docs/hospital/": "hospital/"}

pytestmark = [
    pytest.mark.skipif(not UV.exists(), reason="uv, which `make setup` installs"),
    pytest.mark.xdist_group("package"),
]


def tracked(*folders: str) -> list[str]:
    """The files that a commit of the working tree would have."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *folders],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return [name for name in names.decode().split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    """A release built twice: in another place, by another umask, with other times of files."""
    releases = []
    for place, mask in (("here", 0o022), ("some/where else", 0o077)):
        folder = tmp_path_factory.mktemp("build")
        tree = folder / place
        before = os.umask(mask)
        try:
            for name in tracked():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, tree / name)
            releases.append(package(tree, folder / "dist", EPOCH))
        finally:
            os.umask(before)
    return releases[0], releases[1]


def test_two_builds_are_the_same_bytes(built: tuple[list[Path], list[Path]]) -> None:
    one, other = built
    assert [path.name for path in one] == [path.name for path in other]
    for left, right in zip(one, other, strict=True):
        assert left.read_bytes() == right.read_bytes(), left.name
    assert len(one) == 4
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", one[-1].name],
        cwd=one[-1].parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout.count(": OK") == 3


def test_every_file_of_the_packages_is_in_the_wheel_and_nothing_else(
    built: tuple[list[Path], list[Path]],
) -> None:
    sdist, wheel, _, _ = built[0]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    code = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    wheels = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    left_out = tuple(f"{folder}/" for folder in wheels["targets"]["wheel"]["exclude"])
    ours = {name for name in tracked("settlement", "oracle") if not name.startswith(left_out)}
    assert code == ours
    shared = {name.split("/share/rapha-settlement/")[1] for name in names if "/share/" in name}
    assert shared == {"vectors.json"} | {
        here + name.removeprefix(there) for there, here in SHARED.items() for name in tracked(there)
    }
    with tarfile.open(sdist) as archive_of_sources:
        inside = {name.partition("/")[2] for name in archive_of_sources.getnames()}
    assert set(tracked()) <= inside | {".gitignore"}


def test_bill_of_materials_is_the_locks(built: tuple[list[Path], list[Path]]) -> None:
    _, _, sbom, _ = built[0]
    document = json.loads(sbom.read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    parts = {part["name"]: part for part in document["components"]}
    # of the base, of each extra, and of no tool of ours
    assert {"web3", "fastapi", "regopy", "pyarrow", "vyper", "matplotlib"} <= parts.keys()
    assert not {"titanoboa", "ruff", "mkdocs-material"} & parts.keys()
    for part in parts.values():
        assert part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}"
        files = [at for at in part["externalReferences"] if at["type"] == "distribution"]
        assert files, part["name"]
        assert all(at["hashes"][0]["alg"] == "SHA-256" for at in files)


class Installed:
    """An environment of its own with the wheel in it, and only what it asked for."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, self.wheel = folder, wheel
        self._uv("venv", "--quiet", folder / "venv")

    def add(self, *extras: str) -> None:
        """Install as the lock has it, hashes checked; from the cache where that has it all."""
        chosen = [word for extra in extras for word in ("--extra", extra)]
        lock = self._uv(
            *("export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", *chosen)
        )
        requirements = self.folder / "requirements.txt"
        requirements.write_text(lock)
        install = ("pip", "install", "--quiet", "--python", self.folder / "venv")
        self._uv(*install, "--require-hashes", "--requirement", requirements)
        self._uv(*install, "--no-deps", self.wheel)

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A program of the environment, in an empty folder, knowing nothing of this one."""
        program = self.folder / "venv" / "bin" / str(words[0])
        return subprocess.run(
            [str(program), *map(str, words[1:])],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "COLUMNS": "100", "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def _uv(self, *words: str | Path) -> str:
        environment = {"UV_CACHE_DIR": str(ROOT / ".cache" / "uv"), **os.environ}
        environment.pop("VIRTUAL_ENV", None)
        command = [str(UV), *map(str, words)]
        for offline in ({"UV_OFFLINE": "1"}, {}):
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**environment, "UV_PYTHON_DOWNLOADS": "never", **offline},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return done.stdout
        raise AssertionError(f"{command}: {done.stderr}")


def test_wheel_installs_into_an_empty_environment_and_works(
    built: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    installed = Installed(tmp_path, built[0][1])
    installed.add()
    assert "Rapha settlement" in installed.run("rapha", "--help").stdout
    bundle = tmp_path / "receipts.json"
    bundle.write_text(bundle_of().model_copy(update={"output": None}).model_dump_json())
    verified = installed.run("rapha", "verify", bundle, "--json")
    assert verified.returncode == 0, verified.stderr
    assert all(check["holds"] for check in json.loads(verified.stdout)["checks"])
    # the base brings the SDK and `rapha`; the services say what they lack
    for program, extra in (
        ("rapha-oracle", "oracle"),
        ("rapha-hub", "hub"),
        ("rapha-edge", "edge"),
    ):
        refused = installed.run(program, "--help")
        assert refused.returncode == 2, program
        assert json.loads(refused.stderr)["next"] == f"pip install 'rapha-settlement[{extra}]'"
    untold = installed.run(
        *("rapha", "reconcile", "--rpc", "http://127.0.0.1:1", "--deployment", "none.json"),
        *("--database", "sqlite:///none.db"),
    )
    assert json.loads(untold.stderr)["code"] == "ExtraMissing"


@pytest.mark.long("installs some 100 packages")
def test_services_install_with_their_extras_and_find_their_files(
    built: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    installed = Installed(tmp_path, built[0][1])
    installed.add("oracle", "hub", "edge")
    assert "One operator's oracle" in installed.run("rapha-oracle", "--help").stdout
    assert "The Rapha hub" in installed.run("rapha-hub", "--help").stdout
    assert installed.run("rapha-edge", "measurement").stdout.strip() == to_hex(measurement())
    example = tmp_path / "training.json"
    example.write_text(installed.run("rapha", "policy", "example", "training").stdout)
    assert installed.run("rapha", "policy", "check", example).stdout.startswith("allowed")
    code = "from oracle.store.database import Store; Store('sqlite:///o.db').migrate()"
    assert installed.run("python", "-c", code).returncode == 0
    code = "from oracle.clients.hub.database import open_database; open_database('sqlite:///h.db')"
    assert installed.run("python", "-c", code).returncode == 0
