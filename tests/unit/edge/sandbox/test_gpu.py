"""Which GPUs a job is granted, and what of the machine a sandbox shows for them.

There is no GPU here: what is tested is what the sandbox is started with, not that CUDA runs in it.
"""

import re
import resource
from pathlib import Path

import pytest

from oracle.clients.edge.sandbox import bubblewrap, launch, seccomp
from oracle.clients.edge.sandbox.gpu import NONE, Gpus, grant
from oracle.clients.edge.sandbox.limits import ChildLimits, sandbox_rlimits

EVERY = ("nvidia0", "nvidia1", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm")
OTHERS = ("nvidia-modeset", "nvidia-caps", "nvidiaX", "nvidia01")


@pytest.fixture
def dev(tmp_path):
    """A /dev with these names, all of them harmless character devices."""

    def dev(*names: str) -> Path:
        for name in names:
            (tmp_path / name).symlink_to("/dev/null")
        return tmp_path

    return dev


def after(arguments: tuple[str, ...], option: str) -> list[tuple[str, str]]:
    """The two words that follow each use of an option."""
    places = [i for i, word in enumerate(arguments) if word == option]
    return [(arguments[i + 1], arguments[i + 2]) for i in places]


def test_the_first_gpus_are_granted_with_what_the_driver_needs(dev):
    found = grant(3, 8, dev=dev(*EVERY, *OTHERS, "nvidia-uvm-tools"))
    assert found.number == 3
    assert found.why == ""
    names = ["nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"]
    assert found.targets == tuple(f"/dev/{name}" for name in names)
    assert found.environment == {"CUDA_VISIBLE_DEVICES": "0,1,2", "JAX_PLATFORMS": "cuda,cpu"}


@pytest.mark.parametrize(
    ("names", "at_most", "limit", "obstacle", "number", "why"),
    [
        (EVERY, 0, 8, "a wall", 0, ""),
        (EVERY, 1, 0, None, 0, r"the node grants none \(RAPHA_EDGE_LIMITS__GPUS\)"),
        ((), 1, 1, None, 0, "this machine shows none: there is no .*/nvidia0"),
        (OTHERS, 1, 1, None, 0, "this machine shows none"),
        (EVERY[:-1], 1, 1, None, 0, "the driver is not ready: there is no .*/nvidia-uvm"),
        (EVERY, 1, 1, "no control group", 0, "no control group"),
        (EVERY, 4, 2, None, 2, "no more are granted by the node"),
        (EVERY, 8, 8, None, 4, "no more are on this machine"),
    ],
)
def test_what_is_not_granted_is_told_with_the_reason(
    dev, names, at_most, limit, obstacle, number, why
):
    found = grant(at_most, limit, obstacle, dev(*names))
    assert found.number == number
    assert re.fullmatch(f"{why}.*" if why else "", found.why)
    if not number:
        assert found.devices == ()
        assert found.environment == {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


def test_what_is_named_so_and_is_no_device_is_no_gpu(tmp_path):
    for name in EVERY:
        (tmp_path / name).write_bytes(b"")
    assert grant(1, 1, dev=tmp_path).why.startswith("this machine shows none")


def test_devices_are_bound_for_granted_gpus_alone_and_nothing_else_changes(tmp_path, dev):
    found = grant(1, 1, dev=dev(*EVERY))
    proc = tmp_path / "proc"
    for path in ("driver/nvidia", "sys"):
        (proc / path).mkdir(parents=True)
    for path in ("devices", "kcore", "meminfo"):
        (proc / path).touch()
    without = bubblewrap.plan(tmp_path, 1_000, {}, NONE, proc)
    planned = bubblewrap.plan(tmp_path, 1_000, {}, found, proc)

    harmless = [(device, device) for device in bubblewrap.DEVICES]
    assert after(without.arguments, "--dev-bind") == harmless
    assert after(planned.arguments, "--dev-bind") == [
        *harmless,
        *((f"{tmp_path}/{name}", f"/dev/{name}") for name in ("nvidia0", *EVERY[-2:])),
    ]
    assert planned.devices == (*bubblewrap.DEVICES, *found.targets)
    driver = "/proc/driver/nvidia"
    new = {*found.targets, driver}
    assert planned.mounts - without.mounts == new
    assert without.mounts - planned.mounts == {"/proc/devices"}
    # What the driver says is read-only, below a cover that hides what else is there.
    words = " ".join(planned.arguments)
    assert (
        "--tmpfs /proc/driver --ro-bind /proc/driver/nvidia /proc/driver/nvidia"
        " --remount-ro /proc/driver" in words
    )
    assert ("/dev/null", "/proc/kcore") in after(planned.arguments, "--ro-bind")
    assert driver not in " ".join(without.arguments)
    assert planned.digest != without.digest


def test_a_job_with_gpus_has_no_limit_of_address_space_and_every_other():
    limits = ChildLimits()
    assert sandbox_rlimits(limits, gpus=True) == {
        limit: value
        for limit, value in sandbox_rlimits(limits).items()
        if limit != resource.RLIMIT_AS
    }


def test_the_filter_lets_the_driver_be_asked_where_there_are_gpus_alone():
    assert seccomp.program(gpus=True) != seccomp.program()
    assert seccomp.digest(gpus=True) != seccomp.digest()


def test_without_a_sandbox_or_a_group_for_memory_no_job_gets_a_gpu(monkeypatch):
    isolation = launch.Isolation("development", launch.WanGuard("off", ()))
    isolation.obstacle = "no bubblewrap"
    assert (
        isolation.gpu_obstacle == "no device is given to a job outside of a sandbox (no bubblewrap)"
    )
    isolation = launch.Isolation("development", launch.WanGuard("off", ()))
    isolation.obstacle = None
    monkeypatch.setattr(launch.cgroup, "here", dict)
    assert isolation.gpu_obstacle.endswith("there is none (this host mounts no such hierarchy)")


def test_no_environment_but_that_of_granted_gpus_names_any():
    assert launch.environment("/scratch")["CUDA_VISIBLE_DEVICES"] == ""
    two = launch.environment("/scratch", Gpus(2))
    assert two["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert two.keys() == launch.environment("/scratch").keys()
