# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title RaphaClearingVault
@license AGPL-3.0-only
@notice Custody and ledger of the settlement: the only thing that moves USDC. A job's terms are its id; attested
        cumulative receipts earn per record and per epoch; what is not earned goes back to the payer.
@dev USDC enters by `open_job*` and leaves by `withdraw*` alone. Everything between is this ledger's own
     numbers, never `balanceOf(self)`, so a donation changes nothing.
"""
from contracts.interfaces import IClearingVault
from contracts.interfaces import IEnclaveRegistry
from contracts.interfaces import INodeRegistry
from contracts.interfaces import IUSDC
from contracts.modules import governance
from contracts.modules import typed_data
from snekmate.auth import ownable
from snekmate.utils import eip712_domain_separator

implements: IClearingVault

initializes: ownable
initializes: governance[ownable := ownable]
initializes: eip712_domain_separator

exports: (
    governance.owner,
    governance.pending_owner,
    governance.transfer_ownership,
    governance.accept_ownership,
    governance.guardian,
    governance.set_guardian,
    eip712_domain_separator.eip712Domain,
)

MAX_BATCH: constant(uint256) = 50
MAX_DURATION: constant(uint256) = 365 * 24 * 60 * 60
MIN_GRACE: constant(uint256) = 60 * 60
MAX_GRACE: constant(uint256) = 30 * 24 * 60 * 60
BPS: constant(uint256) = 10_000

# what became of a receipt in a batch; `settlement.contracts.Outcome` is the Python twin
PAID: constant(uint256) = 0
NOTHING_NEW: constant(uint256) = 1
UNKNOWN_JOB: constant(uint256) = 2
TOO_LATE: constant(uint256) = 3
ENCLAVE_REFUSED: constant(uint256) = 4
OUTPUT_MISSING: constant(uint256) = 5

# a job's word: state (bit 248), last payable second (192), node id (128), paid (64), funded (0)
_PAID_SHIFT: constant(uint256) = 64
_NODE_SHIFT: constant(uint256) = 128
_TIME_SHIFT: constant(uint256) = 192
_STATE_SHIFT: constant(uint256) = 248
_TIME_MASK: constant(uint256) = 2**56 - 1
_UINT64: constant(uint256) = 2**64 - 1
_PAID_MASK: constant(uint256) = _UINT64 << _PAID_SHIFT
# what closing leaves of the word: all but state and paid
_KEPT_MASK: constant(uint256) = 2**248 - 1 - _PAID_MASK
_OPEN: constant(uint256) = 1
_CLOSED: constant(uint256) = 2

USDC: immutable(IUSDC)
NODES: immutable(INodeRegistry)
ENCLAVES: immutable(IEnclaveRegistry)
GRACE: immutable(uint256)

struct Job:
    state: uint256
    funded: uint256
    paid: uint256
    node_id: uint256
    payable_until: uint256


# a cumulative receipt with the enclave's signature and the terms that it counts under
struct Claim:
    terms: typed_data.TermsRef
    records: uint64
    epochs: uint64
    records_root: bytes32
    output_digest: bytes32
    complete: bool
    v: uint8
    r: bytes32
    s: bytes32


# job id -> the job's packed word
_jobs: HashMap[bytes32, uint256]
# node id -> earned, not yet split
earnings: public(HashMap[uint256, uint256])
# account -> may be withdrawn
balances: public(HashMap[address, uint256])
# all that the vault owes: open escrow, earnings and balances together
owed: public(uint256)
# opening and settling wait until then
paused_until: public(uint256)


@deploy
def __init__(usdc: IUSDC, nodes: INodeRegistry, enclaves: IEnclaveRegistry, owner: address, guardian: address, grace: uint256):
    """
    @param usdc Native USDC.
    @param nodes The node registry, deployed for this very vault.
    @param enclaves The enclave registry.
    @param owner The timelock.
    @param guardian May pause.
    @param grace Seconds after a job's deadline in which its receipts are still paid.
    """
    assert usdc.address.is_contract and enclaves.address.is_contract, "vault: not a contract"
    assert staticcall nodes.vault() == self, "vault: node registry serves another vault"
    assert grace >= MIN_GRACE and grace <= MAX_GRACE, "vault: grace out of range"
    ownable.__init__()
    governance.__init__(owner, guardian)
    eip712_domain_separator.__init__("RaphaClearingVault", "1")
    USDC = usdc
    NODES = nodes
    ENCLAVES = enclaves
    GRACE = grace


@external
def open_job(terms: typed_data.JobTerms) -> bytes32:
    """
    @notice Escrow the budget from the caller's allowance. The payer only.
    @param terms The agreement; its EIP-712 digest becomes the job's id.
    @return The job id.
    """
    assert terms.payer == msg.sender, "vault: caller is not the payer"
    job_id: bytes32 = self._open(terms)
    assert extcall USDC.transferFrom(
        msg.sender, self, convert(terms.budget, uint256), default_return_value=True
    ), "vault: transfer failed"
    return job_id


@external
def open_job_with_authorization(
    terms: typed_data.JobTerms, valid_after: uint256, valid_before: uint256, signature: Bytes[1024]
) -> bytes32:
    """
    @notice Escrow the budget by the payer's EIP-3009 signature, whose nonce is the job id: it authorises these
            terms and no others. Anyone may bring it.
    @param terms The agreement.
    @param valid_after The authorisation counts after this second.
    @param valid_before The authorisation counts before this second.
    @param signature By the payer, an EOA or an ERC-1271 wallet, over USDC's `ReceiveWithAuthorization`.
    @return The job id.
    """
    job_id: bytes32 = self._open(terms)
    extcall USDC.receiveWithAuthorization(
        terms.payer, self, convert(terms.budget, uint256), valid_after, valid_before, job_id, signature
    )
    return job_id


@external
def settle(claims: DynArray[Claim, MAX_BATCH]) -> DynArray[uint256, MAX_BATCH]:
    """
    @notice Pay what receipts newly earn. Anyone may bring them. A receipt that does not count is refused by
            its outcome and stops no other.
    @param claims Receipts with signatures and terms; those of one node side by side cost least.
    @return For each claim its outcome.
    """
    assert block.timestamp >= self.paused_until, "vault: paused"
    separator: bytes32 = eip712_domain_separator._domain_separator_v4()
    outcomes: DynArray[uint256, MAX_BATCH] = []
    # the pair that was found valid last, so that a run of receipts by one enclave asks once
    known_enclave: address = empty(address)
    known_node: uint64 = 0
    # credit is gathered while the node stays the same
    credited_node: uint64 = 0
    credit: uint256 = 0

    for claim: Claim in claims:
        node_id: uint64 = claim.terms.node_id
        job_id: bytes32 = typed_data._typed_data_digest(separator, typed_data._terms_digest(claim.terms))
        word: uint256 = self._jobs[job_id]
        outcome: uint256 = self._screen(word, claim)
        receipt_digest: bytes32 = empty(bytes32)
        if outcome == PAID:
            receipt_digest = typed_data._typed_data_digest(
                separator,
                typed_data._receipt_digest(
                    typed_data.Receipt(
                        job_id=job_id,
                        records=claim.records,
                        epochs=claim.epochs,
                        records_root=claim.records_root,
                        output_digest=claim.output_digest,
                        complete=claim.complete,
                    )
                ),
            )
            # never reverts: a signature that recovers to nobody is a refused receipt like any other
            signer: address = ecrecover(
                receipt_digest, convert(claim.v, uint256), convert(claim.r, uint256), convert(claim.s, uint256)
            )
            if signer == empty(address):
                outcome = ENCLAVE_REFUSED
            elif signer != known_enclave or node_id != known_node:
                if staticcall ENCLAVES.is_valid(signer, node_id):
                    known_enclave = signer
                    known_node = node_id
                else:
                    outcome = ENCLAVE_REFUSED

        if outcome == PAID:
            if node_id != credited_node:
                if credit != 0:
                    self.earnings[convert(credited_node, uint256)] += credit
                credited_node = node_id
                credit = 0
            credit += self._pay(job_id, word, receipt_digest, claim)
        elif outcome != NOTHING_NEW:
            log IClearingVault.ReceiptRefused(job_id=job_id, outcome=outcome)
        outcomes.append(outcome)

    if credit != 0:
        self.earnings[convert(credited_node, uint256)] += credit
    return outcomes


@external
def refund(terms: typed_data.TermsRef) -> uint256:
    """
    @notice Close a job whose time is over and credit what is left to its payer. Anyone, also while paused.
    @param terms The job's terms.
    @return What was credited to the payer, in USDC base units.
    """
    job_id: bytes32 = typed_data._typed_data_digest(
        eip712_domain_separator._domain_separator_v4(), typed_data._terms_digest(terms)
    )
    word: uint256 = self._jobs[job_id]
    assert word >> _STATE_SHIFT == _OPEN, "vault: job is not open"
    assert block.timestamp > self._payable_until(word), "vault: job is still payable"
    paid: uint256 = (word >> _PAID_SHIFT) & _UINT64
    return self._close(job_id, word, paid, terms.payer, empty(bytes32))


@external
def distribute(node_id: uint256) -> uint256:
    """
    @notice Split what a node has earned among its payees. Anyone, also while paused.
    @return What was split, in USDC base units; zero when there was nothing.
    """
    amount: uint256 = self.earnings[node_id]
    if amount == 0:
        return 0
    self.earnings[node_id] = 0
    payees: INodeRegistry.Payees = staticcall NODES.payees(node_id)
    node_owner_amount: uint256 = amount * payees.node_owner_bps // BPS
    onboarder_amount: uint256 = amount * payees.onboarder_bps // BPS
    protocol_amount: uint256 = amount * payees.protocol_bps // BPS
    # the hospital gets the rest, so the four sum exactly
    hospital_amount: uint256 = amount - node_owner_amount - onboarder_amount - protocol_amount
    self.balances[payees.hospital] += hospital_amount
    self.balances[payees.node_owner] += node_owner_amount
    self.balances[payees.onboarder] += onboarder_amount
    self.balances[payees.protocol] += protocol_amount
    log IClearingVault.Distributed(
        node_id=node_id,
        hospital=payees.hospital,
        node_owner=payees.node_owner,
        onboarder=payees.onboarder,
        protocol=payees.protocol,
        hospital_amount=hospital_amount,
        node_owner_amount=node_owner_amount,
        onboarder_amount=onboarder_amount,
        protocol_amount=protocol_amount,
    )
    return amount


@external
def withdraw() -> uint256:
    """
    @notice Take the caller's whole balance out. Also while paused.
    @return What was sent, in USDC base units.
    """
    return self._withdraw(msg.sender)


@external
def withdraw_for(account: address) -> uint256:
    """
    @notice Send an account its own whole balance. Anyone, also while paused.
    @return What was sent, in USDC base units.
    """
    return self._withdraw(account)


@external
def pause():
    """
    @notice Stop opening and settling for half a grace period. Guardian or owner. The next pause can start one
            grace period after this one's end, so that every job's grace has at least half its time unpaused.
    """
    governance._check_guardian()
    assert block.timestamp >= self.paused_until + GRACE or self.paused_until == 0, "vault: paused too recently"
    self.paused_until = block.timestamp + GRACE // 2
    log IClearingVault.Paused(guardian=msg.sender, until=self.paused_until)


@external
def unpause():
    """
    @notice End a pause early. Owner only.
    """
    ownable._check_owner()
    assert block.timestamp < self.paused_until, "vault: not paused"
    self.paused_until = block.timestamp
    log IClearingVault.Unpaused(owner=msg.sender)


@external
@view
def job(job_id: bytes32) -> Job:
    """
    @notice A job's state (0 unknown, 1 open, 2 closed) and amounts in USDC base units.
    """
    word: uint256 = self._jobs[job_id]
    return Job(
        state=word >> _STATE_SHIFT,
        funded=word & _UINT64,
        paid=(word >> _PAID_SHIFT) & _UINT64,
        node_id=(word >> _NODE_SHIFT) & _UINT64,
        payable_until=self._payable_until(word),
    )


@external
@view
def job_id(terms: typed_data.JobTerms) -> bytes32:
    """
    @notice The id that a job with these terms has.
    """
    return self._job_id(terms)


@external
@view
def receipt_digest(receipt: typed_data.Receipt) -> bytes32:
    """
    @notice The EIP-712 digest that an enclave signs.
    """
    return typed_data._typed_data_digest(
        eip712_domain_separator._domain_separator_v4(), typed_data._receipt_digest(receipt)
    )


@external
@view
def usdc() -> address:
    """
    @notice The token that is held.
    """
    return USDC.address


@external
@view
def nodes() -> address:
    """
    @notice The node registry.
    """
    return NODES.address


@external
@view
def enclaves() -> address:
    """
    @notice The enclave registry.
    """
    return ENCLAVES.address


@external
@view
def grace() -> uint256:
    """
    @notice Seconds after a job's deadline in which its receipts are still paid.
    """
    return GRACE


@internal
@view
def _job_id(terms: typed_data.JobTerms) -> bytes32:
    return typed_data._typed_data_digest(
        eip712_domain_separator._domain_separator_v4(),
        typed_data._terms_digest(
            typed_data.TermsRef(
                payer=terms.payer,
                node_id=terms.node_id,
                price_per_record=terms.price_per_record,
                price_per_epoch=terms.price_per_epoch,
                budget=terms.budget,
                deadline=terms.deadline,
                work_digest=typed_data._work_digest(terms.work),
                salt=terms.salt,
            )
        ),
    )


@internal
def _open(terms: typed_data.JobTerms) -> bytes32:
    assert block.timestamp >= self.paused_until, "vault: paused"
    assert terms.payer != empty(address), "vault: payer is zero"
    assert terms.budget != 0, "vault: budget is zero"
    deadline: uint256 = convert(terms.deadline, uint256)
    assert deadline > block.timestamp, "vault: deadline has passed"
    assert deadline <= block.timestamp + MAX_DURATION, "vault: deadline too far ahead"
    assert staticcall NODES.is_active(convert(terms.node_id, uint256)), "vault: node is not active"
    job_id: bytes32 = self._job_id(terms)
    assert self._jobs[job_id] == 0, "vault: job exists"
    self._jobs[job_id] = (
        _OPEN << _STATE_SHIFT
        | (deadline + GRACE) << _TIME_SHIFT
        | convert(terms.node_id, uint256) << _NODE_SHIFT
        | convert(terms.budget, uint256)
    )
    self.owed += convert(terms.budget, uint256)
    log IClearingVault.JobOpened(job_id=job_id, payer=terms.payer, node_id=terms.node_id, terms=terms)
    return job_id


@internal
@view
def _screen(word: uint256, claim: Claim) -> uint256:
    """
    @dev The outcome as far as it is known without the signature.
    """
    if word == 0:
        return UNKNOWN_JOB
    if word >> _STATE_SHIFT == _CLOSED:
        return NOTHING_NEW
    if block.timestamp > self._payable_until(word):
        return TOO_LATE
    if claim.complete:
        return OUTPUT_MISSING if claim.output_digest == empty(bytes32) else PAID
    if self._earned(word, claim) <= (word >> _PAID_SHIFT) & _UINT64:
        return NOTHING_NEW
    return PAID


@internal
def _pay(job_id: bytes32, word: uint256, receipt_digest: bytes32, claim: Claim) -> uint256:
    paid_before: uint256 = (word >> _PAID_SHIFT) & _UINT64
    # a completing receipt with lower counters than an earlier one takes nothing back
    paid: uint256 = max(self._earned(word, claim), paid_before)
    amount: uint256 = paid - paid_before
    log IClearingVault.Settled(
        job_id=job_id,
        node_id=claim.terms.node_id,
        receipt_digest=receipt_digest,
        records=claim.records,
        epochs=claim.epochs,
        amount=amount,
        paid=paid,
    )
    if claim.complete:
        self._close(job_id, word, paid, claim.terms.payer, claim.output_digest)
    else:
        self._jobs[job_id] = word & ~_PAID_MASK | paid << _PAID_SHIFT
    return amount


@internal
def _close(job_id: bytes32, word: uint256, paid: uint256, payer: address, output_digest: bytes32) -> uint256:
    refunded: uint256 = (word & _UINT64) - paid
    self._jobs[job_id] = (
        word & _KEPT_MASK
        | paid << _PAID_SHIFT
        | _CLOSED << _STATE_SHIFT
    )
    # credited, not pushed: a payer that USDC blacklists stops only itself
    if refunded != 0:
        self.balances[payer] += refunded
    log IClearingVault.JobClosed(
        job_id=job_id, payer=payer, paid=paid, refunded=refunded, output_digest=output_digest
    )
    return refunded


@internal
def _withdraw(account: address) -> uint256:
    amount: uint256 = self.balances[account]
    assert amount != 0, "vault: nothing to withdraw"
    self.balances[account] = 0
    self.owed -= amount
    assert extcall USDC.transfer(account, amount, default_return_value=True), "vault: transfer failed"
    log IClearingVault.Withdrawn(account=account, amount=amount)
    return amount


@internal
@pure
def _earned(word: uint256, claim: Claim) -> uint256:
    # four uint64 factors: no overflow
    return min(
        convert(claim.records, uint256) * convert(claim.terms.price_per_record, uint256)
        + convert(claim.epochs, uint256) * convert(claim.terms.price_per_epoch, uint256),
        word & _UINT64,
    )


@internal
@pure
def _payable_until(word: uint256) -> uint256:
    return (word >> _TIME_SHIFT) & _TIME_MASK
