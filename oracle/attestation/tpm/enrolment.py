"""Enrolment of a node's attestation key: proof that it is in a TPM that its vendor endorses."""

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Protocol

from pydantic import Field

from oracle.attestation.errors import (
    ActivationExpired,
    ActivationUnknown,
    CredentialMismatch,
    TooManyActivations,
)
from oracle.attestation.tpm.credential import make_credential
from oracle.attestation.tpm.endorsement import MAX_INTERMEDIATES, Endorsement, EndorsementRoots
from oracle.attestation.tpm.quote import MAX_STRUCTURE, check_attestation_key
from oracle.attestation.tpm.structures import parse_public
from settlement.types import Bytes32, Frozen, HexData, UInt64

_SECRET = 32
_PROOF_TAG = b"rapha.tpm.enrolment.v1"


def activation_proof(secret: bytes, *, challenge_id: bytes, node_id: int) -> bytes:
    """What a node answers an activation with: it knows the secret, and means to be this node.

    An HMAC-SHA-256 by the secret, so that nobody who passes the messages on can have the TPM
    enrolled for another node than the one whose TPM it is.
    """
    return hmac.digest(secret, _PROOF_TAG + challenge_id + node_id.to_bytes(8, "big"), "sha256")


class EnrolmentRequest(Frozen):
    """A node's keys: the endorsement key with its certificate (DER), and the key that is to quote.

    `intermediates` (DER) lead from the certificate to a root that the verifier knows. The publics
    are TPM2B_PUBLIC.
    """

    node_id: UInt64 = Field(gt=0)
    ek_certificate: HexData = Field(max_length=4_096)
    intermediates: tuple[HexData, ...] = Field(default=(), max_length=MAX_INTERMEDIATES)
    ek_public: HexData = Field(max_length=MAX_STRUCTURE)
    ak_public: HexData = Field(max_length=MAX_STRUCTURE)


class Activation(Frozen):
    """What the node's TPM has to open: the inputs of TPM2_ActivateCredential, and until when."""

    challenge_id: Bytes32
    credential_blob: HexData
    encrypted_secret: HexData
    expires_at: UInt64


class ActivationAnswer(Frozen):
    """The `activation_proof` by the secret that the node's TPM found in an activation."""

    challenge_id: Bytes32
    proof: Bytes32


class EnrolledKey(Frozen):
    """A node's attestation key, proven to be in one TPM.

    `ek_certificate_digest` is the SHA-256 of the endorsement certificate and `ek_key_digest` that
    of its key: two records with the same one are of the same TPM. Good from `enrolled_at` up to,
    but not at, `valid_until` (Unix seconds), when the endorsement ends.
    """

    node_id: UInt64
    ak_name: HexData
    ek_certificate_digest: Bytes32
    ek_key_digest: Bytes32
    enrolled_at: UInt64
    valid_until: UInt64


@dataclass(frozen=True)
class OpenActivation:
    """What the verifier remembers of an activation. Neither secret nor proof is kept."""

    challenge_id: bytes
    node_id: int
    ak_name: bytes
    endorsement: Endorsement
    proof_digest: bytes
    expires_at: int

    @property
    def owner(self) -> tuple[int, bytes]:
        """Node and endorsement key, of which one activation is open at a time: another's TPM
        cannot displace the node's own."""
        return self.node_id, self.endorsement.key_digest


class ActivationStore(Protocol):
    """Where open activations are kept."""

    def put(self, activation: OpenActivation, now: int) -> None:
        """Keep it, in place of an earlier one of the same node and endorsement key.

        Raises:
            TooManyActivations: when no more can be kept for now.
        """

    def take(self, challenge_id: bytes) -> OpenActivation | None:
        """Remove and return it; of two callers at once, one gets it."""


class MemoryActivations:
    """Activations of one process: after a restart, nodes ask for new ones."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._open: dict[bytes, OpenActivation] = {}
        self._lock = Lock()

    def put(self, activation: OpenActivation, now: int) -> None:
        """Keep it, in place of an earlier one of node and key; forget what has expired."""
        with self._lock:
            self._open = {
                key: other
                for key, other in self._open.items()
                if other.expires_at > now and other.owner != activation.owner
            }
            if len(self._open) >= self._capacity:
                raise TooManyActivations(min(a.expires_at for a in self._open.values()))
            self._open[activation.challenge_id] = activation

    def take(self, challenge_id: bytes) -> OpenActivation | None:
        """Remove and return it."""
        with self._lock:
            return self._open.pop(challenge_id, None)


class Enrolment:
    """Enrols attestation keys in two steps, between which the node's TPM opens a credential."""

    def __init__(self, roots: EndorsementRoots, activations: ActivationStore, *, ttl: int) -> None:
        """`ttl`: seconds that a node has to answer."""
        self._roots = roots
        self._activations = activations
        self._ttl = ttl

    def endorse(self, request: EnrolmentRequest, now: int) -> Endorsement:
        """Check the endorsement key of a request at `now` (Unix seconds).

        Raises:
            TpmMalformed: when its public area cannot be read.
            EndorsementCertificateRefused: when the certificate does not vouch for the key.
        """
        return self._roots.verify(
            request.ek_certificate, request.intermediates, parse_public(request.ek_public), now
        )

    def begin(self, request: EnrolmentRequest, now: int) -> Activation:
        """Check the keys at `now` (Unix seconds) and make a credential for them.

        Raises:
            TpmMalformed: when a public area cannot be read.
            EndorsementCertificateRefused: when the certificate does not vouch for the key.
            EndorsementKeyUnfit, AttestationKeyUnfit: when a key is not what it must be.
            TooManyActivations: when too many enrolments are open.
        """
        endorsement = self.endorse(request, now)
        endorsement_key = parse_public(request.ek_public)
        attestation_key = parse_public(request.ak_public)
        check_attestation_key(attestation_key)

        secret = secrets.token_bytes(_SECRET)
        credential = make_credential(endorsement_key, attestation_key.name, secret)
        challenge_id = secrets.token_bytes(32)
        proof = activation_proof(secret, challenge_id=challenge_id, node_id=request.node_id)
        activation = OpenActivation(
            challenge_id=challenge_id,
            node_id=request.node_id,
            ak_name=attestation_key.name,
            endorsement=endorsement,
            proof_digest=sha256(proof).digest(),
            expires_at=now + self._ttl,
        )
        self._activations.put(activation, now)
        return Activation(
            challenge_id=activation.challenge_id,
            credential_blob=credential.blob,
            encrypted_secret=credential.encrypted_secret,
            expires_at=activation.expires_at,
        )

    def finish(self, answer: ActivationAnswer, now: int) -> EnrolledKey:
        """The node's enrolled key. Each activation takes one answer, right or wrong.

        Raises:
            ActivationUnknown: when no such activation is open.
            ActivationExpired: when it was open for too long.
            CredentialMismatch: when the answer is not the proof.
        """
        activation = self._activations.take(answer.challenge_id)
        if activation is None:
            raise ActivationUnknown(answer.challenge_id)
        if now >= activation.expires_at:
            raise ActivationExpired(activation.expires_at, now)
        if not hmac.compare_digest(sha256(answer.proof).digest(), activation.proof_digest):
            raise CredentialMismatch
        return EnrolledKey(
            node_id=activation.node_id,
            ak_name=activation.ak_name,
            ek_certificate_digest=activation.endorsement.certificate_digest,
            ek_key_digest=activation.endorsement.key_digest,
            enrolled_at=now,
            valid_until=activation.endorsement.valid_until,
        )
