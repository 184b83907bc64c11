"""The process that runs a bundle's code: started, limited, spoken to, and ended for certain.

All reading and writing has one deadline, so a child that hangs, floods or stops reading cannot hold
the parent. How the child is confined is `sandbox.launch`'s matter: it is looked at from outside
before the child is told anything.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from oracle.clients.edge import trainee
from oracle.clients.edge.errors import (
    NodeStopping,
    ProtocolViolation,
    TrainingFailed,
    TrainingTimedOut,
)
from oracle.clients.edge.sandbox.gpu import NONE, Gpus
from oracle.clients.edge.sandbox.launch import Isolation
from oracle.clients.edge.sandbox.limits import ChildLimits
from settlement.digests import check_nesting

STDERR_TAIL_BYTES = 16 * 1024
_STOP_CHECK_SECONDS = 0.2
_EXIT_SECONDS = 5.0


class Child:
    """One child. Use as a context manager: leaving kills it and everything in its session.

    Every method raises:
        TrainingTimedOut: when the wall time or the CPU time is used up.
        TrainingFailed: when the child is gone.
        NodeStopping: when `stop` is set.
    """

    def __init__(
        self,
        scratch: Path,
        limits: ChildLimits,
        wall_seconds: float,
        stop: threading.Event,
        isolation: Isolation,
        gpus: Gpus = NONE,
    ) -> None:
        """Start one for the bundle in `scratch`/bundle; it waits for its job when this returns.

        Raises:
            SandboxUnavailable, SandboxUnsound: when it cannot be confined as it has to be.
        """
        self._limits = limits
        self._wall_seconds = wall_seconds
        self._deadline = time.monotonic() + wall_seconds
        self._stop = stop
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()
        self._wanted = 0
        self._stderr = bytearray()
        self._launch = isolation.start(scratch, limits, gpus)
        self._process = self._launch.process
        self._selector = selectors.DefaultSelector()
        self._stdin = cast(IO[bytes], self._process.stdin)
        self._stdout = cast(IO[bytes], self._process.stdout)
        self._stderr_pipe = cast(IO[bytes], self._process.stderr)
        try:
            for pipe in (self._stdin, self._stdout, self._stderr_pipe):
                os.set_blocking(pipe.fileno(), False)
            self._selector.register(self._stderr_pipe, selectors.EVENT_READ, self._take_stderr)
            self._await_readiness()
            self.evidence = self._launch.admit()
            """What was seen of its confinement; see `sandbox.launch`."""
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._selector.close()
        self._launch.close()

    def kill(self) -> None:
        """End the child and whatever it started; harmless when it is gone."""
        self._launch.kill()

    @property
    def pid(self) -> int:
        """The process id of what this process started, which is also its session's."""
        return self._process.pid

    @property
    def bundle(self) -> str:
        """The bundle's directory as the child sees it."""
        return self._launch.bundle

    @property
    def peak_memory(self) -> int:
        """The most bytes that it had in memory so far; what it started is not in it."""
        return self._launch.peak_memory()

    def last_words(self) -> bytes:
        """The end of what the child wrote to stderr, once it is done. It may hold records: keep it.

        A child that is not done in a few seconds is killed.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)
        self.kill()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._stderr_pipe.fileno(), 1 << 16):
                self._keep_stderr(data)
        return bytes(self._stderr)

    def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Write one frame; returns when the pipe has taken all of it."""
        self._outgoing = memoryview(trainee.encode_frame(header, payload))
        self._selector.register(self._stdin, selectors.EVENT_WRITE, self._give)
        try:
            self._pump(lambda: not self._outgoing)
        finally:
            self._selector.unregister(self._stdin)

    def receive(
        self, max_payload: int, larger: Mapping[str, int] | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """Read one frame with at most `max_payload` bytes of payload, or what `larger` has by kind.

        Raises:
            ProtocolViolation: when it is none, or larger.
        """
        prefix = self._read(trainee.PREFIX.size)
        header_size, payload_size = trainee.PREFIX.unpack(prefix)
        larger = larger or {}
        most = max(max_payload, *larger.values()) if larger else max_payload
        self._check_size(header_size, payload_size, most)
        try:
            text = self._read(header_size)
            check_nesting(text)
            header = json.loads(text)
        except ValueError as error:
            raise ProtocolViolation("a frame's header is not JSON") from error
        if not isinstance(header, dict) or not isinstance(header.get("kind"), str):
            raise ProtocolViolation("a frame's header names no kind")
        self._check_size(header_size, payload_size, larger.get(header["kind"], max_payload))
        return header, self._read(payload_size)

    def _check_size(self, header: int, payload: int, most: int) -> None:
        if header > trainee.MAX_HEADER_BYTES or payload > most:
            raise ProtocolViolation(
                f"a frame of {header} + {payload} bytes, where"
                f" {trainee.MAX_HEADER_BYTES} + {most} are allowed"
            )

    def _await_readiness(self) -> None:
        header, payload = self.receive(0)
        if header != {"kind": trainee.READY} or payload:
            raise ProtocolViolation("the process did not begin with its readiness")

    def _read(self, size: int) -> bytes:
        self._wanted = size
        self._selector.register(self._stdout, selectors.EVENT_READ, self._take_stdout)
        try:
            self._pump(lambda: len(self._incoming) == size)
        finally:
            self._selector.unregister(self._stdout)
        data = bytes(self._incoming)
        self._incoming.clear()
        return data

    def _pump(self, done: Callable[[], bool]) -> None:
        while not done():
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                raise TrainingTimedOut(self._wall_seconds)
            if self._stop.is_set():
                raise NodeStopping
            for key, _ in self._selector.select(min(remaining, _STOP_CHECK_SECONDS)):
                key.data()

    def _give(self) -> None:
        try:
            sent = os.write(self._stdin.fileno(), self._outgoing)
        except BlockingIOError:
            return
        except BrokenPipeError:
            raise self._ended() from None
        self._outgoing = self._outgoing[sent:]

    def _take_stdout(self) -> None:
        # Never more than is wanted: what the parent holds is bounded by the frame it accepts.
        room = min(self._wanted - len(self._incoming), 1 << 16)
        data = os.read(self._stdout.fileno(), room)
        if not data:
            raise self._ended()
        self._incoming += data

    def _take_stderr(self) -> None:
        data = os.read(self._stderr_pipe.fileno(), 1 << 16)
        if not data:
            self._selector.unregister(self._stderr_pipe)
            return
        self._keep_stderr(data)

    def _keep_stderr(self, data: bytes) -> None:
        self._stderr += data
        del self._stderr[:-STDERR_TAIL_BYTES]

    def _ended(self) -> TrainingFailed | TrainingTimedOut:
        """Why the child closed its pipe, as an error."""
        try:
            status = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return TrainingFailed("it closed its pipes and went on", self.last_words())
        status = self._launch.ending(status)
        if self._launch.ran_out_of_memory():
            cause = f"it took more than its {self._limits.memory_bytes} bytes of memory"
            return TrainingFailed(cause, self.last_words())
        if status == -signal.SIGXCPU:
            return TrainingTimedOut(self._limits.cpu_seconds, "CPU")
        if status < 0:
            return TrainingFailed(f"killed by {_signal_name(-status)}", self.last_words())
        return TrainingFailed(f"it exited with status {status}", self.last_words())


def _signal_name(number: int) -> str:
    """A status may be of the bundle's choosing, and then no signal at all."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
