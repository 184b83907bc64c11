"""Runs the contract tests against mutants, each in a fork of one process that has loaded them all.

The repository is read and never written: a fork compiles the mutant in memory, lets
`settlement.contracts.artifact` find it in a temporary folder, and runs tests until one fails.
"""

import ctypes
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path, PurePath
from typing import Any, NoReturn

import pytest
from vyper.compiler.input_bundle import JSONInputBundle
from vyper.compiler.phases import CompilerData
from vyper.exceptions import VyperException
from vyper.ir import compile_ir

from scripts.mutate.mutants import (
    ARTIFACTS,
    ROOT,
    Mutant,
    contracts_with,
    lines_of_constructors,
    lines_with_constant,
    shipped_code,
    without_metadata,
)
from settlement import contracts as shipped

TESTS = ("tests/unit/contracts", "tests/stateful", "tests/symbolic")
# tests whose histories are long: they come after the others
HISTORIES = "tests/stateful"
# proofs on code that is cut out of the contracts, and where they cut
PROOFS = "tests/symbolic/test_words.py::test_property_holds"
PROVEN = {
    ("contracts/RaphaClearingVault.vy", "_settle"),
    ("contracts/RaphaNodeRegistry.vy", "set_shares"),
    ("contracts/modules/earnings.vy", "_split"),
    ("contracts/modules/escrow.vy", "_enter"),
}
WORDS = "contracts/modules/words.vy"
PYTEST = (
    *("-o", "addopts=", "--import-mode=importlib", "-n", "0"),
    *("-p", "no:ape_test", "-p", "no:boa_test", "-p", "no:timeout"),
)

WALK = "test_seeded_walks_agree"
# so many tests that run a mutant's line come before so many walks
EARLY, WALKS = 30, 2
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

Line = tuple[str, int]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: killed (by which test), survived, timeout, same code, or invalid."""

    status: str
    killer: str = ""
    seconds: float = 0.0
    tests: int = 0


@dataclass
class Baseline:
    """What the tests do to the contracts as they are."""

    # test -> seconds, of those that pass
    seconds: dict[str, float] = field(default_factory=dict)
    failing: list[str] = field(default_factory=list)
    # test -> lines of runtime code that it runs; what revm runs is not seen
    lines: dict[str, set[Line]] = field(default_factory=dict)


def compile_sources(sources: dict[str, str], contract: str) -> CompilerData:
    """A contract from texts in memory, with snekmate's from where it is installed."""
    bundle = JSONInputBundle(
        {PurePath(path): {"content": text} for path, text in (_snekmate() | sources).items()},
        [PurePath()],
    )
    return CompilerData(bundle.load_file(PurePath(contract)), bundle)


def _snekmate() -> dict[str, str]:
    folder = Path(str(distribution("snekmate").locate_file("")))
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in (folder / "snekmate").rglob("*.vy*")
    }


class Server:
    """A pytest plugin that runs mutants where pytest would run tests."""

    def __init__(
        self,
        sources: dict[str, str],
        jobs: int,
        kept_baseline: Path,
        report: Callable[[Mutant, Verdict], None],
        ready: Callable[[Baseline], Sequence[Mutant]],
        has_changed: Callable[[], bool],
    ) -> None:
        self.sources, self.jobs, self.report, self.ready = sources, jobs, report, ready
        self.has_changed = has_changed
        self.kept_baseline, self.has_run = kept_baseline, False
        self.lines_of_constructors = lines_of_constructors(sources)
        self.folder = Path(tempfile.mkdtemp(prefix="rapha-mutants-"))
        # as they are now: what is compiled meanwhile must not mix with it
        self.artifacts = Path(shutil.copytree(ARTIFACTS, self.folder / "artifacts"))
        self.original: dict[str, bytes] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """A failing example is enough: it is neither made smaller nor kept."""
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutants", settings(), phases=(Phase.explicit, Phase.generate), database=None
        )
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of the tests themselves; a file of tests that cannot be loaded ends it."""
        if session.testsfailed:
            return True
        self.has_run = True
        try:
            self.items = {
                item.nodeid: item
                for item in session.items
                if PROOFS in item.nodeid or "tests/symbolic" not in item.nodeid
            }
            gc.collect()
            gc.freeze()
            gc.disable()
            self.baseline = self._measure()
            self._run_all(self.ready(self.baseline))
        finally:
            shutil.rmtree(self.folder)
        return True

    # the tests on the contracts as they are

    def _measure(self) -> Baseline:
        """Times and lines, by a fork, so that this process stays fresh."""
        if not self.kept_baseline.exists():
            pid = os.fork()
            if pid == 0:
                self._child(partial(self._measure_here, self.kept_baseline))
            _, status = os.waitpid(pid, 0)
            if status or not self.kept_baseline.exists():
                raise RuntimeError("the tests could not be run on the contracts as they are")
        data = json.loads(self.kept_baseline.read_text())
        self.original = {name: bytes.fromhex(code) for name, code in data["original"].items()}
        for contract, code in self.original.items():
            if shipped_code(contract) != code:
                raise RuntimeError(f"{contract} and its artifact differ: run `make artifacts`")
        return Baseline(
            data["seconds"],
            data["failing"],
            {test: {(file, line) for file, line in lines} for test, lines in data["lines"].items()},
        )

    def _measure_here(self, target: Path) -> None:
        maps: list[tuple[bytes, dict[int, Line]]] = []
        original = {}
        for contract in sorted(path for path in self.sources if path.count("/") == 1):
            data = compile_sources(self.sources, contract)
            original[contract] = without_metadata(data.bytecode).hex()
            _, found = compile_ir.assembly_to_evm(data.assembly_runtime, compiler_metadata=None)
            lines = {
                pc: (str(node.module_node.path), node.lineno)
                for pc, node in found["pc_raw_ast_map"].items()
                if node.module_node is not None
            }
            maps.append((data.bytecode_runtime, lines))
        self._install({})
        seconds, failing, covered = {}, [], {}
        with _traced() as trace:
            for test, item in self.items.items():
                begun = time.process_time()
                trace.clear()
                failure = _run(item)
                if failure is not None:
                    failing.append(test)
                    continue
                seconds[test] = time.process_time() - begun
                covered[test] = sorted(
                    {
                        lines[pc]
                        for code, pcs in trace.items()
                        for runtime, lines in maps
                        if code.startswith(runtime)
                        for pc in pcs & lines.keys()
                    }
                )
        result = {"seconds": seconds, "failing": failing, "lines": covered, "original": original}
        target.parent.mkdir(exist_ok=True)
        partial_file = target.with_suffix(".part")
        partial_file.write_text(json.dumps(result))
        partial_file.rename(target)

    # mutants

    def _run_all(self, mutants: Sequence[Mutant]) -> None:
        pending = list(reversed(mutants))
        running: dict[int, tuple[Mutant, Path, float]] = {}
        while pending or running:
            while pending and len(running) < self.jobs:
                mutant = pending.pop()
                target = self.folder / f"{mutant.key(self.sources)}.json"
                pid = os.fork()
                if pid == 0:
                    self._child(partial(self._try, mutant, target))
                running[pid] = mutant, target, time.perf_counter()
            pid, status = os.wait()
            mutant, target, begun = running.pop(pid)
            if self.has_changed():
                raise RuntimeError(
                    "the contracts or the tests have changed meanwhile: run it again"
                )
            found = json.loads(target.read_text()) if target.exists() else {}
            if os.WIFSIGNALED(status):
                found["status"] = "timeout"
            verdict = Verdict(
                found.get("status", "crashed"),
                found.get("killer", ""),
                time.perf_counter() - begun,
                found.get("tests", 0),
            )
            self.report(mutant, verdict)

    def _try(self, mutant: Mutant, target: Path) -> None:
        def write(**result: Any) -> None:
            partial = target.with_suffix(".part")
            partial.write_text(json.dumps(result))
            partial.rename(target)

        sources = {**self.sources, mutant.file: mutant.apply(self.sources[mutant.file])}
        _limit(120)
        try:
            made = {
                contract: compile_sources(sources, contract).bytecode
                for contract in contracts_with(mutant.file, sources)
            }
        except VyperException as error:
            write(status="invalid", killer=type(error).__name__)
            return
        if all(without_metadata(code) == self.original[name] for name, code in made.items()):
            write(status="same code")
            return
        self._install(made)
        self._install_sources(sources)
        count = 0
        for test in self.order(mutant):
            count += 1
            write(killer=test, tests=count)
            # a test that takes far longer than it should has noticed something
            _limit(20 + 10 * self.baseline.seconds[test])
            failure = _run(self.items[test])
            _limit(0)
            if failure is not None:
                write(status="killed", killer=test, tests=count)
                return
        write(status="survived", tests=count)

    def order(self, mutant: Mutant) -> list[str]:
        """The tests that may notice a mutant, first those that run its line, by how long they take.

        What a walk through the vault's whole life would notice comes early; where a constructor may
        run the line, every test is asked in the end.
        """
        seconds, lines = self.baseline.seconds, self.baseline.lines
        if mutant.function is None:
            wanted = lines_with_constant(mutant.file, mutant.line, self.sources)
        else:
            first, last = mutant.lines
            wanted = {(mutant.file, line) for line in range(first, last + 1)}
        covering = {test for test in seconds if wanted & lines[test]}
        histories = {test for test in seconds if test.startswith(HISTORIES)}
        proofs = {test for test in seconds if test.startswith(PROOFS)}
        is_proven = mutant.file == WORDS or (mutant.file, mutant.function) in PROVEN
        others = set(seconds) - covering - histories - proofs
        every = not covering or not wanted.isdisjoint(self.lines_of_constructors)

        def quickest(tests: set[str]) -> list[str]:
            return sorted(tests, key=lambda test: seconds[test])

        near = quickest(covering)
        walks = sorted(quickest(histories), key=lambda test: WALK not in test)
        return [
            *near[:EARLY],
            *walks[:WALKS],
            *near[EARLY:],
            *walks[WALKS:],
            *(quickest(proofs) if is_proven else []),
            *(quickest(others) if every else []),
        ]

    def _install(self, made: dict[str, bytes]) -> None:
        """Let `artifact` find this code from here on."""
        package = self.folder / str(os.getpid())
        if not package.exists():
            shutil.copytree(self.artifacts, package / "artifacts")
        for contract, code in made.items():
            path = self._artifact(package / "artifacts", contract)
            path.write_text(
                json.dumps({**json.loads(path.read_text()), "bytecode": f"0x{code.hex()}"})
            )
        shipped.files = lambda name: package  # type: ignore[attr-defined, assignment]
        shipped.artifact.cache_clear()

    @staticmethod
    def _artifact(folder: Path, contract: str) -> Path:
        return folder / f"{PurePath(contract).stem}.json"

    def _install_sources(self, sources: dict[str, str]) -> None:
        """Let the proofs cut from these texts."""
        package = self.folder / str(os.getpid())
        for file, text in sources.items():
            (package / file).parent.mkdir(parents=True, exist_ok=True)
            (package / file).write_text(text)
        if (harness := sys.modules.get("symbolic.harness")) is not None:
            harness.ROOT = package  # type: ignore[attr-defined]
            harness.harness.cache_clear()

    def _child(self, work: Callable[[], None]) -> NoReturn:
        code = 1
        try:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            work()
            code = 0
        finally:
            shutil.rmtree(self.folder / str(os.getpid()), ignore_errors=True)
            os._exit(code)


def _limit(seconds: float) -> None:
    """End this process after so much of its own time, which a busy machine does not use up.

    Waiting uses none, so by the clock it has twenty times as long; 0 lifts the limit.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 20 * seconds)


def _run(item: pytest.Item) -> BaseException | None:
    """Run one test; its failure, or None. A skipped test has not failed."""
    failure: BaseException | None = None
    # what pytest itself does before and after, without its reports, which take long to make
    item._initrequest()  # type: ignore[attr-defined]
    try:
        item.ihook.pytest_runtest_setup(item=item)
        item.ihook.pytest_runtest_call(item=item)
    except pytest.skip.Exception:
        pass
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - any failure kills a mutant
        failure = error
    try:
        item.ihook.pytest_runtest_teardown(item=item, nextitem=None)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001
        failure = failure or error
    return failure


@contextmanager
def _traced() -> Iterator[dict[bytes, set[int]]]:
    """Code -> program counters that boa's EVM has run since it was last cleared."""
    from boa.vm.py_evm import titanoboa_computation  # type: ignore[import-untyped]

    seen: dict[bytes, set[int]] = defaultdict(set)
    plain = titanoboa_computation.__dict__["apply_computation"].__func__

    def traced(cls: type, *arguments: Any, **options: Any) -> Any:
        computation = plain(cls, *arguments, **options)
        seen[bytes(computation.code._raw_code_bytes)].update(computation.code._trace)
        return computation

    titanoboa_computation.apply_computation = classmethod(traced)
    try:
        yield seen
    finally:
        titanoboa_computation.apply_computation = classmethod(plain)


def serve(server: Server, tests: Sequence[str]) -> None:
    """Load the tests and run the server's mutants against them."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    paths = [str(ROOT / test) for test in tests]
    code = pytest.main([*PYTEST, "--rootdir", str(ROOT), *paths], [server])
    if not server.has_run:
        raise RuntimeError(f"the tests could not be loaded: pytest ended with {code}")


def file_digest(path: Path) -> str:
    """Of a file's content."""
    return sha256(path.read_bytes()).hexdigest()[:16]
