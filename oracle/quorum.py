"""Collecting a quorum's signatures from operators of whom nothing is believed unchecked."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

import structlog
from sqlalchemy import select

from oracle.attestation.quote import parse_quote
from oracle.client import OracleRefused, OracleUnavailable, PeerClient
from oracle.committee import Operator, challenge_nonce
from oracle.errors import AttestationUnknown, ChainUnavailable, QuorumNotReached
from oracle.facts import Chain
from oracle.messages import (
    ActivationAnswers,
    ActivationSet,
    AttestationStatus,
    ChallengeRequest,
    ChallengeSet,
    EnrolmentRequest,
    Evidence,
    SignatureAnswer,
    SignatureRequest,
    Status,
    TpmRenewal,
    TpmStatus,
)
from oracle.statements import Statement, parse_statement, statement_digest
from oracle.store.database import Store
from oracle.store.tables import AttestationRow
from settlement.committee import (
    Committee,
    TooFewSignatures,
    check_signature,
    join_signatures,
)
from settlement.deployment import Deployment
from settlement.errors import InvalidSignature, RaphaError
from settlement.models import PlatformVerdict
from settlement.types import to_hex

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Quorum:
    """Collects challenges and signatures from this operator and its peers, for the relaying one."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        deployment: Deployment,
        operator: Operator,
        peers: Sequence[PeerClient],
    ) -> None:
        self._store = store
        self._chain = chain
        self._deployment = deployment
        self._operator = operator
        self._peers = peers

    def challenges(self, request: ChallengeRequest) -> ChallengeSet:
        """A challenge of this operator and of each peer that answers.

        Raises:
            QuorumNotReached: when fewer answer than will have to sign.
        """
        need = self._chain.committee().committee.threshold
        answers, refusals = self._ask_peers(lambda peer: peer.challenge(request))
        answers.append(self._operator.challenge(request))
        if len(answers) < need:
            raise QuorumNotReached(len(answers), need, refusals)
        challenges = tuple(sorted({answer.challenge for answer in answers}))
        return ChallengeSet(
            challenges=challenges,
            nonce=challenge_nonce(challenges),
            expires_at=min(answer.expires_at for answer in answers),
            tpm=self._operator.wanted_tpm(request.node_id),
            vouch_for=self._operator.vouch_for,
        )

    def enrol(self, request: EnrolmentRequest) -> ActivationSet:
        """An activation of this operator and of each peer that makes one: each enrols by itself.

        Raises:
            InvalidInput: by name, when this operator itself refuses (`Operator.enrol`).
        """
        own = self._operator.enrol(request)
        answers, refusals = self._ask_peers(lambda peer: peer.enrol_tpm(request))
        return ActivationSet(activations=(own, *answers), refusals=refusals)

    def activate(self, answers: ActivationAnswers) -> TpmStatus:
        """End the enrolment here and at the peers, each of which takes the answer to its own.

        Raises:
            InvalidInput: by name, when this operator itself refuses (`Operator.activate`).
        """
        own = self._operator.activate(answers)
        _, refusals = self._ask_peers(lambda peer: peer.activate_tpm(answers))
        return own.model_copy(update={"refusals": refusals})

    def renew_tpm(self, renewal: TpmRenewal) -> TpmStatus:
        """Have fresh TPM evidence checked here and by the peers.

        Raises:
            InvalidInput: by name, when this operator itself refuses (`Operator.renew_tpm`).
        """
        own = self._operator.renew_tpm(renewal)
        _, refusals = self._ask_peers(lambda peer: peer.renew_tpm(renewal))
        return own.model_copy(update={"refusals": refusals})

    def submit(self, evidence: Evidence) -> AttestationStatus:
        """Examine evidence and keep it; its signatures are collected by `tick`.

        Idempotent by the quote's attestation digest, except that what was rejected may try again.

        Raises:
            InvalidInput: by name, when the evidence does not hold (`Operator.examine`).
        """
        digest = parse_quote(evidence.quote).attestation_digest
        with self._store.read() as session:
            known = session.get(AttestationRow, digest)
        if known and known.status != Status.REJECTED:
            return _status(known)
        self._operator.examine(evidence)
        row = AttestationRow(
            digest=digest,
            node_id=evidence.node_id,
            enclave_key=evidence.enclave_key,
            encryption_key=evidence.encryption_key,
            evidence=evidence.model_dump_json(),
            statement=None,
            platform=None,
            signatures=None,
            status=Status.WAITING,
            reason=None,
            detail=None,
            slot=None,
            transaction=None,
        )
        with self._store.write() as session:
            present = session.get(AttestationRow, digest)
            if present and present.status != Status.REJECTED:
                return _status(present)
            session.merge(row)
        return _status(row)

    def status(self, digest: bytes) -> AttestationStatus:
        """Where an attestation stands. Raises AttestationUnknown."""
        with self._store.read() as session:
            row = session.get(AttestationRow, digest)
        if row is None:
            raise AttestationUnknown(digest)
        return _status(row)

    def tick(self) -> bool:
        """Try to complete each attestation that waits for its quorum.

        Raises:
            ChainUnavailable: when the endpoint gives no answer; nothing is decided then.
        """
        with self._store.read() as session:
            query = select(AttestationRow).where(AttestationRow.status == Status.WAITING)
            waiting = list(session.scalars(query))
        for row in waiting:
            try:
                statement, signatures = self.collect(Evidence.model_validate_json(row.evidence))
            except ChainUnavailable:
                raise
            except RaphaError as error:
                self._note(row.digest, error)
                continue
            with self._store.write() as session:
                stored = session.get_one(AttestationRow, row.digest)
                if stored.status == Status.WAITING:
                    stored.statement = statement.model_dump_json()
                    stored.platform = _platform(statement)
                    stored.signatures = to_hex(signatures)
                    stored.status, stored.reason, stored.detail = Status.ACCEPTED, None, None
        return False

    def collect(self, evidence: Evidence) -> tuple[Statement, bytes]:
        """What evidence justifies, and members' signatures as the committee's contract takes them.

        Raises:
            QuorumNotReached: when too few sign for now.
            InvalidInput: when this operator itself finds the evidence wanting.
        """
        verified = self._operator.examine(evidence)
        sitting = self._chain.committee()
        committee = sitting.committee
        request = SignatureRequest(
            evidence=evidence,
            expiry=self._operator.latest_expiry(evidence, verified),
            epoch=sitting.epoch,
            vouch_for=self._operator.vouch_for,
        )
        own = self._operator.sign(request)
        statement = own.statement
        answers, refusals = self._ask_peers(
            lambda peer: self._checked(peer.signature(request), statement, committee)
        )
        signatures = {answer.signer: answer.signature for answer in answers}
        if own.signer in committee.ids:
            signatures[own.signer] = own.signature
        try:
            return statement, join_signatures(committee, signatures)
        except TooFewSignatures as error:
            raise QuorumNotReached(error.found, error.threshold, refusals) from error

    def _checked(
        self, answer: SignatureAnswer, statement: Statement, committee: Committee
    ) -> SignatureAnswer:
        """A peer's answer, if it is a member's signature over this very statement.

        Raises:
            InvalidSignature: when it is anything else.
        """
        digest = statement_digest(statement, self._deployment.enclave_domain)
        check_signature(committee, digest, answer.signer, answer.signature)
        return answer

    def _ask_peers(self, question: Callable[[PeerClient], T]) -> tuple[list[T], dict[str, str]]:
        """All peers at once: the answers that came, and per other peer the reason."""
        answers: list[T] = []
        refusals: dict[str, str] = {}
        if not self._peers:
            return answers, refusals
        with ThreadPoolExecutor(max_workers=len(self._peers)) as pool:
            asked: dict[Future[T], PeerClient] = {
                pool.submit(question, peer): peer for peer in self._peers
            }
            for future in as_completed(asked):
                url = asked[future].base_url
                try:
                    answers.append(future.result())
                except (OracleUnavailable, OracleRefused, InvalidSignature) as error:
                    refusals[url] = f"{error.code}: {error}"
                    _log.warning("peer did not help", peer=url, reason=error.code)
        return answers, refusals

    def _note(self, digest: bytes, error: RaphaError) -> None:
        with self._store.write() as session:
            row = session.get_one(AttestationRow, digest)
            if row.status == Status.WAITING:
                row.reason, row.detail = error.code, str(error)
                if error.final:
                    row.status = Status.REJECTED
        _log.warning("attestation waits", attestation=to_hex(digest), reason=error.code)


def _platform(statement: Statement) -> bytes | None:
    return statement.platform if isinstance(statement, PlatformVerdict) else None


def _status(row: AttestationRow) -> AttestationStatus:
    expiry = parse_statement(row.statement).expiry if row.statement else None
    return AttestationStatus(
        digest=row.digest,
        node_id=row.node_id,
        enclave_key=row.enclave_key,
        status=Status(row.status),
        reason=row.reason,
        detail=row.detail,
        platform=row.platform,
        expiry=expiry,
        transaction=row.transaction,
    )
