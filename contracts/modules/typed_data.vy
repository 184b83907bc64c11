# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title EIP-712 structs that the vault and the enclave registry agree on with everybody else
@license AGPL-3.0-only
@notice `settlement/eip712.py` is the Python twin; a test compares the two on random values.
"""

struct Work:
    model_digest: bytes32
    dataset_digest: bytes32
    policy_digest: bytes32
    result_key_digest: bytes32


struct JobTerms:
    payer: address
    node_id: uint64
    price_per_record: uint64
    price_per_epoch: uint64
    budget: uint64
    deadline: uint64
    work: Work
    salt: bytes32


# The terms with the work given by its struct hash: all that settling needs, three words less.
struct TermsRef:
    payer: address
    node_id: uint64
    price_per_record: uint64
    price_per_epoch: uint64
    budget: uint64
    deadline: uint64
    work_digest: bytes32
    salt: bytes32


struct Receipt:
    job_id: bytes32
    records: uint64
    epochs: uint64
    records_root: bytes32
    output_digest: bytes32
    complete: bool


struct EnclaveRegistration:
    enclave_key: address
    node_id: uint64
    measurement: bytes32
    attestation_digest: bytes32
    encryption_key_digest: bytes32
    expiry: uint64
    epoch: uint64


WORK_TYPE_HASH: constant(bytes32) = keccak256(
    "Work(bytes32 modelDigest,bytes32 datasetDigest,bytes32 policyDigest,bytes32 resultKeyDigest)"
)
TERMS_TYPE_HASH: constant(bytes32) = keccak256(
    "JobTerms(address payer,uint64 nodeId,uint64 pricePerRecord,uint64 pricePerEpoch,uint64 budget,uint64 deadline,Work work,bytes32 salt)Work(bytes32 modelDigest,bytes32 datasetDigest,bytes32 policyDigest,bytes32 resultKeyDigest)"
)
RECEIPT_TYPE_HASH: constant(bytes32) = keccak256(
    "Receipt(bytes32 jobId,uint64 records,uint64 epochs,bytes32 recordsRoot,bytes32 outputDigest,bool complete)"
)
REGISTRATION_TYPE_HASH: constant(bytes32) = keccak256(
    "EnclaveRegistration(address enclaveKey,uint64 nodeId,bytes32 measurement,bytes32 attestationDigest,bytes32 encryptionKeyDigest,uint64 expiry,uint64 epoch)"
)


@internal
@pure
def _work_digest(work: Work) -> bytes32:
    return keccak256(abi_encode(WORK_TYPE_HASH, work))


@internal
@pure
def _terms_digest(terms: TermsRef) -> bytes32:
    return keccak256(abi_encode(TERMS_TYPE_HASH, terms))


@internal
@pure
def _receipt_digest(receipt: Receipt) -> bytes32:
    return keccak256(abi_encode(RECEIPT_TYPE_HASH, receipt))


@internal
@pure
def _registration_digest(registration: EnclaveRegistration) -> bytes32:
    return keccak256(abi_encode(REGISTRATION_TYPE_HASH, registration))


@internal
@pure
def _typed_data_digest(separator: bytes32, struct_hash: bytes32) -> bytes32:
    return keccak256(concat(x"1901", separator, struct_hash))
