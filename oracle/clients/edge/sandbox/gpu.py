"""GPUs for a job: which the machine has, which a job is granted, and what of them a sandbox needs.

None is let in unless the node's limits grant it and the hospital's policy allows it: a driver is a
surface of its own, since most of its system calls reach the kernel by one call, `ioctl`, whose
arguments no filter can judge. A GPU's own memory is bounded by nothing here, and what a job leaves
in it is the driver's to clear.

NVIDIA's driver for Linux alone: its nodes are character devices in /dev, made when it is loaded
(`nvidia-modprobe -u -c 0` makes those of its unified memory).
"""

import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

DEV = Path("/dev")
CONTROL = ("nvidiactl", "nvidia-uvm")
"""What the driver needs beside the GPU's own node: its control, and the unified memory."""
OPTIONAL = ("nvidia-uvm-tools",)
DRIVER = Path("/proc/driver/nvidia")
"""Where the driver says how it was set up; CUDA does not start without it."""
_GPU = re.compile(r"nvidia(0|[1-9]\d{0,2})")


class Gpus(NamedTuple):
    """What a job is granted: device nodes, each with the name it gets below /dev in the sandbox.

    `number` is of GPUs, which the job sees numbered from 0. `why` says why it is not more; empty
    where the job asked for no more.
    """

    number: int = 0
    devices: tuple[tuple[str, str], ...] = ()
    why: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The nodes as the sandbox sees them."""
        return tuple(f"/dev/{name}" for _, name in self.devices)

    @property
    def environment(self) -> dict[str, str]:
        """What tells frameworks which GPUs to use; where there is none they use processors."""
        if not self.number:
            return {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        numbers = ",".join(map(str, range(self.number)))
        return {"CUDA_VISIBLE_DEVICES": numbers, "JAX_PLATFORMS": "cuda,cpu"}


NONE = Gpus()


def grant(at_most: int, limit: int, obstacle: str | None = None, dev: Path = DEV) -> Gpus:
    """The first GPUs of the machine, of which a job takes `at_most` and may take `limit`.

    With an `obstacle` in the way of any, there is none.
    """
    if at_most == 0:
        return NONE
    if limit == 0:
        return Gpus(why="the node grants none (RAPHA_EDGE_LIMITS__GPUS)")
    found = _gpus(dev)
    if not found:
        return Gpus(why=f"this machine shows none: there is no {dev}/nvidia0")
    if missing := [name for name in CONTROL if not _is_device(dev / name)]:
        return Gpus(why=f"the driver is not ready: there is no {dev}/{missing[0]}")
    if obstacle is not None:
        return Gpus(why=obstacle)
    chosen = found[: min(at_most, limit)]
    optional = [name for name in OPTIONAL if _is_device(dev / name)]
    devices = tuple((str(dev / name), name) for name in (*chosen, *CONTROL, *optional))
    if len(chosen) == at_most:
        return Gpus(len(chosen), devices)
    of = "granted by the node" if len(chosen) == limit else "on this machine"
    return Gpus(len(chosen), devices, f"no more are {of}")


def _gpus(dev: Path) -> Sequence[str]:
    """The names of the GPUs' own nodes, by their minor numbers."""
    names = [path.name for path in dev.iterdir() if _GPU.fullmatch(path.name)]
    present = [name for name in names if _is_device(dev / name)]
    return sorted(present, key=lambda name: int(name.removeprefix("nvidia")))


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False
