"""Keeps the enclave's key registered on chain: challenge, quote, evidence; again before expiry.

Where the machine has a TPM, its quote goes along, and is renewed by itself in between.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from oracle.client import (
    AttestationStatus,
    ChallengeSet,
    Evidence,
    NodeStatus,
    OracleRefused,
    Status,
    TpmEvidence,
)
from oracle.clients.edge.errors import AttestationRefused, AttestationTimedOut, NodeStopping
from oracle.clients.edge.machine import NOT_ENROLLED, Machine
from oracle.clients.edge.patience import Patience
from oracle.clients.edge.signer import EnclaveSigner, QuotePlatform
from settlement.deployment import Deployment

STALE = "StaleChallenge"
TPM_REQUIRED = "TpmRequired"
_ATTEMPTS = 3

log = structlog.get_logger(__name__)


class AttestationApi(Protocol):
    """What attesting needs of `oracle.client.OracleClient`."""

    def create_challenge(self, node_id: int, enclave_key: str) -> ChallengeSet: ...
    def submit_attestation(self, evidence: Evidence) -> AttestationStatus: ...
    def attestation(self, digest: bytes) -> AttestationStatus: ...
    def nodes(self) -> tuple[NodeStatus, ...]: ...


class Attestor:
    """The standing of one enclave key. `margin` is seconds before expiry in which it is renewed."""

    def __init__(
        self,
        *,
        oracle: AttestationApi,
        signer: EnclaveSigner,
        platform: QuotePlatform,
        deployment: Deployment,
        node_id: int,
        configuration: bytes,
        margin: int,
        timeout: float,
        poll_seconds: float,
        clock: Callable[[], int],
        stop: threading.Event,
        patience: Patience,
        machine: Machine | None = None,
    ) -> None:
        """Without `machine` there is no TPM evidence."""
        self._oracle = oracle
        self._signer = signer
        self._platform = platform
        self._deployment = deployment
        self._node_id = node_id
        self._configuration = configuration
        self._margin = margin
        self._timeout = timeout
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._stop = stop
        self._patience = patience
        self._machine = machine
        self._told = False
        self._renew_at = 0

    def ensure(self) -> None:
        """Return when the key is valid on chain; attests first where it is not, or not for long.

        Raises:
            AttestationRefused: when the evidence is refused for good.
            AttestationTimedOut: when the registration takes too long; trying again may help.
            NodeStopping: when the node stops first.
        """
        if self._clock() >= self._renew_at:
            self._ensure_registered()
        if self._machine is not None:
            self._machine.keep_fresh()

    def _ensure_registered(self) -> None:
        now = self._clock()
        standing = self._standing()
        if standing is not None and standing.expiry - self._margin > now:
            self._renew_at = standing.expiry - self._margin
            return
        digest = self._attest()
        expiry = self._await_registration(digest, standing.expiry if standing else 0)
        # Half of a validity shorter than the margin, so that renewing never becomes continuous.
        self._renew_at = expiry - min(self._margin, max(expiry - now, 0) // 2)
        log.info(
            "attested", node_id=self._node_id, enclave_key=self._signer.enclave_key, expiry=expiry
        )

    def _standing(self) -> NodeStatus | None:
        """This key's registration, if it is valid now."""
        for status in self._patience.call(self._oracle.nodes):
            mine = status.node_id, status.enclave_key
            if mine == (self._node_id, self._signer.enclave_key) and status.valid:
                if self._machine is not None:
                    self._machine.verified_until(status.tpm_valid_until)
                return status
        return None

    def _attest(self) -> bytes:
        if self._machine is not None:
            self._machine.enrol_again()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._patience.call(self._submit)
            except OracleRefused as error:
                if error.code in NOT_ENROLLED and self._machine is not None:
                    self._machine.enrol_again()
                # A challenge can age while the quote is made; any other refusal stands.
                elif error.code != STALE:
                    raise AttestationRefused(error.code, error.detail) from error
                if attempt == _ATTEMPTS:
                    raise AttestationRefused(error.code, error.detail) from error
        raise AssertionError("the loop returns or raises")

    def _submit(self) -> bytes:
        key = self._signer.enclave_key
        challenge = self._oracle.create_challenge(self._node_id, key)
        tpm = self._tpm_evidence(challenge)
        quote = self._signer.quote(
            self._platform,
            nonce=challenge.nonce,
            chain_id=self._deployment.chain_id,
            registry=self._deployment.enclave_registry,
            configuration=self._configuration,
        )
        evidence = Evidence(
            node_id=self._node_id,
            enclave_key=key,
            encryption_key=self._signer.encryption_key,
            configuration=self._configuration,
            challenges=challenge.challenges,
            quote=quote,
            tpm=tpm,
        )
        return self._oracle.submit_attestation(evidence).digest

    def _tpm_evidence(self, challenge: ChallengeSet) -> TpmEvidence | None:
        if self._machine is not None:
            return self._machine.evidence(challenge)
        if challenge.tpm is None:
            return None
        if challenge.tpm.required:
            raise AttestationRefused(TPM_REQUIRED, "the oracle wants TPM evidence; configure a TPM")
        if not self._told:
            self._told = True
            log.info("running_without_tpm", node_id=self._node_id)
        return None

    def _await_registration(self, digest: bytes, previous_expiry: int) -> int:
        until = time.monotonic() + self._timeout
        while time.monotonic() < until:
            standing = self._standing()
            if standing is not None and standing.expiry > previous_expiry:
                return standing.expiry
            status = self._patience.call(self._oracle.attestation, digest)
            if status.status is Status.REJECTED:
                raise AttestationRefused(status.reason or "Rejected", status.detail or "no detail")
            if self._stop.wait(self._poll_seconds):
                raise NodeStopping
        raise AttestationTimedOut(self._signer.enclave_key, self._timeout)
