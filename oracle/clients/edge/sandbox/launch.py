"""Starts the process of a bundle: in the sandbox, or on a development machine without one.

A sandbox is looked at twice before it is trusted: by its namespaces, network and mounts while
bubblewrap holds it blocked, and by its system call filter, capabilities, limits and descriptors
once the trainee waits for the job. What was seen is the evidence.
"""

import contextlib
import json
import os
import platform
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, Protocol, cast

import structlog

from oracle.clients.edge import trainee
from oracle.clients.edge.sandbox import bubblewrap, cgroup, gpu, inspect, seccomp
from oracle.clients.edge.sandbox.errors import SandboxUnavailable, SandboxUnsound
from oracle.clients.edge.sandbox.limits import ChildLimits, rlimits, sandbox_rlimits
from oracle.clients.edge.sandbox.wan import WanGuard

VERSION = "rapha.sandbox.v1"
BUBBLEWRAP = "bubblewrap"
NONE = "NONE-DEVELOPMENT-ONLY"
Mode = Literal["required", "development"]

_START_SECONDS = 60.0
_STEP_SECONDS = 0.001
_REAP_SECONDS = 5.0
_GROUP_PREFIX = "rapha-edge-"
_GROUPS_FILE = "cgroups.json"
_MAX_INFO_BYTES = 4096
_MAX_STDERR = 500
_UNCOUNTED = (
    "CUDA's address space has to be unbounded, so that a control group alone can bound the memory"
    " of a job with a GPU, and there is none"
)

log = structlog.get_logger(__name__)


class Launch(Protocol):
    """A process that waits for its job, and everything that has to end with it."""

    process: subprocess.Popen[bytes]
    bundle: str
    """Where the process finds the bundle."""

    def admit(self) -> dict[str, Any]:
        """The evidence, once the process has said that it waits for the job.

        Raises:
            SandboxUnsound: when it is not confined as it has to be.
        """

    def ending(self, status: int) -> int:
        """An exit status of `process` as one of the trainee: negative for a signal."""

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended it for its memory."""

    def peak_memory(self) -> int:
        """The most bytes that the trainee itself had in memory so far; 0 when it is gone."""

    def kill(self) -> None:
        """End it and all that it started; returns when nothing of it runs. May be repeated."""

    def close(self) -> None:
        """Release what it held, its pipes too; after `kill`."""


class Isolation:
    """How a node keeps jobs from everything else: what it requires, and what it does."""

    def __init__(self, mode: Mode, guard: WanGuard) -> None:
        self._mode = mode
        self.guard = guard

    @cached_property
    def obstacle(self) -> str | None:
        """Why there is no sandbox on this machine, or None when there is."""
        return obstacle()

    def check(self) -> None:
        """Pass a machine that can do what the node is configured to.

        Raises:
            SandboxUnavailable, WanGuardUnavailable: when it cannot.
        """
        if self.obstacle is not None:
            if self._mode == "required":
                raise SandboxUnavailable(self.obstacle)
            log.warning("no_sandbox", isolation=NONE, why=self.obstacle)
        self.guard.check()

    def clear(self, scratch: Path) -> None:
        """Remove what a killed node left: control groups, and the table of the network's guard."""
        for file in sorted(scratch.glob(f"*/{_GROUPS_FILE}")):
            with contextlib.suppress(ValueError):  # torn while written: then no group was made
                groups = [Path(path) for path in json.loads(file.read_bytes())]
                cgroup.remove(path for path in groups if path.name.startswith(_GROUP_PREFIX))
        self.guard.clear()

    @cached_property
    def gpu_obstacle(self) -> str | None:
        """Why no job can have a GPU here, whatever the machine has; None when one can."""
        if self.obstacle is not None:
            return f"no device is given to a job outside of a sandbox ({self.obstacle})"
        groups = cgroup.Cgroup(f"{_GROUP_PREFIX}{os.getpid()}-probe", ChildLimits(), cgroup.here())
        groups.remove()
        missing = groups.missing.get("memory")
        return f"{_UNCOUNTED} ({missing})" if missing else None

    def grant(self, at_most: int, limit: int) -> gpu.Gpus:
        """What a job that can use `at_most` GPUs gets of the `limit` that it may have."""
        return gpu.grant(at_most, limit, self.gpu_obstacle if at_most and limit else None)

    def start(self, job: Path, limits: ChildLimits, gpus: gpu.Gpus = gpu.NONE) -> Launch:
        """Start the trainee for the bundle in the directory `job`/bundle, with these GPUs.

        Raises:
            SandboxUnavailable: when there is no sandbox, or it does not start.
            SandboxUnsound: when it started and is not as it has to be.
        """
        if self.obstacle is None:
            return Sandbox(job, limits, gpus)
        if self._mode == "required":
            raise SandboxUnavailable(self.obstacle)
        return Unconfined(job, limits, self.obstacle)


class Sandbox:
    """One sandbox; what the constructor returns is released, limited, and was inspected once."""

    def __init__(
        self,
        job: Path,
        limits: ChildLimits,
        gpus: gpu.Gpus = gpu.NONE,
        *,
        program: Sequence[str] = (),
        filtered: bool = True,
    ) -> None:
        # `program` and `filtered` are for tests that try each wall without the other.
        self.bundle = bubblewrap.BUNDLE
        self._gpus = gpus
        self._limits = sandbox_rlimits(limits, gpus=gpus.number > 0)
        self._pidfd: int | None = None
        self._plan = bubblewrap.plan(
            job / "bundle", limits.scratch_bytes, environment(bubblewrap.SCRATCH, gpus), gpus
        )
        self._groups = _make_groups(job, limits)
        try:
            with contextlib.ExitStack() as held:
                self._start(held, program, filtered)
        except BaseException:
            if hasattr(self, "process"):
                self.kill()
            self.close()
            raise

    def _start(self, held: contextlib.ExitStack, program: Sequence[str], filtered: bool) -> None:
        info, child_info = os.pipe()
        child_block, block = os.pipe()
        child_filter = os.memfd_create("seccomp")
        ours = [held.enter_context(os.fdopen(fd, "rb", 0)) for fd in (info, block)]
        theirs = (child_info, child_block, child_filter)
        files = [os.fdopen(fd, "rb", 0) for fd in theirs]
        with contextlib.ExitStack() as given:
            for file in files:
                given.enter_context(file)
            gpus = self._gpus.number > 0
            os.write(child_filter, seccomp.program(gpus=gpus) if filtered else _ALLOW_ALL)
            os.lseek(child_filter, 0, os.SEEK_SET)
            self.process = _popen(
                bubblewrap.command_line(
                    self._plan,
                    info=child_info,
                    block=child_block,
                    seccomp=child_filter,
                    program=program,
                ),
                pass_fds=theirs,
                cwd="/",
                env={"PATH": os.defpath},
            )
        until = time.monotonic() + _START_SECONDS
        self._init = self._read_info(ours[0], until)
        self._pidfd = pidfd = os.pidfd_open(self._init)
        seen = self._await_block(pidfd, until)
        if faults := self._isolation_faults(seen):
            raise SandboxUnsound(tuple(faults))
        self._groups.join(self._init)
        if "memory" in self._groups.missing and self._gpus.number:
            raise SandboxUnavailable(f"{_UNCOUNTED} ({self._groups.missing['memory']})")
        if "pids" in self._groups.missing and os.getuid() == 0:
            raise SandboxUnavailable(
                "processes cannot be counted: root is exempt from RLIMIT_NPROC, and the pids"
                f" controller is missing ({self._groups.missing['pids']}); run the node as a user"
            )
        for limit, value in self._limits.items():
            resource.prlimit(self._init, limit, value)
        os.write(block, b"\0")

    def _isolation_faults(self, seen: inspect.Observed) -> list[str]:
        outside = inspect.namespaces("self")
        return inspect.isolation_faults(seen, outside, self._plan.mounts, self._plan.devices)

    def _read_info(self, info: IO[bytes], until: float) -> int:
        """The process id of the sandbox's init, as bubblewrap tells it."""
        data = b""
        while not data.rstrip().endswith(b"}"):
            ready, _, _ = select.select([info], [], [], max(0.0, until - time.monotonic()))
            part = os.read(info.fileno(), _MAX_INFO_BYTES) if ready else b""
            if not part or len(data) > _MAX_INFO_BYTES:
                raise self._did_not_start()
            data += part
        return int(json.loads(data)["child-pid"])

    def _await_block(self, pidfd: int, until: float) -> inspect.Observed:
        """The sandbox as it stands when it is set up and waits to be released."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it is gone
            while time.monotonic() < until:
                if inspect.is_set_up(self._init):
                    return inspect.observe(self._init)
                select.select([pidfd], [], [], _STEP_SECONDS)
        raise self._did_not_start()

    def _did_not_start(self) -> SandboxUnavailable:
        self.kill()
        said = cast(IO[bytes], self.process.stderr).read() or b""
        text = said.decode(errors="replace").strip()[:_MAX_STDERR]
        return SandboxUnavailable(f"bubblewrap does not start ({text or 'it said nothing'})")

    def admit(self) -> dict[str, Any]:
        """See `Launch`."""
        trainees = _children(self._init)
        if len(trainees) != 1:
            raise SandboxUnsound((f"{len(trainees)} processes run in it",))
        seen = inspect.observe(trainees[0])
        faults = [
            *self._isolation_faults(seen),
            *inspect.confinement_faults(seen, self._limits),
        ]
        if faults:
            raise SandboxUnsound(tuple(faults))
        return {
            "version": VERSION,
            "isolation": BUBBLEWRAP,
            "arguments_sha256": self._plan.digest.hex(),
            "seccomp": {
                "sha256": seccomp.digest(gpus=self._gpus.number > 0).hex(),
                "mode": seen.seccomp_mode,
                "libseccomp": seccomp.library_version(),
                "machine": platform.machine(),
                "kernel": platform.release(),
            },
            "namespaces": {
                name: {"node": inode, "job": seen.namespaces[name]}
                for name, inode in inspect.namespaces("self").items()
            },
            "network": {"interfaces": list(seen.interfaces), "routes": list(seen.routes)},
            "mounts": [
                {
                    "target": _public(mount.target),
                    "type": mount.file_system,
                    "read_only": mount.read_only,
                }
                for mount in seen.mounts
            ],
            "capabilities": max(seen.capabilities.values()),
            "no_new_privileges": seen.no_new_privileges,
            "descriptors": sorted(seen.descriptors),
            "limits": {name: seen.limits[name][0] for name in inspect.names(self._limits)},
            "cgroup": {"versions": self._groups.versions, "missing": self._groups.missing},
            "gpus": {"count": self._gpus.number, "why": self._gpus.why},
        }

    def ending(self, status: int) -> int:
        """See `Launch`. Bubblewrap tells a signal as 128 and its number."""
        return 128 - status if status > 128 else status

    def ran_out_of_memory(self) -> bool:
        """See `Launch`."""
        return self._groups.ran_out_of_memory()

    def peak_memory(self) -> int:
        """See `Launch`."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for trainee_pid in _children(self._init):
                return inspect.peak_memory(trainee_pid)
        return 0

    def kill(self) -> None:
        """See `Launch`. Init's end is that of its whole process namespace, whatever forked."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select([self._pidfd], [], [])
            # Bubblewrap ends when its init has, and only itself can reap it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_REAP_SECONDS)
        _kill_session(self.process)

    def close(self) -> None:
        """See `Launch`."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if hasattr(self, "process"):
            _close_pipes(self.process)
        self._groups.remove()


class Unconfined:
    """A plain process with rlimits: for development, and marked as such in the evidence."""

    def __init__(self, job: Path, limits: ChildLimits, why: str) -> None:
        self.bundle = str(job / "bundle")
        self._why = why
        self.process = _popen(
            # -I: neither the environment nor the working directory can add code.
            [sys.executable, "-I", trainee.__file__],
            cwd=job,
            env=environment(str(job)),
        )
        try:
            for limit, value in rlimits(limits).items():
                resource.prlimit(self.process.pid, limit, value)
        except BaseException:
            self.kill()
            raise

    def admit(self) -> dict[str, Any]:
        """See `Launch`."""
        return {"version": VERSION, "isolation": NONE, "why": self._why}

    def ending(self, status: int) -> int:
        """See `Launch`."""
        return status

    def ran_out_of_memory(self) -> bool:
        """See `Launch`."""
        return False

    def peak_memory(self) -> int:
        """See `Launch`."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return inspect.peak_memory(self.process.pid)
        return 0

    def kill(self) -> None:
        """See `Launch`; only its session is ended."""
        _kill_session(self.process)

    def close(self) -> None:
        """See `Launch`."""
        _close_pipes(self.process)


def obstacle() -> str | None:
    """Why no sandbox starts on this machine, found by starting one; None when one does."""
    if shutil.which(bubblewrap.PROGRAM, path=os.defpath) is None:
        return "bubblewrap is not installed"
    with tempfile.TemporaryDirectory(prefix="rapha-probe-") as folder:
        job = Path(folder)
        (job / "bundle").mkdir()
        try:
            probe = Sandbox(job, ChildLimits(), program=(sys.executable, "-I", "-c", ""))
        except (SandboxUnavailable, SandboxUnsound) as error:
            return str(error.why if isinstance(error, SandboxUnavailable) else error)
        try:
            status = probe.process.wait(_START_SECONDS)
            said = cast(IO[bytes], probe.process.stderr).read().decode(errors="replace").strip()
        finally:
            probe.kill()
            probe.close()
    return None if status == 0 else f"Python does not start in it ({said[-_MAX_STDERR:]})"


def environment(home: str, gpus: gpu.Gpus = gpu.NONE) -> dict[str, str]:
    """All that the process gets: no key, proxy or path of the node's."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "USER": "nobody",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
        **gpus.environment,
    }


_ALLOW_ALL = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW


def _popen(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
        **options,
    )


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        cast(IO[bytes], pipe).close()


def _make_groups(job: Path, limits: ChildLimits) -> cgroup.Cgroup:
    """The job's control groups, which are on disk by name before they are made."""
    found = cgroup.here()
    name = f"{_GROUP_PREFIX}{os.getpid()}-{job.name}"
    paths = sorted({str(place.own / name) for place in found.values()})
    (job / _GROUPS_FILE).write_text(json.dumps(paths))
    return cgroup.Cgroup(name, limits, found)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _public(target: str) -> str:
    """A mount point for the evidence: the node's own paths are its own matter."""
    system = ("/job", "/dev", "/proc", "/scratch", "/usr", "/lib", "/etc")
    return target if target == "/" or target.startswith(system) else "(Python)"
