"""The node's attestor against a real oracle's parts: a verdict on the platform, then a quote."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from longrun import LONG
from unit.oracle.bench import (
    _PLATFORM,
    CONFIGURATION,
    DAY,
    DEPLOYMENT,
    MEASUREMENT,
    PLATFORM,
    Bench,
    registration,
)
from unit.oracle.ledger import START

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
from settlement.models import PlatformVerdict

MARGIN = 3600


class Killed(BaseException):
    """The node's process is gone."""


class Api:
    """The oracle as its client shows it; each look at the nodes lets the world go on by a round."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.answers: list[str] = []
        self.kill_at: int | None = None
        self.before_quote: list[Callable[[], object]] = []
        self.after_quote: list[Callable[[], object]] = []

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
        answer = self._ask(self.bench.quotes.submit, request)
        if self.after_quote:
            self.after_quote.pop(0)()
        return answer

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
        self.answers.append(method.__name__)
        if len(self.answers) == self.kill_at:
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
            timeout=60,
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
    # Once before the oracle has the quote, and once when it has it and sends it.
    node.api.before_quote = [use_up]
    node.api.after_quote = [use_up]
    node.attestor.ensure()
    assert node.expiry
    assert node.count(EnclaveRegistered) == 1


def test_registration_of_another_key_or_node_is_not_this_ones(node: Node) -> None:
    for changes in ({}, {"enclave_key": node.enclave.enclave_key, "node_id": 2}):
        other = registration(**changes)
        node.bench.ledger.mine(lambda chain, other=other: chain.register(other))
        node.bench.finalize()
        assert node.attestor._standing() is None


@pytest.mark.parametrize(
    ("changes", "serves"),
    [
        ({"expiry": START + MARGIN + 100}, True),
        ({"expiry": START + MARGIN - 100}, False),
        ({"node_id": 2, "expiry": START + MARGIN + 100}, False),
        ({"module_svn": 1, "expiry": START + MARGIN + 100}, False),
    ],
)
def test_verdict_of_before_serves_where_it_is_this_nodes_and_lasts(
    node: Node, changes: dict[str, int], serves: bool
) -> None:
    verdict = {"platform": PLATFORM, "node_id": 1, "module_svn": 0, "epoch": 1, **changes}
    node.bench.ledger.mine(lambda chain: chain.judge(PlatformVerdict(**verdict)))
    node.attestor.ensure()
    assert node.count(PlatformJudged) == (1 if serves else 2)
    assert node.count(EnclaveRegistered) == 1
    assert (node.expiry == changes["expiry"]) == serves


@pytest.mark.parametrize("at", ["submission", "transaction"])
@pytest.mark.parametrize("ended", [{"expiry": START}, {"module_svn": 9}])
def test_verdict_that_ends_while_the_node_asks_has_it_judged_anew(
    node: Node, ended: dict[str, int], at: str
) -> None:
    def end() -> None:
        platforms = node.bench.ledger.state.platforms
        platforms[PLATFORM] = replace(platforms[PLATFORM], **ended)

    (node.api.before_quote if at == "submission" else node.api.after_quote).append(end)
    node.attestor.ensure()
    assert node.expiry > START + 6 * DAY
    assert node.count(PlatformJudged) == 2
    assert node.count(EnclaveRegistered) == 1


def test_verdict_that_can_last_no_longer_leaves_the_registration_as_it_is(node: Node) -> None:
    node.attestor.ensure()
    end = START + 8 * DAY
    # As with collateral that is not renewed.
    node.bench.operator._lasts = lambda evidence, verified: end  # type: ignore[method-assign]
    node.bench.ledger.time = node.expiry - MARGIN
    node.attestor.ensure()
    assert node.expiry == end
    quotes = node.count(EnclaveRegistered)
    node.bench.ledger.time = end - MARGIN
    node.restart()
    node.attestor.ensure()
    assert node.expiry == end
    assert node.count(EnclaveRegistered) == quotes


def test_revoked_platform_is_refused_by_name(node: Node) -> None:
    node.bench.ledger.mine(lambda chain: chain.revoke_platform(PLATFORM))
    with pytest.raises(AttestationRefused) as caught:
        node.attestor.ensure()
    assert caught.value.reason == "DCAP_PLATFORM_IS_REVOKED"


def test_killed_after_any_answer_the_node_goes_on_and_its_key_is_registered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "measurement", lambda: MEASUREMENT)
    (tmp_path / "undisturbed").mkdir()
    undisturbed = Node(tmp_path / "undisturbed")
    undisturbed.attestor.ensure()
    answers = undisturbed.api.answers
    undisturbed.bench.store.close()
    assert len(answers) > 10
    # By default after what changes something, and after the last look; else after each.
    changing = {"challenges", "submit"}  # of evidence, and of a quote
    places = [at for at, name in enumerate(answers, 1) if name in changing] + [len(answers)]
    if LONG:
        places = list(range(1, len(answers) + 1))
    for kill_at in places:
        directory = tmp_path / str(kill_at)
        directory.mkdir()
        node = Node(directory)
        node.api.kill_at = kill_at
        with pytest.raises(Killed):
            node.attestor.ensure()
        node.restart()
        node.attestor.ensure()
        assert node.expiry
        assert node.count(EnclaveRegistered) == 1, f"killed after answer {kill_at}"
        assert node.count(PlatformJudged) <= 2
        node.bench.store.close()
