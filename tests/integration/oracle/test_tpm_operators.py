"""Three operators that want a TPM, and a node with a real one: one of them is down, or lies."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from anvil import key as actor
from cryptography.hazmat.primitives.serialization import Encoding
from endorsement import EndorsementCa
from integration.oracle.test_three_operators import (
    Network,
    _wait_ready,
    lie,
    network,  # noqa: F401 - a fixture
    settled,
    until,
)
from swtpm import Swtpm, emulated_tpm

from oracle.attestation.tpm.structures import Bank, parse_public
from oracle.client import OracleClient, OracleRefused, OracleUnavailable
from oracle.clients.edge.machine import Machine
from oracle.clients.edge.tpm import Tpm, TpmFiles
from oracle.messages import NodeStatus

ENCLAVE = actor("enclave").address
BOOTED = Bank.SHA256.digest(b"the node's kernel")


@pytest.fixture
def vendor() -> EndorsementCa:
    return EndorsementCa.create(int(time.time()) - 3600)


@pytest.fixture
def tpm() -> Iterator[Swtpm]:
    """A machine that has booted what the policy allows."""
    with emulated_tpm() as machine:
        machine.extend(9, {Bank.SHA256: BOOTED})
        yield machine


@pytest.fixture
def operator_settings(tmp_path: Path, vendor: EndorsementCa) -> dict[str, str]:
    roots, policies = tmp_path / "tpm-roots.pem", tmp_path / "tpm-policies.json"
    roots.write_bytes(vendor.root.public_bytes(Encoding.PEM))
    pcr = Bank.SHA256.digest(bytes(32) + BOOTED)
    policy = {
        "model": "edge",
        "version": 1,
        "pcrs": {"8": ["0x" + "00" * 32], "9": ["0x" + pcr.hex()]},
    }
    policies.write_text(json.dumps({"policies": [policy], "nodes": {"1": {"model": "edge"}}}))
    return {
        "TPM_REQUIRED": "true",
        "TPM_ROOTS_FILE": str(roots),
        "TPM_POLICIES_FILE": str(policies),
    }


@pytest.fixture
def now() -> list[int]:
    """What is added to the node's clock."""
    return [0]


@pytest.fixture
def machine(
    network: Network,  # noqa: F811
    tpm: Swtpm,
    vendor: EndorsementCa,
    tmp_path: Path,
    now: list[int],
) -> Machine:
    certificate, chain = tmp_path / "ek.der", tmp_path / "chain.pem"
    certificate.write_bytes(vendor.certify(parse_public(tpm.create_ek("ecc").public).key))
    chain.write_bytes(vendor.issuer.public_bytes(Encoding.PEM))
    return Machine(
        tpm=Tpm(
            tmp_path / "tpm",
            f"swtpm:path={tpm._directory / 'tpm'}",
            files=TpmFiles(certificate=certificate, intermediates=chain),
        ),
        oracle=network.client,
        deployment=network.deployment,
        node_id=1,
        enclave_key=ENCLAVE,
        margin=3600,
        clock=lambda: int(time.time()) + now[0],
    )


def status(url: str) -> NodeStatus:
    """The node as this operator sees it, once its watcher has come so far."""

    def ask() -> NodeStatus | None:
        with OracleClient(url) as client:
            try:
                return client.node(1)
            except (OracleRefused, OracleUnavailable):
                return None

    return until(ask)


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def test_node_is_routable_by_each_operator_that_saw_its_tpm_and_by_the_dead_one_once_it_is_back(
    network: Network,  # noqa: F811
    machine: Machine,
    tpm: Swtpm,
    now: list[int],
) -> None:
    client = network.client
    with pytest.raises(OracleRefused) as refused:
        client.submit_attestation(network.evidence())
    assert (refused.value.code, refused.value.status) == ("TpmEvidenceMissing", 422)

    kill(network.operators[2])
    digest = client.submit_attestation(network.evidence(machine.evidence)).digest
    settled(lambda: client.attestation(digest))
    for url in network.urls[:2]:
        node = status(url)
        assert (node.valid, node.routable, node.reasons) == (True, True, ())
        assert node.tpm_valid_until == node.routable_until

    network.start(2)
    _wait_ready(network.urls[2])
    late = status(network.urls[2])
    assert (late.valid, late.routable, late.reasons) == (True, False, ("tpm_missing",))
    # The first try finds that one operator lacks the key, the next one enrols it there too.
    machine.keep_fresh()
    assert status(network.urls[2]).reasons == ("tpm_missing",)
    now[0] += 300
    machine.keep_fresh()
    assert [status(url).routable for url in network.urls] == [True, True, True]

    # The machine boots something else: nobody routes to it any more, though its enclave still may
    # sign for the work that it has.
    tpm.extend(9, {Bank.SHA256: Bank.SHA256.digest(b"a rootkit")})
    now[0] += 86_400
    machine.keep_fresh()
    node = status(network.urls[0])
    assert (node.valid, node.routable, node.reasons) == (True, False, ("tpm_missing",))
    told = "".join((network.directory / f"operator {index}.log").read_text() for index in range(3))
    assert '"TPM enrolled"' in told
    with machine._tpm.session() as session:
        request = session.request(1)
    for identifier in (parse_public(request.ak_public).name, request.ek_certificate[-64:]):
        assert identifier.hex() not in told


def test_lying_operator_changes_nothing_for_the_honest_two(
    network: Network,  # noqa: F811
    machine: Machine,
    request: pytest.FixtureRequest,
) -> None:
    client = network.client
    kill(network.operators[2])
    stack = ExitStack()
    request.addfinalizer(stack.close)
    lie(stack, network)
    digest = client.submit_attestation(network.evidence(machine.evidence)).digest
    settled(lambda: client.attestation(digest))
    assert [status(url).routable for url in network.urls[:2]] == [True, True]
