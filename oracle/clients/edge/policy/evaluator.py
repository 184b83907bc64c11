"""The process in which Rego is evaluated: it may crash, hang or grow, and nothing else is harmed.

Started as `python -I evaluator.py MEMORY CPU` with a socket as its input and output. It loads the
engine once, then forks for each request, so that an evaluation starts from a clean memory and ends
with it. Its memory is watched, since the engine's allocator reserves 256 GiB of addresses, which no
limit of address space fits. A frame is a big-endian u32 length and JSON. It is one file on purpose:
of this package it imports nothing. The engine is imported by this process alone: its library and
others of C++, such as Parquet's, bring each other down.
"""

import ctypes
import importlib
import json
import os
import re
import resource
import select
import signal
import struct
import sys
from typing import Any, BinaryIO

PREFIX = struct.Struct(">I")
MAX_ANSWER = 1 << 20
_LOOK_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_MESSAGE = re.compile(r"\(errormsg \d+:([^)]{1,200})\)")


def evaluate(request: dict[str, Any]) -> dict[str, Any]:
    """`value` of the query, or `undefined`, or `failed` with words about the rules' source."""
    import regopy

    interpreter = regopy.Interpreter()
    # A built-in function that gets a wrong type is an error, not silence: silence denies nothing.
    interpreter.strict_built_in_errors = True
    try:
        # Compiled before there is an input, so that the words of an error hold nothing of one.
        for name, source in request["modules"].items():
            interpreter.add_module(name, source)
        bundle = interpreter.build(request["query"])
        if not bundle.ok():
            return {"outcome": "failed", "detail": _words(str(bundle.node()))}
    except regopy.RegoError as error:
        return {"outcome": "failed", "detail": _words(str(error))}
    try:
        interpreter.set_input(request["input"])
        output = interpreter.query_bundle(bundle)
    except regopy.RegoError:
        return {"outcome": "failed", "detail": "the evaluation ended with an error"}
    if not output.ok():
        return {"outcome": "failed", "detail": "the evaluation ended with an error"}
    if len(output.results) != 1 or len(output.results[0].expressions) != 1:
        return {"outcome": "undefined"}
    return {"outcome": "value", "value": output.results[0].expressions[0]}


def serve(request: dict[str, Any], memory: int, cpu_seconds: int) -> dict[str, Any]:
    """Evaluate in a fork of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            # An orphan would hold the pipe to the node until its time is used up.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(json.dumps(evaluate(request)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer, excess = _watch(pipe, child, memory)
    if excess:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if excess:
        return {"outcome": "crashed", "detail": excess}
    if status != 0:
        return {"outcome": "crashed", "detail": _ending(status)}
    result: dict[str, Any] = json.loads(answer)
    return result


def _watch(pipe: BinaryIO, child: int, memory: int) -> tuple[bytes, str]:
    """What the child answers until it closes the pipe, or what it took too much of."""
    answer = bytearray()
    while True:
        if select.select([pipe], [], [], _LOOK_SECONDS)[0]:
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                return bytes(answer), ""
            answer += part
            if len(answer) > MAX_ANSWER:
                return b"", f"an answer of more than {MAX_ANSWER} bytes"
        if _resident(child) > memory:
            return b"", f"more than {memory} bytes of memory"


def _resident(pid: int) -> int:
    """Bytes in memory, 0 for a process that has ended (proc(5), statm)."""
    with open(f"/proc/{pid}/statm", "rb") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def _words(text: str) -> str:
    return "; ".join(dict.fromkeys(_MESSAGE.findall(text))) or "it does not compile"


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _frame(stream: BinaryIO) -> bytes | None:
    prefix = stream.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    return stream.read(PREFIX.unpack(prefix)[0])


def main(memory: int, cpu_seconds: int) -> None:
    """Answer requests until the parent is gone."""
    importlib.import_module("regopy")  # once, before any fork
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # The engine prints its errors, which may hold the input.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    while (request := _frame(requests)) is not None:
        answer = json.dumps(serve(json.loads(request), memory, cpu_seconds)).encode()
        answers.write(PREFIX.pack(len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
