"""The node's attestor against a real oracle's parts: a verdict on the platform, then a quote."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.oracle.bench import (
    _PLATFORM,
    CONFIGURATION,
    DAY,
    DEPLOYMENT,
    MEASUREMENT,
    PLATFORM,
    Bench,
)

from oracle.client import OracleRefused, VouchFor
from oracle.clients.edge import signer as signing
from oracle.clients.edge.attestor import Attestor
from oracle.clients.edge.errors import AttestationRefused
from oracle.clients.edge.patience import Patience
from oracle.clients.edge.signer import EnclaveSigner
from oracle.facts import EnclaveRegistered, PlatformJudged
from oracle.messages import ChallengeRequest
from oracle.problems import problem_of
from settlement.errors import RaphaError

MARGIN = 3600


class Killed(BaseException):
    """The node's process is gone."""


class Api:
    """The oracle as its client shows it; each look at the nodes lets the world go on by a round."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.calls = 0
        self.kill_at: int | None = None
        self.before_quote: list[Callable[[], object]] = []

    def create_challenge(self, node_id: int, enclave_key: str) -> Any:
        request = ChallengeRequest(node_id=node_id, enclave_key=enclave_key)
        return self._ask(self.bench.quorum.challenges, request)

    def submit_attestation(self, evidence: Any) -> Any:
        return self._ask(self.bench.quorum.submit, evidence)

    def attestation(self, digest: bytes) -> Any:
        self.bench.round()
        return self._ask(self.bench.quorum.status, digest)

    def nodes(self) -> Any:
        self.bench.round()
        return tuple(self._ask(self.bench.intake.nodes))

    def platform(self, platform: bytes) -> Any:
        return self._ask(self.bench.quotes.platform, platform)

    def submit_quote(self, request: Any) -> Any:
        if self.before_quote:
            self.before_quote.pop(0)()
        return self._ask(self.bench.quotes.submit, request)

    def quote(self, digest: bytes) -> Any:
        return self._ask(self.bench.quotes.status, digest)

    def _ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """The process may die before it has the answer to what it asked."""
        try:
            answer = method(*arguments)
        except RaphaError as error:
            problem = problem_of(error)
            raise OracleRefused(
                problem.code, problem.status, problem.detail, final=problem.final, data={}
            ) from error
        self.calls += 1
        if self.calls == self.kill_at:
            raise Killed
        return answer


class Node:
    """An enclave, and an attestor that is made anew when its process died."""

    def __init__(self, directory: Path) -> None:
        self.bench = Bench.create(directory, attested=False, vouch_for=VouchFor.PLATFORM)
        self.api = Api(self.bench)
        self.enclave = EnclaveSigner.open(directory / "enclave", chain_id=DEPLOYMENT.chain_id)
        self.restart()

    def restart(self) -> None:
        stop = threading.Event()
        self.attestor = Attestor(
            oracle=self.api,
            signer=self.enclave,
            platform=_PLATFORM,
            deployment=DEPLOYMENT,
            node_id=1,
            configuration=CONFIGURATION,
            margin=MARGIN,
            timeout=600,
            poll_seconds=0,
            clock=self.bench.now,
            stop=stop,
            patience=Patience(stop),
        )

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.bench.ledger.state.events)

    @property
    def expiry(self) -> int:
        status = self.bench.intake.node(1)
        assert (status.valid, status.enclave_key) == (True, self.enclave.enclave_key)
        assert status.encryption_key == self.enclave.encryption_key
        return status.expiry


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(signing, "measurement", lambda: MEASUREMENT)
    return Node(tmp_path)


def test_key_is_registered_and_renewed_by_itself(node: Node) -> None:
    node.attestor.ensure()
    first = node.expiry
    node.attestor.ensure()
    assert (node.count(PlatformJudged), node.count(EnclaveRegistered)) == (1, 1)
    node.bench.ledger.time = first - MARGIN
    node.attestor.ensure()
    assert node.expiry > first + 6 * DAY
    assert (node.count(PlatformJudged), node.count(EnclaveRegistered)) == (2, 2)


def test_challenge_that_somebody_used_up_has_the_node_quote_anew(node: Node) -> None:
    use_up = lambda: node.bench.ledger.mine(lambda chain: chain.use_challenge(PLATFORM))  # noqa: E731
    node.api.before_quote = [use_up, use_up]
    node.attestor.ensure()
    assert node.expiry
    assert node.count(EnclaveRegistered) == 1


def test_revoked_platform_is_refused_by_name(node: Node) -> None:
    node.bench.ledger.mine(lambda chain: chain.revoke_platform(PLATFORM))
    with pytest.raises(AttestationRefused) as caught:
        node.attestor.ensure()
    assert caught.value.reason == "DCAP_PLATFORM_IS_REVOKED"


def test_killed_after_any_answer_the_node_goes_on_and_its_key_is_registered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "measurement", lambda: MEASUREMENT)
    kill_at = 1
    while True:
        directory = tmp_path / str(kill_at)
        directory.mkdir()
        node = Node(directory)
        node.api.kill_at = kill_at
        try:
            node.attestor.ensure()
        except Killed:
            node.restart()
            node.attestor.ensure()
        else:
            break  # it was done before it could die
        assert node.expiry
        assert node.count(EnclaveRegistered) == 1, f"killed after answer {kill_at}"
        assert node.count(PlatformJudged) <= 2
        node.bench.store.close()
        kill_at += 1
    assert kill_at > 10
