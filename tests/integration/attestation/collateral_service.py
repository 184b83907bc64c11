"""A collateral service as its clients see one, on this machine, with faults to order."""

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

from oracle.clients.edge.devplatform import DevPlatform

NOW = 1_800_000_000
LOCAL_CHAIN = 31337
TCB = "/sgx/certification/v4/tcb"
QE = "/sgx/certification/v4/qe/identity"
PCK_CRL = "/sgx/certification/v4/pckcrl"
ROOT_CRL = "/sgx/certification/v4/rootcacrl"
PATHS = (TCB, QE, PCK_CRL, ROOT_CRL)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what some tests are about."""


@dataclass
class Answer:
    """One HTTP answer; `claimed` is a Content-Length other than the true one."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    claimed: int | None = None


@dataclass
class Asked:
    """One request that came in."""

    path: str
    parameters: dict[str, str]


class CollateralService:
    """Serves the documents of development platforms as a PCCS does, and records what was asked.

    `faults` maps a path to what takes the place of its true answer.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.faults: dict[str, Callable[[Answer], Answer]] = {}
        self._documents: dict[str, dict[str, str]] = {}
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.respond(self)

            def log_message(self, *_: object) -> None:
                return

        self._server = _Server(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """End it; a second time does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def serve(self, platform: DevPlatform, tee: str = "sgx") -> None:
        """Have it know this platform's collateral, as it stands."""
        self._documents[tee] = json.loads(platform.collateral_json())

    def serve_json(self, text: str, tee: str = "sgx") -> None:
        self._documents[tee] = json.loads(text)

    def fault(self, path: str, change: Callable[[Answer], Answer]) -> None:
        self.faults[path] = change

    def answer_for(self, asked: Asked) -> Answer:
        _, tee, *rest = asked.path.split("/")
        document = self._documents.get(tee) or next(iter(self._documents.values()))
        if asked.path == ROOT_CRL:
            return Answer(document["root_ca_crl"].encode())
        if asked.path == PCK_CRL:
            chain = quote(document["pck_crl_issuer_chain"])
            return Answer(bytes.fromhex(document["pck_crl"]), {"SGX-PCK-CRL-Issuer-Chain": chain})
        if rest[-1] == "tcb":
            if json.loads(document["tcb_info"])["fmspc"].upper() != asked.parameters.get("fmspc"):
                return Answer(status=404)
            signature = document["tcb_info_signature"]
            body = f'{{"tcbInfo":{document["tcb_info"]},"signature":"{signature}"}}'
            chain = quote(document["tcb_info_issuer_chain"])
            return Answer(body.encode(), {"TCB-Info-Issuer-Chain": chain})
        if rest[-2:] == ["qe", "identity"]:
            signature = document["qe_identity_signature"]
            body = f'{{"enclaveIdentity":{document["qe_identity"]},"signature":"{signature}"}}'
            chain = quote(document["qe_identity_issuer_chain"])
            return Answer(body.encode(), {"SGX-Enclave-Identity-Issuer-Chain": chain})
        return Answer(status=404)

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        parameters = {name: values[0] for name, values in parse_qs(parts.query).items()}
        asked = Asked(parts.path, parameters)
        self.asked.append(asked)
        answer = self.answer_for(asked)
        if asked.path in self.faults:
            answer = self.faults[asked.path](answer)
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        length = len(answer.body) if answer.claimed is None else answer.claimed
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(answer.body)
