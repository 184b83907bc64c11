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


class TpmRefused(AttestationRefused):
    """Base of all refusals of TPM evidence."""


class TpmMalformed(TpmRefused):
    """The bytes are not the TPM structure, or the event log, that they should be."""

    def __init__(self, structure: str, reason: str) -> None:
        self.structure = structure
        self.reason = reason
        super().__init__(f"not a {structure}: {reason}")


class TpmTrailingBytes(TpmMalformed):
    """Bytes follow the structure: the sender cuts them at `end`."""

    def __init__(self, structure: str, end: int, length: int) -> None:
        self.end = end
        self.length = length
        super().__init__(
            structure, f"it ends after {end} bytes, but {length} were given; cut the rest"
        )


class NotTpmGenerated(TpmRefused):
    """The attested bytes lack the TPM's magic value: any program can have signed them."""

    def __init__(self, magic: int) -> None:
        self.magic = magic
        super().__init__(f"magic {magic:#010x} is not a TPM's (0xff544347)")


class NotATpmQuote(TpmRefused):
    """The TPM attested something else than its PCRs."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        super().__init__(f"attestation type {kind:#06x} is not a quote (0x8018)")


class EndorsementCertificateRefused(TpmRefused):
    """The endorsement key's certificate does not vouch for the key.

    `part` is "form", "chain" (also validity), "usage", "key" or "revocation".
    """

    def __init__(self, part: str, reason: str) -> None:
        self.part = part
        self.reason = reason
        super().__init__(f"endorsement certificate refused ({part}): {reason}")


class EndorsementKeyUnfit(TpmRefused):
    """The endorsement key is not a storage key that a TPM keeps to itself."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the endorsement key cannot be used: {reason}")


class AttestationKeyUnfit(TpmRefused):
    """The attestation key could sign what no TPM said, or is too weak."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the attestation key cannot be used: {reason}")


class ActivationUnknown(TpmRefused):
    """No such activation is open: it never was, it was answered, or a newer one replaced it."""

    def __init__(self, challenge_id: bytes) -> None:
        self.challenge_id = challenge_id
        super().__init__(f"no open activation 0x{challenge_id.hex()}; start the enrolment again")


class ActivationExpired(TpmRefused):
    """The activation was answered too late. Unix seconds."""

    def __init__(self, expires_at: int, now: int) -> None:
        self.expires_at = expires_at
        self.now = now
        super().__init__(f"the activation expired at {expires_at}, it is {now} now; start again")


class CredentialMismatch(TpmRefused):
    """The answer is not the secret: the attestation key is not in the endorsement key's TPM."""

    def __init__(self) -> None:
        super().__init__("the activated credential is not the one that was made for this key")


class EnrolmentExpired(TpmRefused):
    """The attestation key's endorsement does not cover `now`: enrol again. Unix seconds."""

    def __init__(self, enrolled_at: int, valid_until: int, now: int) -> None:
        self.enrolled_at = enrolled_at
        self.valid_until = valid_until
        self.now = now
        super().__init__(
            f"the key is enrolled from {enrolled_at} until {valid_until}, which {now} is outside of"
        )


class TooManyActivations(RaphaError, RuntimeError):
    """Too many activations are open; the oldest expires at `until` (Unix seconds)."""

    final = False

    def __init__(self, until: int) -> None:
        self.until = until
        super().__init__(f"too many enrolments are open; try again at {until}")


class AttestationKeyNotEnrolled(TpmRefused):
    """The quote is by another key than the one that was enrolled for the node.

    The keys' names stay out of the message: it goes into logs, and they tell which TPM it is.
    """

    def __init__(self, name: bytes, enrolled: bytes) -> None:
        self._name = name
        self._enrolled = enrolled
        super().__init__("the quote comes with another key than the enrolled one; enrol it first")

    @property
    def name(self) -> bytes:
        """The name of the key that the quote came with."""
        return self._name

    @property
    def enrolled(self) -> bytes:
        """The name of the key that is enrolled."""
        return self._enrolled


class TpmSchemeMismatch(TpmRefused):
    """The signature uses another scheme or hash than the attestation key prescribes."""

    def __init__(self, found: str, expected: str) -> None:
        self.found = found
        self.expected = expected
        super().__init__(f"the signature is {found}, the attestation key signs {expected}")


class TpmSignatureInvalid(TpmRefused):
    """The attestation key did not sign the attested bytes."""

    def __init__(self) -> None:
        super().__init__("the quote's signature is not by the attestation key")


class TpmNonceMismatch(TpmRefused):
    """The quote is genuine, but was made for another challenge, perhaps an earlier one."""

    def __init__(self, found: bytes, expected: bytes) -> None:
        self.found = found
        self.expected = expected
        super().__init__(f"the quote carries nonce 0x{found.hex()}, asked was 0x{expected.hex()}")


class PcrSelectionMismatch(TpmRefused):
    """The quote is not over exactly the PCRs that were asked for."""

    def __init__(self, found: str, expected: str) -> None:
        self.found = found
        self.expected = expected
        super().__init__(f"the quote is over {found}, asked was {expected}")


class PcrValuesMismatch(TpmRefused):
    """The reported values are not those of the quoted PCRs, each with its bank's size."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"reported PCR values do not fit the quote: {reason}")


class PcrDigestMismatch(TpmRefused):
    """The reported values are not what the TPM had in its PCRs."""

    def __init__(self) -> None:
        super().__init__("the quoted digest is not that of the reported PCR values")


class NodeModelUnknown(TpmRefused):
    """No PCR policy exists for the node's model."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(f"no PCR policy for node model {model!r}")


class NodeUnassigned(TpmRefused):
    """The operator's policies do not say which model the node is."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        super().__init__(f"no node model is assigned to node {node_id}")


class TpmNotConfigured(RaphaError, RuntimeError):
    """This operator knows neither endorsement roots nor PCR policies, so it judges no TPM."""

    def __init__(self) -> None:
        super().__init__("this operator judges no TPM evidence; it has no roots and policies")


class TpmEvidenceMissing(TpmRefused):
    """This operator vouches for no enclave without its machine's TPM."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        super().__init__(f"the evidence of node {node_id} needs a TPM quote here")


class EventLogMissing(TpmRefused):
    """This operator takes TPM quotes only with the event log that explains them."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        super().__init__(f"the TPM quote of node {node_id} needs its event log here")


class TpmNotEnrolled(TpmRefused):
    """No attestation key is enrolled for the node here, or it does not count any more."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        super().__init__(f"node {node_id} has no enrolled TPM here; enrol it first")


class TpmNotPinned(TpmRefused):
    """The operator expects another TPM in this node."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        super().__init__(f"node {node_id} is pinned to another TPM here")


class NodeHasAnotherTpm(TpmRefused):
    """Another TPM is enrolled for the node; only its operator can let a new one in."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        super().__init__(
            f"another TPM is enrolled for node {node_id}; have the operator forget it first"
        )


class TpmOfAnotherNode(TpmRefused):
    """The TPM is enrolled for another node: one TPM is one node's."""

    def __init__(self) -> None:
        super().__init__("this TPM is enrolled for another node; have the operator forget it first")


class PcrUnknown(TpmRefused):
    """The policy says nothing about a reported PCR."""

    def __init__(self, pcr: int, policy: str) -> None:
        self.pcr = pcr
        self.policy = policy
        super().__init__(f"policy {policy} does not know PCR {pcr}")


class PcrMissing(TpmRefused):
    """The policy judges a PCR that was not reported."""

    def __init__(self, pcr: int, policy: str) -> None:
        self.pcr = pcr
        self.policy = policy
        super().__init__(f"policy {policy} needs PCR {pcr}")


class PcrNotAllowed(TpmRefused):
    """A PCR has a value that the policy does not allow: the node booted something else."""

    def __init__(self, pcr: int, value: bytes, policy: str) -> None:
        self.pcr = pcr
        self.value = value
        self.policy = policy
        super().__init__(f"policy {policy} does not allow 0x{value.hex()} in PCR {pcr}")


class EventLogMismatch(TpmRefused):
    """Replaying the event log does not give the quoted PCR.

    `event` is the position in the log of the first event that differs. It is None when that cannot
    be told: a PCR does not reveal what went into it, so telling it may need a reference log.
    """

    def __init__(self, bank: str, pcr: int, event: int | None, reason: str) -> None:
        self.bank = bank
        self.pcr = pcr
        self.event = event
        self.reason = reason
        super().__init__(f"the event log does not give {bank} PCR {pcr}: {reason}")


class CollateralUnknown(CollateralUnavailable):
    """The collateral service answers, and knows no such platform: a typo, or too new a machine."""

    def __init__(self, location: str) -> None:
        super().__init__(location, "the service knows no such platform")


class CollateralTooLarge(CollateralMalformed):
    """A part of the collateral is longer than anything that a vendor publishes. Bytes."""

    def __init__(self, part: str, limit: int) -> None:
        self.part = part
        self.limit = limit
        super().__init__(f"{part} has more than {limit} bytes")


class CollateralForged(AttestationRefused):
    """A part of the collateral does not lead to the pinned root: the service, or the way to it,
    is not to be trusted."""

    final = False

    def __init__(self, part: str, reason: str) -> None:
        self.part = part
        self.reason = reason
        super().__init__(f"collateral's {part} is not the vendor's: {reason}")


class CollateralMismatch(AttestationRefused):
    """The collateral is genuine, and about something other than what was asked for."""

    final = False

    def __init__(self, part: str, found: str, expected: str) -> None:
        self.part = part
        self.found = found
        self.expected = expected
        super().__init__(f"collateral's {part} is for {found}, not {expected}")


class CollateralRolledBack(AttestationRefused):
    """The collateral is genuine, and older than what was seen before: somebody may hide a fix.

    `measure` is "evaluation number" or "issue time" (Unix seconds).
    """

    final = False

    def __init__(self, part: str, measure: str, found: int, seen: int) -> None:
        self.part = part
        self.measure = measure
        self.found = found
        self.seen = seen
        super().__init__(f"collateral's {part} went back to {measure} {found} after {seen}")


class EvaluationTooLow(AttestationRefused):
    """The collateral judges by an older TCB evaluation than this verifier asks for."""

    final = False

    def __init__(self, found: int, minimum: int) -> None:
        self.found = found
        self.minimum = minimum
        super().__init__(f"TCB evaluation data number {found} is below the minimum of {minimum}")


class PlatformUnproven(AttestationRefused):
    """The quote's certificates do not lead to the pinned root, so nothing is fetched for it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the quote's platform certificates prove no platform: {reason}")
