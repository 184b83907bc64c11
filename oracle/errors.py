"""What goes wrong in the oracle, by name; and what the endpoints' own words mean."""

from collections.abc import Mapping
from enum import StrEnum

from settlement.errors import InvalidInput, RaphaError
from settlement.types import to_hex


class NotKnown(RaphaError, LookupError):
    """Base of all answers about things that this oracle has not seen."""


class JobUnknown(NotKnown):
    """No such job in the finalized chain."""

    def __init__(self, job_id: bytes) -> None:
        self.job_id = job_id
        super().__init__(f"no job {to_hex(job_id)} in the finalized chain")


class ReceiptUnknown(NotKnown):
    """No such receipt was handed in."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        super().__init__(f"no receipt {to_hex(digest)}")


class AttestationUnknown(NotKnown):
    """No such attestation was handed in."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        super().__init__(f"no attestation {to_hex(digest)}")


class QuoteUnknown(NotKnown):
    """No such quote was handed in."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        super().__init__(f"no quote {to_hex(digest)}")


class EscrowUnknown(NotKnown):
    """No such escrow was handed in."""

    def __init__(self, job_id: bytes) -> None:
        self.job_id = job_id
        super().__init__(f"no escrow for job {to_hex(job_id)}")


class NodeUnknown(NotKnown):
    """The node is not registered and active, or has no registered enclave."""

    def __init__(self, node_id: int, reason: str) -> None:
        self.node_id = node_id
        self.reason = reason
        super().__init__(f"node {node_id} {reason}")


class StaleChallenge(InvalidInput):
    """The evidence does not answer a live challenge of this operator: ask for new challenges."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}; ask for new challenges and quote again")


class MeasurementNotAllowed(InvalidInput):
    """The enclave runs something that governance has not allowed."""

    def __init__(self, measurement: bytes) -> None:
        self.measurement = measurement
        super().__init__(f"measurement {to_hex(measurement)} is not allowed on chain")


class ExpiryRefused(InvalidInput):
    """A peer asked for a registration longer than this operator vouches for. Unix seconds."""

    def __init__(self, expiry: int, latest: int) -> None:
        self.expiry = expiry
        self.latest = latest
        super().__init__(f"registration until {expiry} asked, at most {latest} is signed")


class VouchesOtherwise(InvalidInput):
    """An operator was asked to vouch for a key where it vouches for platforms, or the reverse."""

    def __init__(self, asked: str, present: str) -> None:
        self.asked = asked
        self.present = present
        super().__init__(
            f"asked to vouch for a {asked}; this operator vouches for a {present}: "
            "RAPHA_ORACLE_VOUCH_FOR has to be the same for all operators of a deployment"
        )


class PlatformOfAnotherNode(InvalidInput):
    """The committee's verdict on the platform names another node than the quote's bringer."""

    def __init__(self, node_id: int, judged_for: int) -> None:
        self.node_id = node_id
        self.judged_for = judged_for
        super().__init__(f"the platform was judged for node {judged_for}, not for node {node_id}")


class EpochMismatch(InvalidInput):
    """The committee that a peer asked for is not the present one."""

    final = False

    def __init__(self, asked: int, present: int) -> None:
        self.asked = asked
        self.present = present
        super().__init__(f"asked to sign in epoch {asked}, the committee's is {present}")


class QuorumNotReached(RaphaError):
    """Too few operators signed or answered for now; `refusals` says why, by peer."""

    final = False

    def __init__(self, have: int, need: int, refusals: Mapping[str, str]) -> None:
        self.have = have
        self.need = need
        self.refusals = dict(refusals)
        why = "; ".join(f"{peer}: {reason}" for peer, reason in self.refusals.items())
        super().__init__(f"{have} of {need} operators ({why or 'no peers are configured'})")


class AuthorizationLate(InvalidInput):
    """The payer's authorization has run out, or starts too late to be used. Unix seconds."""

    def __init__(self, now: int, valid_before: int) -> None:
        self.now = now
        self.valid_before = valid_before
        super().__init__(f"the authorization was good before {valid_before}, it is {now}")


class PeerTokenRefused(RaphaError, PermissionError):
    """A committee route was called without the operators' token."""

    def __init__(self) -> None:
        super().__init__("committee routes need the operators' bearer token")


class BodyTooLarge(InvalidInput):
    """A request's body is longer than any honest one. Bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"the body is longer than {limit} bytes")


class BodyTooSlow(RaphaError, TimeoutError):
    """A request's body did not arrive in time. Seconds."""

    final = False

    def __init__(self, limit: float) -> None:
        self.limit = limit
        super().__init__(f"the body did not arrive within {limit:g} seconds")


class IntakeBusy(RaphaError):
    """More is waiting to be written than the oracle keeps in memory. Seconds."""

    final = False

    def __init__(self, waiting: int, retry_after: int) -> None:
        self.waiting = waiting
        self.retry_after = retry_after
        super().__init__(f"{waiting} receipts wait to be written; hand this in again later")


class IntakeClosed(RaphaError):
    """This process is ending and takes nothing in any more; another one will."""

    final = False

    def __init__(self) -> None:
        super().__init__("this process is ending; hand this in again")


class RateLimited(RaphaError):
    """A key or an address asked too often. `retry_after` is seconds."""

    final = False

    def __init__(self, limit: str, retry_after: int) -> None:
        self.limit = limit
        self.retry_after = retry_after
        super().__init__(f"more than {limit}; ask again in {retry_after} s")


class ApiKeyRefused(RaphaError, PermissionError):
    """No API key was given where one is needed, or one that is not known or was revoked."""

    def __init__(self) -> None:
        super().__init__("this needs a valid API key as bearer token")


class ScopeMissing(RaphaError, PermissionError):
    """The API key is good, and not for this."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"the API key lacks the scope '{scope}'")


class ApiKeyUnknown(NotKnown):
    """There is no API key of this id."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        super().__init__(f"no API key {key_id!r}; `rapha-oracle keys list` shows those there are")


class TooManyFollowers(RaphaError):
    """So many follow the changes already that this oracle takes no more. Seconds."""

    final = False

    def __init__(self, limit: int, retry_after: int) -> None:
        self.limit = limit
        self.retry_after = retry_after
        super().__init__(f"{limit} follow already; follow another instance or come back later")


class PositionUnknown(InvalidInput):
    """The position to go on from is none of this oracle's: begin without one."""

    def __init__(self, position: str) -> None:
        self.position = position
        super().__init__(f"{position!r} is no position in these changes; begin without one")


class LeaseTaken(RaphaError):
    """Another process holds what only one may: with SQLite it is to be stopped first."""

    final = False

    def __init__(self, name: str, holder: str) -> None:
        self.name = name
        self.holder = holder
        super().__init__(f"{holder} holds {name!r}; one process at a time may")


class LeaseLost(RaphaError):
    """This process no longer leads; nothing of what it was about to write was written."""

    final = False

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"no longer holds {name!r}: {reason}")


class NotRelaying(RaphaError, RuntimeError):
    """This operator only signs: receipts, escrows and evidence go to a relaying one."""

    def __init__(self) -> None:
        super().__init__("this operator relays nothing; use the relaying operator's address")


class ItemUnknown(NotKnown):
    """No receipt, escrow, attestation or quote by this digest was handed in."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        super().__init__(f"nothing by the digest {to_hex(digest)} was handed in")


class NotRejected(InvalidInput):
    """Only what was rejected can be tried again; all else is on its way by itself."""

    def __init__(self, digest: bytes, status: str) -> None:
        self.digest = digest
        self.item_status = status
        super().__init__(f"{to_hex(digest)} is {status}; only what is REJECTED can be retried")


class IntakePaused(RaphaError):
    """The operator takes nothing in for now; what was handed in before can be asked for."""

    final = False

    def __init__(self, reason: str, retry_after: int) -> None:
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(f"nothing is taken in for now ({reason}); come again later")


class ConfigurationRefused(InvalidInput):
    """The oracle does not start with this configuration."""


class SecretFileInvalid(ConfigurationRefused):
    """A secret file is missing or does not hold what it should. Its content is never shown."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class DatabaseOfOtherDeployment(ConfigurationRefused):
    """The database was filled from another chain or vault."""

    def __init__(self, chain_id: int, vault: str) -> None:
        self.chain_id = chain_id
        self.vault = vault
        super().__init__(f"the database belongs to vault {vault} on chain {chain_id}")


class ChainUnavailable(RaphaError, ConnectionError):
    """The RPC endpoint gave no usable answer for now."""

    final = False

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the chain's endpoint is unavailable: {reason}")


class LogRangeRefused(RaphaError):
    """The endpoint will not give the logs of so many blocks at once: ask for fewer."""

    final = False

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        super().__init__(f"the endpoint refuses logs of blocks {first} to {last} at once")


class FinalityWentBack(RaphaError):
    """The endpoint calls less final than the facts rest on: it lags, or it is on another chain."""

    final = False

    def __init__(self, block: int, finalized: int) -> None:
        self.block = block
        self.finalized = finalized
        super().__init__(
            f"the facts reach to block {block}, the endpoint calls only {finalized} final; "
            "it lags behind, or follows another chain: use another endpoint if it stays so"
        )


class ForkNotLonger(RaphaError):
    """The endpoint has another block where the facts stand, and no longer final chain to show."""

    final = False

    def __init__(self, block: int, known: bytes, found: bytes) -> None:
        self.block = block
        self.known = known
        self.found = found
        super().__init__(
            f"block {block} is {to_hex(known)} in the facts and {to_hex(found)} at the endpoint, "
            "which is final no further than that; nothing is changed for a chain that is not longer"
        )


class HistoryIncomplete(RaphaError):
    """What the endpoint answered about the past does not hold together: something is missing.

    Nothing is written then. Where the hole lies before `block`, rebuilding the facts mends it.
    """

    final = False

    def __init__(self, block: int, what: str) -> None:
        self.block = block
        self.what = what
        super().__init__(
            f"block {block}: {what}; if it stays so, use another endpoint, or rebuild the facts "
            "(rapha-oracle rebuild)"
        )


class TransactionRefused(RaphaError):
    """The endpoint does not take a signed transaction for now, such as for want of gas money."""

    final = False

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the endpoint refused the transaction: {reason}")


class FeeTooLow(TransactionRefused):
    """The endpoint's pool does not take what the transaction bids."""


class FundsTooLow(TransactionRefused):
    """The key cannot pay for the transaction: send native coin to it."""


class SignerUnavailable(RaphaError, ConnectionError):
    """The remote signer gave no usable answer for now."""

    final = False

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the remote signer is unavailable: {reason}")


class SignerRefused(RaphaError, PermissionError):
    """The remote signer does not sign this: look at its own rules and keys."""

    final = False

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the remote signer refused: {reason}")


class SignedOtherwise(RaphaError, ValueError):
    """A signer's answer is not what it was asked to sign. It is not sent anywhere."""

    final = False

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"what the signer returned {what}")


class KeyInUse(RaphaError, RuntimeError):
    """Another process writes this key's nonces: only one may."""

    final = False

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(f"another process relays with {address}; stop one of the two")


class WorkTaken(RaphaError, RuntimeError):
    """Another relayer took what a transaction was to carry, or the nonce moved: look again."""

    final = False

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} changed hands in between")


class EndpointBusy(ChainUnavailable):
    """The endpoint wants fewer requests; `after` is the seconds that it asks to wait, if any."""

    def __init__(self, after: float | None = None) -> None:
        self.after = after
        super().__init__("it limits the rate of requests")


class EndpointsDisagree(RaphaError, RuntimeError):
    """Endpoints contradict each other about what is final. Nothing is decided until they agree."""

    final = False

    def __init__(self, what: str, answers: Mapping[str, str]) -> None:
        self.what = what
        self.answers = dict(answers)
        said = "; ".join(f"{name} says {answer}" for name, answer in self.answers.items())
        super().__init__(f"endpoints disagree on {what}: {said}; take the wrong one out")


class Delivery(StrEnum):
    """What became of handing a signed transaction to the endpoint."""

    SENT = "sent"
    KNOWN = "known"
    NONCE_USED = "nonce used"


# Endpoints (geth, bor, erigon, anvil) agree neither on codes nor on words: read here only.
_KNOWN = ("already known", "already imported", "known transaction", "alreadyknown")
_NONCE_USED = ("nonce too low", "nonce is too low", "oldnonce", "nonce has already been used")
_FEE = ("underpriced", "fee too low", "less than block base fee", "max fee per gas less than")
_FUNDS = ("insufficient funds",)
_RATE = ("too many requests", "rate limit", "request rate", "requests per second", "throttled")
_RANGE = (
    "block range",
    "range is too",
    "range too",
    "query returned more than",
    "too many",
    "limit exceeded",
    "response size",
    "exceeds the range",
)


def delivery_of(message: str) -> Delivery:
    """What an endpoint's refusal of a raw transaction means.

    Raises:
        TransactionRefused: unless it says that it has the transaction, or that its nonce is used;
            FundsTooLow and FeeTooLow where it names these as the cause.
    """
    words = message.lower()
    if any(phrase in words for phrase in _KNOWN):
        return Delivery.KNOWN
    if any(phrase in words for phrase in _NONCE_USED):
        return Delivery.NONCE_USED
    if any(phrase in words for phrase in _FUNDS):
        raise FundsTooLow(message)
    if any(phrase in words for phrase in _FEE):
        raise FeeTooLow(message)
    raise TransactionRefused(message)


def is_range_refusal(message: str) -> bool:
    """Whether an endpoint's error about logs says that the range was too large."""
    words = message.lower()
    return any(phrase in words for phrase in _RANGE) and not is_rate_limit(message)


def is_rate_limit(message: str) -> bool:
    """Whether an endpoint's error says that it wants fewer requests."""
    words = message.lower()
    return any(phrase in words for phrase in _RATE)
