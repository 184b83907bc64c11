"""Three operators that vouch for the platform, and the node's attestor, over the real contracts."""

import threading
import time
from pathlib import Path

import pytest
from anvil import key as actor
from integration.oracle.test_three_operators import (
    CONFIGURATION,
    MEASUREMENT,
    Network,
    _wait_ready,
    network,  # noqa: F401 - a fixture
)

from oracle.client import OracleClient, OracleRefused, QuoteRequest
from oracle.clients.edge import signer as signing
from oracle.clients.edge.attestor import Attestor
from oracle.clients.edge.patience import Patience
from oracle.clients.edge.signer import EnclaveSigner
from settlement.client import Settlement
from settlement.dcap import split_quote

pytestmark = pytest.mark.xdist_group("anvil")


@pytest.fixture
def operator_settings() -> dict[str, str]:
    return {"VOUCH_FOR": "platform"}


class Dying(OracleClient):
    """The node's client; its process dies right before or right after it hands in a quote."""

    die: str | None = None

    def submit_quote(self, request: QuoteRequest):  # type: ignore[no-untyped-def]
        if self.die == "before":
            raise Killed
        status = super().submit_quote(request)
        if self.die == "after":
            raise Killed
        return status


class Killed(BaseException):
    """The node's process is gone."""


def test_key_is_registered_by_a_quote_that_the_chain_checked_itself(
    network: Network,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signing, "measurement", lambda: MEASUREMENT)
    deployment, stop = network.deployment, threading.Event()
    enclave = EnclaveSigner.open(tmp_path / "enclave", chain_id=deployment.chain_id)
    client = Dying(network.client.base_url)
    network.operators[2].kill()  # two of three are enough

    def attestor() -> Attestor:
        return Attestor(
            oracle=client,
            signer=enclave,
            platform=network.platform,
            deployment=deployment,
            node_id=1,
            configuration=CONFIGURATION,
            margin=3600,
            timeout=120,
            poll_seconds=0.2,
            clock=lambda: int(time.time()),
            stop=stop,
            patience=Patience(stop),
        )

    for die in ("before", "after"):
        client.die = die
        with pytest.raises(Killed):
            attestor().ensure()
        # the relaying operator dies as well, and comes back to what it had promised
        network.operators[0].kill()
        network.operators[0].wait()
        network.operators[0] = network.start(0)
        _wait_ready(client.base_url)
    client.die = None
    attestor().ensure()

    node = client.node(1)
    assert (node.valid, node.routable) == (True, True)
    assert (node.enclave_key, node.encryption_key) == (enclave.enclave_key, enclave.encryption_key)
    assert _names(network) == ["PlatformRegistered", "PlatformJudged", "EnclaveRegistered"]
    platform = split_quote(network.platform.quote(MEASUREMENT, bytes(64))).platform
    assert client.platform(platform).expiry == node.expiry
    registry = Settlement(network.w3, deployment).enclaves
    quoted = registry.events.EnclaveQuoted().get_logs(from_block=0)
    assert [log["args"]["enclave_key"] for log in quoted] == [enclave.enclave_key]

    with pytest.raises(OracleRefused) as caught:
        client.submit_quote(
            QuoteRequest(
                node_id=1,
                enclave_key=actor("thief").address,
                encryption_key=bytes(32),
                quote=network.platform.quote(MEASUREMENT, bytes(64)),
            )
        )
    assert caught.value.code == "StaleChallenge"
    client.close()


def _names(network: Network) -> list[str]:  # noqa: F811
    """The registry's events about platforms and keys, in order."""
    events = Settlement(network.w3, network.deployment).enclaves.events
    found = []
    for name in ("PlatformRegistered", "PlatformJudged", "EnclaveRegistered"):
        found += events[name]().get_logs(from_block=network.deployment.block)
    return [log["event"] for log in sorted(found, key=lambda log: log["blockNumber"])]
