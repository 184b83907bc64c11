"""A quote's verification, from its bytes to a verdict that the committee can sign."""

import dcap_qvl
from cryptography import x509

from oracle.attestation.collateral import CollateralSource, parse_collateral
from oracle.attestation.errors import (
    DebugEnclave,
    DevelopmentRootRefused,
    QuoteRefused,
    QuoteStale,
    SimulatedQuoteRefused,
)
from oracle.attestation.policy import TcbPolicy
from oracle.attestation.quote import Kind, Quote, parse_quote
from settlement.deployment import REAL_CHAINS
from settlement.errors import InvalidInput
from settlement.types import Bytes32, Frozen, HexData, UInt64


class VerifiedQuote(Frozen):
    """What a genuine quote proves.

    `attestation_digest` names the quote by its signed part. `report_data` (64 bytes) is what the
    enclave said. The verdict rests on collateral that expires at `valid_until` (Unix seconds).
    `simulated` quotes come from a development platform and protect nothing.
    """

    kind: Kind
    measurement: Bytes32
    attestation_digest: Bytes32
    report_data: HexData
    tcb_status: str
    advisories: tuple[str, ...]
    valid_until: UInt64
    simulated: bool


class QuoteVerifier:
    """Verifies quotes for one chain.

    A quote marked as simulated is judged by the development root alone, every other quote by
    Intel's alone: so a development root can never vouch for a quote that does not show its mark.
    """

    def __init__(
        self,
        *,
        chain_id: int,
        collateral: CollateralSource,
        policy: TcbPolicy | None = None,
        development_root: bytes | None = None,
    ) -> None:
        """`development_root` is a DER certificate; without `policy` only UpToDate passes.

        Raises:
            DevelopmentRootRefused: when a development root is given for a chain with real money.
            InvalidInput: when it is not a certificate.
        """
        if development_root is not None:
            if chain_id in REAL_CHAINS:
                raise DevelopmentRootRefused(chain_id)
            try:
                x509.load_der_x509_certificate(development_root)
            except ValueError as error:
                raise InvalidInput(f"development root is not a certificate: {error}") from error
        self._collateral = collateral
        self._policy = policy or TcbPolicy()
        self._development_root = development_root

    def verify(self, quote: bytes, now: int) -> VerifiedQuote:
        """The verdict about `quote` at `now` (Unix seconds).

        Raises:
            QuoteMalformed: when it is not exactly one quote.
            DebugEnclave: when the enclave is in debug mode.
            SimulatedQuoteRefused: when it is simulated and no development root is configured.
            CollateralUnavailable, CollateralMalformed: when there is no usable collateral.
            QuoteStale: when the collateral does not cover `now`.
            QuoteRefused: when a signature, certificate, revocation or identity check fails.
            EvaluationTooLow: when the collateral judges by an older evaluation than is asked for.
            TcbRefused: when the policy does not allow the platform's TCB status.
        """
        parsed = parse_quote(quote)
        if parsed.debug:
            raise DebugEnclave
        if parsed.simulated and self._development_root is None:
            raise SimulatedQuoteRefused
        collateral = parse_collateral(self._collateral.collateral(parsed))
        if not collateral.covers(now):
            raise QuoteStale(now, collateral.valid_from, collateral.valid_until)

        report = self._judge(parsed, collateral.document, now)
        self._policy.check_evaluation(collateral.evaluation)
        status, advisories = str(report.status), tuple(map(str, report.advisory_ids))
        self._policy.check(status, advisories, now)
        return VerifiedQuote(
            kind=parsed.kind,
            measurement=parsed.measurement,
            attestation_digest=parsed.attestation_digest,
            report_data=parsed.report_data,
            tcb_status=status,
            advisories=advisories,
            valid_until=collateral.valid_until,
            simulated=parsed.simulated,
        )

    def _judge(
        self, quote: Quote, collateral: dcap_qvl.QuoteCollateralV3, now: int
    ) -> dcap_qvl.VerifiedReport:
        try:
            if quote.simulated:
                root = self._development_root
                return dcap_qvl.verify_with_root_ca(quote.raw, collateral, root, now)
            return dcap_qvl.verify(quote.raw, collateral, now)
        except ValueError as error:
            # The library's message may span lines (its chain of causes); logs want one.
            reason = " ".join(str(error).split()).removeprefix("Verification failed: ")
            raise QuoteRefused(reason) from error
