# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Challenge: fresh earnings can be disputed before they mature
@license AGPL-3.0-only
@notice A dispute freezes what a job has freshly earned, and nothing else. The arbiter splits it between who
        funded the job and the node; without an answer in time anyone releases it to the node.
"""
from contracts.interfaces import IClearingVault
from contracts.modules import custody
from contracts.modules import earnings
from contracts.modules import escrow
from contracts.modules import governance
from contracts.modules import typed_data
from contracts.modules import words
from snekmate.auth import ownable
from snekmate.utils import eip712_domain_separator

uses: ownable
uses: governance
uses: custody
uses: earnings
uses: escrow

MIN_ARBITRATION: constant(uint256) = 60 * 60
MAX_ARBITRATION: constant(uint256) = 60 * 24 * 60 * 60

# seconds that the arbiter has for an answer
ARBITRATION: immutable(uint256)

struct Dispute:
    # who gets what the arbiter returns
    funder: address
    node_id: uint256
    # payee set that gets the rest
    version: uint256
    amount: uint256
    # the last second in which the arbiter can answer
    answer_until: uint256


# splits what is disputed, and can do nothing else
arbiter: public(address)
# how many disputes there were; the last one's id
dispute_count: public(uint256)
# dispute id -> dispute, all zero once it has ended
disputes: public(HashMap[uint256, Dispute])
# job id -> payee set -> packed job: what was fresh when the payees changed under it
_carried: HashMap[bytes32, HashMap[uint256, uint256]]


@deploy
def __init__(arbiter: address, arbitration: uint256):
    assert arbitration >= MIN_ARBITRATION and arbitration <= MAX_ARBITRATION, "vault: arbitration out of range"
    ARBITRATION = arbitration
    self._set_arbiter(arbiter)


@external
def dispute(terms: typed_data.TermsRef, version: uint256) -> uint256:
    """
    @notice Freeze what a job has freshly earned. The payer, who funded it, or the guardian; also while paused.
    @param terms The job's terms.
    @param version The payee set that earned it: the job's own, or an earlier one where the node's payees have
           changed within the window.
    @return The dispute's id.
    """
    job_id: bytes32 = empty(bytes32)
    job: words.Job = empty(words.Job)
    job_id, job = escrow._find(terms)
    funder: address = escrow._funder(job_id, job, terms.payer)
    assert (
        msg.sender == terms.payer or msg.sender == funder or msg.sender == governance.guardian
    ), "vault: caller cannot dispute"
    present: bool = version == job.version
    if not present:
        job = words._unpack_job(self._carried[job_id][version])
    job = words._roll_job(job, earnings._period())
    amount: uint256 = job.fresh + job.earlier
    assert amount != 0, "vault: nothing to dispute"

    earned: words.Earnings = earnings._load_version(job.node_id, version)
    earned.fresh -= job.fresh
    earned.earlier -= job.earlier
    earned.disputes += 1
    earnings._store_version(job.node_id, earned)
    job.fresh = 0
    job.earlier = 0
    if present:
        escrow._jobs[job_id] = words._pack_job(job)
    else:
        self._carried[job_id][version] = 0

    dispute_id: uint256 = self.dispute_count + 1
    self.dispute_count = dispute_id
    answer_until: uint256 = block.timestamp + ARBITRATION
    self.disputes[dispute_id] = Dispute(
        funder=funder, node_id=job.node_id, version=version, amount=amount, answer_until=answer_until
    )
    log IClearingVault.Disputed(
        dispute_id=dispute_id,
        job_id=job_id,
        disputer=msg.sender,
        version=version,
        amount=amount,
        answer_until=answer_until,
    )
    return dispute_id


@external
def resolve(dispute_id: uint256, returned: uint256):
    """
    @notice Split what is disputed. The arbiter only, in time; also while paused.
    @param dispute_id The dispute.
    @param returned What goes back to who funded the job, in USDC base units; the node gets the rest.
    """
    assert msg.sender == self.arbiter, "vault: caller is not the arbiter"
    found: Dispute = self._find(dispute_id)
    assert block.timestamp <= found.answer_until, "vault: too late to answer"
    assert returned <= found.amount, "vault: returned exceeds disputed"
    self._end(dispute_id, found, returned)


@external
def release(dispute_id: uint256):
    """
    @notice Give the node what is disputed when the arbiter has not answered in time. Anyone, also while paused.
    """
    found: Dispute = self._find(dispute_id)
    assert block.timestamp > found.answer_until, "vault: arbiter may still answer"
    self._end(dispute_id, found, 0)


@external
def set_arbiter(new_arbiter: address):
    """
    @notice Replace the arbiter. Owner only.
    """
    ownable._check_owner()
    self._set_arbiter(new_arbiter)


@external
@view
def arbitration_period() -> uint256:
    """
    @notice Seconds that the arbiter has for an answer.
    """
    return ARBITRATION


@internal
def _bring_in_step(job_id: bytes32, job_word: uint256, earnings_word: uint256) -> uint256:
    """
    @dev A job's word in the period and of the payee set of its node's earnings. What is fresh for earlier payees
         is carried apart.
    """
    earned: words.Earnings = words._unpack_earnings(earnings_word)
    job: words.Job = words._roll_job(words._unpack_job(job_word), earned.period)
    if job.version != earned.version:
        if job.fresh | job.earlier != 0:
            self._carried[job_id][job.version] = words._pack_job(job)
            job.fresh = 0
            job.earlier = 0
        job.version = earned.version
    return words._pack_job(job)


@internal
@view
def _find(dispute_id: uint256) -> Dispute:
    found: Dispute = self.disputes[dispute_id]
    assert found.amount != 0, "vault: no such dispute"
    return found


@internal
def _end(dispute_id: uint256, found: Dispute, returned: uint256):
    self.disputes[dispute_id] = empty(Dispute)
    rest: uint256 = found.amount - returned
    earned: words.Earnings = earnings._load_version(found.node_id, found.version)
    earned.matured += rest
    earned.disputes -= 1
    earnings._store_version(found.node_id, earned)
    if returned != 0:
        custody._credit(found.funder, returned)
    log IClearingVault.DisputeEnded(
        dispute_id=dispute_id, funder=found.funder, returned=returned, released=rest
    )


@internal
def _set_arbiter(new_arbiter: address):
    assert new_arbiter != empty(address), "vault: arbiter is zero"
    log IClearingVault.ArbiterChanged(previous_arbiter=self.arbiter, new_arbiter=new_arbiter)
    self.arbiter = new_arbiter
