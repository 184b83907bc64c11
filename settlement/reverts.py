"""Every reason with which a contract can refuse, as a closed list of typed errors.

A test compares `Revert` with the reason strings in `contracts/`, so neither can drift.
"""

from enum import Enum
from typing import Any

from eth_abi import decode
from eth_abi.exceptions import DecodingError
from web3.exceptions import ContractLogicError, Web3RPCError

from settlement.errors import RaphaError

_ERROR_STRING = bytes.fromhex("08c379a0")  # Error(string), Solidity ABI


class Revert(Enum):
    """A revert reason. `final` tells whether the same call can ever succeed later."""

    final: bool

    def __new__(cls, reason: str, final: bool = True) -> "Revert":
        member = object.__new__(cls)
        member._value_ = reason
        member.final = final
        return member

    VAULT_ACCOUNT_IS_NOT_ALLOWED = "vault: account is not allowed"
    VAULT_AMOUNT_IS_ZERO = "vault: amount is zero"
    VAULT_AMOUNT_TOO_LARGE = "vault: amount too large", False
    VAULT_ARBITER_IS_ZERO = "vault: arbiter is zero"
    VAULT_ARBITER_MAY_STILL_ANSWER = "vault: arbiter may still answer", False
    VAULT_ARBITRATION_OUT_OF_RANGE = "vault: arbitration out of range"
    VAULT_BALANCE_TOO_LOW = "vault: balance too low", False
    VAULT_BUDGET_OUT_OF_RANGE = "vault: budget out of range"
    VAULT_CALLER_CANNOT_DISPUTE = "vault: caller cannot dispute"
    VAULT_CALLER_IS_NOT_REGISTRY = "vault: caller is not registry"
    VAULT_CALLER_IS_NOT_THE_ARBITER = "vault: caller is not the arbiter"
    VAULT_CALLER_IS_NOT_THE_FUNDER = "vault: caller is not the funder"
    VAULT_CALLER_IS_NOT_THE_PAYER = "vault: caller is not the payer"
    VAULT_DEADLINE_HAS_PASSED = "vault: deadline has passed"
    VAULT_DEADLINE_OUT_OF_RANGE = "vault: deadline out of range"
    VAULT_GRACE_OUT_OF_RANGE = "vault: grace out of range"
    VAULT_INVALID_SIGNATURE = "vault: invalid signature"
    VAULT_JOB_EXISTS = "vault: job exists"
    VAULT_JOB_IS_NOT_OPEN = "vault: job is not open"
    VAULT_JOB_IS_NOT_UNASSIGNED = "vault: job is not unassigned"
    VAULT_JOB_IS_STILL_PAYABLE = "vault: job is still payable", False
    VAULT_NO_SUCH_DISPUTE = "vault: no such dispute"
    VAULT_NODE_IS_NOT_ACTIVE = "vault: node is not active", False
    VAULT_NODE_REGISTRY_SERVES_ANOTHER_VAULT = "vault: node registry serves another vault"
    VAULT_NOT_A_CONTRACT = "vault: not a contract"
    VAULT_NOT_PAUSED = "vault: not paused"
    VAULT_NOTHING_TO_DISPUTE = "vault: nothing to dispute", False
    VAULT_NOTHING_TO_RECOVER = "vault: nothing to recover", False
    VAULT_NOTHING_TO_WITHDRAW = "vault: nothing to withdraw", False
    VAULT_PAUSED = "vault: paused", False
    VAULT_PAUSED_TOO_RECENTLY = "vault: paused too recently", False
    VAULT_PAYEES_CHANGED_TOO_OFTEN = "vault: payees changed too often"
    VAULT_PRICE_OUT_OF_RANGE = "vault: price out of range"
    VAULT_RECEIVED_TOO_LITTLE = "vault: received too little", False
    VAULT_RECEIVER_IS_NOT_ALLOWED = "vault: receiver is not allowed"
    VAULT_RETURNED_EXCEEDS_DISPUTED = "vault: returned exceeds disputed"
    VAULT_SIGNATURE_HAS_EXPIRED = "vault: signature has expired"
    VAULT_SPONSOR_IS_THE_PAYER = "vault: sponsor is the payer"
    VAULT_TOO_LATE_TO_ANSWER = "vault: too late to answer"
    VAULT_TRANSFER_FAILED = "vault: transfer failed", False
    VAULT_WINDOW_OUT_OF_RANGE = "vault: window out of range"

    NODES_CALLER_IS_NOT_PROPOSED = "nodes: caller is not proposed"
    NODES_CALLER_IS_NOT_THE_HOSPITAL = "nodes: caller is not the hospital"
    NODES_CALLER_IS_NOT_THE_REGISTRAR = "nodes: caller is not the registrar"
    NODES_HARDWARE_ALREADY_REGISTERED = "nodes: hardware already registered"
    NODES_HARDWARE_HASH_IS_ZERO = "nodes: hardware hash is zero"
    NODES_HOSPITAL_SHARE_TOO_LOW = "nodes: hospital share too low"
    NODES_NODE_IS_NOT_REGISTERED = "nodes: node is not registered"
    NODES_NODE_IS_RETIRED = "nodes: node is retired"
    NODES_PAYEE_IS_ZERO = "nodes: payee is zero"
    NODES_PROTOCOL_SHARE_TOO_HIGH = "nodes: protocol share too high"
    NODES_RECEIVER_IS_NOT_ALLOWED = "nodes: receiver is not allowed"
    NODES_REGISTRY_IS_FULL = "nodes: registry is full"
    NODES_VAULT_IS_ZERO = "nodes: vault is zero"

    ENCLAVES_EXPIRY_TOO_FAR_AHEAD = "enclaves: expiry too far ahead"
    ENCLAVES_KEY_BELONGS_TO_ANOTHER_NODE = "enclaves: key belongs to another node"
    ENCLAVES_KEY_IS_REVOKED = "enclaves: key is revoked"
    ENCLAVES_KEY_IS_ZERO = "enclaves: key is zero"
    ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED = "enclaves: measurement is not allowed", False
    ENCLAVES_MEASUREMENT_IS_ZERO = "enclaves: measurement is zero"
    ENCLAVES_NOT_A_COMMITTEE = "enclaves: not a committee"
    ENCLAVES_NOT_SIGNED_BY_THE_COMMITTEE = "enclaves: not signed by the committee"
    ENCLAVES_NODE_IS_ZERO = "enclaves: node is zero"
    ENCLAVES_NO_VERDICT_ON_THE_PLATFORM = "enclaves: no verdict on the platform", False
    ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE = "enclaves: quote binds something else"
    ENCLAVES_REGISTRATION_HAS_EXPIRED = "enclaves: registration has expired"
    ENCLAVES_REGISTRATION_IS_NOT_NEWER = "enclaves: registration is not newer"
    ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE = "enclaves: signed for another committee"
    ENCLAVES_TOO_MANY_MEASUREMENTS = "enclaves: too many measurements"
    ENCLAVES_VERDICT_ON_ANOTHER_TDX_MODULE = "enclaves: verdict on another TDX module", False

    DCAP_ANOTHER_READER_OF_CERTIFICATES = "dcap: another reader of certificates"
    DCAP_ATTESTATION_KEY_NOT_VOUCHED_FOR = "dcap: attestation key not vouched for"
    DCAP_CA_IS_NOT_FROM_INTEL = "dcap: CA is not from Intel"
    DCAP_CA_NOT_ALLOWED = "dcap: CA not allowed"
    DCAP_CERTIFICATE_HAS_EXPIRED = "dcap: certificate has expired"
    DCAP_CERTIFICATE_IS_MALFORMED = "dcap: certificate is malformed"
    DCAP_CERTIFICATE_IS_NOT_NEWER = "dcap: certificate is not newer"
    DCAP_CERTIFICATE_IS_NOT_YET_VALID = "dcap: certificate is not yet valid", False
    DCAP_CERTIFICATE_IS_REVOKED = "dcap: certificate is revoked"
    DCAP_CRITICAL_EXTENSION_IS_NOT_KNOWN = "dcap: critical extension is not known"
    DCAP_ENCLAVE_IS_IN_DEBUG_MODE = "dcap: enclave is in debug mode"
    DCAP_ENCLAVE_IS_NOT_INITIALISED = "dcap: enclave is not initialised"
    DCAP_INVALID_SIGNATURE_OF_THE_CERTIFICATE = "dcap: invalid signature of the certificate"
    DCAP_INVALID_SIGNATURE_OF_THE_PCK_KEY = "dcap: invalid signature of the PCK key"
    DCAP_INVALID_SIGNATURE_OF_THE_QUOTE = "dcap: invalid signature of the quote"
    DCAP_KIND_OF_QUOTE_NOT_SUPPORTED = "dcap: kind of quote not supported"
    DCAP_NOT_A_PCK_CA_CERTIFICATE = "dcap: not a PCK CA certificate"
    DCAP_NOT_A_PCK_CERTIFICATE = "dcap: not a PCK certificate"
    DCAP_P256_PRECOMPILE_IS_MISSING = "dcap: P256 precompile is missing"
    DCAP_PLATFORM_IS_NOT_CERTIFIED_FOR_SO_LONG = "dcap: platform is not certified for so long"
    DCAP_PLATFORM_IS_REVOKED = "dcap: platform is revoked"
    DCAP_QUOTE_HAS_ANOTHER_LENGTH = "dcap: quote has another length"
    DCAP_QUOTING_ENCLAVE_IS_NOT_FROM_INTEL = "dcap: quoting enclave is not from Intel"
    DCAP_QUOTING_ENCLAVE_IS_OUTDATED = "dcap: quoting enclave is outdated", False
    DCAP_QUOTING_ENCLAVE_NOT_ALLOWED = "dcap: quoting enclave not allowed", False
    DCAP_ROOT_IS_NOT_FROM_INTEL = "dcap: root is not from Intel"
    DCAP_SIGNER_OF_QUOTING_ENCLAVE_IS_ZERO = "dcap: signer of quoting enclave is zero"
    DCAP_SIMULATED_OR_NOT_UNLIKE_THE_ROOT = "dcap: simulated or not unlike the root"
    DCAP_TDX_MODULE_IS_NOT_FROM_INTEL = "dcap: TDX module is not from Intel"
    DCAP_TRUST_DOMAIN_IS_NOT_SEALED_OFF = "dcap: trust domain is not sealed off"
    DCAP_VERDICT_IS_NOT_NEWER = "dcap: verdict is not newer"

    COMMITTEE_ABSENT_IS_NOT_A_MEMBER = "committee: absent is not a member"
    COMMITTEE_INVALID_SIGNATURE = "committee: invalid signature"
    COMMITTEE_KEY_IS_NOT_PROVEN = "committee: key is not proven"
    COMMITTEE_MEMBERS_NOT_SORTED = "committee: members not sorted"
    COMMITTEE_NO_POINT_FOR_THIS_DIGEST = "committee: no point for this digest"
    COMMITTEE_PRECOMPILE_IS_MISSING = "committee: precompile is missing"
    COMMITTEE_SIGNATURE_NOT_OF_224_BYTES = "committee: signature not of 224 bytes"
    COMMITTEE_SIGNATURES_NOT_OF_65_BYTES = "committee: signatures not of 65 bytes"
    COMMITTEE_SIGNATURES_NOT_SORTED = "committee: signatures not sorted"
    COMMITTEE_SIGNER_IS_NOT_A_MEMBER = "committee: signer is not a member"
    COMMITTEE_THRESHOLD_OUT_OF_RANGE = "committee: threshold out of range"
    COMMITTEE_TOO_FEW_SIGNATURES = "committee: too few signatures"

    TIMELOCK_DELAY_BELOW_TWO_DAYS = "timelock: delay below two days"

    GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN = "governance: caller is not the guardian"
    GOVERNANCE_OWNER_IS_ZERO = "governance: owner is zero"
    OWNABLE_CALLER_IS_NOT_THE_OWNER = "ownable: caller is not the owner"
    OWNABLE_CALLER_IS_NOT_THE_NEW_OWNER = "ownable_2step: caller is not the new owner"

    ACCESS_CALLER_CAN_ONLY_RENOUNCE_ITS_OWN_ROLES = (
        "access_control: can only renounce roles for itself"
    )
    ACCESS_ROLE_IS_MISSING = "access_control: account is missing role"

    TIMELOCK_CALLER_IS_NOT_THE_TIMELOCK = "timelock_controller: caller must be timelock"
    TIMELOCK_DELAY_IS_TOO_SHORT = "timelock_controller: insufficient delay"
    TIMELOCK_LISTS_DIFFER_IN_LENGTH = "timelock_controller: length mismatch"
    TIMELOCK_OPERATION_CANNOT_BE_CANCELLED = "timelock_controller: operation cannot be cancelled"
    TIMELOCK_OPERATION_IS_NOT_READY = "timelock_controller: operation is not ready", False
    TIMELOCK_OPERATION_IS_SCHEDULED = "timelock_controller: operation already scheduled"
    TIMELOCK_OPERATION_REVERTED = "timelock_controller: underlying transaction reverted", False

    ERC721_APPROVER_IS_NOT_OWNER_OR_OPERATOR = (
        "erc721: approve caller is not token owner or approved for all"
    )
    ERC721_APPROVAL_TO_CALLER = "erc721: approve to caller"
    ERC721_APPROVAL_TO_HOLDER = "erc721: approval to current owner"
    ERC721_CALLER_IS_NOT_OWNER_OR_APPROVED = "erc721: caller is not token owner or approved"
    ERC721_GLOBAL_INDEX_OUT_OF_BOUNDS = "erc721: global index out of bounds", False
    ERC721_HOLDER_IS_ZERO = "erc721: the zero address is not a valid owner"
    ERC721_HOLDERS_INDEX_OUT_OF_BOUNDS = "erc721: owner index out of bounds", False
    ERC721_TRANSFER_FROM_INCORRECT_OWNER = "erc721: transfer from incorrect owner"
    ERC721_TRANSFER_TO_ZERO = "erc721: transfer to the zero address"
    ERC721_TRANSFER_TO_NON_RECEIVER = "erc721: transfer to non-IERC721Receiver implementer"
    ERC721_UNKNOWN_NODE = "erc721: invalid token ID"

    ECDSA_INVALID_S = "ecdsa: invalid signature `s` value"
    ECDSA_INVALID_SIGNATURE = "ecdsa: invalid signature"

    USDC_BLACKLISTED = "Blacklistable: account is blacklisted", False
    USDC_PAUSED = "Pausable: paused", False
    USDC_BALANCE_TOO_LOW = "ERC20: transfer amount exceeds balance", False
    USDC_ALLOWANCE_TOO_LOW = "ERC20: transfer amount exceeds allowance", False
    USDC_AUTHORIZATION_NOT_YET_VALID = "FiatTokenV2: authorization is not yet valid", False
    USDC_AUTHORIZATION_EXPIRED = "FiatTokenV2: authorization is expired"
    USDC_AUTHORIZATION_USED = "FiatTokenV2: authorization is used or canceled"
    USDC_INVALID_SIGNATURE = "FiatTokenV2: invalid signature"
    USDC_INVALID_SIGNATURE_LENGTH = "ECRecover: invalid signature length"
    USDC_INVALID_S = "ECRecover: invalid signature 's' value"
    USDC_INVALID_V = "ECRecover: invalid signature 'v' value"
    USDC_UNRECOVERABLE_SIGNATURE = "ECRecover: invalid signature"


class ContractReverted(RaphaError, RuntimeError):
    """A contract refused a call. `revert` is the typed reason, None for one that is not ours."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        try:
            self.revert: Revert | None = Revert(reason)
        except ValueError:
            self.revert = None
        self.final = self.revert is not None and self.revert.final
        super().__init__(f"the contract refused: {reason or 'no reason given'}")

    @property
    def code(self) -> str:
        """The name of the `Revert`, or `ContractReverted` for an unknown reason."""
        return self.revert.name if self.revert else "ContractReverted"


def reason_of(data: Any) -> str | None:
    """The reason string in ABI-encoded revert data (bytes or 0x hex), None where there is none."""
    try:
        raw = bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else bytes(data)
        if raw[:4] != _ERROR_STRING:
            return None
        return str(decode(["string"], raw[4:])[0])
    except (ValueError, TypeError, OverflowError, DecodingError):
        return None


def reverted(error: ContractLogicError | Web3RPCError) -> ContractReverted:
    """The typed error for what web3 raised when a call or an estimate reverted."""
    data = getattr(error, "data", None)
    if data is None and isinstance(error, Web3RPCError) and error.rpc_response:
        data = error.rpc_response.get("error", {}).get("data")
    reason = reason_of(data)
    if reason is None:
        reason = str(getattr(error, "message", None) or error)
        reason = reason.removeprefix("execution reverted: ").removeprefix("execution reverted")
    return ContractReverted(reason)
