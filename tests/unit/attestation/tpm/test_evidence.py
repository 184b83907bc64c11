"""A node's TPM evidence as a whole: for whom it is made, and how long it counts."""

from typing import Any

import pytest
from eventlogs import BOOT, agile_log
from softtpm import SoftKey

from oracle.attestation.errors import (
    EnrolmentExpired,
    EventLogMismatch,
    PcrNotAllowed,
    PcrSelectionMismatch,
    TpmNonceMismatch,
)
from oracle.attestation.tpm.enrolment import EnrolledKey
from oracle.attestation.tpm.eventlog import parse_event_log
from oracle.attestation.tpm.evidence import TpmVerdict, check_tpm_evidence, quote_nonce
from oracle.attestation.tpm.policy import PcrPolicy
from oracle.attestation.tpm.structures import Bank
from settlement.errors import InvalidInput

NOW = 1_800_000_000
LOG = parse_event_log(agile_log(BOOT))
VALUES = {pcr: LOG.replay(Bank.SHA256)[pcr] for pcr in (8, 9, 11)}
POLICY = PcrPolicy(
    model="edge-a", version=1, pcrs={pcr: frozenset({value}) for pcr, value in VALUES.items()}
)
BINDING: dict[str, Any] = {
    "chain_id": 31337,
    "registry": "0x" + "11" * 20,
    "node_id": 7,
    "enclave_key": "0x" + "22" * 20,
    "challenge": b"\x33" * 32,
}
NONCE = quote_nonce(**BINDING)


@pytest.fixture
def enrolled(ak: SoftKey) -> EnrolledKey:
    return EnrolledKey(
        node_id=7,
        ak_name=ak.parsed().name,
        ek_certificate_digest=bytes(32),
        ek_key_digest=bytes(32),
        enrolled_at=NOW - 10,
        valid_until=NOW + 1_000,
    )


def check(
    ak: SoftKey, enrolled: EnrolledKey, values: dict[int, bytes] = VALUES, **changes: Any
) -> TpmVerdict:
    arguments: dict[str, Any] = {"nonce": NONCE, "policy": POLICY, "now": NOW, "ttl": 300}
    quote = ak.quote(NONCE, {Bank.SHA256: values}, resets=3, restarts=4, clock=5)
    return check_tpm_evidence(quote, enrolled=enrolled, **{**arguments, **changes})


def test_good_evidence_gives_a_verdict(ak: SoftKey, enrolled: EnrolledKey) -> None:
    verdict = check(ak, enrolled, log=LOG)
    assert (verdict.node_id, verdict.ak_name) == (7, enrolled.ak_name)
    assert verdict.policy_digest == POLICY.digest
    assert (verdict.verified_at, verdict.valid_until) == (NOW, NOW + 300)
    assert (verdict.reset_count, verdict.restart_count, verdict.clock) == (3, 4, 5)


def test_verdict_ends_with_the_endorsement(ak: SoftKey, enrolled: EnrolledKey) -> None:
    assert check(ak, enrolled, ttl=5_000).valid_until == enrolled.valid_until


@pytest.mark.parametrize("now", [NOW - 11, NOW + 1_000])
def test_endorsement_that_does_not_cover_now_is_refused(
    ak: SoftKey, enrolled: EnrolledKey, now: int
) -> None:
    with pytest.raises(EnrolmentExpired) as refusal:
        check(ak, enrolled, now=now)
    assert (refusal.value.enrolled_at, refusal.value.valid_until) == (NOW - 10, NOW + 1_000)
    assert refusal.value.now == now


def test_value_that_the_policy_does_not_allow_is_refused(
    ak: SoftKey, enrolled: EnrolledKey
) -> None:
    with pytest.raises(PcrNotAllowed) as refusal:
        check(ak, enrolled, {**VALUES, 9: b"\1" * 32})
    assert refusal.value.pcr == 9


def test_pcrs_that_the_policy_does_not_ask_for_are_refused(
    ak: SoftKey, enrolled: EnrolledKey
) -> None:
    with pytest.raises(PcrSelectionMismatch) as refusal:
        check(ak, enrolled, {**VALUES, 10: bytes(32)})
    assert refusal.value.expected == "sha256:8,9,11"


def test_log_that_does_not_explain_the_pcrs_is_refused(ak: SoftKey, enrolled: EnrolledKey) -> None:
    with pytest.raises(EventLogMismatch) as refusal:
        check(ak, enrolled, log=parse_event_log(agile_log(BOOT[:-1])), reference=LOG)
    assert (refusal.value.pcr, refusal.value.event) == (11, len(BOOT))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("chain_id", 137),
        ("registry", "0x" + "12" * 20),
        ("node_id", 8),
        ("enclave_key", "0x" + "23" * 20),
        ("challenge", b"\x34" * 32),
    ],
)
def test_quote_for_anything_else_is_refused(
    ak: SoftKey, enrolled: EnrolledKey, name: str, other: object
) -> None:
    nonce = quote_nonce(**{**BINDING, name: other})
    with pytest.raises(TpmNonceMismatch) as refusal:
        check(ak, enrolled, nonce=nonce)
    assert (refusal.value.found, refusal.value.expected) == (NONCE, nonce)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_challenge_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match=f"challenge has {size} bytes, not 32"):
        quote_nonce(**{**BINDING, "challenge": bytes(size)})
