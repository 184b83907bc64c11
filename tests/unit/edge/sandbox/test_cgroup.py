"""Control groups as files: on plain directories here, which take what the kernel's would."""

from pathlib import Path

import pytest

from oracle.clients.edge.sandbox.cgroup import SUPERVISOR, Cgroup, Place, places
from oracle.clients.edge.sandbox.limits import ChildLimits

LIMITS = ChildLimits(memory_bytes=1_000, processes=7, cpus=1.5)
V1 = """30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 20 0:27 /docker/ab /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
V1_MEMBERSHIP = "4:memory:/node\n2:cpu,cpuacct:/docker/ab/node\n0::/\n"


def test_the_nodes_own_groups_are_found_in_either_version():
    assert places(V1, V1_MEMBERSHIP) == {
        "memory": Place(1, Path("/sys/fs/cgroup/memory/node")),
        "cpu": Place(1, Path("/sys/fs/cgroup/cpu,cpuacct/node")),
        "pids": Place(2, Path("/sys/fs/cgroup/unified")),
    }
    unified = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
    own = Place(2, Path("/sys/fs/cgroup/system.slice/rapha.service"))
    assert places(unified, "0::/system.slice/rapha.service\n") == dict.fromkeys(
        ("memory", "pids", "cpu"), own
    )
    assert places("", V1_MEMBERSHIP) == {}


@pytest.fixture
def unified(tmp_path):
    """A delegated group of version 2, with all controllers."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids io\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    return tmp_path


def test_version_2_is_delegated_by_moving_the_node_beside_its_jobs(unified):
    group = Cgroup("job", LIMITS, dict.fromkeys(("memory", "pids", "cpu"), Place(2, unified)))
    assert (unified / SUPERVISOR / "cgroup.procs").exists()
    assert group.versions == {"memory": 2, "pids": 2, "cpu": 2}
    assert group.directories == [unified / "job"]
    read = {path.name: path.read_text() for path in (unified / "job").iterdir()}
    assert read == {
        "memory.max": "1000",
        "memory.oom.group": "1",
        "pids.max": "7",
        "cpu.max": "150000 100000",
    }


def test_version_1_has_a_group_for_each_controller(tmp_path):
    found = {}
    for name in ("memory", "pids", "cpu"):
        (tmp_path / name).mkdir()
        found[name] = Place(1, tmp_path / name)
    group = Cgroup("job", LIMITS, found)
    assert (tmp_path / "memory/job/memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "pids/job/pids.max").read_text() == "7"
    assert (tmp_path / "cpu/job/cpu.cfs_quota_us").read_text() == "150000"
    group.join(42)
    assert (tmp_path / "pids/job/cgroup.procs").read_text() == "42"
    (tmp_path / "memory/job/memory.oom_control").write_text("under_oom 0\noom_kill 0\n")
    assert group.ran_out_of_memory() is False
    (tmp_path / "memory/job/memory.oom_control").write_text("under_oom 0\noom_kill 2\n")
    assert group.ran_out_of_memory() is True


def test_what_the_host_does_not_let_be_limited_is_named_with_the_reason(unified):
    (unified / "cgroup.controllers").write_text("cpu pids\n")
    found = {"memory": Place(2, unified), "pids": Place(2, unified)}
    group = Cgroup("job", LIMITS, found)
    assert group.versions == {"pids": 2}
    assert group.missing == {
        "memory": "the controller is not delegated to the node's group",
        "cpu": "this host mounts no such hierarchy",
    }
    assert group.ran_out_of_memory() is False


def test_a_group_that_does_not_take_the_process_counts_as_missing(tmp_path):
    group = Cgroup("job", LIMITS, {"pids": Place(1, tmp_path)})
    assert group.versions == {"pids": 1}
    (tmp_path / "job/cgroup.procs").mkdir()
    group.join(42)
    assert group.versions == {}
    assert group.missing["pids"] == "Is a directory"
