# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title EIP-712 structs that the vault and the enclave registry agree on with everybody else
@license AGPL-3.0-only
@notice `settlement/eip712.py` is the Python twin; a test compares the two on random values.
@dev Numbers that EIP-712 calls uint64 are words here, so that a batch is copied and not decoded field by
     field. Who stores one checks its range first.
"""

struct Work:
    model_digest: bytes32
    dataset_digest: bytes32
    policy_digest: bytes32
    result_key_digest: bytes32


# What a payer agrees to, without the payer itself.
struct Order:
    node_id: uint256
    price_per_record: uint256
    price_per_epoch: uint256
    budget: uint256
    deadline: uint256
    work: Work
    salt: bytes32


# The terms with the work given by its struct hash: all that is needed once a job is open, three words less.
struct TermsRef:
    payer: address
    node_id: uint256
    price_per_record: uint256
    price_per_epoch: uint256
    budget: uint256
    deadline: uint256
    work_digest: bytes32
    salt: bytes32


struct Receipt:
    job_id: bytes32
    records: uint256
    epochs: uint256
    records_root: bytes32
    output_digest: bytes32
    complete: uint256


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
OPEN_JOBS_TYPE_HASH: constant(bytes32) = keccak256(
    "OpenJobs(JobTerms[] jobs)JobTerms(address payer,uint64 nodeId,uint64 pricePerRecord,uint64 pricePerEpoch,uint64 budget,uint64 deadline,Work work,bytes32 salt)Work(bytes32 modelDigest,bytes32 datasetDigest,bytes32 policyDigest,bytes32 resultKeyDigest)"
)
SPONSORSHIP_TYPE_HASH: constant(bytes32) = keccak256(
    "Sponsorship(JobTerms terms,address sponsor)JobTerms(address payer,uint64 nodeId,uint64 pricePerRecord,uint64 pricePerEpoch,uint64 budget,uint64 deadline,Work work,bytes32 salt)Work(bytes32 modelDigest,bytes32 datasetDigest,bytes32 policyDigest,bytes32 resultKeyDigest)"
)
RECEIPT_TYPE_HASH: constant(bytes32) = keccak256(
    "Receipt(bytes32 jobId,uint64 records,uint64 epochs,bytes32 recordsRoot,bytes32 outputDigest,bool complete)"
)
ASSIGNMENT_TYPE_HASH: constant(bytes32) = keccak256("Assignment(bytes32 jobId,uint64 nodeId,uint64 epoch)")
DEPOSIT_TYPE_HASH: constant(bytes32) = keccak256("Deposit(address account,uint256 amount,bytes32 salt)")
WITHDRAWAL_TYPE_HASH: constant(bytes32) = keccak256(
    "Withdrawal(address account,address to,uint256 amount,uint256 nonce,uint256 deadline)"
)
REGISTRATION_TYPE_HASH: constant(bytes32) = keccak256(
    "EnclaveRegistration(address enclaveKey,uint64 nodeId,bytes32 measurement,bytes32 attestationDigest,bytes32 encryptionKeyDigest,uint64 expiry,uint64 epoch)"
)


@internal
@pure
def _order_hash(payer: address, order: Order) -> bytes32:
    return keccak256(
        abi_encode(
            TERMS_TYPE_HASH,
            payer,
            order.node_id,
            order.price_per_record,
            order.price_per_epoch,
            order.budget,
            order.deadline,
            keccak256(abi_encode(WORK_TYPE_HASH, order.work)),
            order.salt,
        )
    )


@internal
@pure
def _terms_hash(terms: TermsRef) -> bytes32:
    return keccak256(abi_encode(TERMS_TYPE_HASH, terms))


@internal
@pure
def _receipt_hash(receipt: Receipt) -> bytes32:
    return keccak256(abi_encode(RECEIPT_TYPE_HASH, receipt))


@internal
@pure
def _registration_hash(registration: EnclaveRegistration) -> bytes32:
    return keccak256(abi_encode(REGISTRATION_TYPE_HASH, registration))


@internal
@pure
def _digest(separator: bytes32, struct_hash: bytes32) -> bytes32:
    # a bytes2 and no byte string, which would be copied from code each time
    return keccak256(concat(0x1901, separator, struct_hash))
