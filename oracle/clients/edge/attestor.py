"""Keeps the enclave's key registered on chain: challenge, quote, evidence; again before expiry."""

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
)
from oracle.clients.edge.errors import AttestationRefused, AttestationTimedOut, NodeStopping
from oracle.clients.edge.patience import Patience
from oracle.clients.edge.signer import EnclaveSigner, QuotePlatform
from settlement.deployment import Deployment

STALE = "StaleChallenge"
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
    ) -> None:
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
        self._renew_at = 0

    def ensure(self) -> None:
        """Return when the key is valid on chain; attests first where it is not, or not for long.

        Raises:
            AttestationRefused: when the evidence is refused for good.
            AttestationTimedOut: when the registration takes too long; trying again may help.
            NodeStopping: when the node stops first.
        """
        now = self._clock()
        if now < self._renew_at:
            return
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
                return status
        return None

    def _attest(self) -> bytes:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._patience.call(self._submit)
            except OracleRefused as error:
                # A challenge can age while the quote is made; any other refusal stands.
                if error.code != STALE or attempt == _ATTEMPTS:
                    raise AttestationRefused(error.code, error.detail) from error
        raise AssertionError("the loop returns or raises")

    def _submit(self) -> bytes:
        key = self._signer.enclave_key
        challenge = self._oracle.create_challenge(self._node_id, key)
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
        )
        return self._oracle.submit_attestation(evidence).digest

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
