"""Whatever goes wrong in an evaluation is a fault by name, and the next evaluation is sound."""

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from oracle.clients.edge.policy.engine import Engine, EvaluationFailed, Fault

HEAD = "package a\n\nimport rego.v1\n\n"
ENDLESS = """
n := numbers.range(1, 9999)

x := [1 | some i in n; some j in n; some k in n; i * j * k < 0]
"""


def fault(engine: Engine, source: str, document=None, query: str = "data.a.x") -> EvaluationFailed:
    with pytest.raises(EvaluationFailed) as caught:
        engine.query({"a.rego": (HEAD + source).encode()}, query, document)
    return caught.value


def alive(session: int) -> bool:
    """Whether a process of this session runs; one that ended and was not collected does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, sid = stat.read_text().rpartition(") ")[2].split()[:4]
            if int(sid) == session and state != "Z":
                return True
    return False


def sound(engine: Engine) -> bool:
    return engine.query({"a.rego": f"{HEAD}x := input.n + 1".encode()}, "data.a.x", {"n": 1}) == 2


def test_the_value_of_a_query_is_given(engine):
    assert sound(engine)


def test_an_evaluation_leaves_nothing_to_the_next(engine):
    assert engine.query({"a.rego": b"package a\nx := input.n"}, "data.a.x", {"n": 1}) == 1
    assert fault(engine, "x := data.b.y").fault is Fault.UNDEFINED
    assert fault(engine, "x := input.n").fault is Fault.UNDEFINED


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("x := {", Fault.FAILED),
        ("x := input.missing", Fault.UNDEFINED),
        ("y := 1", Fault.UNDEFINED),
        ("x := count(input.a)", Fault.FAILED),
        ("x := [1 | count(input.a) == 1]", Fault.FAILED),
        ("x := 1 if input.a == 1\nx := 2 if input.a == 1", Fault.FAILED),
    ],
)
def test_rules_without_one_value_are_a_fault(engine, source, named):
    assert fault(engine, source, {"a": 1}).fault is named
    assert sound(engine)


def test_the_words_of_a_fault_hold_nothing_of_the_input(engine):
    error = fault(engine, "x := 1 if input.a\nx := 2 if input.a", {"a": "patient17"})
    assert error.fault is Fault.FAILED
    assert "patient17" not in str(error)


def test_an_evaluation_without_end_is_killed_by_its_cpu_time():
    with Engine(cpu_seconds=1, timeout=200) as engine:
        error = fault(engine, ENDLESS)
        assert (error.fault, error.detail) == (Fault.CRASHED, "killed by SIGKILL")
        assert sound(engine)


def test_an_evaluation_that_is_not_done_in_time_is_ended_with_all_its_processes():
    # So much CPU time that only the kill can end it while the test runs.
    with Engine(timeout=200, cpu_seconds=3600) as engine:
        assert sound(engine)
        engine._timeout = 0.5
        first = engine.pid
        assert fault(engine, ENDLESS).fault is Fault.TIMED_OUT
        while alive(first):  # killed by now, and about to end
            pass
        engine._timeout = 200
        assert sound(engine)
        assert engine.pid != first


def test_an_evaluation_that_grows_is_killed():
    with Engine(memory_bytes=64 << 20, cpu_seconds=300, timeout=200) as engine:
        error = fault(engine, "x := count(numbers.range(1, 100000000))")
        assert error.fault is Fault.CRASHED
        assert error.detail == f"more than {64 << 20} bytes of memory"
        assert sound(engine)


def test_an_answer_that_is_too_large_is_refused(engine):
    error = fault(engine, "x := [input.s | some i in numbers.range(1, 300)]", {"s": "a" * 4096})
    assert (error.fault, error.detail) == (
        Fault.CRASHED,
        "an answer of more than 1048576 bytes",
    )
    assert sound(engine)


def evaluation_of(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


@pytest.mark.parametrize("who", ["evaluation", "process"])
def test_a_crash_in_the_middle_is_a_fault(who):
    # The evaluation alone would go on for longer than is waited.
    with Engine(timeout=60, cpu_seconds=150) as engine:
        assert sound(engine)
        pid = engine.pid

        def crash() -> None:
            while (child := evaluation_of(pid)) is None:
                pass
            os.kill(child if who == "evaluation" else pid, signal.SIGSEGV)

        thread = threading.Thread(target=crash)
        thread.start()
        error = fault(engine, ENDLESS)
        thread.join()
        assert error.fault is Fault.CRASHED
        assert error.detail.startswith(
            "killed by SIGSEGV" if who == "evaluation" else "the process is gone"
        )
        assert sound(engine)


def test_a_process_that_died_between_two_queries_is_replaced():
    with Engine(timeout=200) as engine:
        assert sound(engine)
        os.kill(engine.pid, signal.SIGKILL)
        os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)
        assert sound(engine)


def test_the_process_has_no_environment_and_ends_with_its_parent(monkeypatch):
    monkeypatch.setenv("RAPHA_SECRET", "key")
    with Engine(timeout=200) as engine:
        assert sound(engine)
        pid = engine.pid
        assert b"RAPHA_SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert b"PATH=" not in Path(f"/proc/{pid}/environ").read_bytes()
        # The parent's end of the pipe is all that keeps it.
        engine._socket.close()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_close_ends_the_process():
    engine = Engine(timeout=200)
    assert engine.pid is None
    assert sound(engine)
    pid = engine.pid
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
