"""Evaluates Rego in a process of its own, where whatever goes wrong is a fault, and so a denial."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from oracle.clients.edge.policy import evaluator
from settlement.errors import RaphaError

TIMEOUT_SECONDS = 60.0  # far above the CPU time: a busy machine alone must deny no job
CPU_SECONDS = 10
MEMORY_BYTES = 1 << 30
_NO_ENVIRONMENT: dict[str, str] = {}


class Fault(StrEnum):
    """The closed list of how an evaluation can fail; each denies."""

    CRASHED = "engine_crashed"
    TIMED_OUT = "engine_timed_out"
    FAILED = "engine_failed"
    UNDEFINED = "engine_undefined"
    MALFORMED = "engine_malformed"


class EvaluationFailed(RaphaError, RuntimeError):
    """No answer that counts. `detail` is about the rules or the process, never about the input."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail


class Engine:
    """Evaluates queries, one at a time. Use as a context manager, or call `close`.

    The process starts with the first query. It has no environment, bounded memory, and forks for
    each evaluation; after a fault it is replaced.
    """

    def __init__(
        self,
        *,
        timeout: float = TIMEOUT_SECONDS,
        cpu_seconds: int = CPU_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._timeout = timeout
        self._arguments = (str(memory_bytes), str(cpu_seconds))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id, which is also its session's; None before the first query."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process; a later query starts another."""
        with self._lock:
            self._end()

    def query(self, modules: Mapping[str, bytes], query: str, document: Any) -> Any:
        """The one value of `query` over these modules (by file name) with `document` as input.

        Raises:
            EvaluationFailed: for everything else than one value.
        """
        request = {
            "modules": {name: source.decode() for name, source in modules.items()},
            "query": query,
            "input": document,
        }
        with self._lock:
            try:
                answer = self._exchange(json.dumps(request).encode())
            except BaseException:
                self._end()
                raise
        if answer.get("outcome") == "value":
            return answer["value"]
        if answer.get("outcome") == "undefined":
            raise EvaluationFailed(Fault.UNDEFINED, f"{query} has no value")
        fault = Fault.CRASHED if answer.get("outcome") == "crashed" else Fault.FAILED
        raise EvaluationFailed(fault, str(answer.get("detail")))

    def _exchange(self, request: bytes) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout
        connection = self._connection()
        try:
            connection.settimeout(self._timeout)
            connection.sendall(evaluator.PREFIX.pack(len(request)) + request)
            prefix = _receive(connection, evaluator.PREFIX.size, deadline)
            (size,) = evaluator.PREFIX.unpack(prefix)
            if size > 2 * evaluator.MAX_ANSWER:
                raise EvaluationFailed(Fault.MALFORMED, f"an answer of {size} bytes")
            answer = json.loads(_receive(connection, size, deadline))
        except TimeoutError:
            raise EvaluationFailed(Fault.TIMED_OUT, f"no answer in {self._timeout:g} s") from None
        except OSError as error:
            detail = f"the process is gone ({error.strerror or error})"
            raise EvaluationFailed(Fault.CRASHED, detail) from None
        except ValueError:
            raise EvaluationFailed(Fault.MALFORMED, "the answer is not JSON") from None
        if not isinstance(answer, dict):
            raise EvaluationFailed(Fault.MALFORMED, "the answer is not an object")
        return answer

    def _connection(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._socket is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    # -I: neither the environment nor the working directory can add code.
                    [sys.executable, "-I", evaluator.__file__, *self._arguments],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=_NO_ENVIRONMENT,
                    start_new_session=True,
                )
            self._socket = ours
        return self._socket

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            # The session, since an evaluation is a fork of the process.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        part = connection.recv(min(size - len(data), 1 << 16))
        if not part:
            raise ConnectionError("it closed its pipe")
        data += part
    return bytes(data)
