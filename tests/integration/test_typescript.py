"""The second implementation of the digests, in TypeScript, finds what Python wrote."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.chain import ROOT
from scripts.vectors import VECTORS


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TypeScript, type-checked and compiled, where node finds what it imports."""
    output = tmp_path_factory.mktemp("typescript")
    subprocess.run(
        ["node_modules/.bin/tsc", "-p", "settlement/typescript", "--outDir", str(output)],
        cwd=ROOT,
        check=True,
    )
    (output / "node_modules").symlink_to(ROOT / "node_modules")
    return output


def run(compiled: Path, vectors: Path) -> tuple[set[str], set[str]]:
    """Which parts of a file of vectors were found again, and which were not."""
    done = subprocess.run(
        ["node", "--test", "--test-reporter", "tap", str(compiled / "digests.test.js")],
        env={**os.environ, "RAPHA_VECTORS": str(vectors)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = set(re.findall(r"^ok \d+ - (\w+)$", done.stdout, re.M))
    missed = set(re.findall(r"^not ok \d+ - (\w+)$", done.stdout, re.M))
    assert (done.returncode == 0) == (not missed), done.stdout
    return found, missed


def test_typescript_finds_every_vector_again(compiled: Path) -> None:
    parts = set(json.loads(VECTORS.read_text()))
    assert run(compiled, VECTORS) == (parts, set())


def test_typescript_misses_no_changed_vector(compiled: Path, tmp_path: Path) -> None:
    vectors = json.loads(VECTORS.read_text())
    changed = tmp_path / "vectors.json"
    changed.write_text(json.dumps({part: _changed(value) for part, value in vectors.items()}))
    assert run(compiled, changed) == (set(), set(vectors))


def _changed(value: Any) -> Any:
    """The same with one digit of its last text another one."""
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    if isinstance(value, dict):
        # proofs are the last of the metering; the paths in them are of digests
        name = next(n for n in reversed(value) if value[n] not in (None, [], {}))
        return {**value, name: _changed(value[name])}
    return [*value[:-1], _changed(value[-1])]
