"""Brings on chain what was handed in: statements, quotes, escrows, and receipts in batches."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import structlog
from eth_utils import keccak
from sqlalchemy import select, tuple_
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from oracle.batching import Go, decide, divide
from oracle.candidates import Candidate, candidates, in_order
from oracle.decide import REFUSALS
from oracle.errors import AuthorizationLate
from oracle.facts import Call, Chain
from oracle.keyring import Keyring, RelayPolicy
from oracle.messages import Evidence, Status
from oracle.outbox import Item
from oracle.projection import settle_if_judged
from oracle.quotes import quote_refusal
from oracle.sender import Moment
from oracle.statements import Statement, parse_statement
from oracle.store.database import Store
from oracle.store.tables import (
    AttestationRow,
    CursorRow,
    EnclaveRow,
    EscrowRow,
    PlatformRow,
    QuoteRow,
    ReceiptRow,
)
from oracle.verdicts import chain_time, stored_terms
from settlement.contracts import Outcome
from settlement.dcap import split_quote
from settlement.deployment import Deployment
from settlement.models import Authorization, EnclaveRegistration, PlatformVerdict
from settlement.reverts import ContractReverted, Revert
from settlement.types import parse_bytes, to_hex

ByKey = TypeVar("ByKey", AttestationRow, QuoteRow, EscrowRow)

_log = structlog.get_logger(__name__)


class Relayer:
    """Takes what is due, and has the keyring send it."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        deployment: Deployment,
        keyring: Keyring,
        policy: RelayPolicy,
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._chain = chain
        self._deployment = deployment
        self._policy = policy
        self._clock = clock
        self.keyring = keyring

    def tick(self) -> bool:
        """One round: send what is persisted but unsent, follow what is pending, take on new work.

        Returns whether anything new was sent. A key in trouble stops no other; when none is left
        to work, its trouble is raised.

        Raises:
            ChainUnavailable, EndpointsDisagree: nothing is decided for now.
            TransactionRefused, SignerUnavailable, SignerRefused, SignedOtherwise, KeyInUse: for
                now; the next tick sends what is persisted.
        """
        self._chain.finalized()  # where endpoints disagree on what is final, nothing is sent
        moment = self._look()
        self.keyring.catch_up(moment)
        sent = self._vouch(moment)
        sent = self._quote(moment) or sent
        sent = self._open(moment) or sent
        sent = self._settle(moment) or sent
        self.keyring.raise_if_stuck()
        return sent

    def _look(self) -> Moment:
        with self._store.read() as session:
            cursor = session.get(CursorRow, 1)
        seen = cursor.block if cursor else -1
        return Moment(height=self._chain.latest(), seen=seen, fees=self._chain.fees())

    def _vouch(self, moment: Moment) -> bool:
        """Bring what the committee signed."""
        with self._store.read() as session:
            query = select(AttestationRow).where(AttestationRow.status == Status.ACCEPTED)
            rows = list(session.scalars(query))
            judging = AttestationRow.status == Status.SUBMITTED
            # one transaction at a time for each platform: it may serve others that wait, too
            busy = set(session.scalars(select(AttestationRow.platform).where(judging)))
        sent = False
        for row in rows:
            if row.statement is None or row.signatures is None or not self.keyring.has_room():
                continue
            if row.platform is not None and row.platform in busy:
                continue
            busy.add(row.platform)
            statement, signatures = parse_statement(row.statement), parse_bytes(row.signatures)
            if isinstance(statement, PlatformVerdict):
                call = self._chain.judge_call(statement, signatures)
            else:
                call = self._chain.register_call(statement, signatures)
            try:
                try:
                    sent = self._submit(call, moment, AttestationRow, row.digest) or sent
                except ContractReverted as refusal:
                    if refusal.revert is not Revert.DCAP_PLATFORM_IS_NOT_CERTIFIED_FOR_SO_LONG:
                        raise
                    # its certificate comes first; once that is final the verdict is due again
                    parts = split_quote(Evidence.model_validate_json(row.evidence).quote)
                    call = self._chain.register_platform_call(parts)
                    sent = self._submit(call, moment, AttestationRow, row.digest) or sent
            except ContractReverted as refusal:
                self._refuse_statement(row.digest, statement, refusal)
        return sent

    def _refuse_statement(
        self, digest: bytes, statement: Statement, refusal: ContractReverted
    ) -> None:
        with self._store.write() as session:
            row = session.get_one(AttestationRow, digest)
            if row.status != Status.ACCEPTED:
                return
            row.reason, row.detail = refusal.code, str(refusal)
            # What is no longer new may be this very one, brought by somebody: only the facts tell.
            if refusal.revert is Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE:
                row.status = Status.WAITING
                row.statement = row.signatures = row.platform = None
            elif refusal.revert is Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER:
                assert isinstance(statement, EnclaveRegistration)
                known = session.get(EnclaveRow, statement.enclave_key)
                if known and known.expiry >= statement.expiry:
                    row.status = Status.REJECTED
            elif refusal.revert is Revert.DCAP_VERDICT_IS_NOT_NEWER:
                judged = session.get(PlatformRow, row.platform)
                known_to = judged.expiry if judged else 0
                if judged and known_to >= statement.expiry and not settle_if_judged(judged, row):
                    row.status = Status.REJECTED
            elif refusal.revert is Revert.DCAP_CERTIFICATE_IS_NOT_NEWER:
                pass  # somebody brought the certificate in between
            elif refusal.final:
                row.status = Status.REJECTED
        _log.warning("statement refused", attestation=to_hex(digest), reason=refusal.code)

    def _quote(self, moment: Moment) -> bool:
        """Bring quotes for the chain to check."""
        with self._store.read() as session:
            rows = list(session.scalars(select(QuoteRow).where(QuoteRow.status == Status.ACCEPTED)))
        sent = False
        for row in rows:
            if not self.keyring.has_room():
                break
            call = self._chain.register_quote_call(
                split_quote(row.quote), row.enclave_key, keccak(row.encryption_key)
            )
            try:
                sent = self._submit(call, moment, QuoteRow, row.digest) or sent
            except ContractReverted as refusal:
                self._refuse_quote(row.digest, refusal)
        return sent

    def _refuse_quote(self, digest: bytes, refusal: ContractReverted) -> None:
        with self._store.write() as session:
            row = session.get_one(QuoteRow, digest)
            if row.status != Status.ACCEPTED:
                return
            error = quote_refusal(refusal)
            row.reason, row.detail = error.code, str(error)
            known = session.get(EnclaveRow, row.enclave_key)
            judged = session.get(PlatformRow, row.platform)
            if refusal.revert is Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER:
                # this very quote may have been brought by somebody: only the facts tell
                if known and judged and known.expiry >= judged.expiry:
                    row.status = Status.REJECTED
            elif error.final:
                row.status = Status.REJECTED
        _log.warning("quote refused", quote=to_hex(digest), reason=error.code)

    def _submit(self, call: Call, moment: Moment, table: type[ByKey], key: bytes) -> bool:
        """Have a call sent that carries one item. Raises ContractReverted."""
        return self.keyring.submit(call, moment, partial(_one, table, key))

    def _open(self, moment: Moment) -> bool:
        with self._store.read() as session:
            query = select(EscrowRow).where(EscrowRow.status == Status.ACCEPTED)
            rows = list(session.scalars(query))
        sent = False
        for row in rows:
            if not self.keyring.has_room():
                break
            terms = stored_terms(row.terms)
            authorization = Authorization(
                valid_after=row.valid_after, valid_before=row.valid_before, signature=row.signature
            )
            call = self._chain.open_call(terms, authorization)
            key = row.job_id
            try:
                sent = self._submit(call, moment, EscrowRow, key) or sent
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
            now = chain_time(session)
            late = now >= row.valid_before
            if late and not refusal.final:
                error = AuthorizationLate(now, row.valid_before)
                row.reason, row.detail = error.code, str(error)
            if refusal.final or late:
                row.status = Status.REJECTED
        _log.warning("escrow refused", job=to_hex(job_id), reason=refusal.code)

    def _settle(self, moment: Moment) -> bool:
        if not self.keyring.has_room():
            return False
        policy = self._policy.batch
        with self._store.read() as session:
            due = candidates(session, self._deployment)
        batches = divide(due, moment.height, policy.max_batch, self._policy.patience)
        price = self._policy.fees.price(moment.fees)
        sent = False
        for batch in batches:
            go = decide([waiting for waiting, _ in batch], price, self._clock(), policy)
            if go is Go.COSTLY:
                _log.info("batch waits", reason=go, receipts=len(batch))
            if go.sends and self.keyring.has_room():
                sent = self._settle_batch(moment, [candidate for _, candidate in batch]) or sent
        return sent

    def _settle_batch(self, moment: Moment, batch: Sequence[Candidate]) -> bool:
        """Settle what the vault would pay of a batch; halve one that would revert as a whole."""
        batch = in_order(batch)
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
            return self.keyring.submit(call, moment, partial(receipt_rows, paid))
        except ContractReverted as refusal:
            if refusal.revert is Revert.VAULT_PAUSED or len(batch) == 1:
                _log.warning("settling refused", reason=refusal.code, receipts=len(batch))
                if refusal.final:
                    self._reject_by_name(batch[0], refusal.code)
                return False
            middle = len(batch) // 2
            first = self._settle_batch(moment, batch[:middle])
            return self._settle_batch(moment, batch[middle:]) or first

    def _reject(self, batch: Sequence[Candidate], outcomes: Sequence[Outcome]) -> None:
        for candidate, outcome in zip(batch, outcomes, strict=True):
            if outcome in REFUSALS:
                self._reject_by_name(candidate, REFUSALS[outcome])

    def _reject_by_name(self, candidate: Candidate, reason: str) -> None:
        with self._store.write() as session:
            (row,) = receipt_rows([candidate], session)
            if row.status == Status.ACCEPTED:
                row.status, row.reason = Status.REJECTED, reason
        _log.warning("receipt refused", receipt=to_hex(candidate.digest), reason=reason)


def _one(table: type[ByKey], key: bytes, session: Session) -> Sequence[Item]:
    return [session.get_one(table, key, with_for_update=True)]


def receipt_rows(candidates: Sequence[Candidate], session: Session) -> Sequence[ReceiptRow]:
    """The rows of a batch's receipts, locked.

    Raises:
        NoResultFound: when one is not stored; nothing is sent that the store does not know.
    """
    keys = [(candidate.digest, candidate.signer) for candidate in candidates]
    ours = tuple_(ReceiptRow.digest, ReceiptRow.signer).in_(keys)
    query = select(ReceiptRow).where(ours).order_by(ReceiptRow.digest, ReceiptRow.signer)
    rows = session.scalars(query.with_for_update()).all()
    if len(rows) != len(keys):
        raise NoResultFound(f"{len(keys) - len(rows)} receipts of the batch are not stored")
    return rows
