"""A PCR passes with a value that the model's current policy allows, and with no other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from oracle.attestation.errors import NodeModelUnknown, PcrMissing, PcrNotAllowed, PcrUnknown
from oracle.attestation.tpm.policy import PcrPolicies, PcrPolicy
from oracle.attestation.tpm.structures import Bank
from settlement.errors import InvalidInput

OLD, NEW, KERNEL = (bytes([n]) * 32 for n in (1, 2, 3))
POLICY = PcrPolicy(
    model="edge-a", version=2, pcrs={8: frozenset({OLD, NEW}), 9: frozenset({KERNEL})}
)


def policy(**changes: Any) -> PcrPolicy:
    return PcrPolicy.model_validate({**POLICY.model_dump(), **changes})


@pytest.mark.parametrize("value", [OLD, NEW])
def test_each_allowed_value_passes(value: bytes) -> None:
    POLICY.check({8: value, 9: KERNEL})


def test_other_value_is_refused() -> None:
    with pytest.raises(PcrNotAllowed) as refusal:
        POLICY.check({8: OLD, 9: NEW})
    assert (refusal.value.pcr, refusal.value.value, refusal.value.policy) == (9, NEW, "edge-a v2")
    assert str(refusal.value) == f"policy edge-a v2 does not allow 0x{'02' * 32} in PCR 9"


def test_pcr_that_the_policy_does_not_know_is_refused() -> None:
    with pytest.raises(PcrUnknown) as refusal:
        POLICY.check({8: OLD, 9: KERNEL, 10: bytes(32)})
    assert (refusal.value.pcr, refusal.value.policy) == (10, "edge-a v2")


def test_missing_pcr_is_refused() -> None:
    with pytest.raises(PcrMissing) as refusal:
        POLICY.check({9: KERNEL})
    assert (refusal.value.pcr, refusal.value.policy) == (8, "edge-a v2")


def test_selection_is_the_policys_pcrs() -> None:
    assert POLICY.selection == {Bank.SHA256: {8, 9}}


@pytest.mark.parametrize(
    "changes",
    [
        {"pcrs": {}},
        {"pcrs": {7: [OLD]}},
        {"pcrs": {16: [OLD]}},
        {"pcrs": {8: []}},
        {"pcrs": {8: [bytes(31)]}},
        {"pcrs": {8: [bytes(48)]}},
        {"bank": "sha1", "pcrs": {8: [bytes(20)]}},
        {"bank": "sha384"},
        {"version": 0},
        {"model": ""},
        {"unknown": 1},
    ],
    ids=str,
)
def test_policy_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "edge-b"},
        {"version": 3},
        {"bank": "sha384", "pcrs": {8: [OLD + bytes(16)], 9: [KERNEL + bytes(16)]}},
        {"pcrs": {8: [OLD, NEW]}},
        {"pcrs": {8: [OLD], 9: [NEW, KERNEL]}},
        {"pcrs": {8: [OLD, NEW], 10: [KERNEL]}},
        {"pcrs": {8: [OLD, NEW], 9: [KERNEL, OLD]}},
    ],
    ids=str,
)
def test_every_part_changes_the_digest(changes: dict[str, Any]) -> None:
    assert policy(**changes).digest != POLICY.digest


@given(
    values=st.dictionaries(
        st.integers(8, 15), st.sets(st.binary(min_size=32, max_size=32), min_size=1), min_size=1
    ),
    random=st.randoms(),
)
def test_order_does_not_change_the_digest(values: dict[int, set[bytes]], random: Any) -> None:
    def shuffled() -> PcrPolicy:
        pcrs = {pcr: random.sample(sorted(of), len(of)) for pcr, of in values.items()}
        return policy(pcrs=dict(random.sample(list(pcrs.items()), len(pcrs))))

    one = shuffled()
    assert one.digest == shuffled().digest
    assert PcrPolicy.model_validate_json(one.model_dump_json()).digest == one.digest


def test_digest_stays_what_it_is() -> None:
    assert POLICY.digest.hex() == (
        "3b4f26b4d03a448cd6bfb9f9ecf26bc044c4dc104625b2393069cf700eac1362"
    )


def test_latest_version_counts() -> None:
    newer, other = policy(version=3), policy(model="edge-b")
    policies = PcrPolicies([POLICY, newer, policy(version=1), other])
    assert policies.current("edge-a") == newer
    assert policies.current("edge-b") == other


def test_unknown_model_is_refused() -> None:
    with pytest.raises(NodeModelUnknown) as refusal:
        PcrPolicies([POLICY]).current("edge-c")
    assert refusal.value.model == "edge-c"


def test_same_version_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="two policies are edge-a v2"):
        PcrPolicies([POLICY, policy(pcrs={8: [OLD]})])
