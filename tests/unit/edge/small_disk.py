"""Runs code on a real file system that is full soon: a tmpfs in a namespace of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

_BEFORE = """
import subprocess, sys
from pathlib import Path
sys.path[:0] = {paths!r}
disk = Path({disk!r})

def grow():
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
"""


def on_a_small_disk(disk: Path, code: str, *, kilobytes: int) -> None:
    """Run `code` with `disk` of so many kilobytes, and `grow()` that makes room.

    Needs user namespaces, as the sandbox does.
    """
    script = _BEFORE.format(paths=[str(ROOT), str(ROOT / "tests")], disk=str(disk)) + code
    mount = 'mount -t tmpfs -o size="$1"k tmpfs "$2" && exec "$3" -c "$4"'
    arguments = [str(kilobytes), str(disk), sys.executable, script]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
