"""Keeps the enclave's key registered on chain: challenge, quote, evidence; again before expiry.

Where the operators vouch for platforms, the evidence brings a verdict on this one, and a second
quote, for the chain's own challenge, registers the key. Nothing is remembered between the steps:
what the oracle and the chain know says where to go on, also after a crash.

Where the machine has a TPM, its quote goes along, and is renewed by itself in between.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import structlog

from oracle.client import (
    AttestationStatus,
    ChallengeSet,
    Evidence,
    NodeStatus,
    OracleRefused,
    PlatformStatus,
    QuoteRequest,
    QuoteStatus,
    Status,
    TpmEvidence,
    VouchFor,
)
from oracle.clients.edge.errors import AttestationRefused, AttestationTimedOut, NodeStopping
from oracle.clients.edge.machine import NOT_ENROLLED, Machine
from oracle.clients.edge.patience import Patience
from oracle.clients.edge.signer import EnclaveSigner, QuotePlatform
from settlement.dcap import split_quote
from settlement.deployment import Deployment
from settlement.errors import RaphaError

STALE = "StaleChallenge"
TPM_REQUIRED = "TpmRequired"
NOT_NEWER = "ENCLAVES_REGISTRATION_IS_NOT_NEWER"
OTHER_VERDICT = frozenset(
    {"ENCLAVES_NO_VERDICT_ON_THE_PLATFORM", "ENCLAVES_VERDICT_ON_ANOTHER_TDX_MODULE"}
)
"""Why the chain takes no quote until there is another verdict, for which this node has to ask."""
_ATTEMPTS = 3

T = TypeVar("T")

log = structlog.get_logger(__name__)


class AttestationApi(Protocol):
    """What attesting needs of `oracle.client.OracleClient`."""

    def create_challenge(self, node_id: int, enclave_key: str) -> ChallengeSet: ...
    def submit_attestation(self, evidence: Evidence) -> AttestationStatus: ...
    def attestation(self, digest: bytes) -> AttestationStatus: ...
    def nodes(self) -> tuple[NodeStatus, ...]: ...
    def platform(self, platform: bytes) -> PlatformStatus: ...
    def submit_quote(self, request: QuoteRequest) -> QuoteStatus: ...
    def quote(self, digest: bytes) -> QuoteStatus: ...


@dataclass(frozen=True)
class _Attempt:
    """Evidence that was handed in, by its digest, None where a verdict of before still serves.

    `platform` is None where the operators vouch for the key itself.
    """

    digest: bytes | None
    platform: bytes | None


class _VerdictWanted(RaphaError):
    """The verdict that a quote rests on has ended, or is about a TDX module of before."""


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
        expiry = self._register(standing.expiry if standing else 0)
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

    def _register(self, previous: int) -> int:
        """Have the key registered for longer than to `previous`; returns until when it now is."""
        for _ in range(_ATTEMPTS):
            attempt = self._attest()
            if attempt.platform is None:
                assert attempt.digest is not None  # only a verdict can be there already
                return self._await_registration(attempt.digest, previous)
            if attempt.digest is not None:
                self._await_verdict(attempt.digest)
            try:
                return self._bring_quote(attempt.platform, previous)
            except _VerdictWanted:
                log.warning("verdict_ended", node_id=self._node_id)
        raise AttestationTimedOut(self._signer.enclave_key, self._timeout)

    def _attest(self) -> _Attempt:
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

    def _submit(self) -> _Attempt:
        key = self._signer.enclave_key
        challenge = self._oracle.create_challenge(self._node_id, key)
        quote = self._quote(challenge.nonce)
        platform = None
        if challenge.vouch_for is VouchFor.PLATFORM:
            parts = split_quote(quote)
            platform = parts.platform
            if self._is_judged(self._oracle.platform(platform), parts.module_svn):
                return _Attempt(None, platform)
        tpm = self._tpm_evidence(challenge)
        evidence = Evidence(
            node_id=self._node_id,
            enclave_key=key,
            encryption_key=self._signer.encryption_key,
            configuration=self._configuration,
            challenges=challenge.challenges,
            quote=quote,
            tpm=tpm,
        )
        return _Attempt(self._oracle.submit_attestation(evidence).digest, platform)

    def _is_judged(self, platform: PlatformStatus, module_svn: int) -> bool:
        """Whether a verdict of before lets the key be registered for long enough."""
        about = platform.node_id, platform.module_svn
        return (
            about == (self._node_id, module_svn) and platform.expiry > self._clock() + self._margin
        )

    def _quote(self, nonce: bytes) -> bytes:
        return self._signer.quote(
            self._platform,
            nonce=nonce,
            chain_id=self._deployment.chain_id,
            registry=self._deployment.enclave_registry,
            configuration=self._configuration,
        )

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

    def _await_registration(self, digest: bytes, previous: int) -> int:
        def registered() -> int | None:
            expiry = self._registered_beyond(previous)
            if expiry is None:
                _settled(self._patience.call(self._oracle.attestation, digest))
            return expiry

        return self._await(registered)

    def _await_verdict(self, digest: bytes) -> None:
        self._await(lambda: _settled(self._patience.call(self._oracle.attestation, digest)) or None)

    def _bring_quote(self, platform: bytes, previous: int) -> int:
        """Have the key registered by a quote; again where somebody used up the challenge first.

        Raises:
            _VerdictWanted: when the chain takes none before there is another verdict.
        """
        for _ in range(_ATTEMPTS):
            if self._patience.call(self._oracle.platform, platform).expiry <= previous:
                return previous  # no verdict is to be had for longer, as with expiring collateral
            try:
                digest: bytes | None = self._patience.call(self._submit_quote, platform)
            except OracleRefused as error:
                if error.code == STALE:
                    continue
                if error.code != NOT_NEWER:
                    raise AttestationRefused(error.code, error.detail) from error
                digest = None  # it is registered, and not final yet
            expiry = self._await(partial(self._quoted, digest, previous))
            if expiry > previous:
                return expiry
        raise AttestationTimedOut(self._signer.enclave_key, self._timeout)

    def _submit_quote(self, platform: bytes) -> bytes:
        challenge = self._oracle.platform(platform).challenge
        request = QuoteRequest(
            node_id=self._node_id,
            enclave_key=self._signer.enclave_key,
            encryption_key=self._signer.encryption_key,
            quote=self._quote(challenge),
        )
        try:
            return self._oracle.submit_quote(request).digest
        except OracleRefused as error:
            if error.code in OTHER_VERDICT:
                raise _VerdictWanted from error  # to which waiting alone does not lead
            raise

    def _quoted(self, digest: bytes | None, previous: int) -> int | None:
        """The registration's expiry, 0 when another quote is needed, None as long as it waits."""
        expiry = self._registered_beyond(previous)
        if expiry is not None or digest is None:
            return expiry
        status = self._patience.call(self._oracle.quote, digest)
        if status.status is Status.REJECTED and status.reason == STALE:
            return 0
        if status.reason in OTHER_VERDICT:  # the oracle goes on trying, which is in vain
            raise _VerdictWanted
        _settled(status)
        return None

    def _registered_beyond(self, previous: int) -> int | None:
        standing = self._standing()
        if standing is not None and standing.expiry > previous:
            return standing.expiry
        return None

    def _await(self, look: Callable[[], T | None]) -> T:
        """What `look` finds within the timeout."""
        until = time.monotonic() + self._timeout
        while time.monotonic() < until:
            if (found := look()) is not None:
                return found
            if self._stop.wait(self._poll_seconds):
                raise NodeStopping
        raise AttestationTimedOut(self._signer.enclave_key, self._timeout)


def _settled(status: AttestationStatus | QuoteStatus) -> bool:
    """Whether it is final on chain.

    Raises:
        AttestationRefused: when it was rejected.
    """
    if status.status is Status.REJECTED:
        raise AttestationRefused(status.reason or "Rejected", status.detail or "no detail")
    return status.status is Status.SETTLED
