"""Real sandboxes: code of an attacker's choice, run where a bundle would run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyseccomp
import pytest

from oracle.clients.edge.sandbox.launch import Isolation, Sandbox
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.sandbox.wan import WanGuard

PRELUDE = """
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)

def attempt(call, *arguments):
    "The errno by which the kernel refuses a call, or 'done'."
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def syscall(number, *arguments):
    "The same of a bare system call."
    libc.syscall.restype = ctypes.c_long
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if libc.syscall(ctypes.c_long(number), *values) == -1:
        return errno.errorcode[ctypes.get_errno()]
    return "done"

def tell(value):
    print(json.dumps(value), flush=True)
"""


class Ended(NamedTuple):
    """How a sandboxed program ended, and what it said."""

    status: int
    said: str
    complained: str

    @property
    def told(self) -> Any:
        """What it told in JSON."""
        assert self.said, self.complained
        return json.loads(self.said)


@pytest.fixture
def attack(tmp_path: Path) -> Callable[..., Ended]:
    """Run Python code in the sandbox; `filtered=False` leaves the system call filter out."""

    def attack(code: str, *, filtered: bool = True, **limits: Any) -> Ended:
        (tmp_path / "bundle").mkdir(exist_ok=True)
        sandbox = Sandbox(
            tmp_path,
            ChildLimits(**limits),
            program=(sys.executable, "-I", "-c", PRELUDE + code),
            filtered=filtered,
        )
        try:
            out, err = sandbox.process.communicate(timeout=120)
            return Ended(sandbox.ending(sandbox.process.returncode), out.decode(), err.decode())
        finally:
            sandbox.kill()
            sandbox.close()

    return attack


@pytest.fixture
def number() -> Callable[[str], int]:
    """The number of a system call on this machine."""
    return lambda name: pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)


@pytest.fixture
def required() -> Isolation:
    """What a node in a hospital has, but for the guard of its network."""
    return Isolation("required", WanGuard("off", ()))


def in_pid_namespace(inode: int) -> list[int]:
    """The host's processes that live in this process namespace."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.stat(path / "ns/pid").st_ino == inode:
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


@pytest.fixture
def living() -> Callable[[int], list[int]]:
    """See `in_pid_namespace`."""
    return in_pid_namespace


@pytest.fixture
def python() -> Callable[[str], "subprocess.Popen[bytes]"]:
    """Start a node of its own: Python code with this project on its path."""

    def start(code: str, *before: str) -> "subprocess.Popen[bytes]":
        path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        return subprocess.Popen(
            [*before, sys.executable, "-c", path + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    return start
