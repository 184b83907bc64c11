"""The life of a sandbox: inspected before release, ended for certain, nothing left behind."""

import json
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import pytest

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.child import Child
from oracle.clients.edge.errors import TrainingFailed, TrainingTimedOut
from oracle.clients.edge.sandbox import bubblewrap, gpu, inspect, launch, seccomp
from oracle.clients.edge.sandbox.errors import SandboxUnavailable, SandboxUnsound
from oracle.clients.edge.sandbox.launch import BUBBLEWRAP, NONE, Isolation
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.sandbox.wan import WanGuard

MANIFEST = json.dumps(
    {"framework": "jax", "entry_point": "train:train", "hyperparameters": {}}
).encode()
OPEN = WanGuard("off", ())


@pytest.fixture
def job(tmp_path):
    """A job's scratch directory with a bundle of this source."""

    def job(source: str = "", **files: bytes) -> Path:
        directory = tmp_path / "scratch/job-1"
        directory.mkdir(parents=True)
        code = source or "def train(loader, hyperparameters): ..."
        bundle = {"train.py": code.encode(), "manifest.json": MANIFEST, **files}
        Bundle.from_files(bundle).write_to(directory / "bundle")
        return directory

    return job


def hold(directory, isolation, *, wall=60.0, **limits) -> Child:
    return Child(directory, ChildLimits(**limits), wall, threading.Event(), isolation)


def told(child: Child) -> dict:
    """Tell the child its job, and hear what it says first."""
    child.send(
        {
            "kind": "job",
            "bundle": child.bundle,
            "entry_point": "train:train",
            "hyperparameters": {},
            "epochs": 1,
            "features": 1,
            "shape": [1],
            "records": 1,
            "batch_size": 1,
            "completed": 0,
        }
    )
    return child.receive(1_000)[0]


def groups(directory: Path) -> list[Path]:
    return [Path(path) for path in json.loads((directory / "cgroups.json").read_bytes())]


# evidence


def test_the_evidence_says_what_was_cut(job, required):
    with hold(job(), required) as child:
        evidence = child.evidence
    assert evidence["isolation"] == BUBBLEWRAP
    assert evidence["network"] == {"interfaces": ["lo"], "routes": []}
    for pair in evidence["namespaces"].values():
        assert pair["job"] != pair["node"]
    assert set(evidence["namespaces"]) == set(bubblewrap.NAMESPACES)
    assert evidence["namespaces"]["net"]["node"] == os.stat("/proc/self/ns/net").st_ino
    assert evidence["seccomp"]["mode"] == 2
    assert evidence["seccomp"]["sha256"] == seccomp.digest().hex()
    assert evidence["capabilities"] == 0
    assert evidence["no_new_privileges"] is True
    assert evidence["descriptors"] == ["/dev/null", *["pipe"] * 4]
    assert {m["target"] for m in evidence["mounts"] if not m["read_only"]} == {
        *bubblewrap.WRITABLE,
        *bubblewrap.DEVICES,
    }
    assert evidence["gpus"] == {"count": 0, "why": ""}
    assert evidence["limits"]["Max address space"] == ChildLimits().memory_bytes


def test_a_job_with_a_gpu_gets_its_nodes_and_the_evidence_says_so(job, required, tmp_path):
    """Harmless devices stand for the driver's: what is seen is the walls, not that CUDA runs."""
    if required.gpu_obstacle is not None:
        pytest.skip(required.gpu_obstacle)
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).symlink_to("/dev/null")
    source = (
        "import ctypes, errno, os, stat\n"
        "def refusal(request):\n"
        "    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    with open('/dev/nvidia0') as node:\n"
        "        assert libc.ioctl(node.fileno(), ctypes.c_ulong(request), 0) == -1\n"
        "    return errno.errorcode[ctypes.get_errno()]\n"
        "def train(loader, hyperparameters):\n"
        "    assert os.environ['CUDA_VISIBLE_DEVICES'] == '0'\n"
        "    assert all(stat.S_ISCHR(os.stat('/dev/' + name).st_mode) for name in (\n"
        "        'nvidia0', 'nvidiactl', 'nvidia-uvm'))\n"
        "    assert not os.path.exists('/dev/nvidia1')\n"
        # The driver is asked, and this one knows no answer; a terminal is not.
        "    asked = {refusal(request) for request in (0xC020462A, 0x30000001, 37)}\n"
        "    assert asked == {'ENOTTY'}, asked\n"
        "    assert refusal(0x5412) == 'ENOSYS'\n"
        "    raise ZeroDivisionError\n"
    )
    granted = gpu.grant(1, 1, required.gpu_obstacle, tmp_path)
    with Child(job(source), ChildLimits(), 60.0, threading.Event(), required, granted) as child:
        evidence = child.evidence
        assert told(child) == {"kind": "failed", "error": "ZeroDivisionError"}, child.last_words()
    assert evidence["gpus"] == {"count": 1, "why": ""}
    assert set(granted.targets) <= {mount["target"] for mount in evidence["mounts"]}
    assert "Max address space" not in evidence["limits"]
    assert evidence["seccomp"]["sha256"] == seccomp.digest(gpus=True).hex()


def test_a_gpu_without_a_group_for_memory_is_not_given(job, monkeypatch):
    monkeypatch.setattr(launch.cgroup, "here", dict)
    granted = gpu.Gpus(1)
    with pytest.raises(SandboxUnavailable, match="a control group alone can bound the memory"):
        launch.Sandbox(job(), ChildLimits(), granted, program=(sys.executable, "-c", "1/0"))


def test_no_path_of_the_nodes_is_in_the_evidence(job, required):
    directory = job()
    with hold(directory, required) as child:
        text = json.dumps(child.evidence)
    assert str(directory.parent.parent) not in text
    assert sys.prefix not in text


def test_the_same_node_gives_the_same_arguments_whatever_the_job(tmp_path):
    plans = [bubblewrap.plan(tmp_path / name, 1_000, {"A": "b"}) for name in ("one", "two")]
    assert plans[0] != plans[1]
    assert plans[0].digest == plans[1].digest
    assert bubblewrap.plan(tmp_path, 1_001, {"A": "b"}).digest != plans[0].digest


# inspection: a sandbox that is not as it has to be is not released


@pytest.fixture
def changed(monkeypatch):
    """Start sandboxes with some arguments left out or put in."""

    def change(*, without: tuple[str, ...] = (), extra: tuple[str, ...] = ()):
        original = bubblewrap.command_line

        def command_line(*arguments, **options):
            line = original(*arguments, **options)
            end = line.index("--")
            kept = [word for word in line[1:end] if word not in without]
            return [line[0], *kept, *extra, *line[end:]]

        monkeypatch.setattr(bubblewrap, "command_line", command_line)

    return change


@pytest.mark.parametrize(
    ("without", "extra", "fault"),
    [
        (("--unshare-net",), (), "it shares the net namespace"),
        (("--unshare-ipc",), (), "it shares the ipc namespace"),
        (("--unshare-uts", "--hostname", "sandbox"), (), "it shares the uts namespace"),
        (("--unshare-cgroup",), (), "it shares the cgroup namespace"),
        ((), ("--dir", "/scratch/d", "--ro-bind", "/tmp", "/scratch/d"), "/scratch/d is mounted"),
        ((), ("--bind", "/tmp", "/job/bundle"), "/job/bundle is writable"),
        ((), ("--dev-bind", "/dev", "/dev"), "/dev may hold devices"),
    ],
)
def test_a_hole_in_the_wall_is_found_before_release(job, changed, without, extra, fault):
    directory = job()
    changed(without=without, extra=extra)
    with pytest.raises(SandboxUnsound) as caught:
        launch.Sandbox(directory, ChildLimits(), program=(sys.executable, "-c", "1/0"))
    assert fault in caught.value.faults
    assert not any(path.exists() for path in groups(directory))


def test_a_process_without_the_filter_is_not_told_the_job(job, changed, required, monkeypatch):
    assert required.obstacle is None
    original = bubblewrap.command_line

    def command_line(*arguments, **options):
        line = original(*arguments, **options)
        at = line.index("--seccomp")
        return [*line[:at], *line[at + 2 :]]

    monkeypatch.setattr(bubblewrap, "command_line", command_line)
    with pytest.raises(SandboxUnsound, match=r"not filtered \(mode 0\)"):
        hold(job(), required)


def test_a_process_with_one_descriptor_too_many_is_not_told_the_job(job, required, monkeypatch):
    assert required.obstacle is None
    original = launch._popen

    def popen(argv, *, pass_fds, **options):
        with open("/etc/hostname") as leaked:
            return original(argv, pass_fds=(*pass_fds, leaked.fileno()), **options)

    monkeypatch.setattr(launch, "_popen", popen)
    with pytest.raises(SandboxUnsound, match=r"it holds \['/etc/hostname'\]"):
        hold(job(), required)


def test_a_limit_that_was_not_set_is_found(job, required, monkeypatch):
    monkeypatch.setattr(launch.resource, "prlimit", lambda *arguments: None)
    with pytest.raises(SandboxUnsound, match='its limit "Max address space" is'):
        hold(job(), required)


def test_what_changes_after_release_is_found_before_the_job_is_told(job, required, monkeypatch):
    assert required.obstacle is None
    answers = iter([[], ["it was opened"]])
    monkeypatch.setattr(inspect, "isolation_faults", lambda *arguments: next(answers))
    with pytest.raises(SandboxUnsound, match="it was opened"):
        hold(job(), required)


def test_a_second_process_is_found_before_the_job_is_told(job, required, monkeypatch):
    assert required.obstacle is None
    monkeypatch.setattr(launch, "_children", lambda pid: [pid, pid])
    with pytest.raises(SandboxUnsound, match="2 processes run in it"):
        hold(job(), required)


@pytest.mark.skipif(os.getuid() != 0, reason="others are counted by an rlimit")
def test_root_whose_processes_nothing_counts_starts_no_job(job, monkeypatch):
    monkeypatch.setattr(launch.cgroup, "here", dict)
    with pytest.raises(SandboxUnavailable, match="root is exempt from RLIMIT_NPROC"):
        launch.Sandbox(job(), ChildLimits(), program=(sys.executable, "-c", "1/0"))


def test_nothing_runs_before_release(job, monkeypatch):
    """What is refused while it is blocked has not executed one instruction of its program."""
    mark = "released"
    monkeypatch.setattr(inspect, "isolation_faults", lambda *arguments: ["kept back"])
    killed = []
    original = launch.Sandbox.kill

    def kill(sandbox):
        original(sandbox)
        killed.append(sandbox.process.stdout.read())

    monkeypatch.setattr(launch.Sandbox, "kill", kill)
    with pytest.raises(SandboxUnsound, match="kept back"):
        launch.Sandbox(job(), ChildLimits(), program=(sys.executable, "-c", f"print({mark!r})"))
    assert killed == [b""]


# where there is none


def without_bubblewrap(monkeypatch):
    monkeypatch.setattr(bubblewrap, "PROGRAM", "no-such-bwrap")


def test_a_node_that_requires_it_says_what_to_install(monkeypatch, job):
    without_bubblewrap(monkeypatch)
    isolation = Isolation("required", OPEN)
    for call in (isolation.check, lambda: isolation.start(job(), ChildLimits())):
        with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap libseccomp2"):
            call()


def test_bubblewrap_that_fails_is_quoted(monkeypatch, changed):
    changed(extra=("--no-such-option",))
    with pytest.raises(SandboxUnavailable, match="Unknown option --no-such-option"):
        Isolation("required", OPEN).check()


def test_a_development_node_goes_on_and_marks_its_evidence(monkeypatch, job):
    without_bubblewrap(monkeypatch)
    isolation = Isolation("development", OPEN)
    isolation.check()
    with hold(job(), isolation) as child:
        assert child.evidence == {
            "version": "rapha.sandbox.v1",
            "isolation": NONE,
            "why": "bubblewrap is not installed",
        }


def test_a_development_node_uses_the_sandbox_that_is_there(job):
    with hold(job(), Isolation("development", OPEN)) as child:
        assert child.evidence["isolation"] == BUBBLEWRAP


# ends


def test_a_bomb_of_processes_is_ended_by_the_clock(job, required, living):
    source = (
        "import os\n"
        "def train(loader, hyperparameters):\n"
        "    while True:\n"
        "        try: os.fork()\n"
        "        except OSError: pass\n"
    )
    directory = job(source)
    with hold(directory, required, wall=6.0, processes=24) as child:
        inode = child.evidence["namespaces"]["pid"]["job"]
        with pytest.raises(TrainingTimedOut):
            told(child)
        assert len(living(inode)) > 10
    assert living(inode) == []
    assert not any(path.exists() for path in groups(directory))


def test_children_together_cannot_take_more_memory_than_the_group(job, required):
    source = (
        "import os, time\n"
        "def train(loader, hyperparameters):\n"
        "    for _ in range(6):\n"
        "        if os.fork() == 0:\n"
        "            hog = bytearray(200 * 2**20)\n"
        "            for at in range(0, len(hog), 4096): hog[at] = 1\n"
        "            time.sleep(60)\n"
        "    hog = bytearray(250 * 2**20)\n"
        "    while True: hog[::4096] = bytes(len(hog) // 4096)\n"
    )
    directory = job(source)
    with hold(directory, required, memory_bytes=700 * 2**20) as child:
        if "memory" in child.evidence["cgroup"]["missing"]:
            pytest.skip(child.evidence["cgroup"]["missing"]["memory"])
        # the kernel's choice of victim may leave the trainee alive for a while
        with pytest.raises((TrainingFailed, TrainingTimedOut)) as caught:
            told(child)
        assert child._launch.ran_out_of_memory()
    if isinstance(caught.value, TrainingFailed):
        assert caught.value.cause == "it took more than its 734003200 bytes of memory"
    assert not any(path.exists() for path in groups(directory))


def test_a_killed_node_leaves_no_process_and_the_next_start_removes_the_rest(
    job, required, python, living
):
    directory = job("import time\ndef train(loader, hyperparameters): time.sleep(60)")
    node = python(
        f"""
import threading
from pathlib import Path
from oracle.clients.edge.child import Child
from oracle.clients.edge.sandbox.launch import Isolation
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.sandbox.wan import WanGuard
isolation = Isolation("required", WanGuard("off", ()))
child = Child(Path({str(directory)!r}), ChildLimits(), 60, threading.Event(), isolation)
child.send(dict(kind="job", bundle=child.bundle, entry_point="train:train", hyperparameters={{}},
    epochs=1, features=1, shape=[1], records=1, batch_size=1, completed=0))
print(child.evidence["namespaces"]["pid"]["job"], flush=True)
child.receive(100)
"""
    )
    inode = int(node.stdout.readline())
    pids = living(inode)
    assert len(pids) == 2
    watched = [os.pidfd_open(pid) for pid in pids]
    os.kill(node.pid, signal.SIGKILL)
    node.communicate()
    for descriptor in watched:
        assert launch.select.select([descriptor], [], [], 30)[0], "it is still running"
        os.close(descriptor)
    left = [path for path in groups(directory) if path.exists()]
    assert left, "the groups are what a crash leaves"
    required.clear(directory.parent)
    assert not any(path.exists() for path in left)


def test_only_groups_of_a_nodes_own_are_removed(tmp_path, required, monkeypatch):
    removed = []
    monkeypatch.setattr(launch.cgroup, "remove", removed.extend)
    own, foreign = tmp_path / "rapha-edge-1-job-1", tmp_path / "foreign"
    (tmp_path / "job-1").mkdir()
    (tmp_path / "job-1/cgroups.json").write_text(json.dumps([str(foreign), str(own)]))
    (tmp_path / "job-2").mkdir()
    (tmp_path / "job-2/cgroups.json").write_text('["/sys/fs')
    required.clear(tmp_path)
    assert removed == [own]


def test_a_pickle_that_passes_for_data_runs_inside_only(job, required, tmp_path):
    """Protocol 0 is text, which no look at a file tells apart; its deeds stay in the sandbox."""

    class Poison:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "poisoned"),)

    payload = pickle.dumps(Poison(), protocol=0)
    source = (
        "import pickle\n"
        "def train(loader, hyperparameters):\n"
        "    pickle.loads(open('/job/bundle/notes.txt', 'rb').read())\n"
    )
    with hold(job(source, **{"notes.txt": payload}), required) as child:
        answer = told(child)
    # the directory's parent is the host's, and not there
    assert answer == {"kind": "failed", "error": "FileNotFoundError"}
    assert not (tmp_path / "poisoned").exists()


def test_the_trainees_python_takes_no_code_from_its_environment(job, required):
    source = "import os, sys\ndef train(loader, hyperparameters): os._exit(20 + sys.flags.isolated)"
    with hold(job(source), required) as child, pytest.raises(TrainingFailed, match=r"status 21$"):
        told(child)
