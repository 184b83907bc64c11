"""What a bundle's process may use: one model for rlimits, cgroup, tmpfs and clock."""

import resource

from pydantic import Field

from settlement.types import Frozen


class ChildLimits(Frozen):
    """What a bundle's process may use; part of the enclave's configuration digest.

    `processes` counts threads too. `cpus` is a share of processors, in cgroups only. `gpus` is how
    many of the machine's a bundle that asks for them gets.
    """

    wall_seconds: int = Field(3600, gt=0)
    cpu_seconds: int = Field(7200, gt=0)
    cpus: float = Field(2.0, gt=0)
    memory_bytes: int = Field(16 * 2**30, gt=0)
    processes: int = Field(512, gt=0)
    open_files: int = Field(256, gt=0)
    file_bytes: int = Field(64 * 2**20, gt=0)
    scratch_bytes: int = Field(256 * 2**20, gt=0)
    gpus: int = Field(0, ge=0, le=64)


def rlimits(limits: ChildLimits) -> dict[int, tuple[int, int]]:
    """Soft and hard limit by RLIMIT_… number, but for the number of processes."""
    cpu = limits.cpu_seconds
    return {
        # At the soft limit SIGXCPU says why; a child that ignores it is killed a second later.
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_AS: (limits.memory_bytes, limits.memory_bytes),
        resource.RLIMIT_NOFILE: (limits.open_files, limits.open_files),
        resource.RLIMIT_FSIZE: (limits.file_bytes, limits.file_bytes),
        resource.RLIMIT_CORE: (0, 0),
    }


def sandbox_rlimits(limits: ChildLimits, *, gpus: bool = False) -> dict[int, tuple[int, int]]:
    """The same for a user namespace of its own, where processes are counted apart (Linux 5.14).

    Outside of one the number would count everything that the node's user runs. With `gpus` the
    address space is unbounded, as CUDA reserves more of it than any machine has memory: then a
    control group has to bound the memory itself.
    """
    found = rlimits(limits)
    if gpus:
        del found[resource.RLIMIT_AS]
    return {
        **found,
        resource.RLIMIT_NPROC: (limits.processes, limits.processes),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
    }
