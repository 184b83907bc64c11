"""What the parent sees of a sandbox from outside, through /proc, before any of the job is in it.

Reading and judging are apart: `observe` reads, `faults` says what is not as it has to be.
"""

import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from oracle.clients.edge.sandbox import bubblewrap
from settlement.types import Frozen

PROC = Path("/proc")
PIPE, NULL = "pipe", "/dev/null"
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_FILTER = 2
"""Seccomp's mode in which a program judges each call."""
_RLIMIT_NAMES = {
    resource.RLIMIT_CPU: "Max cpu time",
    resource.RLIMIT_AS: "Max address space",
    resource.RLIMIT_NOFILE: "Max open files",
    resource.RLIMIT_FSIZE: "Max file size",
    resource.RLIMIT_CORE: "Max core file size",
    resource.RLIMIT_NPROC: "Max processes",
    resource.RLIMIT_MEMLOCK: "Max locked memory",
    resource.RLIMIT_MSGQUEUE: "Max msgqueue size",
}


class Mount(NamedTuple):
    """A mount point of the sandbox, and what may be done there."""

    target: str
    file_system: str
    read_only: bool
    no_suid: bool
    no_devices: bool


class Observed(Frozen):
    """One process, as its /proc says."""

    namespaces: dict[str, int]
    interfaces: tuple[str, ...]
    routes: tuple[str, ...]
    mounts: tuple[Mount, ...]
    capabilities: dict[str, int]
    no_new_privileges: bool
    seccomp_mode: int
    user_map: str
    group_map: str
    descriptors: tuple[str, ...]
    limits: dict[str, tuple[int | None, int | None]]


def namespaces(pid: int | str, proc: Path = PROC) -> dict[str, int]:
    """The inode that identifies each of a process's namespaces.

    Raises:
        OSError: when it is gone, or may not be looked at.
    """
    folder = proc / str(pid) / "ns"
    return {name: os.stat(folder / name).st_ino for name in bubblewrap.NAMESPACES}


def observe(pid: int, proc: Path = PROC) -> Observed:
    """Everything that is judged.

    Raises:
        OSError: when the process is gone, or may not be looked at.
    """
    folder = proc / str(pid)
    status = _status((folder / "status").read_text())
    return Observed(
        namespaces=namespaces(pid, proc),
        interfaces=_interfaces((folder / "net/dev").read_text()),
        routes=_routes(folder),
        mounts=_mounts((folder / "mountinfo").read_text()),
        capabilities={name: int(status[name], 16) for name in _CAPABILITIES},
        no_new_privileges=status["NoNewPrivs"] == "1",
        seccomp_mode=int(status["Seccomp"]),
        user_map=_words((folder / "uid_map").read_text()),
        group_map=_words((folder / "gid_map").read_text()),
        descriptors=_descriptors(folder / "fd"),
        limits=_limits((folder / "limits").read_text()),
    )


def is_set_up(pid: int, proc: Path = PROC) -> bool:
    """Whether bubblewrap is done with a sandbox that it holds blocked.

    Its init needs its capabilities to set it up, and drops them last.

    Raises:
        OSError: when it is gone.
    """
    status = _status((proc / str(pid) / "status").read_text())
    return all(int(status[name], 16) == 0 for name in _CAPABILITIES)


def peak_memory(pid: int, proc: Path = PROC) -> int:
    """The most bytes that a process had in memory so far; 0 when it has ended.

    Raises:
        OSError: when it is gone.
    """
    status = _status((proc / str(pid) / "status").read_text())
    return int(status.get("VmHWM", "0 kB").removesuffix("kB")) * 1024


def isolation_faults(
    seen: Observed,
    outside: dict[str, int],
    mounts: Iterable[str],
    devices: Iterable[str] = bubblewrap.DEVICES,
) -> list[str]:
    """What is wrong before the sandbox is released: its namespaces, network and file system.

    `outside` are the parent's own namespaces, `mounts` the mount points that there may be, and
    `devices` those of them that are devices.
    """
    devices = set(devices)
    found = [
        f"it shares the {name} namespace"
        for name, inode in seen.namespaces.items()
        if inode == outside[name]
    ]
    if others := set(seen.interfaces) - {"lo"}:
        found.append(f"it has the network interfaces {sorted(others)}")
    if seen.routes:
        found.append(f"it has routes by {sorted(set(seen.routes))}")
    if any(seen.capabilities.values()):
        found.append("it has capabilities")
    if not seen.no_new_privileges:
        found.append("it can gain privileges")
    expected = set(mounts)
    for mount in seen.mounts:
        if mount.target not in expected:
            found.append(f"{mount.target} is mounted")
        if not mount.read_only and mount.target not in {*bubblewrap.WRITABLE, *devices}:
            found.append(f"{mount.target} is writable")
        if not mount.no_devices and mount.target not in devices:
            found.append(f"{mount.target} may hold devices")
        if not mount.no_suid:
            found.append(f"{mount.target} may hold set-user-id programs")
    if missing := expected - {mount.target for mount in seen.mounts}:
        found.append(f"{sorted(missing)} is not mounted")
    return found


def confinement_faults(seen: Observed, limits: dict[int, tuple[int, int]]) -> list[str]:
    """What is wrong once the trainee runs, before it is told the job."""
    found = []
    if seen.seccomp_mode != _FILTER:
        found.append(f"its system calls are not filtered (mode {seen.seccomp_mode})")
    if others := set(seen.descriptors) - {PIPE, NULL}:
        found.append(f"it holds {sorted(others)}")
    # stdin is replaced and the protocol's two pipes moved up, beside stdout and stderr
    if seen.descriptors.count(PIPE) != 4:
        found.append(f"it holds {seen.descriptors.count(PIPE)} pipes")
    for number, wanted in limits.items():
        name = _RLIMIT_NAMES[number]
        if seen.limits[name] != wanted:
            found.append(f'its limit "{name}" is {seen.limits[name]}')
    return found


def names(limits: Iterable[int]) -> list[str]:
    """How the kernel calls these limits."""
    return [_RLIMIT_NAMES[number] for number in limits]


def _status(text: str) -> dict[str, str]:
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def _words(text: str) -> str:
    return " ".join(text.split())


def _interfaces(text: str) -> tuple[str, ...]:
    return tuple(line.partition(":")[0].strip() for line in text.splitlines()[2:])


def _routes(folder: Path) -> tuple[str, ...]:
    """The interface of each route that does not go by lo."""
    fourth = (folder / "net/route").read_text().splitlines()[1:]
    by = [line.split()[0] for line in fourth if line.strip()]
    sixth = folder / "net/ipv6_route"
    if sixth.exists():  # not on a machine without IPv6
        by += [line.split()[-1] for line in sixth.read_text().splitlines() if line.strip()]
    return tuple(interface for interface in by if interface != "lo")


def _mounts(text: str) -> tuple[Mount, ...]:
    mounts = []
    for line in text.splitlines():
        fields = line.split()
        options = set(fields[5].split(","))
        mounts.append(
            Mount(
                target=_unescape(fields[4]),
                file_system=fields[fields.index("-") + 1],
                read_only="ro" in options,
                no_suid="nosuid" in options,
                no_devices="nodev" in options,
            )
        )
    return tuple(mounts)


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _descriptors(folder: Path) -> tuple[str, ...]:
    """What each descriptor is: ``pipe``, a path, or another kind as the kernel names it."""
    links = sorted(folder.iterdir(), key=lambda path: int(path.name))
    return tuple(str(link.readlink()).partition(":")[0] for link in links)


def _limits(text: str) -> dict[str, tuple[int | None, int | None]]:
    found: dict[str, tuple[int | None, int | None]] = {}
    for line in text.splitlines()[1:]:
        name, values = line[:26].strip(), line[26:].split()
        soft, hard = (None if value == "unlimited" else int(value) for value in values[:2])
        found[name] = soft, hard
    return found
