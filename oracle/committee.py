"""One operator of the committee: makes challenges, checks evidence itself, and signs for it."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from eth_utils import keccak
from sqlalchemy import delete

from oracle.attestation.errors import TpmNotConfigured
from oracle.attestation.evidence import check_evidence
from oracle.attestation.tpm.evidence import TpmVerdict
from oracle.attestation.verify import QuoteVerifier, VerifiedQuote
from oracle.errors import (
    EpochMismatch,
    ExpiryRefused,
    MeasurementNotAllowed,
    NodeUnknown,
    StaleChallenge,
    VouchesOtherwise,
)
from oracle.facts import Chain
from oracle.messages import (
    Activation,
    ActivationAnswers,
    ChallengeRequest,
    EnrolmentRequest,
    Evidence,
    PeerChallenge,
    SignatureAnswer,
    SignatureRequest,
    TpmRenewal,
    TpmStatus,
    TpmWanted,
    VouchFor,
)
from oracle.statements import Statement, statement_digest
from oracle.store.database import Store
from oracle.store.tables import ChallengeRow, EnclaveRow
from oracle.tpm import NodeTpms
from settlement.committee import Committee, MemberKey
from settlement.dcap import QuoteParts, split_quote
from settlement.deployment import Deployment
from settlement.models import EnclaveRegistration, PlatformVerdict
from settlement.types import to_hex

CLOCK_SKEW = 60
"""Seconds that a peer's clock may be ahead of this operator's."""

_log = structlog.get_logger(__name__)


def challenge_nonce(challenges: Sequence[bytes]) -> bytes:
    """The nonce over all operators' challenges: keccak-256 of them, sorted and joined."""
    return keccak(b"".join(sorted(challenges)))


@dataclass(frozen=True)
class CommitteePolicy:
    """What an operator signs, and lifetimes in seconds: of what it signed, and of a challenge."""

    registration_ttl: int
    challenge_ttl: int
    vouch_for: VouchFor = VouchFor.KEY


class Operator:
    """This process's member of the committee."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        deployment: Deployment,
        verifier: QuoteVerifier,
        key: MemberKey,
        policy: CommitteePolicy,
        clock: Callable[[], int],
        tpms: NodeTpms | None = None,
    ) -> None:
        """Without `tpms` this operator judges no TPM evidence, and vouches without it."""
        self._store = store
        self._chain = chain
        self._deployment = deployment
        self._verifier = verifier
        self._key = key
        self._policy = policy
        self._clock = clock
        self._tpms = tpms
        self.address = key.address
        self.vouch_for = policy.vouch_for

    def is_member_of(self, committee: Committee) -> bool:
        """Whether this operator may sign for a committee."""
        return self._key.id_in(committee) in committee.ids

    def challenge(self, request: ChallengeRequest) -> PeerChallenge:
        """A fresh challenge for one enclave key of one node."""
        now = self._clock()
        row = ChallengeRow(
            challenge=secrets.token_bytes(32),
            node_id=request.node_id,
            enclave_key=request.enclave_key,
            expires_at=now + self._policy.challenge_ttl,
            used_by=None,
        )
        with self._store.write() as session:
            session.execute(delete(ChallengeRow).where(ChallengeRow.expires_at <= now))
            session.add(row)
        return PeerChallenge(challenge=row.challenge, expires_at=row.expires_at)

    def examine(self, evidence: Evidence) -> VerifiedQuote:
        """Check evidence from the quote's signatures to its binding, and use up the own challenge.

        The challenge then serves this quote only, which may be examined again while it lasts. What
        was found about the TPM counts for the node's routing from then on.

        Raises:
            StaleChallenge: no challenge of this operator in it, or an expired or used one.
            NodeUnknown: the node is not registered and active.
            MeasurementNotAllowed: governance has not allowed what the enclave runs.
            AttestationRefused: the quote, or what it binds, is not as it must be; or the TPM's
                (`NodeTpms.judge`).
            QuoteUnusable: vouching for platforms, when the chain cannot check such quotes.
        """
        now = self._clock()
        self._own_challenge(evidence, now, None)
        self._require_active(evidence.node_id)
        verified = self._verifier.verify(evidence.quote, now)
        check_evidence(
            verified,
            chain_id=self._deployment.chain_id,
            registry=self._deployment.enclave_registry,
            enclave_key=evidence.enclave_key,
            encryption_key=evidence.encryption_key,
            nonce=challenge_nonce(evidence.challenges),
            configuration=evidence.configuration,
        )
        if not self._chain.is_measurement_allowed(verified.measurement):
            raise MeasurementNotAllowed(verified.measurement)
        if self.vouch_for is VouchFor.PLATFORM:
            platform_of(evidence)
        tpm = self._judge_tpm(evidence)
        self._own_challenge(evidence, now, verified.attestation_digest)
        if self._tpms is not None and tpm is not None:
            self._tpms.keep(tpm, evidence.enclave_key)
        return verified

    def wanted_tpm(self, node_id: int) -> TpmWanted | None:
        """What this operator wants of a node's TPM, None where it judges none."""
        return None if self._tpms is None else self._tpms.wanted(node_id)

    def enrol(self, request: EnrolmentRequest) -> Activation:
        """Begin the enrolment of a node's attestation key.

        Raises:
            TpmNotConfigured: this operator judges no TPMs.
            NodeUnknown: the node is not registered and active.
            TpmRefused: see `NodeTpms.begin`.
        """
        tpms = self._judging()
        self._require_active(request.node_id)
        return tpms.begin(request)

    def activate(self, answers: ActivationAnswers) -> TpmStatus:
        """End the enrolment of a node's attestation key.

        Raises:
            TpmNotConfigured: this operator judges no TPMs.
            TpmRefused: see `NodeTpms.finish`.
        """
        key = self._judging().finish(answers.answers)
        return TpmStatus(node_id=key.node_id, valid_until=key.valid_until)

    def renew_tpm(self, renewal: TpmRenewal) -> TpmStatus:
        """Check fresh evidence of a node's TPM alone, and use up the own challenge for it.

        Raises:
            TpmNotConfigured: this operator judges no TPMs.
            StaleChallenge: no challenge of this operator in it, or an expired or used one.
            NodeUnknown: the node is not registered and active, or not with this enclave key.
            TpmRefused: see `NodeTpms.judge`.
        """
        tpms, now = self._judging(), self._clock()
        self._own_challenge(renewal, now, None)
        self._require_active(renewal.node_id)
        with self._store.read() as session:
            enclave = session.get(EnclaveRow, renewal.enclave_key)
        if enclave is None or enclave.node_id != renewal.node_id:
            raise NodeUnknown(renewal.node_id, "has no such enclave key in the finalized chain")
        verdict = self._judge_tpm(renewal)
        assert verdict is not None  # there is evidence, so there is a verdict or a refusal
        self._own_challenge(renewal, now, verdict.quote_digest)
        kept = tpms.keep(verdict, renewal.enclave_key)
        return TpmStatus(node_id=kept.node_id, valid_until=kept.valid_until)

    def sign(self, request: SignatureRequest) -> SignatureAnswer:
        """Examine evidence and sign what follows from it: a registration, or a verdict.

        Raises:
            VouchesOtherwise: the one was asked for where this operator signs the other.
            ExpiryRefused: a longer registration was asked than policy and collateral allow.
            EpochMismatch: another committee than the present one was asked for.
            InvalidInput: see `examine`.
        """
        if request.vouch_for is not self.vouch_for:
            raise VouchesOtherwise(request.vouch_for, self.vouch_for)
        verified = self.examine(request.evidence)
        latest = min(
            self.latest_expiry(request.evidence, verified) + CLOCK_SKEW,
            self._lasts(request.evidence, verified),
        )
        if request.expiry > latest:
            raise ExpiryRefused(request.expiry, latest)
        sitting = self._chain.committee()
        if request.epoch != sitting.epoch:
            raise EpochMismatch(request.epoch, sitting.epoch)
        statement: Statement
        if self.vouch_for is VouchFor.PLATFORM:
            statement = verdict_for(request.evidence, request.expiry, sitting.epoch)
        else:
            statement = registration_for(request.evidence, verified, request.expiry, sitting.epoch)
        digest = statement_digest(statement, self._deployment.enclave_domain)
        _log.info(
            "statement signed",
            vouch_for=self.vouch_for,
            node=request.evidence.node_id,
            enclave=request.evidence.enclave_key,
            attestation=to_hex(verified.attestation_digest),
            tcb=verified.tcb_status,
            simulated=verified.simulated,
        )
        return SignatureAnswer(
            signer=self._key.id_in(sitting.committee),
            signature=self._key.sign(sitting.committee, digest, self._deployment.chain_id),
            statement=statement,
        )

    def latest_expiry(self, evidence: Evidence, verified: VerifiedQuote) -> int:
        """Until when this operator vouches for evidence now, Unix seconds; see `_lasts`."""
        return min(self._clock() + self._policy.registration_ttl, self._lasts(evidence, verified))

    def _lasts(self, evidence: Evidence, verified: VerifiedQuote) -> int:
        """The end of the collateral, and of the platform's certificate where the chain asks it."""
        if self.vouch_for is VouchFor.PLATFORM:
            return min(verified.valid_until, platform_of(evidence).certified_until)
        return verified.valid_until

    def _judging(self) -> NodeTpms:
        if self._tpms is None:
            raise TpmNotConfigured
        return self._tpms

    def _judge_tpm(self, evidence: Evidence | TpmRenewal) -> TpmVerdict | None:
        if self._tpms is None:
            return None
        nonce = challenge_nonce(evidence.challenges)
        return self._tpms.judge(evidence.node_id, evidence.enclave_key, nonce, evidence.tpm)

    def _require_active(self, node_id: int) -> None:
        if not self._chain.is_node_active(node_id):
            raise NodeUnknown(node_id, "is not registered and active")

    def _own_challenge(
        self, evidence: Evidence | TpmRenewal, now: int, use_for: bytes | None
    ) -> None:
        """Find the own, live challenge in the evidence; `use_for` binds it to an attestation."""
        if len(set(evidence.challenges)) != len(evidence.challenges):
            raise StaleChallenge("a challenge is given twice")
        with self._store.write() as session:
            rows = [session.get(ChallengeRow, challenge) for challenge in evidence.challenges]
            mine = [row for row in rows if row is not None]
            if not mine:
                raise StaleChallenge("no challenge of this operator is in the evidence")
            for row in mine:
                if (row.node_id, row.enclave_key) != (evidence.node_id, evidence.enclave_key):
                    raise StaleChallenge("the challenge was made for another node or key")
                if row.expires_at <= now:
                    raise StaleChallenge(f"the challenge expired at {row.expires_at}")
                if use_for and row.used_by not in (None, use_for):
                    raise StaleChallenge("the challenge was used for another quote")
                row.used_by = use_for or row.used_by


def registration_for(
    evidence: Evidence, verified: VerifiedQuote, expiry: int, epoch: int
) -> EnclaveRegistration:
    """The registration that verified evidence justifies."""
    return EnclaveRegistration(
        enclave_key=evidence.enclave_key,
        node_id=evidence.node_id,
        measurement=verified.measurement,
        attestation_digest=verified.attestation_digest,
        encryption_key_digest=keccak(evidence.encryption_key),
        expiry=expiry,
        epoch=epoch,
    )


def verdict_for(evidence: Evidence, expiry: int, epoch: int) -> PlatformVerdict:
    """The verdict on the platform that verified evidence justifies."""
    parts = platform_of(evidence)
    return PlatformVerdict(
        platform=parts.platform,
        node_id=evidence.node_id,
        module_svn=parts.module_svn,
        expiry=expiry,
        epoch=epoch,
    )


def platform_of(evidence: Evidence) -> QuoteParts:
    """The evidence's quote in parts, of which the registry knows the platform.

    Its certificates are read by another reader than the one that verified the quote. So that both
    mean the same platform, the key that is read here must have signed the quoting enclave's report.

    Raises:
        QuoteUnusable: when the registry cannot check such a quote.
        InvalidSignature: when the certificate read is another platform's.
    """
    parts = split_quote(evidence.quote)
    parts.pck_key.check(parts.report_signature, parts.report)
    return parts
