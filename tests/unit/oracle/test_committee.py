"""Evidence judged by one operator, and a quorum collected from peers that may be down or lie."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_utils import keccak
from unit.oracle.bench import DAY, MEASUREMENT, Bench, actor, evidence
from unit.oracle.ledger import START

from oracle.attestation.errors import QuoteRefused, ReportDataMismatch
from oracle.client import PeerClient
from oracle.committee import Operator
from oracle.errors import (
    EpochMismatch,
    ExpiryRefused,
    MeasurementNotAllowed,
    NodeUnknown,
    QuorumNotReached,
    StaleChallenge,
)
from oracle.messages import (
    ChallengeRequest,
    Evidence,
    PeerChallenge,
    SignatureAnswer,
    SignatureRequest,
    Status,
    VouchFor,
)
from oracle.statements import statement_digest
from oracle.store.database import Store
from settlement.bls import BlsSigner
from settlement.committee import BlsCommittee, signers_of
from settlement.eip712 import recover_signer, registration_digest
from settlement.models import EnclaveRegistration

REQUEST = ChallengeRequest(node_id=1, enclave_key=actor("enclave").address)


def test_an_operator_signs_what_follows_from_the_evidence(bench: Bench) -> None:
    it = evidence(bench.operator.challenge(REQUEST))
    answer = bench.operator.sign(SignatureRequest(evidence=it, expiry=START + DAY, epoch=1))
    assert isinstance(answer.statement, EnclaveRegistration)
    digest = registration_digest(answer.statement, bench.ledger.deployment.enclave_domain)
    assert recover_signer(digest, answer.signature) == answer.signer == actor("operator").address
    assert answer.statement.measurement == MEASUREMENT
    assert answer.statement.encryption_key_digest == keccak(it.encryption_key)
    assert answer.statement.expiry == START + DAY


def test_the_same_evidence_may_be_examined_again(bench: Bench) -> None:
    it = evidence(bench.operator.challenge(REQUEST))
    assert bench.operator.examine(it) == bench.operator.examine(it)


def test_evidence_without_this_operators_challenge_is_stale(bench: Bench) -> None:
    foreign = PeerChallenge(challenge=keccak(text="foreign"), expires_at=START + 60)
    with pytest.raises(StaleChallenge, match="no challenge of this operator"):
        bench.operator.examine(evidence(foreign))


def test_an_expired_challenge_is_stale(bench: Bench) -> None:
    it = evidence(bench.operator.challenge(REQUEST))
    bench.ledger.time += 600
    with pytest.raises(StaleChallenge, match="expired"):
        bench.operator.examine(it)


def test_a_challenge_serves_one_quote_only(bench: Bench) -> None:
    challenge = bench.operator.challenge(REQUEST)
    bench.operator.examine(evidence(challenge))
    other = keccak(text="another measurement")
    bench.ledger.mine(lambda chain: chain.allow(other))
    with pytest.raises(StaleChallenge, match="used for another quote"):
        bench.operator.examine(evidence(challenge, measurement=other))


def test_a_challenge_for_another_key_or_node_is_stale(bench: Bench) -> None:
    challenge = bench.operator.challenge(REQUEST)
    for it in (evidence(challenge, enclave="other"), evidence(challenge, node_id=2)):
        with pytest.raises(StaleChallenge, match="another node or key"):
            bench.operator.examine(it)


def test_a_challenge_that_is_given_twice_is_refused(bench: Bench) -> None:
    challenge = bench.operator.challenge(REQUEST)
    it = evidence(challenge, challenges=(challenge.challenge, challenge.challenge))
    with pytest.raises(StaleChallenge, match="given twice"):
        bench.operator.examine(it)


def test_a_quote_over_another_nonce_is_refused_and_leaves_the_challenge_usable(
    bench: Bench,
) -> None:
    challenge = bench.operator.challenge(REQUEST)
    with pytest.raises(ReportDataMismatch):
        bench.operator.examine(evidence(challenge, nonce=keccak(text="other")))
    bench.operator.examine(evidence(challenge))


def test_a_tampered_quote_is_refused(bench: Bench) -> None:
    it = evidence(bench.operator.challenge(REQUEST))
    quote = bytearray(it.quote)
    quote[64 + 48] ^= 1
    with pytest.raises(QuoteRefused):
        bench.operator.examine(it.model_copy(update={"quote": bytes(quote)}))


def test_a_measurement_that_governance_has_not_allowed_is_refused(bench: Bench) -> None:
    challenge = bench.operator.challenge(REQUEST)
    with pytest.raises(MeasurementNotAllowed):
        bench.operator.examine(evidence(challenge, measurement=keccak(text="unknown")))


def test_an_unregistered_node_is_refused(bench: Bench) -> None:
    request = ChallengeRequest(node_id=9, enclave_key=REQUEST.enclave_key)
    it = evidence(bench.operator.challenge(request), node_id=9)
    with pytest.raises(NodeUnknown):
        bench.operator.examine(it)


def test_a_longer_registration_than_the_policy_allows_is_not_signed(bench: Bench) -> None:
    it = evidence(bench.operator.challenge(REQUEST))
    with pytest.raises(ExpiryRefused):
        bench.operator.sign(SignatureRequest(evidence=it, expiry=START + 8 * DAY, epoch=1))


def test_another_epoch_than_the_present_one_is_not_signed(bench: Bench) -> None:
    it = evidence(bench.operator.challenge(REQUEST))
    with pytest.raises(EpochMismatch):
        bench.operator.sign(SignatureRequest(evidence=it, expiry=START + DAY, epoch=2))


# The quorum

Answer = Callable[[Operator, httpx.Request], httpx.Response]


def honest(operator: Operator, request: httpx.Request) -> httpx.Response:
    if request.url.path.endswith("challenges"):
        body = ChallengeRequest.model_validate_json(request.content)
        return httpx.Response(201, text=operator.challenge(body).model_dump_json())
    return _signature(operator, request, lambda answer: answer)


def down(operator: Operator, request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def fails_to_sign(operator: Operator, request: httpx.Request) -> httpx.Response:
    if request.url.path.endswith("challenges"):
        return honest(operator, request)
    raise httpx.ReadTimeout("too slow")


def talks_nonsense(operator: Operator, request: httpx.Request) -> httpx.Response:
    if request.url.path.endswith("challenges"):
        return honest(operator, request)
    return httpx.Response(200, text='{"signature": "yes"}')


def signs_something_else(operator: Operator, request: httpx.Request) -> httpx.Response:
    def other(answer: SignatureAnswer) -> SignatureAnswer:
        longer = answer.statement.model_copy(update={"expiry": answer.statement.expiry + 1})
        digest = statement_digest(longer, operator._deployment.enclave_domain)
        signature = operator._key.sign(operator._chain.committee().committee, digest, 31337)
        return answer.model_copy(update={"signature": signature})

    return _signature(operator, request, other)


def signs_as_another(operator: Operator, request: httpx.Request) -> httpx.Response:
    def other(answer: SignatureAnswer) -> SignatureAnswer:
        return answer.model_copy(update={"signer": actor("operator 2").address})

    return _signature(operator, request, other)


def _signature(operator: Operator, request: httpx.Request, change: Any) -> httpx.Response:
    if request.url.path.endswith("challenges"):
        return honest(operator, request)
    body = SignatureRequest.model_validate_json(request.content)
    return httpx.Response(200, text=change(operator.sign(body)).model_dump_json())


def committee(
    directory: Path,
    *answers: Answer,
    threshold: int = 2,
    scheme: str = "ecdsa",
    vouch_for: VouchFor = VouchFor.KEY,
    peers_for: VouchFor | None = None,
) -> Bench:
    """A bench whose operator has peers that answer in these ways; each keeps a store of its own."""
    bench = Bench.create(directory, attested=False, vouch_for=vouch_for)
    names = [f"operator {index}" for index in range(1, len(answers) + 1)]
    if scheme == "ecdsa":
        members = [actor(name).address for name in ["operator", *names]]
        bench.ledger.seat(*members, threshold=threshold)
    else:
        keys = [BlsSigner(bytes(actor(name).key)).public for name in ["operator", *names]]
        keys.sort(key=lambda key: key.key)
        bench.ledger.state.committee = BlsCommittee(members=tuple(keys), threshold=threshold)
    peers = []
    for name, answer in zip(names, answers, strict=True):
        store = Store(f"sqlite:///{directory / name}.db")
        store.migrate()
        operator = bench.operator_of(name, store, peers_for)
        transport = httpx.MockTransport(
            lambda request, answer=answer, operator=operator: answer(operator, request)
        )
        url = f"http://{name.replace(' ', '-')}.test"
        peers.append(PeerClient(url, transport=transport, token="x"))
    bench.peers = tuple(peers)
    bench.restart()
    return bench


def attest(bench: Bench) -> Evidence:
    return evidence(bench.quorum.challenges(REQUEST))


@pytest.mark.parametrize(
    "other",
    [honest, down, fails_to_sign, talks_nonsense, signs_something_else, signs_as_another],
)
def test_one_honest_peer_is_enough_whatever_the_other_does(tmp_path: Path, other: Answer) -> None:
    bench = committee(tmp_path, honest, other)
    digest = bench.quorum.submit(attest(bench)).digest
    bench.rounds()
    assert bench.quorum.status(digest).status is Status.SETTLED
    assert bench.intake.node(1).valid


@pytest.mark.parametrize("other", [honest, down, signs_something_else])
def test_a_bls_quorum_registers_whatever_one_of_three_does(tmp_path: Path, other: Answer) -> None:
    bench = committee(tmp_path, honest, other, scheme="bls")
    it = attest(bench)
    statement, signatures = bench.quorum.collect(it)
    assert len(signatures) == 224
    digest = statement_digest(statement, bench.ledger.deployment.enclave_domain)
    signers = signers_of(bench.ledger.committee().committee, digest, signatures)
    assert len(signers) == (3 if other is honest else 2)
    digest = bench.quorum.submit(it).digest
    bench.rounds()
    assert bench.quorum.status(digest).status is Status.SETTLED


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (fails_to_sign, "OracleUnavailable"),
        (talks_nonsense, "OracleUnavailable"),
        (signs_something_else, "InvalidSignature"),
        (signs_as_another, "InvalidSignature"),
    ],
)
def test_without_a_quorum_the_attestation_waits_and_says_who_did_not_sign(
    tmp_path: Path, other: Answer, reason: str
) -> None:
    bench = committee(tmp_path, other)
    it = attest(bench)
    digest = bench.quorum.submit(it).digest
    with pytest.raises(QuorumNotReached) as caught:
        bench.quorum.collect(it)
    assert (caught.value.have, caught.value.need) == (1, 2)
    assert caught.value.refusals["http://operator-1.test"].startswith(reason)
    bench.quorum.tick()
    waiting = bench.quorum.status(digest)
    assert (waiting.status, waiting.reason) == (Status.WAITING, "QuorumNotReached")
    bench.ledger.time += 600
    bench.quorum.tick()
    assert bench.quorum.status(digest).reason == "StaleChallenge"
    assert bench.quorum.status(digest).status is Status.REJECTED


def test_with_too_few_challenges_no_quote_is_asked_for(tmp_path: Path) -> None:
    bench = committee(tmp_path, down, down)
    with pytest.raises(QuorumNotReached, match="1 of 2 operators"):
        bench.quorum.challenges(REQUEST)


def test_a_signature_by_a_non_member_does_not_count(tmp_path: Path) -> None:
    bench = committee(tmp_path, honest)
    it = attest(bench)
    bench.ledger.seat(actor("operator").address, actor("stranger").address, threshold=2)
    with pytest.raises(QuorumNotReached, match="not a member"):
        bench.quorum.collect(it)


def test_the_operators_own_signature_counts_only_while_it_is_a_member(tmp_path: Path) -> None:
    bench = committee(tmp_path, honest, honest)
    it = attest(bench)
    members = [actor("operator 1").address, actor("operator 2").address]
    bench.ledger.seat(*members, threshold=2)
    statement, signatures = bench.quorum.collect(it)
    digest = statement_digest(statement, bench.ledger.deployment.enclave_domain)
    signers = signers_of(bench.ledger.committee().committee, digest, signatures)
    assert sorted(signers) == sorted(members)


def test_handing_in_the_same_evidence_twice_changes_nothing(tmp_path: Path) -> None:
    bench = committee(tmp_path, honest)
    it = attest(bench)
    assert bench.quorum.submit(it) == bench.quorum.submit(it)
    bench.rounds()
    assert bench.quorum.submit(it).status is Status.SETTLED
    assert len(bench.ledger.sent) == 1
