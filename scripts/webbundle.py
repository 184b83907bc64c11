"""Bundle the console's TypeScript into `oracle/clients/hub/console/static/console.js`.

The bundle is committed, so that installing the hub takes no Node. `python -m scripts.webbundle`
writes it; with `--check` it type-checks, and compares instead.
"""

import argparse
import subprocess
import sys

from scripts.chain import ROOT

CONSOLE = ROOT / "oracle" / "clients" / "hub" / "console"
BUNDLE = CONSOLE / "static" / "console.js"
BINARIES = ROOT / "node_modules" / ".bin"


def build() -> bytes:
    """The bundle; the same sources and packages give the same bytes."""
    options = ("--bundle", "--minify", "--format=iife", "--target=es2022", "--charset=utf8")
    command = [str(BINARIES / "esbuild"), str(CONSOLE / "web" / "main.ts"), *options]
    command += ["--legal-comments=eof", "--log-level=warning"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def main() -> int:
    """Write or check; the exit code is 1 for a bundle that is not its sources'."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        BUNDLE.write_bytes(build())
        return 0
    subprocess.run([str(BINARIES / "tsc"), "-p", str(CONSOLE / "web")], cwd=ROOT, check=True)
    if not BUNDLE.exists() or BUNDLE.read_bytes() != build():
        print(f"{BUNDLE.name} differs from its sources: run `make artifacts`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
