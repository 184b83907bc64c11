"""The sandbox's command line: what of this machine a bundle's process sees, and nothing else.

Python, its packages and the system's shared libraries, all read-only; a scratch directory in
memory; four harmless devices, and those of GPUs where they are granted; a /proc of its own
processes. No shell and no tool is there, and data is never mounted.
"""

import hashlib
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from oracle.clients.edge import trainee
from oracle.clients.edge.sandbox import gpu
from settlement.digests import canonical_json

PROGRAM = "bwrap"
PROC = Path("/proc")
CODE = "/job/trainee.py"
BUNDLE = "/job/bundle"
SCRATCH = "/scratch"
HOSTNAME = "sandbox"
NOBODY = 65534

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
WRITABLE = (SCRATCH, "/proc")
"""Mount points that are not read-only, beside the devices."""
MACHINE = ("cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "uptime", "version")
"""What of /proc beside its own processes a job sees; frameworks choose their code by it.

All else there is covered: as root started it, a sandbox without a capability still owns the files
of root below /proc, the kernel's settings in /proc/sys among them.
"""

_GPU_MACHINE = ("devices",)
"""And what CUDA reads besides: the numbers of the kernel's devices."""

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


class Plan(NamedTuple):
    """How to start: the arguments before the descriptors and the command, and each mount point."""

    arguments: tuple[str, ...]
    command: tuple[str, ...]
    mounts: frozenset[str]
    bundle: str
    devices: tuple[str, ...] = DEVICES
    """The mount points that are devices."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of arguments and command as canonical JSON, the same for every job of a node."""
        arguments = [BUNDLE if word == self.bundle else word for word in self.arguments]
        return hashlib.sha256(
            canonical_json({"arguments": arguments, "command": self.command})
        ).digest()


def plan(
    bundle: Path,
    scratch_bytes: int,
    environment: dict[str, str],
    gpus: gpu.Gpus = gpu.NONE,
    proc: Path = PROC,
) -> Plan:
    """The sandbox for a bundle laid out in the directory `bundle`, with these GPUs in it.

    `proc` is this machine's /proc, whose entries are covered.
    """
    binds = {source: source for source in _python()} | {
        str(Path(trainee.__file__)): CODE,
        str(bundle): BUNDLE,
    }
    driver = (str(gpu.DRIVER),) if gpus.number and (proc / "driver/nvidia").is_dir() else ()
    covers = _covers(proc, (*MACHINE, *_GPU_MACHINE) if gpus.number else MACHINE)
    arguments = [
        *(f"--unshare-{name}" for name in ("user", "ipc", "pid", "net", "uts", "cgroup")),
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        *("--uid", str(NOBODY), "--gid", str(NOBODY)),
        *("--hostname", HOSTNAME),
        *("--cap-drop", "ALL"),
        "--clearenv",
    ]
    for name, value in sorted(environment.items()):
        arguments += ["--setenv", name, value]
    for source, target in sorted(binds.items()):
        arguments += ["--ro-bind", source, target]
    for target, link in _links():
        arguments += ["--symlink", link, target]
    arguments += ["--size", "65536", "--perms", "0755", "--tmpfs", "/dev"]
    for device in DEVICES:
        arguments += ["--dev-bind", device, device]
    for source, target in zip((source for source, _ in gpus.devices), gpus.targets, strict=True):
        arguments += ["--dev-bind", source, target]
    arguments += [
        *("--symlink", "/proc/self/fd", "/dev/fd"),
        *("--remount-ro", "/dev"),
        *("--proc", "/proc"),
        *(word for target, cover in covers for word in _cover(target, cover, driver)),
        *("--size", str(scratch_bytes), "--perms", "0700", "--tmpfs", SCRATCH),
        *("--remount-ro", "/"),
        *("--chdir", SCRATCH),
    ]
    devices = (*DEVICES, *gpus.targets)
    within = {"/", "/dev", "/proc", SCRATCH, *devices, *driver, *(t for t, _ in covers)}
    mounts = within.union(binds.values())
    # -I: neither the environment nor the working directory can add code.
    command = (sys.executable, "-I", CODE)
    return Plan(tuple(arguments), command, frozenset(mounts), str(bundle), devices)


def _covers(proc: Path, shown: Sequence[str]) -> list[tuple[str, str]]:
    """What of /proc is hidden, each with ``tmpfs`` or ``null``; this kernel's /proc is `proc`."""
    covers = []
    for entry in sorted(proc.iterdir()):
        if entry.name.isdigit() or entry.is_symlink() or entry.name in shown:
            continue
        covers.append((f"/proc/{entry.name}", "tmpfs" if entry.is_dir() else "null"))
    return covers


def _cover(target: str, kind: str, shown: Sequence[str]) -> tuple[str, ...]:
    """What hides an entry of /proc, but for the folders directly below it that are `shown`."""
    if kind == "null":
        return ("--ro-bind", "/dev/null", target)
    within = [path for path in shown if str(Path(path).parent) == target]
    return (
        *("--size", "4096", "--perms", "0555", "--tmpfs", target),
        *(word for path in within for word in ("--ro-bind", path, path)),
        *("--remount-ro", target),
    )


def _python() -> list[str]:
    """The read-only files and directories that this interpreter and its packages need."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    library = Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("INSTSONAME")
    wanted = {
        Path(sys.executable).resolve(),
        stdlib,
        Path(sysconfig.get_path("platstdlib")),
        Path(sysconfig.get_path("purelib")),
        Path(sysconfig.get_path("platlib")),
        Path(sys.prefix) / "pyvenv.cfg",
        library,
        Path("/etc/ld.so.cache"),
        *_system_libraries(),
    }
    there = {path for path in wanted if path.exists()}
    # A virtual environment's `lib/python3.11` holds its packages and nothing more is wanted of it.
    return sorted(str(path) for path in there if not there & set(path.parents))


def _system_libraries() -> list[Path]:
    """Where shared libraries are: Debian's directory of this architecture, or the plain ones."""
    architecture = sysconfig.get_config_var("MULTIARCH")
    multiarch = Path("/usr/lib") / architecture if architecture else None
    if multiarch is not None and multiarch.is_dir():
        places = [multiarch, Path("/usr/lib64"), Path("/lib64"), Path("/lib") / multiarch.name]
    else:
        places = [Path("/usr/lib"), Path("/usr/lib64"), Path("/lib"), Path("/lib64")]
    # On a merged /usr the latter are links, which `_links` repeats.
    return [place for place in places if place.is_dir() and place.resolve() == place]


def _links() -> list[tuple[str, str]]:
    """Symbolic links, with what they say: of a merged /usr, and of a virtual environment."""
    links = [
        (str(path), str(path.readlink()))
        for path in (Path("/lib"), Path("/lib64"))
        if path.is_symlink()
    ]
    executable = Path(sys.executable)
    if executable.is_symlink():
        links.append((str(executable), str(executable.resolve())))
    return links


def command_line(
    sandbox: Plan, *, info: int, block: int, seccomp: int, program: Sequence[str] = ()
) -> list[str]:
    """The whole argv, with the numbers of the descriptors that it inherits.

    Another `program` than the trainee is for tests of the sandbox itself.
    """
    return [
        PROGRAM,
        *sandbox.arguments,
        *("--seccomp", str(seccomp)),
        *("--info-fd", str(info)),
        *("--block-fd", str(block)),
        "--",
        *(program or sandbox.command),
    ]
