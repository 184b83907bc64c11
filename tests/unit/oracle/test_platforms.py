"""Operators that vouch for platforms, and quotes that the chain checks: what goes on chain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_utils import keccak
from fastapi.testclient import TestClient
from unit.oracle.bench import (
    DAY,
    PLATFORM,
    Bench,
    actor,
    evidence,
    quote_for,
    signed,
    terms,
)
from unit.oracle.ledger import START
from unit.oracle.test_committee import Answer, committee, down, honest

from oracle.api import create_app
from oracle.committee import platform_of
from oracle.errors import (
    PlatformOfAnotherNode,
    QuorumNotReached,
    QuoteUnknown,
    StaleChallenge,
    VouchesOtherwise,
)
from oracle.facts import CallKind
from oracle.messages import (
    ChallengeRequest,
    QuoteRequest,
    SignatureAnswer,
    SignatureRequest,
    Status,
    VouchFor,
)
from oracle.problems import problem_of
from oracle.rebuild import rebuild
from oracle.statements import statement_digest
from oracle.store.tables import TransactionRow
from settlement.committee import signers_of
from settlement.dcap import QuoteUnusable, split_quote
from settlement.errors import InvalidSignature
from settlement.models import PlatformVerdict
from settlement.reverts import ContractReverted, Revert

REQUEST = ChallengeRequest(node_id=1, enclave_key=actor("enclave").address)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench.create(tmp_path, attested=False, vouch_for=VouchFor.PLATFORM)


def judged(bench: Bench) -> Bench:
    """The same, with the verdict on the development platform final on chain."""
    digest = bench.quorum.submit(evidence(bench.quorum.challenges(REQUEST))).digest
    bench.rounds(12)
    assert bench.quorum.status(digest).status is Status.SETTLED
    return bench


def quote(bench: Bench, **changes: Any) -> QuoteRequest:
    return quote_for(bench.quotes.platform(PLATFORM).challenge, **changes)


def registered(bench: Bench) -> bytes:
    """A verdict and then a quote, up to finality."""
    digest = judged(bench).quotes.submit(quote(bench)).digest
    bench.rounds()
    assert bench.quotes.status(digest).status is Status.SETTLED
    return digest


def kinds(bench: Bench) -> list[str]:
    """What was sent, in order."""
    with bench.store.read() as session:
        rows = session.query(TransactionRow).order_by(TransactionRow.nonce)
        return [row.kind for row in rows]


def test_evidence_then_quote_registers_the_key_and_each_goes_on_chain_once(bench: Bench) -> None:
    assert bench.quorum.challenges(REQUEST).vouch_for is VouchFor.PLATFORM
    digest = registered(bench)
    assert kinds(bench) == [CallKind.PLATFORM, CallKind.JUDGE, CallKind.QUOTE]
    node = bench.intake.node(1)
    assert (node.valid, node.routable, node.enclave_key) == (True, True, REQUEST.enclave_key)
    assert node.encryption_key == quote(bench).encryption_key
    assert node.expiry == bench.quotes.platform(PLATFORM).expiry
    assert bench.quotes.status(digest).transaction is not None
    bench.open(terms(1))
    assert bench.intake.submit_receipt(signed(terms(1), 10)).status is Status.ACCEPTED


def test_facts_about_platforms_can_be_rebuilt(bench: Bench) -> None:
    digest = registered(bench)
    found = rebuild(bench.store, bench.ledger, bench.ledger.deployment, check_only=False)
    assert (found.differences, found.replaced) == ((), True)
    assert bench.quotes.status(digest).status is Status.SETTLED
    assert bench.intake.node(1).valid


def test_operator_signs_the_platform_in_the_quote_and_never_a_registration(bench: Bench) -> None:
    it = evidence(bench.operator.challenge(REQUEST))
    asked = SignatureRequest(evidence=it, expiry=START + DAY, epoch=1)
    with pytest.raises(VouchesOtherwise, match="asked to vouch for a key"):
        bench.operator.sign(asked)
    answer = bench.operator.sign(asked.model_copy(update={"vouch_for": VouchFor.PLATFORM}))
    assert answer.statement == PlatformVerdict(
        platform=PLATFORM, node_id=1, module_svn=0, expiry=START + DAY, epoch=1
    )


def test_operator_that_vouches_for_keys_never_signs_a_verdict(tmp_path: Path) -> None:
    bench = Bench.create(tmp_path, attested=False)
    it = evidence(bench.operator.challenge(REQUEST))
    with pytest.raises(VouchesOtherwise, match="asked to vouch for a platform"):
        bench.operator.sign(
            SignatureRequest(evidence=it, expiry=START + DAY, epoch=1, vouch_for=VouchFor.PLATFORM)
        )


def test_certificate_that_did_not_sign_the_report_names_no_platform(bench: Bench) -> None:
    it = evidence(bench.operator.challenge(REQUEST))
    parts = split_quote(it.quote)
    assert platform_of(it).platform == PLATFORM
    first, second = (x509_pem(it.quote, index) for index in (0, 1))
    swapped = it.quote.replace(first + second, second + first)
    assert split_quote(swapped).platform == parts.issuer.digest
    with pytest.raises(InvalidSignature):
        platform_of(it.model_copy(update={"quote": swapped}))


def x509_pem(quote: bytes, index: int) -> bytes:
    """One of the quote's certificates as it stands there."""
    begin = b"-----BEGIN CERTIFICATE-----"
    return begin + quote.split(begin)[index + 1].rstrip(b"\0")


# The quorum


def signs_another_node(operator: Any, request: httpx.Request) -> httpx.Response:
    return _lying(operator, request, {"node_id": 2})


def signs_a_longer_verdict(operator: Any, request: httpx.Request) -> httpx.Response:
    return _lying(operator, request, {"expiry": START + 30 * DAY})


def _lying(operator: Any, request: httpx.Request, lie: dict[str, int]) -> httpx.Response:
    if request.url.path.endswith("challenges"):
        return honest(operator, request)
    answer = operator.sign(SignatureRequest.model_validate_json(request.content))
    false = answer.statement.model_copy(update=lie)
    digest = statement_digest(false, operator._deployment.enclave_domain)
    signature = operator._key.sign(operator._chain.committee().committee, digest, 31337)
    told = SignatureAnswer(signer=answer.signer, signature=signature, statement=false)
    return httpx.Response(200, text=told.model_dump_json())


@pytest.mark.parametrize("other", [down, signs_another_node])
def test_one_honest_peer_is_enough_for_a_verdict(tmp_path: Path, other: Answer) -> None:
    bench = committee(tmp_path, honest, other, vouch_for=VouchFor.PLATFORM)
    digest = bench.quorum.submit(evidence(bench.quorum.challenges(REQUEST))).digest
    bench.rounds(12)
    assert bench.quorum.status(digest).status is Status.SETTLED


def test_bls_committee_signs_a_verdict_too(tmp_path: Path) -> None:
    bench = committee(tmp_path, honest, down, scheme="bls", vouch_for=VouchFor.PLATFORM)
    statement, signatures = bench.quorum.collect(evidence(bench.quorum.challenges(REQUEST)))
    assert isinstance(statement, PlatformVerdict)
    digest = statement_digest(statement, bench.ledger.deployment.enclave_domain)
    assert len(signers_of(bench.ledger.committee().committee, digest, signatures)) == 2


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (signs_another_node, "InvalidSignature"),
        (signs_a_longer_verdict, "InvalidSignature"),
        (down, "OracleUnavailable"),
    ],
)
def test_below_the_threshold_no_verdict_is_made(tmp_path: Path, other: Answer, reason: str) -> None:
    bench = committee(tmp_path, other, vouch_for=VouchFor.PLATFORM)
    with pytest.raises(QuorumNotReached) as caught:
        bench.quorum.collect(evidence(bench.quorum.challenges(REQUEST)))
    assert caught.value.refusals["http://operator-1.test"].startswith(reason)


def refuses(operator: Any, request: httpx.Request) -> httpx.Response:
    """A peer that answers as the HTTP API does when it refuses."""
    try:
        return honest(operator, request)
    except VouchesOtherwise as error:
        problem = problem_of(error)
        return httpx.Response(problem.status, text=problem.model_dump_json())


def test_peer_in_the_other_mode_is_named_and_the_attestation_waits(tmp_path: Path) -> None:
    bench = committee(tmp_path, refuses, vouch_for=VouchFor.PLATFORM, peers_for=VouchFor.KEY)
    digest = bench.quorum.submit(evidence(bench.quorum.challenges(REQUEST))).digest
    bench.quorum.tick()
    waiting = bench.quorum.status(digest)
    assert waiting.status is Status.WAITING
    assert "VouchesOtherwise" in str(waiting.detail)


# Verdicts


def test_another_verdict_of_the_same_expiry_is_covered_by_the_first(bench: Bench) -> None:
    first = bench.quorum.submit(evidence(bench.quorum.challenges(REQUEST)))
    other = ChallengeRequest(node_id=1, enclave_key=actor("other").address)
    second = bench.quorum.submit(evidence(bench.quorum.challenges(other), enclave="other"))
    bench.quorum.tick()
    bench.rounds(14)
    assert bench.quorum.status(first.digest).status is Status.SETTLED
    assert bench.quorum.status(second.digest).status is Status.SETTLED
    assert kinds(bench) == [CallKind.PLATFORM, CallKind.JUDGE]


def test_verdict_for_another_node_after_a_longer_one_is_rejected(bench: Bench) -> None:
    judged(bench)
    later = PlatformVerdict(
        platform=PLATFORM, node_id=2, module_svn=0, expiry=START + 20 * DAY, epoch=1
    )
    bench.ledger.mine(lambda chain: chain.judge(later))
    bench.finalize()
    digest = bench.quorum.submit(evidence(bench.quorum.challenges(REQUEST))).digest
    bench.rounds()
    status = bench.quorum.status(digest)
    assert (status.status, status.reason) == (Status.REJECTED, "DCAP_VERDICT_IS_NOT_NEWER")


def test_a_verdict_signed_for_the_committee_before_is_collected_anew(bench: Bench) -> None:
    judged(bench)
    digest = bench.quorum.submit(evidence(bench.quorum.challenges(REQUEST))).digest
    bench.quorum.tick()
    bench.ledger.state.epoch = 2
    bench.relayer.tick()
    assert bench.quorum.status(digest).status is Status.WAITING
    bench.rounds()
    assert bench.quorum.status(digest).status is Status.SETTLED


def test_revoked_platform_gets_no_verdict_and_its_keys_stop_counting(bench: Bench) -> None:
    registered(bench)
    bench.open(terms(1))
    bench.ledger.mine(lambda chain: chain.revoke_platform(PLATFORM))
    bench.finalize()
    node = bench.intake.node(1)
    assert (node.valid, node.routable, node.revoked) == (False, False, True)
    status = bench.intake.submit_receipt(signed(terms(1), 10))
    assert (status.status, status.reason) == (Status.REJECTED, "EnclaveRevoked")
    digest = bench.quorum.submit(evidence(bench.quorum.challenges(REQUEST))).digest
    bench.rounds()
    refused = bench.quorum.status(digest)
    assert (refused.status, refused.reason) == (Status.REJECTED, "DCAP_PLATFORM_IS_REVOKED")
    with pytest.raises(ContractReverted) as caught:
        bench.quotes.submit(quote(bench))
    assert caught.value.revert is Revert.DCAP_PLATFORM_IS_REVOKED


def test_revocation_and_registration_that_a_reorganisation_drops_are_forgotten(
    bench: Bench,
) -> None:
    digest = registered(bench)
    bench.ledger.mine(lambda chain: chain.revoke_platform(PLATFORM))
    bench.finalize()
    assert not bench.intake.node(1).valid
    bench.ledger.reorganise(4)
    for _ in range(6):
        bench.ledger.hold()
    bench.watch()
    assert bench.watcher.reorgs == 1
    assert bench.intake.node(1).valid
    assert bench.quotes.status(digest).status is Status.SETTLED


# Quotes


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda q: q | {"enclave_key": actor("thief").address}, StaleChallenge),
        (lambda q: q | {"encryption_key": bytes(32)}, StaleChallenge),
        (lambda q: q | {"node_id": 2}, PlatformOfAnotherNode),
        (lambda q: q | {"quote": q["quote"] + b"\0"}, QuoteUnusable),
        (lambda q: q | {"quote": _flipped(q["quote"], 432 + 4)}, ContractReverted),
        (lambda q: q | {"quote": _flipped(q["quote"], 48 + 64)}, ContractReverted),
    ],
)
def test_quote_that_the_registry_refuses_is_not_kept(
    bench: Bench, spoil: Callable[[Any], Any], reason: type[Exception]
) -> None:
    judged(bench)
    good = quote(bench)
    with pytest.raises(reason):
        bench.quotes.submit(QuoteRequest(**spoil(dict(good))))
    with pytest.raises(QuoteUnknown):
        bench.quotes.status(digest_of(good))
    assert bench.quotes.submit(good).status is Status.ACCEPTED


def digest_of(it: QuoteRequest) -> bytes:
    return keccak(split_quote(it.quote).signed)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_quote_before_any_verdict_may_be_tried_again(bench: Bench) -> None:
    with pytest.raises(ContractReverted) as caught:
        bench.quotes.submit(quote(bench))
    assert caught.value.revert is Revert.ENCLAVES_NO_VERDICT_ON_THE_PLATFORM
    assert not caught.value.final


def test_the_same_quote_twice_is_one_row_and_one_transaction(bench: Bench) -> None:
    judged(bench)
    it = quote(bench)
    assert bench.quotes.submit(it) == bench.quotes.submit(it)
    bench.rounds()
    assert bench.quotes.submit(it).status is Status.SETTLED
    assert kinds(bench).count(CallKind.QUOTE) == 1


def test_challenge_used_up_in_between_has_the_node_quote_anew(bench: Bench) -> None:
    judged(bench)
    it = quote(bench)
    digest = bench.quotes.submit(it).digest
    bench.ledger.mine(lambda chain: chain.use_challenge(PLATFORM))
    bench.relayer.tick()
    status = bench.quotes.status(digest)
    assert (status.status, status.reason) == (Status.REJECTED, "StaleChallenge")
    with pytest.raises(StaleChallenge):
        bench.quotes.submit(it)
    bench.quotes.submit(quote(bench))
    bench.rounds()
    assert bench.intake.node(1).valid


def test_quote_that_somebody_else_brought_is_settled_by_the_facts(bench: Bench) -> None:
    judged(bench)
    it = quote(bench)
    digest = bench.quotes.submit(it).digest
    parts = split_quote(it.quote)
    key = keccak(it.encryption_key)
    bench.ledger.mine(lambda chain: chain._register_quote(parts, it.enclave_key, key))
    bench.relayer.tick()
    assert bench.quotes.status(digest).status is Status.ACCEPTED
    bench.finalize()
    assert bench.quotes.status(digest).status is Status.SETTLED
    assert CallKind.QUOTE not in kinds(bench)


def test_renewal_needs_a_new_verdict_and_a_new_quote(bench: Bench) -> None:
    registered(bench)
    before = bench.intake.node(1).expiry
    with pytest.raises(ContractReverted) as caught:
        bench.quotes.submit(quote(bench))
    assert caught.value.revert is Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER
    bench.ledger.time += 6 * DAY
    registered(bench)
    assert bench.intake.node(1).expiry > before + 5 * DAY
    assert kinds(bench)[3:] == [CallKind.JUDGE, CallKind.QUOTE]  # the certificate is there


def test_over_http_a_quote_needs_the_relaying_operator(bench: Bench) -> None:
    judged(bench)
    client = TestClient(create_app(bench.service()))
    found = client.get(f"/v1/platforms/0x{PLATFORM.hex()}").json()
    assert (found["node_id"], found["revoked"]) == (1, False)
    it = quote_for(bytes.fromhex(found["challenge"][2:]))
    answer = client.post("/v1/quotes", json=it.model_dump(mode="json"))
    assert (answer.status_code, answer.json()["status"]) == (202, "ACCEPTED")
    digest = answer.json()["digest"]
    assert client.get(f"/v1/quotes/{digest}").json() == answer.json()
    stale = quote_for(bytes(32))
    answer = client.post("/v1/quotes", json=stale.model_dump(mode="json"))
    assert (answer.status_code, answer.json()["code"]) == (409, "StaleChallenge")
    signing = TestClient(create_app(bench.service(relay=False)))
    answer = signing.post("/v1/quotes", json=it.model_dump(mode="json"))
    assert (answer.status_code, answer.json()["code"]) == (409, "NotRelaying")
