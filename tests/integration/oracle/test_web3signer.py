"""A remote signer over HTTP, by a local server that speaks Web3Signer's JSON-RPC."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from anvil import Chain, key
from integration.oracle.scene import Scene

from oracle.errors import SignedOtherwise, SignerRefused, SignerUnavailable
from oracle.keyring import Keyring
from oracle.messages import Status
from oracle.relayer import Relayer
from oracle.signers.local import LocalKey
from oracle.signers.transaction import UnsignedTransaction
from oracle.signers.web3signer import Web3Signer

CHAIN_ID = 31337
WANTED = UnsignedTransaction(
    chain_id=CHAIN_ID,
    nonce=3,
    to=key("vault").address,
    data=b"\7",
    gas=90_000,
    max_fee=50,
    tip=20,
)


class SigningService:
    """The service with one key. `change` is what it signs instead; `reply` what it answers."""

    def __init__(self) -> None:
        self.account = key("relayer")
        self.change: Callable[[UnsignedTransaction], UnsignedTransaction] = lambda asked: asked
        self.reply: tuple[int, bytes] | None = None
        self.released = threading.Event()
        self.hang = False
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address, with a password that must not be shown."""
        return f"http://relayer:secret-word@127.0.0.1:{self._server.server_port}/"

    def stop(self) -> None:
        """End."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, call: dict[str, Any]) -> tuple[int, bytes]:
        """HTTP status and body."""
        if self.hang:
            self.released.wait(30)
        if self.reply is not None:
            return self.reply
        result: object = [self.account.address.lower()]
        if call["method"] == "eth_signTransaction":
            (fields,) = call["params"]
            assert set(fields) == {
                "from",
                "to",
                "gas",
                "maxPriorityFeePerGas",
                "maxFeePerGas",
                "nonce",
                "value",
                "data",
            }
            asked = UnsignedTransaction(
                chain_id=CHAIN_ID,
                nonce=int(fields["nonce"], 16),
                to=fields["to"],
                data=bytes.fromhex(fields["data"][2:]),
                gas=int(fields["gas"], 16),
                max_fee=int(fields["maxFeePerGas"], 16),
                tip=int(fields["maxPriorityFeePerGas"], 16),
                value=int(fields["value"], 16),
            )
            raw = LocalKey(self.account).sign_transaction(self.change(asked))
            result = "0x" + raw.hex()
        return 200, json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}).encode()


class _Handler(BaseHTTPRequestHandler):
    service: SigningService

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = self.service.answer(json.loads(body))
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # who asked did not wait

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def remote(service: SigningService, timeout: float = 5) -> Iterator[Web3Signer]:
    """A client of the service."""
    signer = Web3Signer(service.url, key("relayer").address, timeout=timeout)
    yield signer
    signer.close()


@pytest.fixture
def service() -> Iterator[SigningService]:
    service = SigningService()
    yield service
    service.stop()


def test_it_signs_what_a_local_key_would(service: SigningService) -> None:
    with remote(service) as signer:
        signer.check()
        assert signer.address == key("relayer").address
        assert signer.sign_transaction(WANTED) == LocalKey(key("relayer")).sign_transaction(WANTED)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nonce", 4),
        ("max_fee", 51),
        ("tip", 21),
        ("to", key("thief").address),
        ("data", b""),
        ("chain_id", 1),
        ("gas", 90_001),
        ("value", 1),
    ],
)
def test_what_it_signs_instead_is_refused(
    service: SigningService, field: str, value: object
) -> None:
    service.change = lambda asked: replace(asked, **{field: value})  # type: ignore[arg-type]
    with remote(service) as signer, pytest.raises(SignedOtherwise) as caught:
        signer.sign_transaction(WANTED)
    assert caught.value.what == f"has another {field}"


def test_another_keys_signature_is_refused(service: SigningService) -> None:
    service.account = key("thief")
    with remote(service) as signer, pytest.raises(SignedOtherwise) as caught:
        signer.sign_transaction(WANTED)
    assert caught.value.what == f"is signed by {key('thief').address}"
    with remote(service) as signer, pytest.raises(SignerRefused, match="has no account"):
        signer.check()


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        ((200, b"<html>"), SignerUnavailable, "answers HTTP 200 without JSON"),
        ((502, b"bad gateway"), SignerUnavailable, "answers HTTP 502 without JSON"),
        ((200, b"{}"), SignerUnavailable, "answers HTTP 200 without a result"),
        ((200, b'{"result": "0xzz"}'), SignedOtherwise, "is no EIP-1559 transaction"),
        ((200, b'{"result": null}'), SignedOtherwise, "is no EIP-1559 transaction"),
        (
            (200, b'{"error": {"code": -32000, "message": "sender is not on the list"}}'),
            SignerRefused,
            "sender is not on the list",
        ),
    ],
)
def test_an_answer_that_is_none_is_named_and_may_pass(
    service: SigningService, reply: tuple[int, bytes], kind: type[Exception], words: str
) -> None:
    service.reply = reply
    with remote(service) as signer, pytest.raises(kind, match=words) as caught:
        signer.sign_transaction(WANTED)
    assert caught.value.final is False  # type: ignore[attr-defined]


def test_no_answer_in_time_is_unavailable_and_shows_no_url(service: SigningService) -> None:
    service.hang = True
    with remote(service, timeout=0.3) as signer, pytest.raises(SignerUnavailable) as caught:
        signer.sign_transaction(WANTED)
    assert str(caught.value) == "the remote signer is unavailable: ReadTimeout"
    assert caught.value.final is False
    assert caught.value.__cause__ is None


def test_a_receipt_waits_while_the_signer_is_away_and_is_paid_once_it_is_back(
    quick: Chain, tmp_path: Path, service: SigningService
) -> None:
    scene = Scene.create(quick, tmp_path)
    assert scene.keyring is not None
    scene.keyring.close()
    (job,) = scene.open(1)
    with remote(service) as signer:
        deployment, clock = quick.deployment, quick.payer.now
        keyring = Keyring(scene.store, scene.view, deployment, [signer], scene.policy)
        scene.keyring = keyring
        scene.relayer = Relayer(scene.store, scene.view, deployment, keyring, scene.policy, clock)
        claim = scene.submit(job, 10)
        service.reply = (503, b"")
        with pytest.raises(SignerUnavailable):
            scene.tick()
        service.reply = None
        service.change = lambda asked: replace(asked, nonce=asked.nonce + 1)
        with pytest.raises(SignedOtherwise):
            scene.tick()
        assert scene.status(claim) == (Status.ACCEPTED, None)
        assert scene.unfinished() == []
        service.change = lambda asked: asked
        scene.rounds(2)
        assert scene.status(claim) == (Status.SETTLED, None)
        assert scene.payments(job) == [500_000]
        keyring.close()
