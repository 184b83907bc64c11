"""Keeps the machine's TPM enrolled with the operators, and its evidence fresh beside the enclave's.

A TPM that fails, or that an oracle refuses later on, ends no running job: receipts need the
enclave's key alone. The node then gets no new work, and tries again.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from oracle.client import (
    ActivationAnswer,
    ActivationAnswers,
    ActivationSet,
    ChallengeSet,
    EnrolmentRequest,
    OracleRefused,
    TpmEvidence,
    TpmRenewal,
    TpmStatus,
    activation_proof,
    quote_nonce,
)
from oracle.clients.edge.tpm import Tpm, TpmFailed, TpmSession
from settlement.deployment import Deployment
from settlement.errors import RaphaError

NOT_ENROLLED = frozenset({"TpmNotEnrolled", "AttestationKeyNotEnrolled", "EnrolmentExpired"})
"""The oracle's names for a key that has to be enrolled (again)."""

RETRY_SECONDS = 300
"""How soon evidence that an operator refused, or a TPM that failed, is tried again."""

QUIET_SECONDS = 3600
"""How soon an oracle that judges no TPMs is asked again whether it does."""

_NO_JUDGE = "TpmNotConfigured"

log = structlog.get_logger(__name__)


class TpmApi(Protocol):
    """What the TPM needs of `oracle.client.OracleClient`."""

    def create_challenge(self, node_id: int, enclave_key: str) -> ChallengeSet: ...
    def enrol_tpm(self, request: EnrolmentRequest) -> ActivationSet: ...
    def activate_tpm(self, answers: ActivationAnswers) -> TpmStatus: ...
    def renew_tpm(self, renewal: TpmRenewal) -> TpmStatus: ...


class Machine:
    """The TPM of one node. `margin` is seconds before its evidence ends in which it is renewed."""

    def __init__(
        self,
        *,
        tpm: Tpm,
        oracle: TpmApi,
        deployment: Deployment,
        node_id: int,
        enclave_key: str,
        margin: int,
        clock: Callable[[], int],
    ) -> None:
        self._tpm = tpm
        self._oracle = oracle
        self._deployment = deployment
        self._node_id = node_id
        self._enclave_key = enclave_key
        self._margin = margin
        self._clock = clock
        self._enrolled = False
        self._renew_at = 0

    def enrol_again(self) -> None:
        """Before the next evidence the key is enrolled: with operators that did not have it too."""
        self._enrolled = False

    def evidence(self, challenge: ChallengeSet) -> TpmEvidence | None:
        """Evidence over these challenges, enrolled before it; None where none is wanted.

        Raises:
            TpmFailed: when the TPM fails; trying again may help.
            OracleRefused, OracleUnavailable: as the enrolment is.
        """
        if challenge.tpm is None:
            return None
        with self._tpm.session() as session:
            if not self._enrolled:
                self._enrol(session)
            nonce = quote_nonce(
                chain_id=self._deployment.chain_id,
                registry=self._deployment.enclave_registry,
                node_id=self._node_id,
                enclave_key=self._enclave_key,
                challenge=challenge.nonce,
            )
            return session.evidence(nonce, challenge.tpm)

    def verified_until(self, until: int | None) -> None:
        """Learn until when (Unix seconds) the oracle's present verdict counts, if there is one."""
        now = self._clock()
        if until is not None and until > now:
            # Half of a validity shorter than the margin, so that renewing never is continuous.
            self._renew_at = until - min(self._margin, (until - now) // 2)

    def keep_fresh(self) -> None:
        """Renew the evidence where it is due; what goes wrong is logged and tried again later."""
        now = self._clock()
        if now < self._renew_at:
            return
        self._renew_at = now + RETRY_SECONDS
        try:
            for _ in range(2):
                try:
                    self._renew()
                    return
                except OracleRefused as error:
                    if error.code not in NOT_ENROLLED:
                        raise
                    self.enrol_again()
        except RaphaError as error:
            # Only the name: a refusal's words may tell which TPM it is.
            log.warning("tpm_not_renewed", node_id=self._node_id, code=error.code)

    def _renew(self) -> None:
        challenge = self._oracle.create_challenge(self._node_id, self._enclave_key)
        evidence = self.evidence(challenge)
        if evidence is None:
            log.info("tpm_not_wanted", node_id=self._node_id)
            self._renew_at = self._clock() + QUIET_SECONDS
            return
        status = self._oracle.renew_tpm(
            TpmRenewal(
                node_id=self._node_id,
                enclave_key=self._enclave_key,
                challenges=challenge.challenges,
                tpm=evidence,
            )
        )
        missing = _missing(status.refusals)
        if missing:
            self.enrol_again()
            log.warning("tpm_not_verified_by_all", node_id=self._node_id, codes=missing)
            return
        self.verified_until(status.valid_until)
        log.info("tpm_verified", node_id=self._node_id, until=status.valid_until)

    def _enrol(self, session: TpmSession) -> None:
        offered = self._oracle.enrol_tpm(session.request(self._node_id))
        answers, failure = [], None
        for activation in offered.activations:
            try:
                secret = session.open(activation)
            except TpmFailed as error:
                # One operator's bad activation must not keep the others from enrolling.
                log.warning("tpm_activation_failed", node_id=self._node_id, code=error.code)
                failure = error
                continue
            proof = activation_proof(
                secret, challenge_id=activation.challenge_id, node_id=self._node_id
            )
            answers.append(ActivationAnswer(challenge_id=activation.challenge_id, proof=proof))
        if not answers:
            assert failure is not None  # an `ActivationSet` is never empty
            raise failure
        status = self._oracle.activate_tpm(ActivationAnswers(answers=tuple(answers)))
        self._enrolled = True
        missing = _missing(status.refusals)
        if missing:
            log.warning("tpm_not_enrolled_by_all", node_id=self._node_id, codes=missing)
        log.info("tpm_enrolled", node_id=self._node_id, until=status.valid_until)


def _missing(refusals: Mapping[str, str]) -> list[str]:
    """Why operators that judge TPMs did not come along: the names of their errors."""
    codes = {reason.partition(":")[0] for reason in refusals.values()}
    return sorted(codes - {_NO_JUDGE})
