"""A JSON-RPC proxy whose faults a test switches on and off: what stands before a real endpoint.

It forwards to `upstream` over HTTP, and answers wrongly, late or not at all as its `faults` say. It
runs on a thread of its own; a test changes `faults` between two requests.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

Answer = dict[str, Any]
Change = Callable[[list[Any], Any], Any]
Rewrite = Callable[[dict[str, Any]], Answer | None]

HANG_SECONDS = 30.0


@dataclass
class Faults:
    """What is wrong with the endpoint. All may be changed at any time.

    `hang`: no answer until the proxy heals (or HANG_SECONDS). `status`: this HTTP status instead of
    an answer, with `headers`. `error`: this JSON-RPC error. `garbage`: these bytes as the body.
    `rewrite`: may change a request, or answer it itself with a result or an error. `lies`: by
    method, what becomes of the true result (parameters, result → result). `height`: no blocks above
    it exist, as for an endpoint that has stopped following. `only`: the methods that
    all this is about, None for every one.
    """

    hang: bool = False
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    garbage: bytes | None = None
    rewrite: Rewrite = lambda request: None
    lies: dict[str, Change] = field(default_factory=dict)
    height: int | None = None
    only: frozenset[str] | None = None


class FaultyRpc:
    """The proxy; `asked` counts the requests by method."""

    def __init__(self, upstream: str) -> None:
        self.faults = Faults()
        self.asked: Counter[str] = Counter()
        self._upstream = upstream
        self._released = threading.Event()
        self._session = requests.Session()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens; the path and the user are such as must never be shown."""
        return f"http://user:secret-word@127.0.0.1:{self._server.server_port}/v2/secret-key"

    @property
    def name(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def heal(self) -> None:
        """All faults are over."""
        self.faults = Faults()
        self._released.set()
        self._released = threading.Event()

    def start(self) -> None:
        """Listen."""
        self._thread.start()

    def stop(self) -> None:
        """Let go of whoever waits, and end."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """HTTP status, headers and body for one request."""
        faults, released = self.faults, self._released
        call = json.loads(body)
        method = str(call["method"])
        self.asked[method] += 1
        if faults.only is not None and method not in faults.only:
            return 200, {}, json.dumps(self._forward(call)).encode()
        if faults.hang:
            released.wait(HANG_SECONDS)
            return 504, {}, b""
        if faults.status is not None:
            return faults.status, faults.headers, b"slow down"
        if faults.garbage is not None:
            return 200, {}, faults.garbage
        frame: Answer = {"jsonrpc": "2.0", "id": call["id"]}
        if faults.error is not None:
            return 200, {}, json.dumps({**frame, "error": faults.error}).encode()
        if (own := faults.rewrite(call)) is not None:
            return 200, {}, json.dumps({**frame, **own}).encode()
        return 200, {}, json.dumps(self._truth_or_lie(faults, method, call)).encode()

    def _truth_or_lie(self, faults: Faults, method: str, call: dict[str, Any]) -> Answer:
        parameters = call.get("params", [])
        if faults.height is not None:
            if method == "eth_blockNumber":
                return {"jsonrpc": "2.0", "id": call["id"], "result": hex(faults.height)}
            if method == "eth_getBlockByNumber":
                call = {**call, "params": self._no_higher(faults, parameters)}
        answer = self._forward(call)
        if method in faults.lies and "result" in answer:
            answer["result"] = faults.lies[method](parameters, answer["result"])
        return answer

    def _no_higher(self, faults: Faults, parameters: list[Any]) -> list[Any]:
        assert faults.height is not None
        which = parameters[0]
        if which in ("latest", "pending"):
            which = hex(faults.height)
        elif which in ("finalized", "safe"):
            which = hex(max(faults.height - 2, 0))
        elif which.startswith("0x") and int(which, 16) > faults.height:
            which = hex(2**40)
        return [which, *parameters[1:]]

    def _forward(self, call: dict[str, Any]) -> Answer:
        with self._lock:
            response = self._session.post(self._upstream, json=call, timeout=20)
        answer: Answer = response.json()
        return answer


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyRpc
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, answer = self.proxy.answer(body)
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # who asked did not wait

    def log_message(self, format: str, *args: object) -> None:
        pass  # the test's output is its own


@contextmanager
def faulty_rpc(upstream: str) -> Iterator[FaultyRpc]:
    """A proxy before the endpoint at `upstream` that listens until the block ends."""
    proxy = FaultyRpc(upstream)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
