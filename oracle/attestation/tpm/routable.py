"""Whether a node may be given work now. Pure: all facts are handed in."""

from enum import StrEnum

from oracle.attestation.tpm.evidence import TpmVerdict
from settlement.types import Bytes32, Frozen, UInt64


class NotRoutable(StrEnum):
    """Why a node gets no work. The values are stable names."""

    ENCLAVE_MISSING = "enclave_missing"
    ENCLAVE_OF_ANOTHER_NODE = "enclave_of_another_node"
    ENCLAVE_REVOKED = "enclave_revoked"
    ENCLAVE_NOT_YET_VALID = "enclave_not_yet_valid"
    ENCLAVE_EXPIRED = "enclave_expired"
    TPM_MISSING = "tpm_missing"
    TPM_OF_ANOTHER_NODE = "tpm_of_another_node"
    TPM_KEY_REVOKED = "tpm_key_revoked"
    TPM_POLICY_REPLACED = "tpm_policy_replaced"
    TPM_NOT_YET_VALID = "tpm_not_yet_valid"
    TPM_EXPIRED = "tpm_expired"


class EnclaveVerdict(Frozen):
    """That a node's enclave passed at `verified_at`, counting up to `valid_until` (Unix seconds).

    `revoked` is set once its key was revoked, or its measurement is no longer allowed.
    """

    node_id: UInt64
    verified_at: UInt64
    valid_until: UInt64
    revoked: bool = False


class Routability(Frozen):
    """Whether a node may be given work. `until` (Unix seconds) is set when it may: no longer."""

    node_id: UInt64
    reasons: tuple[NotRoutable, ...]
    until: UInt64 | None

    @property
    def routable(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def routability(
    node_id: int,
    *,
    enclave: EnclaveVerdict | None,
    tpm: TpmVerdict | None,
    enrolled_ak: bytes | None,
    policy_digest: Bytes32,
    now: int,
    tpm_required: bool = True,
) -> Routability:
    """Whether `node_id` may be given work at `now` (Unix seconds), with every reason against it.

    `enrolled_ak` is the name of the attestation key that is enrolled for the node now, None when
    there is none (any more); `policy_digest` is that of its model's current PCR policy. Where the
    TPM is not required, nothing about it speaks against the node.
    """
    reasons: list[NotRoutable] = []
    if enclave is None:
        reasons.append(NotRoutable.ENCLAVE_MISSING)
    else:
        if enclave.node_id != node_id:
            reasons.append(NotRoutable.ENCLAVE_OF_ANOTHER_NODE)
        if enclave.revoked:
            reasons.append(NotRoutable.ENCLAVE_REVOKED)
        if now < enclave.verified_at:
            reasons.append(NotRoutable.ENCLAVE_NOT_YET_VALID)
        if now >= enclave.valid_until:
            reasons.append(NotRoutable.ENCLAVE_EXPIRED)
    if tpm_required and tpm is None:
        reasons.append(NotRoutable.TPM_MISSING)
    elif tpm_required and tpm is not None:
        if tpm.node_id != node_id:
            reasons.append(NotRoutable.TPM_OF_ANOTHER_NODE)
        if tpm.ak_name != enrolled_ak:
            reasons.append(NotRoutable.TPM_KEY_REVOKED)
        if tpm.policy_digest != policy_digest:
            reasons.append(NotRoutable.TPM_POLICY_REPLACED)
        if now < tpm.verified_at:
            reasons.append(NotRoutable.TPM_NOT_YET_VALID)
        if now >= tpm.valid_until:
            reasons.append(NotRoutable.TPM_EXPIRED)
    until = None
    if not reasons and enclave is not None:
        until = enclave.valid_until
        if tpm_required and tpm is not None:
            until = min(until, tpm.valid_until)
    return Routability(node_id=node_id, reasons=tuple(reasons), until=until)
