"""What one operator knows about nodes' TPMs: which is whose, and whether it vouches for it now.

Every operator enrols, checks and remembers by itself; nothing here rests on another one's word.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from oracle.attestation.errors import (
    ActivationUnknown,
    EventLogMissing,
    NodeHasAnotherTpm,
    NodeUnassigned,
    PcrNotAllowed,
    TooManyActivations,
    TpmEvidenceMissing,
    TpmNotEnrolled,
    TpmNotPinned,
    TpmOfAnotherNode,
)
from oracle.attestation.tpm.endorsement import Endorsement, EndorsementRoots
from oracle.attestation.tpm.enrolment import (
    Activation,
    ActivationAnswer,
    EnrolledKey,
    Enrolment,
    EnrolmentRequest,
    OpenActivation,
)
from oracle.attestation.tpm.eventlog import parse_event_log
from oracle.attestation.tpm.evidence import TpmVerdict, check_tpm_evidence, quote_nonce
from oracle.attestation.tpm.policy import NodePolicies
from oracle.attestation.tpm.routable import EnclaveVerdict, Routability, routability
from oracle.attestation.tpm.structures import selection_text
from oracle.errors import ConfigurationRefused
from oracle.messages import TpmEvidence, TpmWanted
from oracle.store.database import Store
from oracle.store.tpm import TpmActivationRow, TpmKeyRow, TpmVerdictRow
from settlement.deployment import Deployment

MAX_ACTIVATIONS = 10_000
"""Enrolments that may be open at a time."""

_log = structlog.get_logger(__name__)


class StoredActivations:
    """Open activations in the operator's database, which its processes share."""

    def __init__(self, store: Store, capacity: int = MAX_ACTIVATIONS) -> None:
        self._store = store
        self._capacity = capacity

    def put(self, activation: OpenActivation, now: int) -> None:
        """Keep it, in place of an earlier one of node and key; forget what has expired."""
        row = TpmActivationRow
        with self._store.write() as session:
            session.execute(delete(row).where(row.expires_at <= now))
            node_id, ek_key = activation.owner
            session.execute(delete(row).where(row.node_id == node_id, row.ek_key == ek_key))
            count, earliest = session.execute(
                select(func.count(row.challenge_id), func.min(row.expires_at))
            ).one()
            if count >= self._capacity:
                raise TooManyActivations(earliest)
            session.add(
                TpmActivationRow(
                    challenge_id=activation.challenge_id,
                    node_id=node_id,
                    ak_name=activation.ak_name,
                    ek_certificate=activation.endorsement.certificate_digest,
                    ek_key=ek_key,
                    endorsed_until=activation.endorsement.valid_until,
                    proof=activation.proof_digest,
                    expires_at=activation.expires_at,
                )
            )

    def take(self, challenge_id: bytes) -> OpenActivation | None:
        """Remove and return it; of two callers at once, one gets it."""
        query = delete(TpmActivationRow).where(TpmActivationRow.challenge_id == challenge_id)
        with self._store.write() as session:
            row = session.scalars(query.returning(TpmActivationRow)).one_or_none()
            if row is None:
                return None
            return OpenActivation(
                challenge_id=row.challenge_id,
                node_id=row.node_id,
                ak_name=row.ak_name,
                endorsement=Endorsement(row.ek_certificate, row.ek_key, row.endorsed_until),
                proof_digest=row.proof,
                expires_at=row.expires_at,
            )


@dataclass(frozen=True)
class TpmPolicy:
    """Seconds that a verdict and an open activation last, and whether every node needs a TPM."""

    ttl: int
    activation_ttl: int
    required: bool


class NodeTpms:
    """The TPMs of nodes as one operator has enrolled and judged them."""

    def __init__(
        self,
        store: Store,
        deployment: Deployment,
        roots: EndorsementRoots,
        policies: NodePolicies,
        policy: TpmPolicy,
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._deployment = deployment
        self._roots = roots
        self._policies = policies
        self._policy = policy
        self._clock = clock
        self._enrolment = Enrolment(roots, StoredActivations(store), ttl=policy.activation_ttl)

    def wanted(self, node_id: int) -> TpmWanted | None:
        """Over which PCRs this node's TPM has to quote, None where no policy is for it."""
        try:
            policy = self._policies.of(node_id)
        except NodeUnassigned:
            return None
        return TpmWanted(
            required=self._policy.required,
            selection=selection_text(policy.selection),
            event_log=self._policies.event_log_required,
        )

    def begin(self, request: EnrolmentRequest) -> Activation:
        """Check a node's keys and make a credential for them.

        Raises:
            TpmNotPinned, NodeHasAnotherTpm, TpmOfAnotherNode: when the TPM cannot be this node's.
            TpmRefused: see `Enrolment.begin`.
        """
        now = self._clock()
        key = self._enrolment.endorse(request, now).key_digest
        with self._store.read() as session:
            self._check_free(session, request.node_id, key)
        return self._enrolment.begin(request, now)

    def finish(self, answers: Sequence[ActivationAnswer]) -> EnrolledKey:
        """Enrol the key whose activation is among the answers; the others are other operators'.

        A new key of the same TPM takes the place of the earlier one.

        Raises:
            ActivationUnknown: when none of them answers an open activation of this operator.
            TpmNotPinned, NodeHasAnotherTpm, TpmOfAnotherNode: when the TPM cannot be this node's.
            TpmRefused: see `Enrolment.finish`.
        """
        unknown = None
        for answer in answers:
            try:
                key = self._enrolment.finish(answer, self._clock())
            except ActivationUnknown as error:
                unknown = error
                continue
            return self._bind(key)
        raise unknown or ActivationUnknown(bytes(32))

    def judge(
        self, node_id: int, enclave_key: str, challenge: bytes, evidence: TpmEvidence | None
    ) -> TpmVerdict | None:
        """The verdict about a node's TPM; None where none is given and none required.

        `challenge` is the nonce over all operators' challenges, as the enclave quotes it.

        Raises:
            TpmEvidenceMissing, EventLogMissing: when something is not there that has to be.
            TpmNotEnrolled, NodeUnassigned: when there is no key, or no policy, to judge by.
            PcrNotAllowed: when the machine runs something else; earlier verdicts end with that.
            TpmRefused: see `check_tpm_evidence`.
        """
        if evidence is None:
            if self._policy.required:
                raise TpmEvidenceMissing(node_id)
            return None
        with self._store.read() as session:
            enrolled = self._enrolled(session, node_id)
        if enrolled is None:
            raise TpmNotEnrolled(node_id)
        policy = self._policies.of(node_id)
        if evidence.event_log is None and self._policies.event_log_required:
            raise EventLogMissing(node_id)
        log = None if evidence.event_log is None else parse_event_log(evidence.event_log)
        nonce = quote_nonce(
            chain_id=self._deployment.chain_id,
            registry=self._deployment.enclave_registry,
            node_id=node_id,
            enclave_key=enclave_key,
            challenge=challenge,
        )
        try:
            return check_tpm_evidence(
                evidence.quote,
                enrolled=enrolled,
                nonce=nonce,
                policy=policy,
                now=self._clock(),
                ttl=self._policy.ttl,
                log=log,
            )
        except PcrNotAllowed:
            # Its own key says so, freshly: whatever was found before is not so now.
            with self._store.write() as session:
                session.execute(delete(TpmVerdictRow).where(TpmVerdictRow.node_id == node_id))
            raise

    def keep(self, verdict: TpmVerdict, enclave_key: str) -> TpmVerdict:
        """Remember a verdict. One about the same quote again changes nothing: it gets no older.

        Returns the verdict that stands.
        """
        now = self._clock()
        with self._store.write() as session:
            known = session.get(TpmVerdictRow, (verdict.node_id, enclave_key))
            if known is not None and known.quote == verdict.quote_digest:
                return _verdict(known)
            session.execute(
                delete(TpmVerdictRow).where(
                    TpmVerdictRow.node_id == verdict.node_id, TpmVerdictRow.valid_until <= now
                )
            )
            session.expire_all()
            session.merge(
                TpmVerdictRow(
                    node_id=verdict.node_id,
                    enclave_key=enclave_key,
                    ak_name=verdict.ak_name,
                    quote=verdict.quote_digest,
                    policy=verdict.policy_digest,
                    verified_at=verdict.verified_at,
                    valid_until=verdict.valid_until,
                    clock=verdict.clock,
                    resets=verdict.reset_count,
                    restarts=verdict.restart_count,
                )
            )
        _log.info("TPM verified", node=verdict.node_id, until=verdict.valid_until)
        return verdict

    def standing(
        self, session: Session, enclave: EnclaveVerdict, enclave_key: str, now: int
    ) -> tuple[Routability, TpmVerdict | None]:
        """Whether a node with this enclave may get work, and the verdict about its TPM."""
        row = session.get(TpmVerdictRow, (enclave.node_id, enclave_key))
        verdict = None if row is None else _verdict(row)
        enrolled = self._enrolled(session, enclave.node_id)
        try:
            policy = self._policies.of(enclave.node_id).digest
        except NodeUnassigned:
            policy = bytes(32)  # no verdict is by it
        routable = routability(
            enclave.node_id,
            enclave=enclave,
            tpm=verdict,
            enrolled_ak=enrolled.ak_name if enrolled else None,
            policy_digest=policy,
            now=now,
            tpm_required=self._policy.required,
        )
        return routable, verdict

    def _check_free(self, session: Session, node_id: int, ek_key: bytes) -> None:
        pinned = self._policies.pinned(node_id)
        if pinned is not None and pinned != ek_key:
            raise TpmNotPinned(node_id)
        holder = session.get(TpmKeyRow, node_id)
        if holder is not None and holder.ek_key != ek_key and pinned is None:
            raise NodeHasAnotherTpm(node_id)
        query = select(TpmKeyRow.node_id).where(TpmKeyRow.ek_key == ek_key)
        if session.scalars(query).one_or_none() not in (None, node_id):
            raise TpmOfAnotherNode

    def _bind(self, key: EnrolledKey) -> EnrolledKey:
        try:
            with self._store.write() as session:
                self._check_free(session, key.node_id, key.ek_key_digest)
                known = session.get(TpmKeyRow, key.node_id)
                enrolled_at = key.enrolled_at
                if known is not None and known.ak_name == key.ak_name:
                    enrolled_at = known.enrolled_at
                session.merge(
                    TpmKeyRow(
                        node_id=key.node_id,
                        ak_name=key.ak_name,
                        ek_certificate=key.ek_certificate_digest,
                        ek_key=key.ek_key_digest,
                        enrolled_at=enrolled_at,
                        valid_until=key.valid_until,
                    )
                )
        except IntegrityError as error:  # two nodes with one TPM, at the same moment
            raise TpmOfAnotherNode from error
        _log.info("TPM enrolled", node=key.node_id, until=key.valid_until)
        return key

    def _enrolled(self, session: Session, node_id: int) -> EnrolledKey | None:
        """The node's key, unless its TPM was revoked or another one is pinned since."""
        row = session.get(TpmKeyRow, node_id)
        if row is None or self._roots.is_revoked(row.ek_key):
            return None
        if self._policies.pinned(node_id) not in (None, row.ek_key):
            return None
        return EnrolledKey(
            node_id=row.node_id,
            ak_name=row.ak_name,
            ek_certificate_digest=row.ek_certificate,
            ek_key_digest=row.ek_key,
            enrolled_at=row.enrolled_at,
            valid_until=row.valid_until,
        )


def forget_tpm(store: Store, node_id: int) -> bool:
    """Let a node have another TPM: its enrolled key and all verdicts go. False: it had none."""
    with store.write() as session:
        session.execute(delete(TpmVerdictRow).where(TpmVerdictRow.node_id == node_id))
        session.execute(delete(TpmActivationRow).where(TpmActivationRow.node_id == node_id))
        key = session.get(TpmKeyRow, node_id)
        if key is not None:
            session.delete(key)
        return key is not None


def read_roots(path: Path, revoked: frozenset[bytes]) -> EndorsementRoots:
    """The endorsement roots in a file of PEM certificates.

    Raises:
        ConfigurationRefused: when it holds none, or something else.
    """
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigurationRefused(f"{path}: {error.strerror or 'cannot be read'}") from error
    except ValueError as error:
        raise ConfigurationRefused(f"{path} does not hold PEM certificates") from error
    roots = [certificate.public_bytes(Encoding.DER) for certificate in certificates]
    return EndorsementRoots(roots, revoked_keys=revoked)


def read_policies(path: Path) -> NodePolicies:
    """The operator's PCR policies.

    Raises:
        ConfigurationRefused: when the file does not hold any.
    """
    try:
        return NodePolicies.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationRefused(f"{path}: {error.strerror or 'cannot be read'}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'whole'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ConfigurationRefused(f"{path} holds no PCR policies: {faults}") from error


def _verdict(row: TpmVerdictRow) -> TpmVerdict:
    return TpmVerdict(
        node_id=row.node_id,
        ak_name=row.ak_name,
        quote_digest=row.quote,
        policy_digest=row.policy,
        verified_at=row.verified_at,
        valid_until=row.valid_until,
        clock=row.clock,
        reset_count=row.resets,
        restart_count=row.restarts,
    )
