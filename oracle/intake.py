"""Taking in receipts and escrows: durable before the answer, idempotent by digest."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Table, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from oracle.attestation.tpm.evidence import TpmVerdict
from oracle.attestation.tpm.routable import EnclaveVerdict, Routability, routability
from oracle.decide import EnclaveFact, Reason
from oracle.errors import (
    AuthorizationLate,
    EscrowUnknown,
    JobUnknown,
    NodeUnknown,
    ReceiptUnknown,
)
from oracle.gate import refuse_while_paused
from oracle.messages import (
    EscrowRequest,
    EscrowStatus,
    JobState,
    JobStatus,
    JobTransaction,
    NodeStatus,
    ReceiptStatus,
    Status,
)
from oracle.store.database import Store
from oracle.store.tables import (
    AttestationRow,
    EnclaveRow,
    EscrowRow,
    JobEventRow,
    JobRow,
    QuoteRow,
    ReceiptRow,
)
from oracle.tpm import NodeTpms
from oracle.verdicts import (
    Facts,
    best,
    chain_time,
    enclave_facts,
    facts_about,
    is_voided,
    outcome_of,
    payable_until,
    rejudge,
    status_of,
    stored_terms,
)
from settlement.contracts import authorization_signer
from settlement.deployment import Deployment
from settlement.eip712 import job_id, receipt_digest, recover_signer
from settlement.errors import InvalidSignature
from settlement.models import Authorization, JobTerms, SignedReceipt
from settlement.types import to_hex

_log = structlog.get_logger(__name__)


MAX_LISTED = 1_000
"""The most receipts that a job's status lists: those that claim the most."""


@dataclass(frozen=True)
class Verified:
    """A receipt with its EIP-712 digest and who signed that."""

    signed: SignedReceipt
    digest: bytes
    signer: str

    @property
    def key(self) -> tuple[bytes, str]:
        """What there is one row of."""
        return self.digest, self.signer


class Intake:
    """Takes in what clients bring, and tells them where it stands."""

    def __init__(
        self,
        store: Store,
        deployment: Deployment,
        clock: Callable[[], int],
        tpms: NodeTpms | None = None,
    ) -> None:
        """Without `tpms` a node is routable by its enclave alone."""
        self._store = store
        self._deployment = deployment
        self._clock = clock
        self._tpms = tpms

    def verify(self, signed: SignedReceipt) -> Verified:
        """Find out who signed a receipt. Needs no database.

        Raises:
            InvalidSignature: when nobody can have signed it.
        """
        digest = receipt_digest(signed.receipt, self._deployment.vault_domain)
        return Verified(signed, digest, recover_signer(digest, signed.signature))

    def submit_receipt(self, signed: SignedReceipt) -> ReceiptStatus:
        """Keep a receipt and judge it; the same one again gets the same answer.

        Raises:
            InvalidSignature: when nobody can have signed it.
        """
        return self.keep([self.verify(signed)])[0]

    def keep(self, batch: Sequence[Verified]) -> list[ReceiptStatus]:
        """Keep receipts and judge them, in one durable transaction; their statuses in order.

        The same one twice, here or in another instance at the same time, is one row.

        Raises:
            IntakePaused: while an operator has paused the intake; none is kept then.
        """
        keys = {verified.key for verified in batch}
        with self._store.share() as session:
            refuse_while_paused(session)
            now = chain_time(session)
            grace = self._deployment.grace_period
            rows = _stored(session, keys)
            open_ = [r for r in rows.values() if r.status in (Status.WAITING, Status.REJECTED)]
            rejudge(session, open_, grace=grace, now=now)
            statuses = {key: status_of(row) for key, row in rows.items()}
            fresh = {it.key: it for it in batch if it.key not in rows}
            about = [(it.signed.receipt.job_id, it.signer, it.digest) for it in fresh.values()]
            facts = facts_about(session, about, grace)
            # always in the same order, so that instances wait for each other in no circle
            values = [self._values(fresh[key], facts, now) for key in sorted(fresh)]
            _insert(session, values)
        statuses |= {(row["digest"], row["signer"]): _status(row) for row in values}
        counts = Counter(str(status.status) for status in statuses.values())
        _log.info("receipts taken in", new=len(fresh), **counts)
        return [statuses[verified.key] for verified in batch]

    def _values(self, verified: Verified, facts: Facts, now: int) -> dict[str, Any]:
        receipt, digest, signer = verified.signed.receipt, verified.digest, verified.signer
        return {
            **dict(receipt),
            "digest": digest,
            "signer": signer,
            "signature": verified.signed.signature,
            "received_at": self._clock(),
            **outcome_of(facts.judge(receipt, signer=signer, digest=digest, now=now)),
        }

    def receipt(self, digest: bytes) -> ReceiptStatus:
        """Where a receipt stands. Raises ReceiptUnknown."""
        with self._store.read() as session:
            row = best(session.scalars(select(ReceiptRow).where(ReceiptRow.digest == digest)))
        if row is None:
            raise ReceiptUnknown(digest)
        return status_of(row)

    def submit_escrow(self, request: EscrowRequest) -> EscrowStatus:
        """Keep terms and authorization for the relayer; idempotent by job id.

        One for a job that is voided is rejected as such.
        A later authorization for the same job takes the place of one that was rejected, or that is
        not by the payer's own key when the later one is: nobody can block a job by a false one.

        Raises:
            AuthorizationLate: when the authorization has run out already, by the chain's clock.
        """
        terms, authorization = request.terms, request.authorization
        key = job_id(terms, self._deployment.vault_domain)
        with self._store.write() as session:
            now = chain_time(session)
            if authorization.valid_before <= now:
                raise AuthorizationLate(now, authorization.valid_before)
            row = session.get(EscrowRow, key)
            opened = session.scalars(
                select(JobEventRow).where(JobEventRow.job_id == key, JobEventRow.event == "opened")
            ).first()
            if row is None or self._displaces(row, terms, authorization):
                voided = is_voided(session, key)
                status = Status.REJECTED if voided else Status.ACCEPTED
                row = session.merge(
                    EscrowRow(
                        job_id=key,
                        terms=terms.model_dump_json(),
                        **authorization.model_dump(),
                        status=Status.SETTLED if opened else status,
                        reason=Reason.JOB_VOIDED if voided else None,
                        detail=None,
                        slot=None,
                        transaction=opened.transaction if opened else None,
                    )
                )
        _log.info("escrow taken in", job=to_hex(key), status=row.status)
        return _escrow_status(row)

    def escrow(self, key: bytes) -> EscrowStatus:
        """Where an escrow stands. Raises EscrowUnknown."""
        with self._store.read() as session:
            row = session.get(EscrowRow, key)
        if row is None:
            raise EscrowUnknown(key)
        return _escrow_status(row)

    def job(self, key: bytes) -> JobStatus:
        """A job as the finalized chain has it. Raises JobUnknown."""
        with self._store.read() as session:
            row = session.get(JobRow, key)
            if row is None:
                raise JobUnknown(key)
            events = session.scalars(
                select(JobEventRow)
                .where(JobEventRow.job_id == key)
                .order_by(JobEventRow.block, JobEventRow.position)
            ).all()
            receipts = session.scalars(
                select(ReceiptRow)
                .where(ReceiptRow.job_id == key)
                .order_by(
                    ReceiptRow.records.desc(), ReceiptRow.epochs.desc(), ReceiptRow.digest.desc()
                )
                .limit(MAX_LISTED)
            ).all()
        terms = stored_terms(row.terms)
        return JobStatus(
            job_id=key,
            terms=terms,
            state=JobState(row.state),
            node_id=row.node_id or None,
            payable_until=payable_until(row, terms, self._deployment.grace_period),
            funded=row.funded,
            paid=row.paid,
            refunded=row.refunded,
            records=row.records,
            epochs=row.epochs,
            output_digest=row.output_digest,
            receipts=tuple(status_of(receipt) for receipt in reversed(receipts)),
            transactions=tuple(
                JobTransaction.model_validate(
                    {
                        "event": event.event,
                        "transaction": event.transaction,
                        "block": event.block,
                        "amount": event.amount,
                    }
                )
                for event in events
            ),
        )

    def nodes(self) -> list[NodeStatus]:
        """All registered enclave keys by node; of one routable ones first, then by expiry."""
        with self._store.read() as session:
            now = max(self._clock(), chain_time(session))
            statuses = []
            rows = session.scalars(select(EnclaveRow).where(EnclaveRow.node_id != 0)).all()
            facts = enclave_facts(session, [row.enclave_key for row in rows])
            for row in rows:
                fact = facts[row.enclave_key]
                evidence: AttestationRow | QuoteRow | None = session.get(
                    QuoteRow, row.attestation_digest
                ) or session.get(AttestationRow, row.attestation_digest)
                routable, tpm = self._standing(session, row, now, fact)
                statuses.append(
                    NodeStatus(
                        node_id=row.node_id,
                        enclave_key=row.enclave_key,
                        encryption_key=evidence.encryption_key if evidence else None,
                        measurement=row.measurement,
                        expiry=row.expiry,
                        revoked=fact.revoked,
                        valid=fact.measurement_allowed and not fact.revoked and now < row.expiry,
                        routable=routable.routable,
                        routable_until=routable.until,
                        reasons=tuple(routable.reasons),
                        tpm_valid_until=tpm.valid_until if tpm else None,
                    )
                )
        return sorted(
            statuses,
            key=lambda s: (s.node_id, not s.routable, not s.valid, -s.expiry, s.enclave_key),
        )

    def node(self, node_id: int) -> NodeStatus:
        """The node's best enclave key. Raises NodeUnknown."""
        for status in self.nodes():
            if status.node_id == node_id:
                return status
        raise NodeUnknown(node_id, "has no registered enclave")

    def _standing(
        self, session: Session, row: EnclaveRow, now: int, fact: EnclaveFact
    ) -> tuple[Routability, TpmVerdict | None]:
        enclave = EnclaveVerdict(
            node_id=row.node_id,
            verified_at=0,  # the finalized chain knows it, so it counts already
            valid_until=row.expiry,
            revoked=fact.revoked or not fact.measurement_allowed,
        )
        if self._tpms is not None:
            return self._tpms.standing(session, enclave, row.enclave_key, now)
        routable = routability(
            row.node_id,
            enclave=enclave,
            tpm=None,
            enrolled_ak=None,
            policy_digest=bytes(32),
            now=now,
            tpm_required=False,
        )
        return routable, None

    def _displaces(self, row: EscrowRow, terms: JobTerms, new: Authorization) -> bool:
        if row.status == Status.REJECTED:
            return True
        old = Authorization(
            valid_after=row.valid_after, valid_before=row.valid_before, signature=row.signature
        )
        return row.status == Status.ACCEPTED and (
            self._is_own(terms, new) and not self._is_own(terms, old)
        )

    def _is_own(self, terms: JobTerms, authorization: Authorization) -> bool:
        """Whether the payer's own key signed; for a smart wallet only the chain can tell."""
        try:
            return authorization_signer(self._deployment, terms, authorization) == terms.payer
        except InvalidSignature:
            return False


def _escrow_status(row: EscrowRow) -> EscrowStatus:
    return EscrowStatus(
        job_id=row.job_id,
        status=Status(row.status),
        reason=row.reason,
        detail=row.detail,
        transaction=row.transaction,
    )


def _stored(session: Session, keys: Set[tuple[bytes, str]]) -> dict[tuple[bytes, str], ReceiptRow]:
    if not keys:
        return {}
    query = select(ReceiptRow).where(ReceiptRow.digest.in_({digest for digest, _ in keys}))
    rows = {(row.digest, row.signer): row for row in session.scalars(query)}
    return {key: row for key, row in rows.items() if key in keys}


def _insert(session: Session, values: Sequence[Mapping[str, Any]]) -> None:
    """Insert what is not there yet.

    What another instance was quicker with has been judged by the same facts at the same time: they
    stand still while any of them inserts, and the chain's clock is one of them.
    """
    if values:
        postgresql = session.get_bind().dialect.name == "postgresql"
        insert = postgresql_insert if postgresql else sqlite_insert
        session.connection().execute(insert(_RECEIPTS).on_conflict_do_nothing(), values)


def _status(row: Mapping[str, Any]) -> ReceiptStatus:
    """The status of a receipt that has just become a row."""
    return ReceiptStatus(**{name: row[name] for name in ReceiptStatus.model_fields})


_RECEIPTS: Table = ReceiptRow.metadata.tables[ReceiptRow.__tablename__]
