"""What the parties sign, as frozen models. `settlement.eip712` gives each its digest."""

from pydantic import Field

from settlement.types import Address, Bytes32, Frozen, HexData, Signature, UInt64, UInt128, Usdc

MAX_NODE_ID = 2**22 - 1
"""The vault keeps node ids in 22 bits."""
MAX_BUDGET = 2**46 - 1
"""The vault keeps a job's amounts in 46 bits: 70,368,744.177663 USDC."""


class Work(Frozen):
    """What is to be done, by digest only: no private detail goes on chain.

    `model_digest` is the bundle's digest, `dataset_digest` the commitment that the hospital
    published, `policy_digest` that of the node's rules with the agreed output policy,
    `result_key_digest` keccak-256 of the public key that the weights are encrypted to.
    """

    model_digest: Bytes32
    dataset_digest: Bytes32
    policy_digest: Bytes32
    result_key_digest: Bytes32


class JobTerms(Frozen):
    """The whole agreement about one job. Its EIP-712 digest is the job id.

    Prices and budget are USDC base units; `deadline` is Unix seconds; `salt` makes otherwise
    equal jobs distinct. Node 0 leaves the choice of the node to the committee.
    """

    payer: Address
    node_id: UInt64 = Field(le=MAX_NODE_ID)
    price_per_record: Usdc
    price_per_epoch: Usdc
    budget: Usdc = Field(gt=0, le=MAX_BUDGET)
    deadline: UInt64
    work: Work
    salt: Bytes32

    def earned(self, records: int, epochs: int, *, funded: int | None = None) -> int:
        """USDC base units that cumulative counters earn: price times count, at most what is funded.

        `funded` is the budget unless it is given: what a top-up added only the vault knows.
        """
        bound = self.budget if funded is None else funded
        return min(records * self.price_per_record + epochs * self.price_per_epoch, bound)


class Authorization(Frozen):
    """A payer's EIP-3009 `ReceiveWithAuthorization` over one job's budget, the job id its nonce.

    It holds after `valid_after` and before `valid_before`, Unix seconds. `signature` is 65 bytes by
    an ECDSA key, or whatever a smart wallet takes (ERC-1271).
    """

    valid_after: UInt64
    valid_before: UInt64
    signature: HexData = Field(max_length=1024)


class OpenJobs(Frozen):
    """A payer's order to open jobs from its balance, all or none, by one signature."""

    jobs: tuple[JobTerms, ...] = Field(min_length=1, max_length=50)


class Sponsorship(Frozen):
    """A payer's consent that `sponsor` funds its job, and gets back what the job leaves."""

    terms: JobTerms
    sponsor: Address


class Deposit(Frozen):
    """What an EIP-3009 authorisation to top up a balance is for: its digest is the nonce."""

    account: Address
    amount: Usdc = Field(gt=0)
    salt: Bytes32


class Withdrawal(Frozen):
    """An account's order to send a part of its balance to any address, once.

    `nonce` is the account's count of signed withdrawals, `deadline` the last Unix second in which
    the order counts.
    """

    account: Address
    to: Address
    amount: Usdc = Field(gt=0)
    nonce: UInt64
    deadline: UInt64


class Assignment(Frozen):
    """What the committee signs to give a job whose payer left the node open to a node."""

    job_id: Bytes32
    node_id: UInt64 = Field(gt=0, le=MAX_NODE_ID)
    epoch: UInt64


class Receipt(Frozen):
    """A cumulative voucher: what the enclave says it has done for a job so far.

    `records` counts unique records and `epochs` completed epochs since the job began, so replay
    pays nothing and order does not matter. `records_root` is the RFC 6962 root over the leaves
    delivered so far. `output_digest` is the output's where it is `complete`; before that the newest
    link of the node's audit log (`settlement.audit`), or zero.
    """

    job_id: Bytes32
    records: UInt64
    epochs: UInt64
    records_root: Bytes32
    output_digest: Bytes32
    complete: bool


class SignedReceipt(Frozen):
    """A receipt with its enclave's secp256k1 signature (65 bytes r‖s‖v, v in 27/28)."""

    receipt: Receipt
    signature: Signature


class EnclaveRegistration(Frozen):
    """What the committee signs to vouch for an enclave key until `expiry` (Unix seconds).

    `attestation_digest` is over the signed part of the quote only; `epoch` is the committee's,
    so that a rotation voids what the old committee signed.
    """

    enclave_key: Address
    node_id: UInt64 = Field(gt=0)
    measurement: Bytes32
    attestation_digest: Bytes32
    encryption_key_digest: Bytes32
    expiry: UInt64
    epoch: UInt64


class PlatformVerdict(Frozen):
    """What the committee signs about a platform: its TCB is good enough, and it is this node's.

    It lasts until `expiry` (Unix seconds). `platform` is the digest of its PCK key, `module_svn`
    the TEE_TCB_SVN of the TDX module it was judged with, its 16 bytes as one big-endian number,
    zero for SGX; `epoch` is the committee's.
    """

    platform: Bytes32
    node_id: UInt64 = Field(gt=0)
    module_svn: UInt128
    expiry: UInt64
    epoch: UInt64
