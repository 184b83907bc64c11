"""One operator of the committee: makes challenges, checks evidence itself, and signs for it."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from eth_account.signers.local import LocalAccount
from eth_utils import keccak
from sqlalchemy import delete

from oracle.attestation.evidence import check_evidence
from oracle.attestation.verify import QuoteVerifier, VerifiedQuote
from oracle.errors import (
    EpochMismatch,
    ExpiryRefused,
    MeasurementNotAllowed,
    NodeUnknown,
    StaleChallenge,
)
from oracle.facts import Chain
from oracle.messages import (
    ChallengeRequest,
    Evidence,
    PeerChallenge,
    SignatureAnswer,
    SignatureRequest,
)
from oracle.store.database import Store
from oracle.store.tables import ChallengeRow
from settlement.deployment import Deployment
from settlement.eip712 import registration_digest, sign_digest
from settlement.models import EnclaveRegistration
from settlement.types import to_hex

CLOCK_SKEW = 60
"""Seconds that a peer's clock may be ahead of this operator's."""

_log = structlog.get_logger(__name__)


def challenge_nonce(challenges: Sequence[bytes]) -> bytes:
    """The nonce over all operators' challenges: keccak-256 of them, sorted and joined."""
    return keccak(b"".join(sorted(challenges)))


@dataclass(frozen=True)
class CommitteePolicy:
    """Lifetimes in seconds: of a registration, and of a challenge."""

    registration_ttl: int
    challenge_ttl: int


class Operator:
    """This process's member of the committee."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        deployment: Deployment,
        verifier: QuoteVerifier,
        account: LocalAccount,
        policy: CommitteePolicy,
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._chain = chain
        self._deployment = deployment
        self._verifier = verifier
        self._account = account
        self._policy = policy
        self._clock = clock
        self.address = str(account.address)

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

        The challenge then serves this quote only, which may be examined again while it lasts.

        Raises:
            StaleChallenge: no challenge of this operator in it, or an expired or used one.
            NodeUnknown: the node is not registered and active.
            MeasurementNotAllowed: governance has not allowed what the enclave runs.
            AttestationRefused: the quote, or what it binds, is not as it must be.
        """
        now = self._clock()
        self._own_challenge(evidence, now, None)
        if not self._chain.is_node_active(evidence.node_id):
            raise NodeUnknown(evidence.node_id, "is not registered and active")
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
        self._own_challenge(evidence, now, verified.attestation_digest)
        return verified

    def sign(self, request: SignatureRequest) -> SignatureAnswer:
        """Examine evidence and sign the registration that follows from it.

        Raises:
            ExpiryRefused: a longer registration was asked than policy and collateral allow.
            EpochMismatch: another committee than the present one was asked for.
            InvalidInput: see `examine`.
        """
        verified = self.examine(request.evidence)
        latest = min(self.latest_expiry(verified) + CLOCK_SKEW, verified.valid_until)
        if request.expiry > latest:
            raise ExpiryRefused(request.expiry, latest)
        epoch = self._chain.committee().epoch
        if request.epoch != epoch:
            raise EpochMismatch(request.epoch, epoch)
        registration = registration_for(request.evidence, verified, request.expiry, epoch)
        digest = registration_digest(registration, self._deployment.enclave_domain)
        _log.info(
            "registration signed",
            node=registration.node_id,
            enclave=registration.enclave_key,
            attestation=to_hex(registration.attestation_digest),
            tcb=verified.tcb_status,
            simulated=verified.simulated,
        )
        return SignatureAnswer(
            signer=self.address,
            signature=sign_digest(digest, bytes(self._account.key)),
            registration=registration,
        )

    def latest_expiry(self, verified: VerifiedQuote) -> int:
        """Until when this operator vouches for a quote, Unix seconds: not past its collateral."""
        return min(self._clock() + self._policy.registration_ttl, verified.valid_until)

    def _own_challenge(self, evidence: Evidence, now: int, use_for: bytes | None) -> None:
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
