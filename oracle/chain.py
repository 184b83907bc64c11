"""The chain over JSON-RPC: typed facts from logs, calls simulated and encoded, bytes sent."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import requests
from eth_abi.exceptions import DecodingError
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from web3.contract.contract import ContractFunction
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)
from web3.types import BlockData, BlockIdentifier, FilterParams, TxParams

from oracle.errors import (
    ChainUnavailable,
    Delivery,
    EndpointBusy,
    LogRangeRefused,
    delivery_of,
    is_range_refusal,
    is_rate_limit,
)
from oracle.facts import (
    Block,
    Call,
    CallKind,
    EnclaveQuoted,
    EnclaveRegistered,
    EnclaveRevoked,
    Event,
    Fees,
    Header,
    JobAssigned,
    JobCancelled,
    JobClosed,
    JobOpened,
    JobToppedUp,
    JobVoided,
    MeasurementChanged,
    Mined,
    Place,
    Platform,
    PlatformJudged,
    PlatformRevoked,
    Settled,
    SittingCommittee,
)
from settlement import events
from settlement.client import Settlement
from settlement.codec import settle_data, settle_outcomes
from settlement.committee import read_committee
from settlement.connection import connect
from settlement.contracts import Claim, Outcome, WrongChain
from settlement.dcap import QuoteParts
from settlement.deployment import Deployment
from settlement.errors import RaphaError
from settlement.events import decode_events, terms_from_event
from settlement.models import Authorization, EnclaveRegistration, JobTerms, PlatformVerdict
from settlement.reverts import reverted

P = ParamSpec("P")
T = TypeVar("T")

TIMEOUT = 5
"""Seconds that the endpoint has for one request."""

ATTEMPTS = 3
"""How often a read is tried where there is no other endpoint to ask."""

_REVERT_CODES = frozenset({3, -32000, -32015})
_LIMIT_EXCEEDED = -32005  # EIP-1474
_TOO_MANY_REQUESTS = 429
_FEE_WINDOW = 20
_FEE_PERCENTILE = 50

# What web3 raises when an answer is not what it should be.
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError, DecodingError, Web3Exception)


def _reading(
    method: Callable[Concatenate["RpcChain", P], T],
) -> Callable[Concatenate["RpcChain", P], T]:
    """A read: tried a few times, then ChainUnavailable."""

    def once(chain: "RpcChain", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(chain, *args, **kwargs)
        except RaphaError:
            raise
        except (requests.RequestException, Web3RPCError) as error:
            raise _trouble(error) from error
        except _GARBAGE as error:
            raise ChainUnavailable(f"it answers garbage ({type(error).__name__})") from error

    def read(chain: "RpcChain", /, *args: P.args, **kwargs: P.kwargs) -> T:
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(chain.attempts),
            wait=wait_exponential_jitter(initial=0.1, max=0.5, jitter=0.1),
            reraise=True,
        )
        return retrying(once, chain, *args, **kwargs)

    return read


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ChainUnavailable) and not isinstance(error, EndpointBusy)


class RpcChain:
    """`oracle.facts.Chain` over one JSON-RPC endpoint."""

    def __init__(
        self,
        rpc_url: str,
        deployment: Deployment,
        *,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> None:
        """`timeout` is seconds for one request, of which a read makes up to `attempts`."""
        self.attempts = attempts
        self._w3 = connect(rpc_url, timeout=timeout)
        self._deployment = deployment
        self._settlement = Settlement(self._w3, deployment)

    @_reading
    def check(self) -> None:
        """Make sure of chain id, code, wiring and periods. Raises WrongChain."""
        try:
            self._settlement.check()
        except (ContractLogicError, BadFunctionCallOutput) as error:
            raise WrongChain(
                "the contracts", expected="those of the deployment record", found=_words(error)
            ) from error

    @_reading
    def finalized(self) -> Block:
        """The newest block that is final."""
        return self._block("finalized")

    @_reading
    def latest(self) -> int:
        """The newest block's number."""
        return int(self._w3.eth.block_number)

    @_reading
    def block(self, number: int) -> Block | None:
        """The block at a height, None above the tip."""
        try:
            return self._block(cast(BlockIdentifier, number))
        except BlockNotFound:
            return None

    @_reading
    def events(self, first: int, last: int) -> list[Event]:
        """All events of vault and enclave registry in these blocks, in order.

        Raises:
            LogRangeRefused: when the endpoint wants fewer blocks.
        """
        wanted = {
            "address": [self._deployment.vault, self._deployment.enclave_registry],
            "fromBlock": first,
            "toBlock": last,
        }
        try:
            logs = self._w3.eth.get_logs(cast(FilterParams, wanted))
        except Web3RPCError as error:
            if is_range_refusal(_words(error)):
                raise LogRangeRefused(first, last) from error
            raise
        decoded = decode_events(self._deployment, cast(Sequence[Mapping[str, Any]], logs))
        facts = [fact for event in decoded if (fact := fact_of(event)) is not None]
        return sorted(facts, key=lambda fact: (fact.place.block, fact.place.index))

    @_reading
    def headers(self, first: int, last: int) -> list[Header]:
        """The headers of these blocks, in order."""
        ours = (self._deployment.vault, self._deployment.enclave_registry)
        headers = []
        for number in range(first, last + 1):
            found = self._w3.eth.get_block(cast(BlockIdentifier, number))
            bloom = bytes(found["logsBloom"])
            headers.append(
                Header(
                    block=_block_of(found),
                    parent=bytes(found["parentHash"]),
                    logged=any(bloom_admits(bloom, address) for address in ours),
                )
            )
        return headers

    @_reading
    def committee(self) -> SittingCommittee:
        """The present committee."""
        functions = self._settlement.enclaves.functions
        epoch, place = functions.epoch().call(), functions.committee().call()
        return SittingCommittee(epoch, read_committee(self._w3, place))

    @_reading
    def is_measurement_allowed(self, measurement: bytes) -> bool:
        """Whether governance allows a measurement."""
        functions = self._settlement.enclaves.functions
        return bool(functions.is_measurement_allowed(measurement).call())

    @_reading
    def is_node_active(self, node_id: int) -> bool:
        """Whether a node is registered and takes jobs."""
        return bool(self._settlement.nodes.functions.is_active(node_id).call())

    @_reading
    def platform(self, platform: bytes) -> Platform:
        """What the newest block says about a platform."""
        functions = self._settlement.enclaves.functions
        revoked, until, _, _, node_id, module_svn, expiry = functions.platform(platform).call()
        challenge = bytes(functions.challenge(platform).call())
        return Platform(revoked, until, node_id, module_svn, expiry, challenge)

    def settle_call(self, claims: Sequence[Claim]) -> Call:
        """Calldata that settles a batch."""
        return Call(CallKind.SETTLE, self._deployment.vault, settle_data(claims))

    def register_call(self, registration: EnclaveRegistration, signatures: bytes) -> Call:
        """Calldata that registers an enclave; `signatures` as the committee takes them."""
        function = self._settlement.register_enclave_call(registration, signatures)
        return _call(CallKind.REGISTER, function)

    def register_platform_call(self, parts: QuoteParts) -> Call:
        """Calldata that registers a quote's platform by the certificates that came with it."""
        return _call(CallKind.PLATFORM, self._settlement.register_platform_call(parts))

    def judge_call(self, verdict: PlatformVerdict, signatures: bytes) -> Call:
        """Calldata that brings a verdict; `signatures` as the committee takes them."""
        return _call(CallKind.JUDGE, self._settlement.judge_call(verdict, signatures))

    def register_quote_call(
        self, parts: QuoteParts, enclave_key: str, encryption_key_digest: bytes
    ) -> Call:
        """Calldata that registers an enclave key by a quote."""
        function = self._settlement.register_quote_call(parts, enclave_key, encryption_key_digest)
        return _call(CallKind.QUOTE, function)

    def open_call(self, terms: JobTerms, authorization: Authorization) -> Call:
        """Calldata that opens a job by the payer's authorization."""
        function = self._settlement.open_with_authorization_call(terms, authorization)
        return _call(CallKind.OPEN, function)

    @_reading
    def simulate_settle(self, claims: Sequence[Claim]) -> list[Outcome]:
        """Each item's outcome, were the batch settled now. Raises ContractReverted."""
        call: TxParams = {
            "to": to_checksum_address(self._deployment.vault),
            "data": HexBytes(settle_data(claims)),
        }
        try:
            answer = self._w3.eth.call(call)
        except (ContractLogicError, Web3RPCError) as error:
            raise _revert_or_trouble(error) from error
        return settle_outcomes(answer, len(claims))

    @_reading
    def estimate_gas(self, call: Call, sender: str) -> int:
        """Gas that a call would use now. Raises ContractReverted when it would revert."""
        transaction: TxParams = {
            "from": to_checksum_address(sender),
            "to": to_checksum_address(call.to),
            "data": HexBytes(call.data),
        }
        try:
            return int(self._w3.eth.estimate_gas(transaction))
        except (ContractLogicError, Web3RPCError) as error:
            raise _revert_or_trouble(error) from error

    @_reading
    def fees(self) -> Fees:
        """The next block's base fee, and the median tip of the last few blocks that had any."""
        history = self._w3.eth.fee_history(_FEE_WINDOW, "latest", [_FEE_PERCENTILE])
        blocks = zip(history["reward"], history["gasUsedRatio"], strict=True)
        tips = sorted(int(reward[0]) for reward, used in blocks if reward and used > 0)
        tip = tips[len(tips) // 2] if tips else 0
        return Fees(base_fee=int(history["baseFeePerGas"][-1]), tip=tip)

    @_reading
    def next_nonce(self, account: str, *, final: bool) -> int:
        """How many of the account's transactions are in the latest, or in the final, block."""
        tag: BlockIdentifier = "finalized" if final else "latest"
        return int(self._w3.eth.get_transaction_count(to_checksum_address(account), tag))

    def send(self, raw: bytes) -> Delivery:
        """Hand over a signed transaction; once, because the caller keeps it for another time.

        Raises:
            TransactionRefused: when the endpoint won't have it.
            ChainUnavailable: when there is no answer; it may have got there all the same.
        """
        try:
            self._w3.eth.send_raw_transaction(HexBytes(raw))
        except Web3RPCError as error:
            if _is_limit(error):
                raise EndpointBusy from error
            return delivery_of(_words(error))
        except requests.RequestException as error:
            raise _trouble(error) from error
        except _GARBAGE as error:
            raise ChainUnavailable(f"it answers garbage ({type(error).__name__})") from error
        return Delivery.SENT

    @_reading
    def mined(self, transaction: bytes) -> Mined | None:
        """A transaction's receipt, None as long as it is not in a block."""
        try:
            receipt = self._w3.eth.get_transaction_receipt(HexBytes(transaction))
        except TransactionNotFound:
            return None
        return Mined(block=int(receipt["blockNumber"]), success=bool(receipt["status"]))

    @_reading
    def fee(self, transaction: bytes) -> int | None:
        """What a transaction has cost in wei, None as long as it is not in a block."""
        try:
            receipt = self._w3.eth.get_transaction_receipt(HexBytes(transaction))
        except TransactionNotFound:
            return None
        return int(receipt["gasUsed"]) * int(receipt["effectiveGasPrice"])

    def is_known(self, transaction: bytes) -> bool:
        """Whether the endpoint has a transaction, in its pool or in a block."""
        try:
            self._w3.eth.get_transaction(HexBytes(transaction))
        except TransactionNotFound:
            return False
        return True

    @_reading
    def balance(self, account: str) -> int:
        """What an account has of the native coin, in wei."""
        return int(self._w3.eth.get_balance(to_checksum_address(account)))

    def _block(self, which: BlockIdentifier) -> Block:
        return _block_of(self._w3.eth.get_block(which))


def bloom_admits(bloom: bytes, address: str) -> bool:
    """Whether a block with this `logsBloom` may hold a log of `address` (Yellow Paper, 4.4.1)."""
    digest = keccak(hexstr=address)
    bits = (int.from_bytes(digest[i : i + 2], "big") & 2047 for i in (0, 2, 4))
    return all(int.from_bytes(bloom, "big") >> bit & 1 for bit in bits)


def _block_of(block: BlockData) -> Block:
    return Block(
        number=int(block["number"]), hash=bytes(block["hash"]), time=int(block["timestamp"])
    )


def fact_of(event: events.Event) -> Event | None:
    """A decoded log as a fact, None for events that the oracle does not go by."""
    place = Place(event.block, event.log_index, event.transaction)
    args = event.args
    match event.name:
        case "JobOpened":
            return JobOpened(place, bytes(args["job_id"]), terms_from_event(args))
        case "JobAssigned":
            return JobAssigned(place, bytes(args["job_id"]), args["node_id"])
        case "JobToppedUp":
            return JobToppedUp(place, bytes(args["job_id"]), args["amount"], args["funded"])
        case "JobCancelled":
            return JobCancelled(place, bytes(args["job_id"]), args["payable_until"])
        case "JobVoided":
            return JobVoided(place, bytes(args["job_id"]))
        case "Settled":
            return Settled(
                place,
                job_id=bytes(args["job_id"]),
                receipt_digest=bytes(args["receipt_digest"]),
                records=args["records"],
                epochs=args["epochs"],
                amount=args["amount"],
            )
        case "JobClosed":
            return JobClosed(
                place,
                job_id=bytes(args["job_id"]),
                paid=args["paid"],
                refunded=args["refunded"],
                output_digest=bytes(args["output_digest"]),
            )
        case "EnclaveRegistered":
            return EnclaveRegistered(
                place,
                enclave_key=args["enclave_key"],
                node_id=args["node_id"],
                measurement=bytes(args["measurement"]),
                attestation_digest=bytes(args["attestation_digest"]),
                encryption_key_digest=bytes(args["encryption_key_digest"]),
                expiry=args["expiry"],
            )
        case "EnclaveQuoted":
            return EnclaveQuoted(place, args["enclave_key"], bytes(args["platform"]))
        case "PlatformJudged":
            return PlatformJudged(
                place,
                platform=bytes(args["platform"]),
                node_id=args["node_id"],
                module_svn=args["module_svn"],
                expiry=args["expiry"],
            )
        case "PlatformRevoked":
            return PlatformRevoked(place, bytes(args["platform"]))
        case "EnclaveRevoked":
            return EnclaveRevoked(place, args["enclave_key"])
        case "MeasurementAllowed" | "MeasurementRevoked":
            allowed = event.name == "MeasurementAllowed"
            return MeasurementChanged(place, bytes(args["measurement"]), allowed)
        case _:
            return None


def _call(kind: CallKind, function: ContractFunction) -> Call:
    return Call(kind, str(function.address), bytes(HexBytes(function._encode_transaction_data())))


def _revert_or_trouble(error: ContractLogicError | Web3RPCError) -> Exception:
    """ContractReverted, unless the endpoint speaks of itself and not of the call."""
    if isinstance(error, ContractLogicError):
        return reverted(error)
    answer = (error.rpc_response or {}).get("error", {})
    if answer.get("code") in _REVERT_CODES and "revert" in _words(error).lower():
        return reverted(error)
    return _trouble(error)


def _trouble(error: requests.RequestException | Web3RPCError) -> ChainUnavailable:
    """What keeps an endpoint from answering."""
    if isinstance(error, Web3RPCError):
        return EndpointBusy() if _is_limit(error) else ChainUnavailable(_words(error))
    response = error.response
    if response is not None and response.status_code == _TOO_MANY_REQUESTS:
        after = response.headers.get("Retry-After", "")
        return EndpointBusy(float(after) if after.isdigit() else None)
    return ChainUnavailable(_words(error))


def _is_limit(error: Web3RPCError) -> bool:
    answer = (error.rpc_response or {}).get("error", {})
    has_code = isinstance(answer, dict) and answer.get("code") == _LIMIT_EXCEEDED
    return has_code or is_rate_limit(_words(error))


def _words(error: Exception) -> str:
    """What the endpoint said, without the URL, which may carry a key."""
    if isinstance(error, requests.RequestException):
        return type(error).__name__
    if isinstance(error, Web3RPCError) and error.rpc_response:
        answer = error.rpc_response.get("error", {})
        return str(answer.get("message", "no message") if isinstance(answer, dict) else answer)
    return str(getattr(error, "message", None) or error)
