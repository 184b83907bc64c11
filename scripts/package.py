"""Build a release into `dist/`: wheel, sdist, SBOM and their SHA-256 sums.

What is built is the commit, not the working tree, so that everybody who builds the tag gets the
same bytes: each file is dated by the commit (SOURCE_DATE_EPOCH), the build backend is pinned, and
the artifacts in the package are compared with what the pinned compiler makes of the contracts.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".tools" / "bin" / "uv"
SBOM = "rapha_settlement-{version}.cdx.json"


def uv(tree: Path, *arguments: str | Path, epoch: int | None = None) -> str:
    """Run the pinned uv in a tree and return what it printed.

    Raises:
        SystemExit: with uv's own words when it fails.
    """
    environment = dict(os.environ)
    environment.pop("VIRTUAL_ENV", None)
    environment.setdefault("UV_CACHE_DIR", str(ROOT / ".cache" / "uv"))
    environment.setdefault("UV_PYTHON_DOWNLOADS", "never")
    environment.setdefault("UV_PYTHON", sys.executable)
    if epoch is not None:
        environment["SOURCE_DATE_EPOCH"] = str(epoch)
    command = [str(UV), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def build(tree: Path, target: Path, epoch: int) -> list[Path]:
    """Build the sdist, and the wheel from it, dated `epoch` (Unix seconds)."""
    uv(tree, "build", "--quiet", "--out-dir", target, tree, epoch=epoch)
    return sorted([*target.glob("*.tar.gz"), *target.glob("*.whl")])


def bill_of_materials(tree: Path, wheel: Path, epoch: int) -> dict[str, Any]:
    """CycloneDX 1.5: what the wheel and all its extras stand on, by the lock, with hashes.

    uv's own document with what differs from run to run replaced: the date is `epoch`, the serial
    number a UUID of the wheel's digest.
    """
    text = uv(
        tree,
        *("export", "--quiet", "--preview-features", "sbom-export", "--format", "cyclonedx1.5"),
        *("--frozen", "--no-dev", "--all-extras"),
    )
    document: dict[str, Any] = json.loads(text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'sha256:{digest}')}"
    document["metadata"]["timestamp"] = datetime.fromtimestamp(epoch, UTC).isoformat()
    document["metadata"]["component"] |= {
        "purl": f"pkg:pypi/rapha-settlement@{document['metadata']['component']['version']}",
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": [{"expression": "Apache-2.0 AND AGPL-3.0-only"}],
    }
    return document


def package(tree: Path, target: Path, epoch: int) -> list[Path]:
    """Everything of a release, from a tree that holds nothing else; returns the files."""
    target.mkdir(parents=True, exist_ok=True)
    sdist, wheel = sorted(build(tree, target, epoch), key=lambda path: path.suffix == ".whl")
    document = bill_of_materials(tree, wheel, epoch)
    sbom = target / SBOM.format(version=document["metadata"]["component"]["version"])
    sbom.write_text(json.dumps(document, indent=1) + "\n")
    files = [sdist, wheel, sbom]
    sums = target / "SHA256SUMS"
    sums.write_text(
        "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files)
    )
    return [*files, sums]


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def main() -> int:
    """Build what is committed; returns 1 when an artifact is not its contract's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", default="HEAD", help="A tag or commit; HEAD otherwise.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    given = parser.parse_args()
    epoch = int(_git("show", "--no-patch", "--format=%ct", f"{given.commit}^{{commit}}"))
    if given.commit == "HEAD" and _git("status", "--porcelain"):
        print("there are uncommitted changes: they are not in the package", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        archive = _git("archive", given.commit)
        subprocess.run(["tar", "--extract", "--directory", folder], input=archive, check=True)
        check = [sys.executable, "-m", "scripts.artifacts", "--check"]
        if subprocess.run(check, cwd=tree, check=False).returncode:
            return 1
        shutil.rmtree(given.output, ignore_errors=True)
        for path in package(tree, given.output, epoch):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
