"""What binds a TPM's quote to a deployment and an enclave, and the verdict about the whole."""

from eth_abi import encode
from eth_utils.crypto import keccak

from oracle.attestation.errors import EnrolmentExpired
from oracle.attestation.tpm.enrolment import EnrolledKey
from oracle.attestation.tpm.eventlog import EventLog, check_event_log
from oracle.attestation.tpm.policy import PcrPolicy
from oracle.attestation.tpm.quote import TpmQuote, verify_quote
from settlement.errors import InvalidInput
from settlement.types import Bytes32, Frozen, HexData, UInt64

TPM_TAG = keccak(text="rapha.tpm.v1")


class TpmVerdict(Frozen):
    """That a node's TPM had allowed PCRs at `verified_at`, under the policy of `policy_digest`.

    It counts up to, but not at, `valid_until` (Unix seconds). `reset_count`, `restart_count` and
    `clock` (milliseconds) are the TPM's own: a later quote with another `reset_count` tells that
    the node was booted anew.
    """

    node_id: UInt64
    ak_name: HexData
    quote_digest: Bytes32
    policy_digest: Bytes32
    verified_at: UInt64
    valid_until: UInt64
    clock: UInt64
    reset_count: int
    restart_count: int


def quote_nonce(
    *, chain_id: int, registry: str, node_id: int, enclave_key: str, challenge: bytes
) -> bytes:
    """The 32 bytes that a node's TPM has to quote over, so that the quote is for this alone.

    `challenge` are the verifiers' fresh 32 bytes. `enclave_key` ties the TPM's word to the enclave
    that asks for it.

    Raises:
        InvalidInput: when the challenge is not 32 bytes.
    """
    if len(challenge) != 32:
        raise InvalidInput(f"challenge has {len(challenge)} bytes, not 32")
    return keccak(
        encode(
            ["bytes32", "uint256", "address", "uint256", "address", "bytes32"],
            [TPM_TAG, chain_id, registry, node_id, enclave_key, challenge],
        )
    )


def check_tpm_evidence(
    quote: TpmQuote,
    *,
    enrolled: EnrolledKey,
    nonce: bytes,
    policy: PcrPolicy,
    now: int,
    ttl: int,
    log: EventLog | None = None,
    reference: EventLog | None = None,
) -> TpmVerdict:
    """Judge a node's quote at `now` (Unix seconds): its key, its PCRs and, if given, its event log.

    The verdict counts for `ttl` seconds at most, and never longer than the key's endorsement.

    Raises:
        EnrolmentExpired: when the key's endorsement does not cover `now`.
        EventLogMismatch: when the log does not explain the PCRs.
        TpmRefused: see `verify_quote` and `PcrPolicy.check`.
    """
    if not enrolled.enrolled_at <= now < enrolled.valid_until:
        raise EnrolmentExpired(enrolled.enrolled_at, enrolled.valid_until, now)
    verified = verify_quote(
        quote, ak_name=enrolled.ak_name, nonce=nonce, selection=policy.selection
    )
    values = verified.pcrs[policy.bank]
    if log is not None:
        check_event_log(log, policy.bank, values, reference)
    policy.check(values)
    return TpmVerdict(
        node_id=enrolled.node_id,
        ak_name=verified.ak_name,
        quote_digest=verified.quote_digest,
        policy_digest=policy.digest,
        verified_at=now,
        valid_until=min(now + ttl, enrolled.valid_until),
        clock=verified.clock,
        reset_count=verified.reset_count,
        restart_count=verified.restart_count,
    )
