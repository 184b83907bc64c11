"""The console entry point of `rapha-oracle`, `rapha-hub` and `rapha-edge`.

What each of them is stands in the entry point group `rapha.programs`, with the extra that brings
what it imports: a program whose extra is not installed says so.
"""

import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from oracle.commands.failures import missing

GROUP = "rapha.programs"


def load(found: EntryPoint, name: str) -> Any:
    """What an entry point names. Ends the process where its extra is not installed."""
    try:
        return found.load()
    except ModuleNotFoundError as error:
        missing(name, error, *found.extras)


def main() -> None:
    """Run the program whose name the process was started by."""
    name = Path(sys.argv[0]).name
    (found,) = entry_points(group=GROUP, name=name)
    load(found, name)()
