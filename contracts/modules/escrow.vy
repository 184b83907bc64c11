# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Escrow: how a job is opened, funded, assigned and ended without finished work
@license AGPL-3.0-only
"""
from contracts.interfaces import IClearingVault
from contracts.interfaces import IEnclaveRegistry
from contracts.modules import custody
from contracts.modules import earnings
from contracts.modules import signatures
from contracts.modules import typed_data
from contracts.modules import words
from snekmate.utils import eip712_domain_separator

uses: custody
uses: earnings
uses: eip712_domain_separator

MAX_ORDERS: constant(uint256) = 50
MAX_DURATION: constant(uint256) = 365 * 24 * 60 * 60
MAX_COMMITTEE_SIGNATURES: constant(uint256) = 2_080

# a job's states; `settlement.contracts.JobState` is the Python twin
UNKNOWN: constant(uint256) = 0
# funded, and waiting for the committee to find a node
OPEN: constant(uint256) = 1
ASSIGNED: constant(uint256) = 2
# the payer wants it ended; receipts count for a grace period more
CANCELLING: constant(uint256) = 3
CLOSED: constant(uint256) = 4

ENCLAVES: immutable(IEnclaveRegistry)

# node id -> takes new jobs; the registry says so here, because asking it would cost each opening more
_is_active: HashMap[uint256, bool]
# job id -> packed job
_jobs: HashMap[bytes32, uint256]
# job id -> who funded it, where that is not the payer
_sponsors: HashMap[bytes32, address]
# job id -> last second in which receipts count, where the payer cancelled
_cancelled: HashMap[bytes32, uint256]


@deploy
def __init__(enclaves: IEnclaveRegistry):
    assert enclaves.address.is_contract, "vault: not a contract"
    ENCLAVES = enclaves


@external
def open_job(order: typed_data.Order) -> bytes32:
    """
    @notice Escrow the budget from the caller's allowance. The caller is the payer.
    @param order The agreement; its EIP-712 digest with the payer becomes the job's id.
    @return The job id.
    """
    job_id: bytes32 = self._open(msg.sender, order, False)
    custody._take(order.budget)
    custody._pull(msg.sender, order.budget)
    return job_id


@external
def open_job_with_permit(
    order: typed_data.Order, deadline: uint256, v: uint8, r: bytes32, s: bytes32
) -> bytes32:
    """
    @notice Escrow the budget from the caller's allowance, given in the same transaction by EIP-2612. The caller
            is the payer.
    @dev A permit that somebody else brought before has given its allowance all the same, so its failure does
         not matter: without an allowance the transfer fails.
    @param order The agreement.
    @param deadline The permit's.
    @return The job id.
    """
    job_id: bytes32 = self._open(msg.sender, order, False)
    custody._take(order.budget)
    success: bool = raw_call(
        custody.USDC.address,
        abi_encode(
            msg.sender,
            self,
            order.budget,
            deadline,
            v,
            r,
            s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    custody._pull(msg.sender, order.budget)
    return job_id


@external
def open_job_with_authorization(
    payer: address,
    order: typed_data.Order,
    valid_after: uint256,
    valid_before: uint256,
    signature: Bytes[signatures.MAX_LENGTH],
) -> bytes32:
    """
    @notice Escrow the budget by the payer's EIP-3009 signature, whose nonce is the job id: it authorises these
            terms and no others. Anyone may bring it.
    @param payer Who signs and pays.
    @param order The agreement.
    @param valid_after The authorisation counts after this second.
    @param valid_before The authorisation counts before this second.
    @param signature By the payer, an EOA (r, s, v in 65 bytes) or an ERC-1271 wallet, over USDC's
           `ReceiveWithAuthorization`.
    @return The job id.
    """
    job_id: bytes32 = self._open(payer, order, False)
    custody._take(order.budget)
    custody._pull_authorized(payer, order.budget, valid_after, valid_before, job_id, signature)
    return job_id


@external
def open_jobs(
    payer: address, orders: DynArray[typed_data.Order, MAX_ORDERS], signature: Bytes[signatures.MAX_LENGTH]
):
    """
    @notice Open jobs from a payer's balance, all of them or none. Anyone may bring what the payer signed.
    @param payer Whose balance pays.
    @param orders The agreements; those with one node side by side cost least.
    @param signature By the payer, an EOA or an ERC-1271 wallet, over the EIP-712 digest of `OpenJobs`; not
           looked at when the caller is the payer.
    """
    custody._check_not_paused()
    separator: bytes32 = eip712_domain_separator._domain_separator_v4()
    hashes: DynArray[bytes32, MAX_ORDERS] = []
    total: uint256 = 0
    active_node: uint256 = 0
    for order: typed_data.Order in orders:
        if order.node_id != active_node:
            self._check_active(order.node_id)
            active_node = order.node_id
        hashes.append(self._enter(separator, payer, order, False)[1])
        # at most 50 budgets of 46 bits
        total = unsafe_add(total, order.budget)
    if msg.sender != payer:
        # EIP-712: an array's hash is that of its members' hashes, without offset and length
        list_hash: bytes32 = keccak256(slice(abi_encode(hashes), 64, len(hashes) * 32))
        digest: bytes32 = typed_data._digest(
            separator, keccak256(abi_encode(typed_data.OPEN_JOBS_TYPE_HASH, list_hash))
        )
        assert signatures._is_valid(payer, digest, signature), "vault: invalid signature"
    custody._spend(payer, total)


@external
def sponsor_job(
    payer: address, order: typed_data.Order, signature: Bytes[signatures.MAX_LENGTH]
) -> bytes32:
    """
    @notice Escrow the budget of somebody else's job from the caller's allowance. What is refunded, and what an
            arbiter returns, goes to the caller.
    @param payer Whose job it is.
    @param order The agreement.
    @param signature By the payer, an EOA or an ERC-1271 wallet, over the EIP-712 digest of
           `Sponsorship(terms, sponsor)`; so that nobody can open, and cancel, jobs in another's name.
    @return The job id.
    """
    assert msg.sender != payer, "vault: sponsor is the payer"
    digest: bytes32 = self._digest(
        keccak256(
            abi_encode(typed_data.SPONSORSHIP_TYPE_HASH, typed_data._order_hash(payer, order), msg.sender)
        )
    )
    assert signatures._is_valid(payer, digest, signature), "vault: invalid signature"
    job_id: bytes32 = self._open(payer, order, True)
    self._sponsors[job_id] = msg.sender
    log IClearingVault.JobSponsored(job_id=job_id, sponsor=msg.sender)
    custody._take(order.budget)
    custody._pull(msg.sender, order.budget)
    return job_id


@external
def top_up(terms: typed_data.TermsRef, amount: uint256, from_balance: bool):
    """
    @notice Add to the escrow of a job before its deadline. Who funded it only.
    @param terms The job's terms.
    @param amount USDC base units.
    @param from_balance Take it from the caller's balance here, not from its allowance.
    """
    job_id: bytes32 = empty(bytes32)
    job: words.Job = empty(words.Job)
    job_id, job = self._find(terms)
    assert job.state == OPEN or job.state == ASSIGNED, "vault: job is not open"
    assert block.timestamp <= terms.deadline, "vault: deadline has passed"
    assert msg.sender == self._funder(job_id, job, terms.payer), "vault: caller is not the funder"
    assert amount != 0 and amount <= words.MAX_BUDGET - job.funded, "vault: budget out of range"
    job.funded += amount
    self._jobs[job_id] = words._pack_job(job)
    log IClearingVault.JobToppedUp(job_id=job_id, funder=msg.sender, amount=amount, funded=job.funded)
    if from_balance:
        custody._check_not_paused()
        custody._spend(msg.sender, amount)
    else:
        custody._take(amount)
        custody._pull(msg.sender, amount)


@external
def void_job(order: typed_data.Order):
    """
    @notice Make sure that a job which the caller signed for is never opened. The caller is the payer.
    @param order The agreement that was signed.
    """
    job_id: bytes32 = self._digest(typed_data._order_hash(msg.sender, order))
    assert self._jobs[job_id] == 0, "vault: job exists"
    self._jobs[job_id] = CLOSED << words.STATE
    log IClearingVault.JobVoided(job_id=job_id, payer=msg.sender)


@external
def assign(
    terms: typed_data.TermsRef, node_id: uint256, committee_signatures: Bytes[MAX_COMMITTEE_SIGNATURES]
):
    """
    @notice Give a job whose payer left the node open to a node. Anyone may bring what the committee signed.
    @param terms The job's terms.
    @param node_id An active node.
    @param committee_signatures Of members over the EIP-712 digest of `Assignment(jobId, nodeId, epoch)` in this
           contract's domain: 65 bytes (r, s, v) each, sorted by signer.
    """
    custody._check_not_paused()
    job_id: bytes32 = empty(bytes32)
    job: words.Job = empty(words.Job)
    job_id, job = self._find(terms)
    assert job.state == OPEN, "vault: job is not unassigned"
    assert block.timestamp <= terms.deadline, "vault: deadline has passed"
    assert node_id != 0, "vault: node is not active"
    self._check_active(node_id)
    struct_hash: bytes32 = keccak256(
        abi_encode(typed_data.ASSIGNMENT_TYPE_HASH, job_id, node_id, staticcall ENCLAVES.epoch())
    )
    digest: bytes32 = self._digest(struct_hash)
    assert staticcall ENCLAVES.is_signed(digest, committee_signatures), "vault: invalid signature"
    job.state = ASSIGNED
    job.node_id = node_id
    self._jobs[job_id] = words._pack_job(job)
    log IClearingVault.JobAssigned(job_id=job_id, node_id=node_id)


@external
def cancel(terms: typed_data.TermsRef):
    """
    @notice End a job. The payer, or who funded it; also while paused. A job without a node ends at once. One
            with a node ends by `refund` after a grace period, in which finished work is still paid.
    @param terms The job's terms.
    """
    job_id: bytes32 = empty(bytes32)
    job: words.Job = empty(words.Job)
    job_id, job = self._find(terms)
    funder: address = self._funder(job_id, job, terms.payer)
    assert msg.sender == terms.payer or msg.sender == funder, "vault: caller is not the payer"
    if job.state == OPEN:
        self._close(job_id, job, funder, empty(bytes32))
        return
    assert job.state == ASSIGNED, "vault: job is not open"
    payable_until: uint256 = min(block.timestamp, terms.deadline) + custody.GRACE
    job.state = CANCELLING
    self._jobs[job_id] = words._pack_job(job)
    self._cancelled[job_id] = payable_until
    log IClearingVault.JobCancelled(job_id=job_id, canceller=msg.sender, payable_until=payable_until)


@external
def refund(terms: typed_data.TermsRef) -> uint256:
    """
    @notice Close a job whose time is over and credit what is left to who funded it. Anyone, also while paused.
    @param terms The job's terms.
    @return What was credited, in USDC base units.
    """
    job_id: bytes32 = empty(bytes32)
    job: words.Job = empty(words.Job)
    job_id, job = self._find(terms)
    assert job.state != UNKNOWN and job.state != CLOSED, "vault: job is not open"
    assert block.timestamp > self._payable_until(job_id, job, terms.deadline), "vault: job is still payable"
    return self._close(job_id, job, self._funder(job_id, job, terms.payer), empty(bytes32))


@external
def set_active(node_id: uint256, is_active: bool):
    """
    @notice Say whether a node takes new jobs. The node registry only, on registering, suspending, resuming and
            retiring it. Jobs that it has are untouched.
    """
    earnings._check_registry()
    self._is_active[node_id] = is_active


@external
@view
def job(job_id: bytes32) -> words.Job:
    """
    @notice A job's packed word, laid open. `earlier` and `fresh` are as of `period`.
    """
    return words._unpack_job(self._jobs[job_id])


@external
@view
def funder_and_end(terms: typed_data.TermsRef) -> (address, uint256):
    """
    @notice Who gets back what an open job leaves, and the last second in which its receipts count.
    """
    job_id: bytes32 = empty(bytes32)
    job: words.Job = empty(words.Job)
    job_id, job = self._find(terms)
    return self._funder(job_id, job, terms.payer), self._payable_until(job_id, job, terms.deadline)


@external
@view
def job_id(payer: address, order: typed_data.Order) -> bytes32:
    """
    @notice The id that a job with these terms has.
    """
    return self._digest(typed_data._order_hash(payer, order))


@external
@view
def enclaves() -> address:
    """
    @notice The enclave registry.
    """
    return ENCLAVES.address


@internal
@view
def _digest(struct_hash: bytes32) -> bytes32:
    return typed_data._digest(eip712_domain_separator._domain_separator_v4(), struct_hash)


@internal
@view
def _find(terms: typed_data.TermsRef) -> (bytes32, words.Job):
    job_id: bytes32 = self._digest(typed_data._terms_hash(terms))
    return job_id, words._unpack_job(self._jobs[job_id])


@internal
def _open(payer: address, order: typed_data.Order, sponsored: bool) -> bytes32:
    self._check_active(order.node_id)
    return self._enter(eip712_domain_separator._domain_separator_v4(), payer, order, sponsored)[0]


@internal
@view
def _check_active(node_id: uint256):
    # zero leaves the choice to the committee
    assert node_id == 0 or self._is_active[node_id], "vault: node is not active"


@internal
def _enter(
    separator: bytes32, payer: address, order: typed_data.Order, sponsored: bool
) -> (bytes32, bytes32):
    """
    @dev Write a new job, whose node is known to be active. Returns the job id and the terms' struct hash.
    """
    # each from 1 to its bound: what is below 1 wraps around to above it
    assert unsafe_sub(order.budget, 1) < words.MAX_BUDGET, "vault: budget out of range"
    assert unsafe_sub(unsafe_sub(order.deadline, 1), block.timestamp) < MAX_DURATION, "vault: deadline out of range"
    # so that what counters below 2^64 earn cannot overflow
    assert (order.price_per_record | order.price_per_epoch) >> 64 == 0, "vault: price out of range"
    terms_hash: bytes32 = typed_data._order_hash(payer, order)
    job_id: bytes32 = typed_data._digest(separator, terms_hash)
    assert self._jobs[job_id] == 0, "vault: job exists"
    # OPEN without a node, ASSIGNED with one
    state: uint256 = unsafe_add(OPEN, convert(order.node_id != 0, uint256))
    self._jobs[job_id] = (
        state << words.STATE
        | convert(sponsored, uint256) << words.SPONSORED
        | order.node_id << words.NODE_ID
        | order.budget
    )
    log IClearingVault.JobOpened(
        job_id=job_id,
        payer=payer,
        node_id=order.node_id,
        price_per_record=order.price_per_record,
        price_per_epoch=order.price_per_epoch,
        budget=order.budget,
        deadline=order.deadline,
        work=order.work,
        salt=order.salt,
    )
    return job_id, terms_hash


@internal
@view
def _funder(job_id: bytes32, job: words.Job, payer: address) -> address:
    return payer if job.sponsored == 0 else self._sponsors[job_id]


@internal
@view
def _payable_until(job_id: bytes32, job: words.Job, deadline: uint256) -> uint256:
    return self._cancelled[job_id] if job.state == CANCELLING else deadline + custody.GRACE


@internal
def _complete(job_id: bytes32, job_word: uint256, payer: address, output_digest: bytes32):
    job: words.Job = words._unpack_job(job_word)
    self._close(job_id, job, self._funder(job_id, job, payer), output_digest)


@internal
def _close(job_id: bytes32, job: words.Job, funder: address, output_digest: bytes32) -> uint256:
    closed: words.Job = job
    closed.state = CLOSED
    self._jobs[job_id] = words._pack_job(closed)
    refunded: uint256 = job.funded - job.paid
    # credited, not pushed: a payer that USDC blacklists stops only itself
    if refunded != 0:
        custody._credit(funder, refunded)
    log IClearingVault.JobClosed(
        job_id=job_id, funder=funder, paid=job.paid, refunded=refunded, output_digest=output_digest
    )
    return refunded
