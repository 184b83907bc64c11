"""Prometheus metrics, read from the store when they are asked for: they cannot drift from it."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from oracle.endpoints import Endpoints, EndpointState
from oracle.gas import KeyState
from oracle.keyring import Keyring
from oracle.loops import Loop
from oracle.store.database import Store
from oracle.store.tables import AttestationRow, CursorRow, EscrowRow, ReceiptRow, TransactionRow
from oracle.watcher import Watcher

Metric = CounterMetricFamily | GaugeMetricFamily

_TABLES = {
    "receipts": (ReceiptRow, ReceiptRow.status),
    "escrows": (EscrowRow, EscrowRow.status),
    "attestations": (AttestationRow, AttestationRow.status),
    "transactions": (TransactionRow, TransactionRow.state),
}


class Metrics(Collector):
    """One oracle's metrics, in a registry of their own."""

    def __init__(
        self,
        store: Store,
        watcher: Watcher,
        loops: Sequence[Loop],
        *,
        keyring: Keyring | None = None,
        endpoints: Endpoints | None = None,
    ) -> None:
        self._store = store
        self._watcher = watcher
        self._loops = loops
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
        with self._store.read() as session:
            for name, (table, status) in _TABLES.items():
                gauge = GaugeMetricFamily(
                    f"rapha_oracle_{name}", f"Stored {name} by status.", labels=["status"]
                )
                counts = select(status, func.count()).select_from(table).group_by(status)
                for value, count in session.execute(counts):
                    gauge.add_metric([str(value)], count)
                yield gauge
            block = session.scalar(select(CursorRow.block))
        yield GaugeMetricFamily(
            "rapha_oracle_block", "The finalized block that the facts reach to.", value=block or 0
        )
        if self._watcher.behind is not None:
            yield GaugeMetricFamily(
                "rapha_oracle_blocks_behind",
                "Finalized blocks that the facts do not reach to.",
                value=self._watcher.behind,
            )
        failures = CounterMetricFamily(
            "rapha_oracle_loop_failures", "Failed rounds by loop.", labels=["loop"]
        )
        for loop in self._loops:
            failures.add_metric([loop.name], loop.failures)
        yield failures
        if self._keyring is not None:
            yield from key_metrics(self._keyring.states())
        if self._endpoints is not None:
            yield from endpoint_metrics(self._endpoints.states())


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
