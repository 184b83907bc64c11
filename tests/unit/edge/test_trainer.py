import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from oracle.clients.edge.checkpoint import Checkpoint
from oracle.clients.edge.errors import (
    FrameworkMissing,
    HyperparameterInvalid,
    JournalInvalid,
    NodeStopping,
    ProtocolViolation,
    TrainingFailed,
    TrainingTimedOut,
)
from oracle.clients.edge.loader import Meter, RaphaDataLoader, loader_settings
from oracle.clients.edge.sandbox.launch import BUBBLEWRAP, Isolation
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.sandbox.wan import WanGuard
from oracle.clients.edge.trainer import train

JOB = bytes(32)
EPOCH = ["for batch in next(loader.epochs(1)): pass"]
FIRST = "say({'kind': 'next', 'epoch': 0})"


@pytest.fixture
def run(committed, scratch, tmp_path, stop, make_bundle, isolation):
    """Train a bundle of this source, and check that nothing of the child is left in any case."""

    def run(
        source=None,
        *,
        epochs=2,
        wall=60.0,
        output=1_000_000,
        progress=None,
        keep=lambda checkpoint: None,
        resume=None,
        **limits,
    ):
        bundle = make_bundle() if source is None else make_bundle(source)
        with Meter(tmp_path / "journal", committed, JOB) as meter:
            completed = resume.epochs if resume else 0
            loader = RaphaDataLoader(committed, meter, batch_size=4, seed=5, completed=completed)
            try:
                result = train(
                    bundle,
                    loader,
                    epochs=epochs,
                    max_output_bytes=output,
                    limits=ChildLimits(**limits),
                    wall_seconds=wall,
                    scratch_root=scratch,
                    isolation=isolation,
                    stop=stop,
                    progress=progress or (lambda counters, metrics: None),
                    admitted=lambda evidence: None,
                    keep=keep,
                    resume=resume,
                )
            finally:
                assert list(scratch.iterdir()) == []
            return result, loader.counters

    return run


def body(code: str, before: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in code.strip().splitlines())
    return f"import numpy as np\n{before}\ndef train(loader, hyperparameters):\n{lines}"


def speaking(*frames: str) -> str:
    """A bundle that skips the loader and writes frames of its own."""
    return body(
        "import struct, json, time, os\n"
        "from safetensors.numpy import save\n"
        "def say(header, payload=b''):\n"
        "    text = header if isinstance(header, bytes) else json.dumps(header).encode()\n"
        "    loader._requests.write(struct.pack('>IQ', len(text), len(payload)) + text + payload)\n"
        "    loader._requests.flush()\n" + "\n".join(frames) + "\ntime.sleep(60)"
    )


def test_an_honest_bundle_is_trained_and_metered(run):
    seen = []
    result, counters = run(progress=lambda counters, metrics: seen.append((counters, metrics)))
    assert counters[:2] == (40, 2)
    assert result.accuracy == 1.0
    assert load(result.weights)["weight"].shape == (3,)
    assert len(result.reports["loss"]) == 2
    assert [c.records for c, _ in seen] == sorted(c.records for c, _ in seen)
    assert seen[-1][1].keys() == {"loss"}


def test_the_result_carries_the_evidence_of_its_isolation(run, isolation):
    evidence = run()[0].evidence
    assert (evidence["isolation"] == BUBBLEWRAP) == (isolation.obstacle is None)
    assert evidence["wan"] == {"guard": "none", "why": "it is switched off"}


def test_the_same_bundle_gives_the_same_weights(run):
    assert run()[0][:3] == run()[0][:3]


KEEPING = """
import numpy as np
{die}
def train(loader, hyperparameters):
    state = dict(loader.checkpoint)
    weight = state.get("weight", np.zeros(loader.features, np.float32))
    bias = state.get("bias", np.zeros(1, np.float32))
    for number, epoch in enumerate(loader.epochs(), start=loader.completed):
        for step, (x, y) in enumerate(epoch):
            die(number, step)
            p = 1 / (1 + np.exp(-(x @ weight + bias)))
            weight = weight - 0.5 * x.T @ (p - y) / len(y)
            bias = bias - 0.5 * np.mean(p - y)
        loader.report(loss=float(number))
        loader.keep(dict(weight=weight, bias=bias))
    loader.evaluate(lambda x: x @ weight + bias > 0)
    return dict(weight=weight, bias=bias)
"""
LIVE = "die = lambda number, step: None"


def test_killed_in_any_epoch_it_goes_on_from_its_checkpoint_and_bills_the_same(
    run, tmp_path, committed
):
    undisturbed, counters = run(KEEPING.format(die=LIVE), epochs=3)
    path = tmp_path / "checkpoint"
    for died_in in range(3):
        (tmp_path / "journal").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        die = f"import os\ndie = lambda n, step: os._exit(9) if (n, step) == ({died_in}, 3) else 0"

        def keep(checkpoint):
            checkpoint.write(path)

        with pytest.raises(TrainingFailed):
            run(KEEPING.format(die=die), epochs=3, keep=keep)
        resume = Checkpoint.read(path)
        assert (resume.epochs if resume else 0) == died_in
        result, again = run(KEEPING.format(die=LIVE), epochs=3, resume=resume)
        assert result[:3] == undisturbed[:3]
        # The order of delivery differs, so the root does; what is billed does not.
        assert again[:2] == counters[:2]


def test_a_checkpoint_that_was_damaged_is_not_read(tmp_path):
    path = tmp_path / "checkpoint"
    assert Checkpoint.read(path) is None
    kept = Checkpoint(2, {"loss": [1.0, 0.5]}, save({"w": np.zeros(2)}))
    kept.write(path)
    assert Checkpoint.read(path) == kept
    data = path.read_bytes()
    for damaged in (b"", data[:-1], data[1:], data.replace(b"v1", b"v0", 1), data + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(JournalInvalid, match="checkpoint"):
            Checkpoint.read(path)


def test_a_bundle_that_stops_early_pays_for_completed_epochs_only(run):
    source = body(
        "for number, epoch in enumerate(loader.epochs(5)):\n"
        "    for i, (x, y) in enumerate(epoch):\n"
        "        if number == 2 and i == 3: break\n"
        "    if number == 2: break\n"
        "loader.evaluate(lambda x: np.zeros(len(x)))\n"
        "return {'w': np.zeros(1, np.float32)}"
    )
    result, counters = run(source, epochs=5)
    assert counters[:2] == (40, 2)
    assert result.reports == {}


def test_no_bundle_gets_more_epochs_than_granted(run):
    source = body(
        "seen = sum(1 for epoch in loader.epochs(100) for batch in epoch)\n"
        "loader.evaluate(lambda x: np.zeros(len(x)))\n"
        "return {'seen': np.array([seen], np.int64)}"
    )
    result, counters = run(source, epochs=3)
    assert load(result.weights)["seen"].tolist() == [24]
    assert counters.epochs == 3


def test_what_a_bundle_prints_does_not_disturb_the_protocol(run):
    source = body(
        "import sys, os\n"
        "print('x' * 100_000); sys.stdout.flush(); os.write(1, b'y' * 100_000)\n"
        "assert sys.stdin.read() == ''\n"
        "for epoch in loader.epochs():\n"
        "    for batch in epoch: pass\n"
        "loader.evaluate(lambda x: np.zeros(len(x)))\n"
        "return {'w': np.zeros(1, np.float32)}"
    )
    assert run(source)[1][:2] == (40, 2)


def test_the_child_has_a_bare_environment_and_its_own_session(run, monkeypatch, isolation):
    monkeypatch.setenv("RAPHA_EDGE_SECRET", "secret")
    source = body(
        "import os\n"
        "assert not [name for name in os.environ if 'RAPHA' in name or 'SECRET' in name]\n"
        "assert os.getsid(0) in (1, os.getpid())\n"
        f"assert os.getcwd() == '/scratch' or {isolation.obstacle!r}\n"
        f"assert os.listdir() == [] or {isolation.obstacle!r}\n"
        "loader.evaluate(lambda x: np.zeros(len(x)))\n"
        "return {'w': np.zeros(1, np.float32)}"
    )
    assert run(source)[1][:2] == (8, 0)


def test_code_that_raises_is_a_failure_that_shows_no_message(run):
    with pytest.raises(TrainingFailed) as caught:
        run(body("raise KeyError('patient 17')"))
    assert caught.value.cause == "its code raised KeyError"
    assert "patient" not in str(caught.value)
    assert b"patient 17" in caught.value.stderr


def test_an_exception_of_the_bundles_own_is_named_by_its_built_in_base(run):
    source = body("raise Patient17()", before="class Patient17(ValueError): pass")
    with pytest.raises(TrainingFailed, match=r"its code raised ValueError$"):
        run(source)


def test_code_that_does_not_import_is_a_failure(run):
    with pytest.raises(TrainingFailed, match="its code raised SyntaxError"):
        run("def train(:")


def test_an_entry_point_that_is_missing_is_a_failure(run):
    with pytest.raises(TrainingFailed, match="its code raised AttributeError"):
        run("fit = None")


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os._exit(3)", "it exited with status 3"),
        ("import os; os._exit(0)", "it exited with status 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
    ],
)
def test_a_child_that_dies_is_a_failure_that_says_how(run, code, cause):
    with pytest.raises(TrainingFailed) as caught:
        run(body(code))
    assert caught.value.cause == cause


def test_a_child_that_dies_in_an_epoch_leaves_what_it_got_counted(run, committed, tmp_path):
    source = body(
        "import os\n"
        "for epoch in loader.epochs():\n"
        "    for i, batch in enumerate(epoch):\n"
        "        if i == 2: os._exit(1)"
    )
    with pytest.raises(TrainingFailed):
        run(source)
    with Meter(tmp_path / "journal", committed, JOB) as meter:
        assert meter.counters[:2] == (12, 0)


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: pass"])
def test_a_child_that_hangs_is_timed_out(run, code):
    with pytest.raises(TrainingTimedOut) as caught:
        run(body(code), wall=1.0)
    assert (caught.value.seconds, caught.value.kind) == (1.0, "wall")


def test_a_child_that_burns_its_cpu_time_is_timed_out(run):
    with pytest.raises(TrainingTimedOut) as caught:
        run(body("while True: pass"), cpu_seconds=2)
    assert (caught.value.seconds, caught.value.kind) == (2, "CPU")


def test_a_child_that_closes_its_pipe_and_goes_on_is_ended(run, isolation, monkeypatch):
    monkeypatch.setattr("oracle.clients.edge.child._EXIT_SECONDS", 0.2)
    # In a sandbox its init holds the pipe too, so that the clock ends it.
    sandboxed = isolation.obstacle is None
    error = TrainingTimedOut if sandboxed else TrainingFailed
    with pytest.raises(error, match="wall time" if sandboxed else "closed its pipes and went on"):
        run(speaking("os.close(loader._requests.fileno())"), wall=3.0)


def test_a_child_cannot_take_more_memory_than_allowed(run):
    source = body("data = bytearray(3 * 2**30)")
    with pytest.raises(TrainingFailed, match="its code raised MemoryError"):
        run(source, memory_bytes=2 * 2**30)


def test_a_child_cannot_write_larger_files_than_allowed(run):
    source = body("open('big', 'wb').write(bytes(2**20))")
    with pytest.raises(TrainingFailed, match=r"its code raised OSError|killed by SIGXFSZ"):
        run(source, file_bytes=2**16)


def test_stderr_is_kept_up_to_a_bound(run):
    source = body("import sys; sys.stderr.write('z' * 200_000 + 'end'); sys.stderr.flush(); 1/0")
    with pytest.raises(TrainingFailed) as caught:
        run(source)
    assert len(caught.value.stderr) <= 16 * 1024
    assert b"zzend" in caught.value.stderr


SLEEPER = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60) # {token}'])\n"
)


def processes(token: str) -> list[int]:
    """Host process ids of whatever has `token` on its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_a_grandchild_does_not_outlive_the_training(run):
    token = f"grandchild-{os.getpid()}"
    seen = []
    source = body(
        SLEEPER.format(token=token) + "for epoch in loader.epochs():\n"
        "    for batch in epoch: pass\n"
        "raise ValueError"
    )
    with pytest.raises(TrainingFailed, match="its code raised ValueError"):
        run(source, progress=lambda counters, metrics: seen.extend(processes(token)))
    assert seen
    assert processes(token) == []


def test_a_child_does_not_outlive_a_killed_parent(tmp_path, make_bundle):
    token = f"orphan-{os.getpid()}"
    source = body(SLEEPER.format(token=token) + "time.sleep(60)")
    make_bundle(source).write_to(tmp_path / "bundle")
    parent = f"""
import sys, threading
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parents[3])]!r}
from oracle.clients.edge.child import Child
from oracle.clients.edge.sandbox.launch import Isolation
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.sandbox.wan import WanGuard
isolation = Isolation("required", WanGuard("off", ()))
child = Child(Path({str(tmp_path)!r}), ChildLimits(), 60, threading.Event(), isolation)
child.send(dict(kind="job", bundle=child.bundle, entry_point="train:train",
    hyperparameters={{}}, epochs=1, features=1, shape=[1], records=1, batch_size=1, completed=0))
child.receive(100)
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    assert wait_for(lambda: processes(token))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_for(lambda: not processes(token))
    Isolation("required", WanGuard("off", ())).clear(tmp_path.parent)


def wait_for(condition, seconds=30.0):
    """The condition's first true value within so many seconds."""
    until = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < until:
        threading.Event().wait(0.02)
    return value


def test_stopping_the_node_ends_the_training_at_once(run, stop):
    started = time.monotonic()

    def progress(counters, metrics):
        stop.set()

    with pytest.raises(NodeStopping):
        run(progress=progress)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("frames", "detail"),
    [
        (["say({'kind': 'more'})"], "unknown kind"),
        (["say(b'nonsense')"], "header is not JSON"),
        (["say(b'[' * 60000)"], "header is not JSON"),
        (["say([1])"], "names no kind"),
        (["loader._requests.write(b'\\xff' * 12); loader._requests.flush()"], "a frame of"),
        (["say({'kind': 'next'})"], "names no epoch"),
        (["say({'kind': 'next', 'epoch': True})"], "names no epoch"),
        (["say({'kind': 'next', 'epoch': 1})"], "another epoch"),
        (["say({'kind': 'next', 'epoch': -1})"], "another epoch"),
        (["say({'kind': 'result'})"], "before its model was judged"),
        (["say({'kind': 'predictions'})"], "predictions are given once"),
        (["say({'kind': 'holdout'}, b'x')"], "asked for once"),
        (["say({'kind': 'holdout'})", "say({'kind': 'holdout'})"], "asked for once"),
        (
            ["say({'kind': 'holdout'})", "say({'kind': 'next', 'epoch': 0})"],
            "another epoch",
        ),
        (
            ["say({'kind': 'holdout'})", "say({'kind': 'predictions'}, b'junk')"],
            "not safetensors",
        ),
        (
            [
                "say({'kind': 'holdout'})",
                "say({'kind': 'predictions'}, save({'labels': np.zeros(7, np.int64)}))",
            ],
            "not one whole number",
        ),
        (
            [
                "say({'kind': 'holdout'})",
                "say({'kind': 'predictions'}, save({'labels': np.zeros(8, np.float32)}))",
            ],
            "not one whole number",
        ),
        (["say({'kind': 'checkpoint'}, save({}))"], "once, after a completed epoch"),
        ([FIRST, "say({'kind': 'checkpoint'}, save({}))"], "once, after a completed epoch"),
        ([*EPOCH, "say({'kind': 'checkpoint', 'x': 1}, save({}))"], "once, after"),
        ([*EPOCH, "say({'kind': 'checkpoint'}, b'\\x80\\x04N.')"], "checkpoint is not safetensors"),
        ([*EPOCH, *2 * ["say({'kind': 'checkpoint'}, save({}))"]], "once, after"),
        ([FIRST, "say({'kind': 'metrics', 'values': {}})"], "without metrics"),
        ([FIRST, "say({'kind': 'metrics', 'values': {'a b': 1.0}})"], "not a short identifier"),
        ([FIRST, 'say(b\'{"kind": "metrics", "values": {"a": NaN}}\')'], "not a finite number"),
        ([FIRST, "say({'kind': 'metrics', 'values': {'a': 'text'}})"], "not a finite number"),
        (
            [FIRST, "say({'kind': 'metrics', 'values': {'a%d' % i: 1.0 for i in range(17)}})"],
            "with too many",
        ),
    ],
)
def test_nonsense_from_the_child_is_a_violation_by_name(run, frames, detail):
    with pytest.raises(ProtocolViolation, match=detail):
        run(speaking(*frames))


def test_two_reports_in_an_epoch_are_a_violation(run):
    source = body(
        "for epoch in loader.epochs():\n"
        "    for batch in epoch: pass\n"
        "    loader.report(loss=1); loader.report(loss=2)"
    )
    with pytest.raises(ProtocolViolation, match="a second one in it"):
        run(source)


def test_an_output_larger_than_allowed_is_not_even_read(run):
    source = body(
        "loader.evaluate(lambda x: np.zeros(len(x)))\nreturn {'w': np.zeros(10_000, np.float32)}"
    )
    with pytest.raises(ProtocolViolation, match="20000 are allowed"):
        run(source, output=20_000)


def test_a_checkpoint_may_be_larger_than_an_output_but_not_by_more_than_its_factor(run):
    kept = []
    source = body(
        "for epoch in loader.epochs():\n"
        "    for batch in epoch: pass\n"
        "    loader.keep({'w': np.zeros(SIZE, np.float32)})\n"
        "loader.evaluate(lambda x: np.zeros(len(x)))\n"
        "return {'w': np.zeros(1, np.float32)}"
    )
    run(source.replace("SIZE", "10000"), output=20_000, keep=kept.append)
    assert [len(checkpoint.tensors) > 40_000 for checkpoint in kept] == [True, True]
    with pytest.raises(ProtocolViolation, match="80000 are allowed"):
        run(source.replace("SIZE", "20000"), output=20_000)


def test_a_framework_that_is_not_here_is_named(run, monkeypatch):
    monkeypatch.setitem(
        sys.modules["oracle.clients.edge.trainer"].FRAMEWORK_MODULES, "jax", "no_such_framework"
    )
    with pytest.raises(FrameworkMissing, match="no_such_framework"):
        run()


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("batch_size", 4097), ("seed", -1), ("seed", 1.5)]
)
def test_a_loader_setting_out_of_range_is_refused(name, value):
    with pytest.raises(HyperparameterInvalid) as caught:
        loader_settings({name: value})
    assert caught.value.name == name


def test_loader_settings_have_defaults():
    assert loader_settings({}) == (32, 0)
    assert loader_settings({"batch_size": 8, "seed": 9}) == (8, 9)


def test_labels_of_the_holdout_never_enter_the_child(run, committed):
    source = body(
        "header, payload = loader._ask({'kind': 'holdout'})\n"
        "from safetensors.numpy import load, save\n"
        "arrays = load(payload)\n"
        "assert list(arrays) == ['x'] and header == {'kind': 'holdout'}\n"
        "loader._ask({'kind': 'predictions'}, save({'labels': np.ones(8, np.int64)}))\n"
        "return {'w': np.zeros(1, np.float32)}"
    )
    result, _ = run(source)
    labels = committed.dataset.labels[committed.dataset.holdout]
    assert result.accuracy == np.mean(labels == 1)


def test_a_bundle_is_laid_out_read_only(tmp_path, make_bundle):
    make_bundle().write_to(tmp_path / "code")
    assert os.stat(tmp_path / "code" / "train.py").st_mode & 0o777 == 0o400
