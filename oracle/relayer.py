"""Brings what was handed in on chain, and persists each transaction before it sends it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from eth_account.signers.local import LocalAccount
from sqlalchemy import select
from sqlalchemy.orm import Session

from oracle.decide import REFUSALS, JobFact, due
from oracle.errors import AuthorizationLate
from oracle.facts import Call, Chain
from oracle.messages import Status
from oracle.outbox import Item, Outbox
from oracle.store.database import Store
from oracle.store.tables import (
    AttestationRow,
    CursorRow,
    EnclaveRow,
    EscrowRow,
    ReceiptRow,
    TransactionRow,
)
from oracle.transactions import Bid, FeePolicy, TransactionState
from oracle.verdicts import job_fact, receipt_of
from settlement.contracts import MAX_BATCH, Claim, Outcome
from settlement.deployment import Deployment
from settlement.eip712 import receipt_digest
from settlement.models import Authorization, EnclaveRegistration, JobTerms, SignedReceipt
from settlement.reverts import ContractReverted, Revert
from settlement.types import Frozen, HexData, to_hex

ByKey = TypeVar("ByKey", AttestationRow, EscrowRow)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class RelayPolicy:
    """How the relayer works: `patience` in blocks until an unmined transaction is replaced."""

    fees: FeePolicy
    max_batch: int = MAX_BATCH
    max_in_flight: int = 16
    patience: int = 20


class Signatures(Frozen):
    """A quorum's signatures as the store keeps them, sorted by signer."""

    signatures: tuple[HexData, ...]


@dataclass(frozen=True)
class _Candidate:
    """A receipt that is due, with its row's key and its node."""

    claim: Claim
    digest: bytes
    signer: str
    node_id: int


class Relayer:
    """One account's relayer. Only one may run per account."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        deployment: Deployment,
        account: LocalAccount,
        policy: RelayPolicy,
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._chain = chain
        self._deployment = deployment
        self._address = str(account.address)
        self._policy = policy
        self._clock = clock
        self._outbox = Outbox(store, deployment, account)
        self._recovered = False

    def tick(self) -> bool:
        """One round: send what is persisted but unsent, follow what is pending, take on new work.

        Returns whether anything new was sent.

        Raises:
            ChainUnavailable, TransactionRefused: for now; the next tick sends what is persisted.
        """
        self._deliver(everything=not self._recovered)
        self._recovered = True
        self._follow()
        sent = self._register()
        sent = self._open() or sent
        return self._settle() or sent

    def _deliver(self, *, everything: bool) -> None:
        for row in self._outbox.pending():
            if everything or not row.sent:
                self._send(row)

    def _send(self, row: TransactionRow, since: int | None = None) -> None:
        delivery = self._chain.send(row.raw)
        self._outbox.mark_sent(row.hash, since)
        _log.info(
            "transaction sent",
            transaction=to_hex(row.hash),
            nonce=row.nonce,
            attempt=row.attempt,
            kind=row.kind,
            delivery=delivery,
        )

    # What is pending

    def _follow(self) -> None:
        pending = self._outbox.pending()
        if not pending:
            return
        with self._store.read() as session:
            cursor = session.get(CursorRow, 1)
        seen = cursor.block if cursor else -1
        height = self._chain.latest()
        used = self._chain.next_nonce(self._address, final=True)
        for row in pending:
            if not self._resolve(row, seen, used) and height >= row.since + self._policy.patience:
                self._replace(row, height)

    def _resolve(self, row: TransactionRow, seen: int, used: int) -> bool:
        """Close a nonce that is mined where the facts reach. Returns whether it is used."""
        for attempt in self._outbox.attempts(row.nonce):
            mined = self._chain.mined(attempt.hash)
            if mined is None:
                continue
            # Not before the watcher has passed the block: then what it settled shows in the facts.
            if mined.block <= seen:
                state = TransactionState.FINAL if mined.success else TransactionState.REVERTED
                self._outbox.resolve(row.nonce, state, attempt.hash, mined.block)
                _log.info("transaction resolved", transaction=to_hex(attempt.hash), state=state)
            return True
        if used > row.nonce:
            self._outbox.resolve(row.nonce, TransactionState.LOST, None, None)
            _log.error("nonce was used by a foreign transaction", nonce=row.nonce)
            return True
        return False

    def _replace(self, row: TransactionRow, height: int) -> None:
        bid = self._policy.fees.higher(Bid(row.max_fee, row.tip), self._chain.fees())
        if bid is None:
            _log.warning("fee cap reached, sent again as it is", nonce=row.nonce)
            self._send(row, since=height)
        else:
            self._send(self._outbox.replace(row, bid, height))

    # New work

    def _has_room(self) -> bool:
        return len(self._outbox.pending()) < self._policy.max_in_flight

    def _submit(self, call: Call, items: Callable[[Session], Sequence[Item]]) -> None:
        """Estimate, persist, send. Raises ContractReverted when the call would revert now."""
        gas = self._chain.estimate_gas(call, self._address)
        row = self._outbox.enter(
            call,
            gas=gas + gas // 4,  # other transactions before it may warm or cool a slot
            bid=self._policy.fees.first(self._chain.fees()),
            least_nonce=self._chain.next_nonce(self._address, final=False),
            since=self._chain.latest(),
            items=items,
        )
        self._send(row)

    def _register(self) -> bool:
        with self._store.read() as session:
            query = select(AttestationRow).where(AttestationRow.status == Status.ACCEPTED)
            rows = list(session.scalars(query))
        sent = False
        for row in rows:
            if row.registration is None or row.signatures is None or not self._has_room():
                continue
            registration = EnclaveRegistration.model_validate_json(row.registration)
            signatures = Signatures.model_validate_json(row.signatures).signatures
            call = self._chain.register_call(registration, signatures)
            key = row.digest
            try:
                self._submit(call, partial(_one, AttestationRow, key))
                sent = True
            except ContractReverted as refusal:
                self._refuse_registration(key, registration, refusal)
        return sent

    def _refuse_registration(
        self, digest: bytes, registration: EnclaveRegistration, refusal: ContractReverted
    ) -> None:
        with self._store.write() as session:
            row = session.get_one(AttestationRow, digest)
            if row.status != Status.ACCEPTED:
                return
            row.reason, row.detail = refusal.code, str(refusal)
            known = session.get(EnclaveRow, registration.enclave_key)
            if refusal.revert is Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE:
                row.status = Status.WAITING
                row.registration = row.signatures = None
            elif refusal.revert is Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER:
                # Somebody else may have brought this very one: only the facts tell.
                if known and known.expiry >= registration.expiry:
                    row.status = Status.REJECTED
            elif refusal.final:
                row.status = Status.REJECTED
        _log.warning("registration refused", attestation=to_hex(digest), reason=refusal.code)

    def _open(self) -> bool:
        with self._store.read() as session:
            query = select(EscrowRow).where(EscrowRow.status == Status.ACCEPTED)
            rows = list(session.scalars(query))
        sent = False
        for row in rows:
            if not self._has_room():
                break
            terms = JobTerms.model_validate_json(row.terms)
            authorization = Authorization(
                valid_after=row.valid_after, valid_before=row.valid_before, signature=row.signature
            )
            call = self._chain.open_call(terms, authorization)
            key = row.job_id
            try:
                self._submit(call, partial(_one, EscrowRow, key))
                sent = True
            except ContractReverted as refusal:
                self._refuse_escrow(key, refusal)
        return sent

    def _refuse_escrow(self, job_id: bytes, refusal: ContractReverted) -> None:
        with self._store.write() as session:
            row = session.get_one(EscrowRow, job_id)
            # A job that exists shows in the facts as soon as its opening is final.
            if row.status != Status.ACCEPTED or refusal.revert is Revert.VAULT_JOB_EXISTS:
                return
            row.reason, row.detail = refusal.code, str(refusal)
            late = self._clock() >= row.valid_before
            if late and not refusal.final:
                error = AuthorizationLate(self._clock(), row.valid_before)
                row.reason, row.detail = error.code, str(error)
            if refusal.final or late:
                row.status = Status.REJECTED
        _log.warning("escrow refused", job=to_hex(job_id), reason=refusal.code)

    def _settle(self) -> bool:
        if not self._has_room():
            return False
        return self._settle_batch(self._candidates()[: self._policy.max_batch])

    def _candidates(self) -> list[_Candidate]:
        """The receipts that are due, those of one node side by side: that costs the least gas."""
        with self._store.read() as session:
            payable = (Status.ACCEPTED, Status.SUBMITTED)
            query = select(ReceiptRow).where(ReceiptRow.status.in_(payable))
            by_job: dict[bytes, list[ReceiptRow]] = {}
            for row in session.scalars(query.order_by(ReceiptRow.received_at, ReceiptRow.digest)):
                by_job.setdefault(row.job_id, []).append(row)
            candidates: list[_Candidate] = []
            for key, rows in by_job.items():
                # a job that the chain took back is not there before it is seen again
                if job := job_fact(session, key, self._deployment.grace_period):
                    candidates += self._due(rows, job)
        return sorted(candidates, key=lambda candidate: candidate.node_id)

    def _due(self, rows: Sequence[ReceiptRow], job: JobFact) -> list[_Candidate]:
        """Of one job's rows those to send now: not what something already sent covers."""
        by_digest = {row.digest: row for row in rows}
        chosen = []
        for receipt in due([receipt_of(row) for row in by_digest.values()], job):
            row = by_digest[receipt_digest(receipt, self._deployment.vault_domain)]
            if row.status == Status.ACCEPTED:
                signed = SignedReceipt(receipt=receipt, signature=row.signature)
                claim = Claim(job.terms, signed)
                chosen.append(_Candidate(claim, row.digest, row.signer, job.node_id))
        return chosen

    def _settle_batch(self, batch: Sequence[_Candidate]) -> bool:
        """Settle what the vault would pay of a batch; halve one that would revert as a whole."""
        if not batch:
            return False
        try:
            outcomes = self._chain.simulate_settle([candidate.claim for candidate in batch])
            paid = [
                c for c, outcome in zip(batch, outcomes, strict=True) if outcome is Outcome.PAID
            ]
            self._reject(batch, outcomes)
            if not paid:
                return False
            call = self._chain.settle_call([candidate.claim for candidate in paid])
            self._submit(call, lambda session: [_receipt_row(session, c) for c in paid])
        except ContractReverted as refusal:
            if refusal.revert is Revert.VAULT_PAUSED or len(batch) == 1:
                _log.warning("settling refused", reason=refusal.code, receipts=len(batch))
                if refusal.final:
                    self._reject_by_name(batch[0], refusal.code)
                return False
            middle = len(batch) // 2
            first = self._settle_batch(batch[:middle])
            return self._settle_batch(batch[middle:]) or first
        return True

    def _reject(self, batch: Sequence[_Candidate], outcomes: Sequence[Outcome]) -> None:
        for candidate, outcome in zip(batch, outcomes, strict=True):
            if outcome in REFUSALS:
                self._reject_by_name(candidate, REFUSALS[outcome])

    def _reject_by_name(self, candidate: _Candidate, reason: str) -> None:
        with self._store.write() as session:
            row = _receipt_row(session, candidate)
            if row.status == Status.ACCEPTED:
                row.status, row.reason = Status.REJECTED, reason
        _log.warning("receipt refused", receipt=to_hex(candidate.digest), reason=reason)


def _one(table: type[ByKey], key: bytes, session: Session) -> Sequence[Item]:
    return [session.get_one(table, key)]


def _receipt_row(session: Session, candidate: _Candidate) -> ReceiptRow:
    return session.get_one(ReceiptRow, (candidate.digest, candidate.signer))
