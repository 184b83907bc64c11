# pragma version 0.4.3
# pragma evm-version cancun
# pragma optimize codesize
# pragma nonreentrancy on
"""
@title RaphaClearingVault
@license AGPL-3.0-only
@notice Custody and ledger of the settlement. A job's terms are its id; attested cumulative receipts earn per
        record and per epoch; what is not earned goes back to who funded it. Money comes in by `modules/escrow`
        and `modules/custody`, is earned here, waits and is split by `modules/earnings`, may be disputed by
        `modules/challenge`, and leaves by `modules/custody`.
"""
from contracts.interfaces import IClearingVault
from contracts.interfaces import IEnclaveRegistry
from contracts.interfaces import INodeRegistry
from contracts.interfaces import IUSDC
from contracts.modules import challenge
from contracts.modules import custody
from contracts.modules import earnings
from contracts.modules import escrow
from contracts.modules import governance
from contracts.modules import typed_data
from contracts.modules import words
from snekmate.auth import ownable
from snekmate.utils import eip712_domain_separator

implements: IClearingVault

initializes: ownable
initializes: governance[ownable := ownable]
initializes: eip712_domain_separator
initializes: custody[ownable := ownable, governance := governance, eip712_domain_separator := eip712_domain_separator]
initializes: earnings[custody := custody]
initializes: escrow[custody := custody, earnings := earnings, eip712_domain_separator := eip712_domain_separator]
initializes: challenge[ownable := ownable, governance := governance, custody := custody, earnings := earnings, escrow := escrow]

exports: (
    governance.owner,
    governance.pending_owner,
    governance.transfer_ownership,
    governance.accept_ownership,
    governance.guardian,
    governance.set_guardian,
    eip712_domain_separator.eip712Domain,
    custody.deposit,
    custody.deposit_with_authorization,
    custody.withdraw,
    custody.withdraw_for,
    custody.withdraw_for_many,
    custody.withdraw_to,
    custody.withdraw_by_signature,
    custody.recover,
    custody.pause,
    custody.unpause,
    custody.usdc,
    custody.grace,
    custody.owed,
    custody.paused_until,
    custody.balances,
    custody.withdrawal_nonces,
    earnings.distribute,
    earnings.distribute_many,
    earnings.distribute_past,
    earnings.checkpoint,
    earnings.earnings_of,
    earnings.past_earnings_of,
    earnings.nodes,
    earnings.challenge_window,
    escrow.open_job,
    escrow.open_job_with_permit,
    escrow.open_job_with_authorization,
    escrow.open_jobs,
    escrow.sponsor_job,
    escrow.top_up,
    escrow.void_job,
    escrow.assign,
    escrow.cancel,
    escrow.refund,
    escrow.set_active,
    escrow.job,
    escrow.funder_and_end,
    escrow.job_id,
    escrow.enclaves,
    challenge.dispute,
    challenge.resolve,
    challenge.release,
    challenge.set_arbiter,
    challenge.arbitration_period,
    challenge.arbiter,
    challenge.dispute_count,
    challenge.disputes,
)

MAX_BATCH: constant(uint256) = 100

# what became of a receipt; `settlement.contracts.Outcome` is the Python twin
PAID: constant(uint256) = 0
NOTHING_NEW: constant(uint256) = 1
UNKNOWN_JOB: constant(uint256) = 2
TOO_LATE: constant(uint256) = 3
ENCLAVE_REFUSED: constant(uint256) = 4
OUTPUT_MISSING: constant(uint256) = 5
NOT_ASSIGNED: constant(uint256) = 6
MALFORMED: constant(uint256) = 7

# s within the last word of a signature (EIP-2098); the bit above it is v
_S_MASK: constant(uint256) = 2**255 - 1

# A cumulative receipt with the enclave's signature and the terms that it counts under.
struct Claim:
    # what EIP-712 encodes of the terms: payer, node id, price per record, price per epoch, budget, deadline,
    # struct hash of the work, salt
    terms: uint256[8]
    records: uint256
    epochs: uint256
    records_root: bytes32
    output_digest: bytes32
    # 0 or 1
    complete: uint256
    # the signature in two words (EIP-2098)
    r: uint256
    vs: uint256


# What a run of claims knows already, so that receipts of one node ask and write once.
struct Run:
    # zero where there is no challenge window
    period: uint256
    grace: uint256
    node_id: uint256
    # found valid for the node
    enclave: address
    # the node's packed earnings, not yet stored
    earnings_word: uint256


@deploy
def __init__(
    usdc: IUSDC,
    nodes: INodeRegistry,
    enclaves: IEnclaveRegistry,
    owner: address,
    guardian: address,
    arbiter: address,
    grace: uint256,
    window: uint256,
    arbitration: uint256,
):
    """
    @param usdc Native USDC.
    @param nodes The node registry, deployed for this very vault.
    @param enclaves The enclave registry.
    @param owner The timelock.
    @param guardian May pause and dispute.
    @param arbiter Splits what is disputed.
    @param grace Seconds after a job's deadline in which its receipts are still paid.
    @param window Seconds that fresh earnings wait at least; zero for none.
    @param arbitration Seconds that the arbiter has for an answer.
    """
    ownable.__init__()
    governance.__init__(owner, guardian)
    eip712_domain_separator.__init__("RaphaClearingVault", "1")
    custody.__init__(usdc, grace)
    earnings.__init__(nodes, window)
    escrow.__init__(enclaves)
    challenge.__init__(arbiter, arbitration)


@external
def settle(claim: Claim) -> uint256:
    """
    @notice Pay what a receipt newly earns. Anyone may bring it.
    @param claim Receipt with signature and terms.
    @return Its outcome.
    """
    custody._check_not_paused()
    outcome: uint256 = 0
    run: Run = self._start()
    outcome, run = self._settle(claim, eip712_domain_separator._domain_separator_v4(), run)
    self._finish(run)
    return outcome


@external
def settle_many(claims: DynArray[Claim, MAX_BATCH]) -> DynArray[uint256, MAX_BATCH]:
    """
    @notice Pay what receipts newly earn. Anyone may bring them. A receipt that does not count is refused by its
            outcome and stops no other.
    @param claims Receipts with signatures and terms; those of one node side by side cost least.
    @return For each claim its outcome.
    """
    custody._check_not_paused()
    separator: bytes32 = eip712_domain_separator._domain_separator_v4()
    outcomes: DynArray[uint256, MAX_BATCH] = []
    outcome: uint256 = 0
    run: Run = self._start()
    for i: uint256 in range(len(claims), bound=MAX_BATCH):
        outcome, run = self._settle(claims[i], separator, run)
        outcomes.append(outcome)
    self._finish(run)
    return outcomes


@external
@view
def receipt_digest(receipt: typed_data.Receipt) -> bytes32:
    """
    @notice The EIP-712 digest that an enclave signs.
    """
    return typed_data._digest(
        eip712_domain_separator._domain_separator_v4(), typed_data._receipt_hash(receipt)
    )


@internal
def _settle(claim: Claim, separator: bytes32, before: Run) -> (uint256, Run):
    # Each receipt pays for what is done here, so fields are read and added to in the packed words. Sums are
    # unchecked where `words` says why they stay within their fields; `tests/symbolic` proves it.
    run: Run = before
    job_id: bytes32 = typed_data._digest(
        separator, keccak256(abi_encode(typed_data.TERMS_TYPE_HASH, claim.terms))
    )
    job_word: uint256 = escrow._jobs[job_id]
    state: uint256 = job_word >> words.STATE
    payable_until: uint256 = unsafe_add(claim.terms[5], run.grace)
    if state == escrow.CANCELLING:
        payable_until = escrow._cancelled[job_id]
    outcome: uint256 = PAID
    amount: uint256 = 0
    if state == escrow.UNKNOWN:
        outcome = UNKNOWN_JOB
    elif (claim.records | claim.epochs) >> 64 != 0 or claim.complete > 1:
        outcome = MALFORMED
    elif state == escrow.CLOSED:
        outcome = NOTHING_NEW
    elif state == escrow.OPEN:
        outcome = NOT_ASSIGNED
    elif block.timestamp > payable_until:
        outcome = TOO_LATE
    elif claim.complete == 1 and claim.output_digest == empty(bytes32):
        outcome = OUTPUT_MISSING
    else:
        # four factors below 2^64, since the terms are the job's
        earned: uint256 = unsafe_add(
            unsafe_mul(claim.records, claim.terms[2]), unsafe_mul(claim.epochs, claim.terms[3])
        )
        earned = min(earned, job_word & words.MASK_46)
        paid: uint256 = (job_word >> words.PAID) & words.MASK_46
        # a completing receipt with lower counters than an earlier one takes nothing back
        if earned > paid:
            amount = unsafe_sub(earned, paid)
        elif claim.complete == 0:
            outcome = NOTHING_NEW

    if outcome == PAID:
        receipt_digest: bytes32 = typed_data._digest(
            separator,
            keccak256(
                abi_encode(
                    typed_data.RECEIPT_TYPE_HASH,
                    job_id,
                    claim.records,
                    claim.epochs,
                    claim.records_root,
                    claim.output_digest,
                    claim.complete,
                )
            ),
        )
        # never reverts: a signature that recovers to nobody is a refused receipt like any other
        enclave: address = ecrecover(
            receipt_digest, unsafe_add(27, claim.vs >> 255), claim.r, claim.vs & _S_MASK
        )
        node_id: uint256 = (job_word >> words.NODE_ID) & words.MASK_22
        if node_id != run.node_id:
            if run.node_id != 0:
                earnings._present[run.node_id] = run.earnings_word
            run.node_id = node_id
            run.enclave = empty(address)
            run.earnings_word = earnings._present[node_id]
            if (run.earnings_word >> words.NODE_STEP) & words.MASK_22 != run.period:
                run.earnings_word = earnings._load_rolled(node_id, run.period)
        if enclave != run.enclave or enclave == empty(address):
            if enclave != empty(address) and staticcall escrow.ENCLAVES.is_valid(
                enclave, node_id, skip_contract_check=True
            ):
                run.enclave = enclave
            else:
                outcome = ENCLAVE_REFUSED

        if outcome == PAID:
            if run.period == 0:
                run.earnings_word = unsafe_add(run.earnings_word, amount << words.MATURED)
                job_word = unsafe_add(job_word, amount << words.PAID)
            else:
                if (job_word >> words.STEP) & words.MASK_46 != (run.earnings_word >> words.NODE_STEP) & words.MASK_46:
                    job_word = challenge._bring_in_step(job_id, job_word, run.earnings_word)
                run.earnings_word = unsafe_add(run.earnings_word, amount << words.NODE_FRESH)
                job_word = unsafe_add(job_word, amount << words.PAID | amount << words.FRESH)
            log IClearingVault.Settled(
                job_id=job_id,
                node_id=node_id,
                receipt_digest=receipt_digest,
                records=claim.records,
                epochs=claim.epochs,
                amount=amount,
            )
            if claim.complete == 1:
                payer: address = convert(convert(claim.terms[0], uint160), address)
                escrow._complete(job_id, job_word, payer, claim.output_digest)
            else:
                escrow._jobs[job_id] = job_word

    if outcome > NOTHING_NEW:
        log IClearingVault.ReceiptRefused(job_id=job_id, outcome=outcome)
    return outcome, run


@internal
@view
def _start() -> Run:
    run: Run = empty(Run)
    run.period = earnings._period()
    run.grace = custody.GRACE
    return run


@internal
def _finish(run: Run):
    if run.node_id != 0:
        earnings._store_word(run.node_id, run.earnings_word)
