"""A node gets work while enclave and TPM both count, and every reason against it is told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.attestation.tpm.evidence import TpmVerdict
from oracle.attestation.tpm.routable import EnclaveVerdict, NotRoutable, Routability, routability

NOW = 1_800_000_000
POLICY = b"\1" * 32
AK = b"\0\x0b" + b"\2" * 32
ENCLAVE = EnclaveVerdict(node_id=7, verified_at=NOW - 5, valid_until=NOW + 10)
TPM = TpmVerdict(
    node_id=7,
    ak_name=AK,
    quote_digest=bytes(32),
    policy_digest=POLICY,
    verified_at=NOW - 3,
    valid_until=NOW + 20,
    clock=1,
    reset_count=1,
    restart_count=0,
)


def judge(**changes: Any) -> Routability:
    facts: dict[str, Any] = {
        "enclave": ENCLAVE,
        "tpm": TPM,
        "enrolled_ak": AK,
        "policy_digest": POLICY,
        "now": NOW,
    }
    return routability(7, **{**facts, **changes})


def enclave(**changes: Any) -> EnclaveVerdict:
    return ENCLAVE.model_copy(update=changes)


def tpm(**changes: Any) -> TpmVerdict:
    return TPM.model_copy(update=changes)


def test_node_is_routable_until_the_first_of_both_ends() -> None:
    verdict = judge()
    assert verdict.routable
    assert (verdict.reasons, verdict.until) == ((), NOW + 10)
    assert judge(enclave=enclave(valid_until=NOW + 30)).until == NOW + 20


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"enclave": None}, NotRoutable.ENCLAVE_MISSING),
        ({"enclave": enclave(node_id=8)}, NotRoutable.ENCLAVE_OF_ANOTHER_NODE),
        ({"enclave": enclave(revoked=True)}, NotRoutable.ENCLAVE_REVOKED),
        ({"enclave": enclave(verified_at=NOW + 1)}, NotRoutable.ENCLAVE_NOT_YET_VALID),
        ({"enclave": enclave(valid_until=NOW)}, NotRoutable.ENCLAVE_EXPIRED),
        ({"tpm": None}, NotRoutable.TPM_MISSING),
        ({"tpm": tpm(node_id=8)}, NotRoutable.TPM_OF_ANOTHER_NODE),
        ({"enrolled_ak": None}, NotRoutable.TPM_KEY_REVOKED),
        ({"enrolled_ak": AK[:-1] + b"\3"}, NotRoutable.TPM_KEY_REVOKED),
        ({"policy_digest": bytes(32)}, NotRoutable.TPM_POLICY_REPLACED),
        ({"tpm": tpm(verified_at=NOW + 1)}, NotRoutable.TPM_NOT_YET_VALID),
        ({"tpm": tpm(valid_until=NOW)}, NotRoutable.TPM_EXPIRED),
    ],
)
def test_each_reason_is_told(changes: dict[str, Any], reason: NotRoutable) -> None:
    verdict = judge(**changes)
    assert not verdict.routable
    assert (verdict.reasons, verdict.until) == ((reason,), None)


def test_all_reasons_are_told() -> None:
    assert judge(enclave=None, tpm=None).reasons == (
        NotRoutable.ENCLAVE_MISSING,
        NotRoutable.TPM_MISSING,
    )
    assert judge(now=NOW + 100).reasons == (NotRoutable.ENCLAVE_EXPIRED, NotRoutable.TPM_EXPIRED)
    assert judge(now=NOW - 100).reasons == (
        NotRoutable.ENCLAVE_NOT_YET_VALID,
        NotRoutable.TPM_NOT_YET_VALID,
    )


def test_where_the_tpm_is_not_required_only_the_enclave_counts() -> None:
    verdict = judge(tpm=None, enrolled_ak=None, tpm_required=False)
    assert (verdict.reasons, verdict.until) == ((), NOW + 10)
    assert judge(enclave=None, tpm_required=False).reasons == (NotRoutable.ENCLAVE_MISSING,)


@given(offset=st.integers(-50, 50))
def test_node_is_routable_exactly_while_both_count(offset: int) -> None:
    verdict = judge(now=NOW + offset)
    assert verdict.routable == (-3 <= offset < 10)
    assert (verdict.until is not None) == verdict.routable
