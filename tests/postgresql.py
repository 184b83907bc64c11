"""A PostgreSQL server of a test's own, on a socket in a folder of its own; no port is opened."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PLACES = (None, *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True))


def program(name: str) -> str | None:
    """One of PostgreSQL's programs, None where it is not installed."""
    found = (shutil.which(name, path=place) for place in _PLACES)
    return next((path for path in found if path), None)


@contextmanager
def postgresql() -> Iterator[str]:
    """A fresh server until the block ends; yields SQLAlchemy's URL of its one database."""
    initdb, control = program("initdb"), program("pg_ctl")
    assert initdb is not None
    assert control is not None
    with tempfile.TemporaryDirectory(prefix="pg") as home:
        # the server refuses to run as root
        as_other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if as_other:
            shutil.chown(home, "postgres")
        data = f"{home}/data"

        def run(*command: str) -> None:
            subprocess.run([*as_other, *command], check=True, cwd=home, stdout=subprocess.DEVNULL)

        run(initdb, "-D", data, "-U", "oracle", "--auth=trust", "--no-sync", "-E", "UTF8")
        options = f"-k {home} -c listen_addresses='' -c fsync=off"
        run(control, "-D", data, "-w", "-l", f"{home}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://oracle@/postgres?host={home}"
        finally:
            run(control, "-D", data, "-w", "-m", "immediate", "stop")
