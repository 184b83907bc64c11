"""A control group for one job: memory, processes and processors, in version 1 or 2.

What the host does not let be limited is named with the reason, and left to rlimits, which count per
process. The group is made under the node's own, so that the node's own limits go on binding.
"""

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from oracle.clients.edge.sandbox.limits import ChildLimits

CONTROLLERS = ("memory", "pids", "cpu")
SUPERVISOR = "rapha-supervisor"
_CPU_PERIOD_US = 100_000
_END_SECONDS = 10.0


class Place(NamedTuple):
    """Where a controller's groups are: the node's own group, in a hierarchy of this version."""

    version: int
    own: Path


def places(mountinfo: str, membership: str) -> dict[str, Place]:
    """The node's own group for each controller, from /proc/self/mountinfo and /proc/self/cgroup."""
    paths: dict[str, str] = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path  # version 2 has the empty name
    found: dict[str, Place] = {}
    unified: Place | None = None
    for line in mountinfo.splitlines():
        fields = line.split()
        separator = fields.index("-")
        kind, root, target = fields[separator + 1], fields[3], Path(fields[4])
        if kind == "cgroup2" and "" in paths:
            unified = Place(2, _below(target, root, paths[""]))
        elif kind == "cgroup":
            for name in fields[separator + 3].split(","):
                if name in CONTROLLERS and name in paths:
                    found[name] = Place(1, _below(target, root, paths[name]))
    if unified is not None:
        for name in CONTROLLERS:
            found.setdefault(name, unified)
    return found


def _below(target: Path, root: str, path: str) -> Path:
    """A group's directory: `path` is from the hierarchy's root, of which `root` is mounted."""
    if root != "/" and path.startswith(root):
        path = path[len(root) :]
    return target / path.lstrip("/")


def here() -> dict[str, Place]:
    """The groups of this process."""
    return places(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())


class Cgroup:
    """The groups of one job. `remove` is to be called in the end, whatever happened.

    `missing` says by controller why it is not limited; a group is made for all the others.
    """

    def __init__(self, name: str, limits: ChildLimits, found: Mapping[str, Place]) -> None:
        self.missing: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self._groups: dict[str, Path] = {}
        for controller in CONTROLLERS:
            place = found.get(controller)
            if place is None:
                self.missing[controller] = "this host mounts no such hierarchy"
                continue
            group = place.own / name
            try:
                if place.version == 2:
                    _enable(place.own, controller)
                group.mkdir(exist_ok=True)
                self._groups[controller] = group
                for file, value in _settings(controller, place.version, limits).items():
                    (group / file).write_text(value)
                _swap(group, controller, place.version, limits)
                self.versions[controller] = place.version
            except OSError as error:
                self.missing[controller] = error.strerror or str(error)

    @property
    def directories(self) -> list[Path]:
        """What was made, for whoever removes it after a crash."""
        return sorted(set(self._groups.values()))

    def join(self, pid: int) -> None:
        """Put a process, and all that it starts from now on, under the limits.

        A group that does not take it counts as missing.
        """
        for controller in list(self.versions):
            try:
                (self._groups[controller] / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                del self.versions[controller]
                self.missing[controller] = error.strerror or str(error)

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed a process of the job for its memory limit."""
        if "memory" not in self.versions:
            return False
        file = "memory.oom_control" if self.versions["memory"] == 1 else "memory.events"
        counters = dict(
            line.split() for line in (self._groups["memory"] / file).read_text().splitlines()
        )
        return int(counters.get("oom_kill", "0")) > 0

    def remove(self) -> None:
        """Remove the groups, ending what is still in them."""
        remove(self.directories)


def remove(directories: Iterable[Path]) -> None:
    """Remove groups, of a crashed node too: whatever runs in them is ended first.

    Raises:
        OSError: when one is still busy.
    """
    for directory in directories:
        with contextlib.suppress(FileNotFoundError):
            # Again, for what was forked meanwhile; a group that takes no more is empty at last.
            while pids := (directory / "cgroup.procs").read_text().split():
                for pid in pids:
                    _end(int(pid))
            directory.rmdir()


def _end(pid: int) -> None:
    """Kill a process that need not be a child, and wait until it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not select.select([descriptor], [], [], _END_SECONDS)[0]:
            raise OSError(errno.EBUSY, f"process {pid} does not end")
    finally:
        os.close(descriptor)


def _settings(controller: str, version: int, limits: ChildLimits) -> dict[str, str]:
    quota = str(round(limits.cpus * _CPU_PERIOD_US))
    return {
        ("memory", 1): {"memory.limit_in_bytes": str(limits.memory_bytes)},
        ("memory", 2): {"memory.max": str(limits.memory_bytes), "memory.oom.group": "1"},
        ("pids", 1): {"pids.max": str(limits.processes)},
        ("pids", 2): {"pids.max": str(limits.processes)},
        ("cpu", 1): {"cpu.cfs_period_us": str(_CPU_PERIOD_US), "cpu.cfs_quota_us": quota},
        ("cpu", 2): {"cpu.max": f"{quota} {_CPU_PERIOD_US}"},
    }[controller, version]


def _swap(group: Path, controller: str, version: int, limits: ChildLimits) -> None:
    """Keep the job out of swap, where the kernel accounts for it."""
    if controller != "memory":
        return
    file, value = (
        ("memory.memsw.limit_in_bytes", str(limits.memory_bytes))
        if version == 1
        else ("memory.swap.max", "0")
    )
    if (group / file).exists():
        (group / file).write_text(value)


def _enable(own: Path, controller: str) -> None:
    """Have a version 2 controller in the groups below the node's own.

    Such a group may hold no process itself, so the node moves to one beside the job's. That is
    refused where other processes share its group, or where the group was not delegated to it.
    """
    control = own / "cgroup.subtree_control"
    if controller in control.read_text().split():
        return
    if controller not in (own / "cgroup.controllers").read_text().split():
        raise OSError(0, "the controller is not delegated to the node's group")
    supervisor = own / SUPERVISOR
    supervisor.mkdir(exist_ok=True)
    (supervisor / "cgroup.procs").write_text(str(os.getpid()))
    control.write_text(f"+{controller}")
