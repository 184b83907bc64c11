"""A local chain: anvil, as npm brings it."""

import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from web3 import HTTPProvider, Web3
from web3.types import RPCEndpoint

from settlement.errors import RaphaError

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class TookTooLong(RaphaError, TimeoutError):
    """Something did not happen in its time."""

    def __init__(self, what: str, seconds: float) -> None:
        self.what, self.seconds = what, seconds
        super().__init__(f"{what} did not happen within {seconds:.0f} seconds")


class ChainMissing(RaphaError, FileNotFoundError):
    """anvil is not installed in this folder."""

    def __init__(self) -> None:
        super().__init__("anvil is not installed: run `make setup`")


def anvil_binary() -> Path:
    """The chain's program itself: npm's wrapper would leave it running behind its back.

    Raises:
        ChainMissing: when set-up has not installed it.
    """
    found = sorted(ROOT.glob("node_modules/@foundry-rs/anvil-*/bin/anvil*"))
    if not found:
        raise ChainMissing
    return found[0]


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def quiet_chain(genesis: int, *options: str, hardfork: str = "osaka") -> Iterator[Web3]:
    """A bare anvil that mines each transaction at once.

    Its clock starts at `genesis` (Unix seconds) and moves a second per block, so that the same
    transactions always give the same chain. `options` are more of anvil's own.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        command = [
            str(anvil_binary()),
            *("--port", str(port), "--hardfork", hardfork, "--accounts", "10", "--quiet"),
            *("--timestamp", str(genesis), "--gas-limit", "60000000"),
            *options,
        ]
        chain = subprocess.Popen(
            command, env={**os.environ, "HOME": home}, preexec_fn=die_with_parent
        )
        try:
            w3 = Web3(HTTPProvider(f"http://127.0.0.1:{port}"))
            end = time.monotonic() + START_SECONDS
            while not w3.is_connected():
                if time.monotonic() > end:
                    raise TookTooLong("the chain's start", START_SECONDS)
                time.sleep(0.05)
            rpc(w3, "anvil_setBlockTimestampInterval", 1)
            yield w3
        finally:
            chain.kill()
            chain.wait()


def rpc(w3: Web3, method: str, *arguments: object) -> object:
    """Call one of anvil's own methods.

    Raises:
        RuntimeError: when anvil answers with an error.
    """
    answer = w3.provider.make_request(RPCEndpoint(method), arguments)
    if "error" in answer:
        raise RuntimeError(f"{method}: {answer['error']}")
    return answer["result"]


def die_with_parent() -> None:
    """For a new process: have Linux end it with the one that started it, whatever ends that."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
