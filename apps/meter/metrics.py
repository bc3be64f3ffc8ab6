"""How the gateway is, for Prometheus, on a port of the loopback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.meter.intake import Tally
from apps.meter.outbox import Counts
from apps.meter.sender import Health


class State(NamedTuple):
    """A moment of the gateway."""

    tally: Tally
    counts: Counts
    health: Health


class _Gateway(Collector):
    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        tally, counts, health = self._state()
        yield CounterMetricFamily(
            "ctt_meter_accepted", "Readings that passed all checks.", value=tally.accepted
        )
        refused = CounterMetricFamily(
            "ctt_meter_refused", "What was not passed on, by reason.", labels=["reason"]
        )
        for kind, count in sorted(tally.refused.items()):
            refused.add_metric([kind], count)
        yield refused
        readings = GaugeMetricFamily("ctt_meter_readings", "Readings of the outbox.", labels=["state"])
        for name in ("waiting", "final", "refused"):
            readings.add_metric([name], getattr(counts, name))
        yield readings
        yield CounterMetricFamily("ctt_meter_transactions", "Transactions that were sent.", value=health.sent)
        yield CounterMetricFamily(
            "ctt_meter_resent", "Transactions that were sent again.", value=health.sent_again
        )
        yield GaugeMetricFamily(
            "ctt_meter_failures", "Rounds without success, in a row.", value=health.failures
        )
        yield GaugeMetricFamily(
            "ctt_meter_outbox_full", "1 while the disk takes nothing.", value=bool(tally.full)
        )
        if tally.last:
            name = "ctt_meter_last_reading_timestamp_seconds"
            yield GaugeMetricFamily(name, "Time of the last reading.", value=tally.last.time_ms / 1_000)


@contextmanager
def served(port: int, state: Callable[[], State]) -> Iterator[None]:
    """At http://127.0.0.1:port/metrics. Raises: OSError."""
    registry = CollectorRegistry()
    registry.register(_Gateway(state))
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
