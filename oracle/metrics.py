"""Prometheus metrics, read from the store when they are asked for: they cannot drift from it."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

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

    def __init__(self, store: Store, watcher: Watcher, loops: Sequence[Loop]) -> None:
        self._store = store
        self._watcher = watcher
        self._loops = loops
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
