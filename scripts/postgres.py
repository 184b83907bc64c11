"""Real PostgreSQL for tests and figures: a server of one's own in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from oracle.store.database import Store

PACKAGES = "postgresql"
INSTALL = f"this needs PostgreSQL's server: apt-get install -y {PACKAGES}"
USER = "postgres"
"""Whom the server runs as where we run as root: it refuses to be root's."""


class PostgresMissing(RuntimeError):
    """The server is not installed."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"{missing} is missing; {INSTALL}")


@dataclass
class Cluster:
    """A running server. It listens on a socket in its folder only."""

    folder: Path
    _binaries: Path
    _numbers: Iterator[int] = field(default_factory=count)
    _template: str | None = None

    def create(self, template: str = "template1") -> str:
        """A new database, empty or a copy of another: its URL."""
        name = f"oracle_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def create_migrated(self) -> str:
        """A new database with the present schema: its URL."""
        if self._template is None:
            url = self.create()
            store = Store(url)
            store.migrate()
            store.close()
            self._template = url
        return self.create(make_url(self._template).database or "")

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://rapha@/{database}?host={self.folder}"

    def run(self, statement: str, database: str = "postgres") -> None:
        """One statement outside of any transaction."""
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def control(self, *arguments: str) -> None:
        """`pg_ctl` on this cluster, until done."""
        data = str(self.folder / "data")
        _run([str(self._binaries / "pg_ctl"), "-D", data, "-w", *arguments], self.folder)

    def start(self) -> None:
        """Start the server."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder}"
        self.control("-l", str(self.folder / "log"), "-o", options, "start")


def binaries() -> Path:
    """The folder of the server's programs; Debian keeps them off the path.

    Raises:
        PostgresMissing: when there is none.
    """
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parent.parent.name),
    )
    if not found:
        raise PostgresMissing("initdb")
    return found[-1].parent


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server of one's own.

    Raises:
        PostgresMissing: when it is not installed.
    """
    programs = binaries()
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        initdb = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", "rapha"]
        _run([*initdb, "-A", "trust", "-E", "UTF8", "--no-sync"], folder)
        running = Cluster(folder, programs)
        running.start()
        try:
            yield running
        finally:
            running.control("-m", "immediate", "stop")


def _run(command: list[str], folder: Path) -> None:
    as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_user, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]}: {done.stdout}"
