"""Several RPC endpoints as one chain: failover, lag, and disagreement that stops deciding.

What the oracle decides on must be said by several endpoints alike: the final block, logs, receipts,
the committee. Everything else is read from the best one. An endpoint that does not work, limits
requests or lags is put aside for a while, and checked anew before it is believed again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from urllib.parse import urlsplit

import structlog

from oracle.errors import (
    ChainUnavailable,
    Delivery,
    EndpointBusy,
    EndpointsDisagree,
    TransactionRefused,
)
from oracle.facts import Block, Call, Chain, Event, Fees, Header, Mined, Platform, SittingCommittee
from settlement.contracts import Claim, Outcome, WrongChain
from settlement.dcap import QuoteParts
from settlement.errors import RaphaError
from settlement.models import Authorization, EnclaveRegistration, JobTerms, PlatformVerdict
from settlement.reverts import ContractReverted
from settlement.types import to_hex

T = TypeVar("T")

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds that an endpoint is put aside: doubled with each failure in a row, up to the longest."""

_log = structlog.get_logger(__name__)


class Fault(StrEnum):
    """Why an endpoint is not gone by."""

    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate limited"
    WRONG_CHAIN = "wrong chain"
    LAGS = "lags"
    DISAGREES = "disagrees"


@dataclass(frozen=True)
class EndpointPolicy:
    """How many endpoints must say the same, and how many blocks one may be behind.

    `agree` None means two where there are three or more, else one.
    """

    agree: int | None = None
    max_lag: int = 10

    def needed(self, count: int) -> int:
        """How many of `count` endpoints must agree."""
        return (2 if count >= 3 else 1) if self.agree is None else self.agree


@dataclass(frozen=True)
class EndpointState:
    """One endpoint, as operators see it; `fault` None while it is gone by."""

    name: str
    fault: Fault | None
    lag: int | None
    faults: dict[Fault, int]


class Endpoint:
    """One endpoint and what is known of it. `name` carries nothing secret."""

    def __init__(self, name: str, chain: Chain, clock: Callable[[], float]) -> None:
        self.name = name
        self.chain = chain
        self.height: int | None = None
        self.final: int | None = None
        self.fault: Fault | None = None
        self.faults: Counter[Fault] = Counter()
        self._clock = clock
        self._in_a_row = 0
        self._until = 0.0
        self._is_checked = False

    def ask(self, question: Callable[[Chain], T]) -> T:
        """An answer; the endpoint is put aside when there is none.

        Raises:
            ChainUnavailable, WrongChain: it is not to be gone by now.
        """
        try:
            if not self._is_checked:
                self.chain.check()
            answer = question(self.chain)
        except EndpointBusy as error:
            self._put_aside(Fault.RATE_LIMITED, str(error), error.after or 0.0)
            raise
        except ChainUnavailable as error:
            self._put_aside(Fault.UNAVAILABLE, error.reason)
            raise
        except WrongChain as error:
            self._put_aside(Fault.WRONG_CHAIN, str(error))
            raise
        except RaphaError:  # an answer, too
            self._works()
            raise
        self._works()
        return answer

    def is_out(self) -> bool:
        """Whether the endpoint is put aside at this moment."""
        return self._clock() < self._until

    def note(self, fault: Fault) -> None:
        """Count a fault that shows only beside other endpoints."""
        if self.fault is not fault:
            _log.warning("endpoint is not gone by", endpoint=self.name, fault=fault)
        self.faults[fault] += 1
        self.fault = fault

    def clear(self, fault: Fault) -> None:
        """The endpoint does not have this fault any more."""
        if self.fault is fault:
            self.fault = None

    def _works(self) -> None:
        self._is_checked = True
        self._in_a_row, self._until = 0, 0.0
        if self.fault not in (Fault.LAGS, Fault.DISAGREES, None):
            _log.info("endpoint works again", endpoint=self.name)
            self.fault = None

    def _put_aside(self, fault: Fault, reason: str, at_least: float = 0.0) -> None:
        self._in_a_row += 1
        pause = min(FIRST_PAUSE * 2 ** min(self._in_a_row - 1, 10), LONGEST_PAUSE)
        self._until = self._clock() + max(pause, at_least)
        self._is_checked = False
        if self.fault is not fault:
            _log.warning("endpoint put aside", endpoint=self.name, fault=fault, reason=reason)
        self.faults[fault] += 1
        self.fault = fault


class Endpoints:
    """`oracle.facts.Chain` over several endpoints.

    Reads that decide raise `EndpointsDisagree` when endpoints contradict each other about what is
    final, and `ChainUnavailable` when too few answer.
    """

    def __init__(
        self,
        chains: Sequence[tuple[str, Chain]],
        policy: EndpointPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`chains` are named by `names_of`, the preferred ones first."""
        self._endpoints = [Endpoint(name, chain, clock) for name, chain in chains]
        self._needed = policy.needed(len(self._endpoints))
        self._max_lag = policy.max_lag
        self._final = self._height = -1

    def states(self) -> list[EndpointState]:
        """Each endpoint as it was found last."""
        heights = [e.height for e in self._endpoints if e.height is not None]
        top = max(heights, default=0)
        return [
            EndpointState(
                name=endpoint.name,
                fault=endpoint.fault,
                lag=None if endpoint.height is None else top - endpoint.height,
                faults=dict(endpoint.faults),
            )
            for endpoint in self._endpoints
        ]

    # Whom to ask

    def _usable(self) -> list[Endpoint]:
        """The endpoints to ask, the best first; where all are put aside, those without a limit."""
        usable = [e for e in self._endpoints if not e.is_out()]
        if not usable:
            usable = [e for e in self._endpoints if e.fault is not Fault.RATE_LIMITED]
        return sorted(usable, key=lambda endpoint: endpoint.fault is not None)

    def _trusted(self, block: int | None = None) -> list[Endpoint]:
        """The usable endpoints that do not lag, and for which this block is final."""
        return [
            endpoint
            for endpoint in self._usable()
            if endpoint.fault is not Fault.LAGS
            and (block is None or endpoint.final is None or endpoint.final >= block)
        ]

    def _answers(
        self, endpoints: Sequence[Endpoint], question: Callable[[Chain], T]
    ) -> Iterator[tuple[Endpoint, T]]:
        for endpoint in endpoints:
            try:
                yield endpoint, endpoint.ask(question)
            except (ChainUnavailable, WrongChain):
                continue  # it is put aside, named, and counted

    def _too_few(self, have: int) -> ChainUnavailable:
        why = "; ".join(f"{e.name} {e.fault}" for e in self._endpoints if e.fault is not None)
        return ChainUnavailable(f"{have} of {self._needed} endpoints answer ({why or 'no fault'})")

    def _read(self, question: Callable[[Chain], T]) -> T:
        """The best endpoint's answer."""
        failed: RaphaError | None = None
        for endpoint in self._trusted() or self._usable():
            try:
                return endpoint.ask(question)
            except (ChainUnavailable, WrongChain) as error:
                failed = error
        raise failed or self._too_few(0)

    def _several(self, question: Callable[[Chain], T], block: int | None = None) -> list[T]:
        """As many answers as must agree."""
        found = []
        for _, answer in self._answers(self._trusted(block), question):
            found.append(answer)
            if len(found) == self._needed:
                return found
        raise self._too_few(len(found))

    def _same(self, question: Callable[[Chain], T]) -> T:
        """What several endpoints say of the newest block; they may be a moment apart."""
        first, *others = self._several(question)
        if any(other != first for other in others):
            raise ChainUnavailable("endpoints differ about the newest block")
        return first

    def _disagreement(self, what: str, answers: Sequence[tuple[Endpoint, str]]) -> Exception:
        for endpoint, _ in answers:
            endpoint.note(Fault.DISAGREES)
        error = EndpointsDisagree(what, {endpoint.name: answer for endpoint, answer in answers})
        _log.error("endpoints disagree", what=what, answers=error.answers)
        return error

    # What the oracle asks

    def check(self) -> None:
        """Make sure of every endpoint that answers.

        Raises:
            WrongChain: one of them is not on this chain, or has not these contracts.
            ChainUnavailable: none answers.
        """
        failed: RaphaError | None = None
        working = 0
        for endpoint in self._endpoints:
            try:
                endpoint.ask(lambda _: None)  # asking checks it first
                working += 1
            except ChainUnavailable as error:
                failed = error
        if failed and not working:
            raise failed

    def finalized(self) -> Block:
        """The newest block that enough endpoints call final, and none contradicts."""
        answers = list(self._answers(self._usable(), lambda chain: chain.finalized()))
        if len(answers) < self._needed:
            raise self._too_few(len(answers))
        numbers = sorted((block.number for _, block in answers), reverse=True)
        agreed = numbers[self._needed - 1]
        ahead: list[tuple[Endpoint, Block]] = []
        behind: list[tuple[Endpoint, Block]] = []
        for endpoint, block in answers:
            endpoint.final = block.number
            if agreed - block.number > self._max_lag or self._is_behind(endpoint):
                endpoint.note(Fault.LAGS)
                continue
            endpoint.clear(Fault.LAGS)
            (ahead if block.number >= agreed else behind).append((endpoint, block))
        found = self._compare(agreed, ahead)
        for endpoint, block in behind:
            self._compare(block.number, [(endpoint, block), *ahead])
        for endpoint, _ in answers:
            endpoint.clear(Fault.DISAGREES)
        self._final = agreed
        return found

    def _compare(self, number: int, answers: Sequence[tuple[Endpoint, Block]]) -> Block:
        """The block at a height that is final for all of these endpoints."""
        found: list[tuple[Endpoint, Block]] = []
        others = [endpoint for endpoint, block in answers if block.number != number]
        found += [(endpoint, block) for endpoint, block in answers if block.number == number]
        for endpoint, block in self._answers(others, lambda chain: chain.block(number)):
            if block is None:
                raise ChainUnavailable(f"{endpoint.name} lacks block {number}, which is final")
            found.append((endpoint, block))
        if len({block.hash for _, block in found}) > 1:
            said = [(endpoint, to_hex(block.hash)) for endpoint, block in found]
            raise self._disagreement(f"block {number}", said)
        if not found:
            raise self._too_few(0)
        return found[0][1]

    def latest(self) -> int:
        """The newest block's number, as enough endpoints have it."""
        heights = []
        for endpoint, height in self._answers(self._usable(), lambda chain: chain.latest()):
            endpoint.height = height
            heights.append(height)
        if len(heights) < self._needed:
            raise self._too_few(len(heights))
        self._height = sorted(heights, reverse=True)[self._needed - 1]
        for endpoint in self._endpoints:
            if self._is_behind(endpoint):
                endpoint.note(Fault.LAGS)
        return self._height

    def _is_behind(self, endpoint: Endpoint) -> bool:
        return endpoint.height is not None and self._height - endpoint.height > self._max_lag

    def block(self, number: int) -> Block | None:
        """The block at a height that is final, None above the tip."""
        asked = list(self._answers(self._trusted(), lambda chain: chain.block(number)))
        found = [(endpoint, block) for endpoint, block in asked if block is not None]
        if len({block.hash for _, block in found}) > 1:
            said = [(endpoint, to_hex(block.hash)) for endpoint, block in found]
            raise self._disagreement(f"block {number}", said)
        if len(asked) < self._needed or 0 < len(found) < self._needed:
            raise self._too_few(len(found))
        return found[0][1] if found else None

    def events(self, first: int, last: int) -> Sequence[Event]:
        """All events of vault and enclave registry in these final blocks, in order."""
        what = f"the events of blocks {first} to {last}"
        return self._final_list(what, last, lambda chain: chain.events(first, last))

    def headers(self, first: int, last: int) -> Sequence[Header]:
        """The headers of these final blocks, in order."""
        what = f"the headers of blocks {first} to {last}"
        return self._final_list(what, last, lambda chain: chain.headers(first, last))

    def _final_list(
        self, what: str, last: int, question: Callable[[Chain], Sequence[T]]
    ) -> Sequence[T]:
        """What as many endpoints as must agree say of blocks up to `last`, which are final."""
        found: list[tuple[Endpoint, list[T]]] = []
        for endpoint, answer in self._answers(self._trusted(last), question):
            found.append((endpoint, list(answer)))
            if any(other != found[0][1] for _, other in found):
                said = [(endpoint, f"{len(items)} of them") for endpoint, items in found]
                raise self._disagreement(what, said)
            if len(found) == self._needed:
                return found[0][1]
        raise self._too_few(len(found))

    def mined(self, transaction: bytes) -> Mined | None:
        """A transaction's receipt, None as long as it is not in a block for enough endpoints."""
        found: list[tuple[Endpoint, Mined | None]] = []
        for endpoint, mined in self._answers(
            self._trusted(), lambda chain: chain.mined(transaction)
        ):
            found.append((endpoint, mined))
            if sum(other == mined for _, other in found) == self._needed:
                return mined
        self._check_receipts(transaction, found)
        if len(found) < self._needed:
            raise self._too_few(len(found))
        return None  # some are a moment behind

    def _check_receipts(
        self, transaction: bytes, found: Sequence[tuple[Endpoint, Mined | None]]
    ) -> None:
        block = max((mined.block for _, mined in found if mined), default=None)
        if block is None or block > self._final:
            return
        knowing = [(e, mined) for e, mined in found if e.final is not None and e.final >= block]
        if len({mined for _, mined in knowing}) > 1:
            said = [(endpoint, str(mined)) for endpoint, mined in knowing]
            raise self._disagreement(f"the receipt of {to_hex(transaction)}", said)

    def next_nonce(self, account: str, *, final: bool) -> int:
        """How many of the account's transactions enough endpoints have in a block."""
        return min(self._several(lambda chain: chain.next_nonce(account, final=final)))

    def committee(self) -> SittingCommittee:
        """The present committee."""
        return self._same(lambda chain: chain.committee())

    def is_measurement_allowed(self, measurement: bytes) -> bool:
        """Whether governance allows a measurement."""
        return self._same(lambda chain: chain.is_measurement_allowed(measurement))

    def is_node_active(self, node_id: int) -> bool:
        """Whether a node is registered and takes jobs."""
        return self._same(lambda chain: chain.is_node_active(node_id))

    def platform(self, platform: bytes) -> Platform:
        """What the best endpoint's newest block says about a platform: the contract checks anew."""
        return self._read(lambda chain: chain.platform(platform))

    def simulate_settle(self, claims: Sequence[Claim]) -> Sequence[Outcome]:
        """Each item's outcome, were the batch settled now.

        Refusing on one endpoint's word would let it hold back others' money.
        """
        return self._unless_refused(
            lambda chain: chain.simulate_settle(claims),
            lambda outcomes: all(outcome is Outcome.PAID for outcome in outcomes),
        )

    def estimate_gas(self, call: Call, sender: str) -> int:
        """Gas that a call would use now. A revert is believed when enough endpoints say it."""
        return self._unless_refused(lambda chain: chain.estimate_gas(call, sender), lambda _: True)

    def _unless_refused(self, question: Callable[[Chain], T], is_good: Callable[[T], bool]) -> T:
        try:
            answer = self._read(question)
            if is_good(answer) or self._needed == 1:
                return answer
        except ContractReverted:
            if self._needed == 1:
                raise

        def reason(chain: Chain) -> T | str:
            try:
                return question(chain)
            except ContractReverted as refusal:
                return refusal.code

        agreed = self._same(reason)
        return self._read(question) if isinstance(agreed, str) else agreed

    def fees(self) -> Fees:
        """Fees as they are now."""
        return self._read(lambda chain: chain.fees())

    def is_known(self, transaction: bytes) -> bool:
        """Whether the best endpoint has a transaction, in its pool or in a block."""
        return self._read(lambda chain: chain.is_known(transaction))

    def fee(self, transaction: bytes) -> int | None:
        """What a transaction has cost in wei, None as long as it is not in a block."""
        return self._read(lambda chain: chain.fee(transaction))

    def balance(self, account: str) -> int:
        """What an account has of the native coin, in wei."""
        return self._read(lambda chain: chain.balance(account))

    def send(self, raw: bytes) -> Delivery:
        """Hand a signed transaction to all endpoints; one that takes it is enough.

        Raises:
            TransactionRefused: when those that answer won't have it.
            ChainUnavailable: when none answers.
        """
        deliveries: list[Delivery] = []
        refused: TransactionRefused | None = None
        for endpoint in self._usable():
            try:
                deliveries.append(endpoint.ask(lambda chain: chain.send(raw)))
            except TransactionRefused as error:
                refused = refused or error
            except (ChainUnavailable, WrongChain):
                continue  # it is put aside, named, and counted
        if deliveries:
            return min(deliveries, key=list(Delivery).index)
        raise refused or self._too_few(0)

    # Encoding asks nobody

    def settle_call(self, claims: Sequence[Claim]) -> Call:
        """Calldata that settles a batch."""
        return self._endpoints[0].chain.settle_call(claims)

    def register_call(self, registration: EnclaveRegistration, signatures: bytes) -> Call:
        """Calldata that registers an enclave; `signatures` as the committee takes them."""
        return self._endpoints[0].chain.register_call(registration, signatures)

    def register_platform_call(self, parts: QuoteParts) -> Call:
        """Calldata that registers a quote's platform by the certificates that came with it."""
        return self._endpoints[0].chain.register_platform_call(parts)

    def judge_call(self, verdict: PlatformVerdict, signatures: bytes) -> Call:
        """Calldata that brings a verdict; `signatures` as the committee takes them."""
        return self._endpoints[0].chain.judge_call(verdict, signatures)

    def register_quote_call(
        self, parts: QuoteParts, enclave_key: str, encryption_key_digest: bytes
    ) -> Call:
        """Calldata that registers an enclave key by a quote."""
        return self._endpoints[0].chain.register_quote_call(
            parts, enclave_key, encryption_key_digest
        )

    def open_call(self, terms: JobTerms, authorization: Authorization) -> Call:
        """Calldata that opens a job by the payer's authorization."""
        return self._endpoints[0].chain.open_call(terms, authorization)


def names_of(urls: Sequence[str]) -> list[str]:
    """A name for each endpoint: its host, numbered where it comes again.

    Never the path, the query or the user: these may carry a key.
    """
    names: list[str] = []
    seen: Counter[str] = Counter()
    for url in urls:
        parts = urlsplit(url)
        host = parts.hostname or "endpoint"
        name = f"{host}:{parts.port}" if parts.port else host
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names
