"""Prometheus metrics, read from the store when they are asked for: they cannot drift from it.

Where the database or the endpoint does not answer, its `_up` gauge is 0 and what it would tell is
left out: no stale number is passed off as a present one.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from oracle.endpoints import Endpoints, EndpointState
from oracle.errors import ChainUnavailable
from oracle.facts import Chain
from oracle.gas import KeyState
from oracle.gate import Gate
from oracle.keyring import Keyring
from oracle.loops import Loop
from oracle.messages import Status
from oracle.store.database import Store
from oracle.store.tables import (
    AttestationRow,
    CursorRow,
    EscrowRow,
    FeeRow,
    QuoteRow,
    ReceiptRow,
    TransactionRow,
)
from oracle.transactions import TransactionState
from oracle.watcher import Watcher

Metric = CounterMetricFamily | GaugeMetricFamily

_TABLES: dict[str, tuple[type, object, type[StrEnum]]] = {
    "receipts": (ReceiptRow, ReceiptRow.status, Status),
    "escrows": (EscrowRow, EscrowRow.status, Status),
    "attestations": (AttestationRow, AttestationRow.status, Status),
    "quotes": (QuoteRow, QuoteRow.status, Status),
    "transactions": (TransactionRow, TransactionRow.state, TransactionState),
}


class Metrics(Collector):
    """One oracle's metrics, in a registry of their own. `clock` gives Unix seconds."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        watcher: Watcher,
        gate: Gate,
        loops: Sequence[Loop],
        clock: Callable[[], int],
        *,
        keyring: Keyring | None = None,
        endpoints: Endpoints | None = None,
    ) -> None:
        self._store = store
        self._chain = chain
        self._watcher = watcher
        self._gate = gate
        self._loops = loops
        self._clock = clock
        self._keyring = keyring
        self._endpoints = endpoints
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: describing must not need the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        try:
            stored = self._stored()
        except SQLAlchemyError:
            stored = []
        yield _gauge("database_up", "Whether the database answers.", bool(stored))
        yield from stored
        yield from self._endpoint()
        yield from self._followed()
        yield from self._rounds()

    def _stored(self) -> list[Metric]:
        with self._store.read() as session:
            found: list[Metric] = [*_counts(session), *self._due(session)]
            cursor = session.get(CursorRow, 1)
            replaced = session.scalar(
                select(func.count()).select_from(TransactionRow).where(TransactionRow.attempt > 1)
            )
            wei = sum(session.scalars(select(FeeRow.wei)))
        if cursor is not None:
            what = "The finalized block that the facts reach to."
            found.append(_gauge("block", what, cursor.block))
            what = "The operator's clock less the time of that block."
            found.append(_gauge("clock_ahead_seconds", what, self._clock() - cursor.block_time))
        return [
            *found,
            _counter("replacements", "Attempts that took another's place.", replaced or 0),
            _counter("fees_wei", "What mined transactions have cost.", wei),
            _gauge("intake_paused", "Whether nothing is taken in.", self._gate.pause() is not None),
        ]

    def _due(self, session: Session) -> Iterator[Metric]:
        due = ReceiptRow.status.in_((Status.ACCEPTED, Status.SUBMITTED))
        oldest = session.scalar(select(func.min(ReceiptRow.received_at)).where(due))
        age = 0 if oldest is None else max(self._clock() - oldest, 0)
        what = "Since when the oldest receipt that is due has not been settled."
        yield _gauge("oldest_unsettled_receipt_age_seconds", what, age)
        pending = TransactionRow.state == TransactionState.PENDING
        nonces = select(func.count(TransactionRow.nonce.distinct())).where(pending)
        what = "Nonces whose transaction is not final."
        yield _gauge("transactions_in_flight", what, session.scalar(nonces) or 0)

    def _endpoint(self) -> Iterator[Metric]:
        try:
            head = self._chain.latest()
        except ChainUnavailable:
            head = None
        yield _gauge("rpc_up", "Whether the RPC endpoint answers.", head is not None)
        if head is not None:
            yield _gauge("head_block", "The newest block of the endpoint.", head)

    def _followed(self) -> Iterator[Metric]:
        if self._watcher.behind is not None:
            what = "Finalized blocks that the facts do not reach to."
            yield _gauge("blocks_behind", what, self._watcher.behind)
        what = "How often final blocks were gone, since the start."
        yield _counter("reorgs", what, self._watcher.reorgs)
        what = "How often the endpoint's answers did not hold together, since the start."
        yield _counter("incomplete_histories", what, self._watcher.incomplete)

    def _rounds(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "rapha_oracle_loop_failures", "Failed rounds by loop.", labels=["loop"]
        )
        up = GaugeMetricFamily(
            "rapha_oracle_loop_up", "Whether the loop's last round went well.", labels=["loop"]
        )
        last = GaugeMetricFamily(
            "rapha_oracle_loop_last_success_timestamp_seconds",
            "When a round last went well (Unix seconds).",
            labels=["loop"],
        )
        for loop in self._loops:
            failures.add_metric([loop.name], loop.failures)
            up.add_metric([loop.name], loop.trouble() is None)
            if loop.succeeded_at is not None:
                last.add_metric([loop.name], loop.succeeded_at)
        yield from (failures, up, last)
        if self._keyring is not None:
            yield from key_metrics(self._keyring.states())
        if self._endpoints is not None:
            yield from endpoint_metrics(self._endpoints.states())


def _counts(session: Session) -> Iterator[Metric]:
    for name, (table, status, states) in _TABLES.items():
        gauge = GaugeMetricFamily(
            f"rapha_oracle_{name}", f"Stored {name} by status.", labels=["status"]
        )
        query = select(status, func.count()).select_from(table).group_by(status)  # type: ignore[call-overload]
        counts = {str(value): count for value, count in session.execute(query)}
        # all of them, also those of which there are none: an alert on nothing never fires
        for state in states:
            gauge.add_metric([state], counts.get(state, 0))
        yield gauge


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"rapha_oracle_{name}", what, value=value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"rapha_oracle_{name}", what, value=value)


def key_metrics(states: Sequence[KeyState]) -> list[Metric]:
    """Each relaying key's gas money, and whether it works."""
    balance = _by("relayer_balance_wei", "Native coin of each relaying key.", "key")
    batches = _by("relayer_batches_left", "Full batches that a key can pay now.", "key")
    low = _by("relayer_low", "1 when a key is to be refilled.", "key")
    trouble = _by("relayer_in_trouble", "1 when a key cannot send for now.", "key")
    pending = _by("relayer_pending", "Nonces of a key that are not final.", "key")
    for state in states:
        if state.balance is not None:
            balance.add_metric([state.address], state.balance)
        if state.batches is not None:
            batches.add_metric([state.address], state.batches)
        low.add_metric([state.address], state.low)
        trouble.add_metric([state.address], state.trouble is not None)
        pending.add_metric([state.address], state.pending)
    return [balance, batches, low, trouble, pending]


def endpoint_metrics(states: Sequence[EndpointState]) -> list[Metric]:
    """Each RPC endpoint by its host, and what was wrong with it."""
    good = _by("endpoint_up", "1 when an endpoint is gone by.", "endpoint")
    lag = _by("endpoint_lag_blocks", "Blocks behind the best endpoint.", "endpoint")
    faults = CounterMetricFamily(
        "rapha_oracle_endpoint_faults", "Faults by endpoint.", labels=["endpoint", "fault"]
    )
    for state in states:
        good.add_metric([state.name], state.fault is None)
        if state.lag is not None:
            lag.add_metric([state.name], state.lag)
        for fault, count in state.faults.items():
            faults.add_metric([state.name, fault], count)
    return [good, lag, faults]


def _by(name: str, help_text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"rapha_oracle_{name}", help_text, labels=[label])
