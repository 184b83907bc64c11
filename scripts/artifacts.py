"""Compile the contracts and write `settlement/artifacts/`: what the SDK ships and deploys.

`python scripts/artifacts.py` writes; with `--check` it compares instead, and fails on a difference.
"""

import argparse
import json
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from vyper.compiler import compile_from_file_input
from vyper.compiler.input_bundle import FilesystemInputBundle

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS = ROOT / "settlement" / "artifacts"


def sources() -> list[Path]:
    """The deployable contracts: CamelCase files, not modules or interfaces."""
    return sorted([*(ROOT / "contracts").glob("*.vy"), *(ROOT / "contracts/testing").glob("*.vy")])


def compile_contract(path: Path) -> dict[str, Any]:
    """ABI, creation bytecode and compiler of one contract."""
    site_packages = Path(str(distribution("snekmate").locate_file("")))
    bundle = FilesystemInputBundle([ROOT, site_packages])
    with bundle.search_path(ROOT):
        source = bundle.load_file(path.relative_to(ROOT))
    output = compile_from_file_input(
        source, input_bundle=bundle, output_formats=["abi", "bytecode"]
    )
    return {
        "contract": path.stem,
        "compiler": f"vyper {version('vyper')}",
        "testing_only": path.parent.name == "testing",
        "abi": output["abi"],
        "bytecode": output["bytecode"],
    }


def main() -> int:
    """Write or check every artifact; the exit code is the number of differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for path in sources():
        text = json.dumps(compile_contract(path), indent=1) + "\n"
        target = ARTIFACTS / f"{path.stem}.json"
        if check:
            if not target.exists() or target.read_text() != text:
                stale.append(target.name)
        else:
            target.write_text(text)
    for name in stale:
        print(f"{name} differs from its source: run `make artifacts`", file=sys.stderr)
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
