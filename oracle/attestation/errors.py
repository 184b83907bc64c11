"""Why evidence is refused: each refusal has its own name, so that an operator knows what to do."""

from collections.abc import Sequence

from settlement.errors import InvalidInput, RaphaError


class AttestationRefused(InvalidInput):
    """Base of all refusals of evidence."""


class QuoteMalformed(AttestationRefused):
    """The bytes are not an SGX v3 or a TDX v4/v5 quote."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"not a quote: {reason}")


class TrailingBytes(QuoteMalformed):
    """Bytes follow the quote. TDX drivers pad with zeros: the sender cuts them at `end`."""

    def __init__(self, end: int, length: int) -> None:
        self.end = end
        self.length = length
        super().__init__(f"it ends after {end} bytes, but {length} were given; cut the rest")


class QuoteRefused(AttestationRefused):
    """A signature, certificate, statement or attribute failed; `reason` is the verifier's."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"quote refused: {reason}")


class QuoteStale(AttestationRefused):
    """The collateral does not cover `now`: verify again with fresh collateral. Unix seconds."""

    final = False

    def __init__(self, now: int, valid_from: int, valid_until: int) -> None:
        self.now = now
        self.valid_from = valid_from
        self.valid_until = valid_until
        super().__init__(
            f"collateral is valid from {valid_from} until {valid_until}, which {now} is outside of"
        )


class TcbRefused(AttestationRefused):
    """The platform is genuine, but its TCB status is not one that the policy allows now."""

    def __init__(self, status: str, advisories: Sequence[str]) -> None:
        self.status = status
        self.advisories = tuple(advisories)
        listed = ", ".join(self.advisories) or "no advisories"
        super().__init__(f"the policy does not allow TCB status {status} ({listed})")


class DebugEnclave(AttestationRefused):
    """The enclave runs in debug mode: its host can read its memory."""

    def __init__(self) -> None:
        super().__init__("the enclave is in debug mode; only production enclaves are accepted")


class SimulatedQuoteRefused(AttestationRefused):
    """The quote is marked as simulated, and no development root is configured here."""

    def __init__(self) -> None:
        super().__init__(
            "the quote is marked SIMULATED-DEV-ONLY and no development root is configured"
        )


class DevelopmentRootRefused(AttestationRefused):
    """A development root was configured for a chain with real money."""

    def __init__(self, chain_id: int) -> None:
        self.chain_id = chain_id
        super().__init__(f"chain {chain_id} accepts no development root; remove it")


class ReportDataMismatch(AttestationRefused):
    """The quote is genuine, but was made for something else.

    `part` is "binding" (chain, registry, keys or nonce) or "configuration".
    """

    def __init__(self, part: str) -> None:
        self.part = part
        super().__init__(f"report_data does not carry the expected {part}")


class CollateralMalformed(AttestationRefused):
    """The verifier's own collateral cannot be read; fetch it again."""

    final = False

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"collateral cannot be read: {reason}")


class CollateralUnavailable(RaphaError, OSError):
    """No collateral could be had at `location` for now."""

    final = False

    def __init__(self, location: str, reason: str) -> None:
        self.location = location
        self.reason = reason
        super().__init__(f"no collateral at {location}: {reason}")
