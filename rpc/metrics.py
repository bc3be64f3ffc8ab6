"""How the door is, for Prometheus, and the page on which a node's own metrics stand beside it."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class DoorState(NamedTuple):
    """A moment of the door; what is counted, since the start."""

    connections: int
    sockets: int
    held_bytes: int
    turned_away: int  # connections that found no place
    refused: Mapping[int, int]  # requests that are no JSON-RPC, by HTTP status
    answered: Mapping[tuple[str, str], int]  # calls, by method and outcome
    certificate_ends: datetime | None


class _Door(Collector):
    def __init__(self, state: Callable[[], DoorState]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state()
        calls = CounterMetricFamily(
            "ctt_rpc_requests", "Calls of JSON-RPC that were answered.", labels=["method", "outcome"]
        )
        for (method, outcome), count in sorted(state.answered.items()):
            calls.add_metric([method, outcome], count)
        yield calls
        refused = CounterMetricFamily(
            "ctt_rpc_refused",
            "What never became a call: connections without a place, requests with an HTTP status.",
            labels=["reason"],
        )
        refused.add_metric(["connection"], state.turned_away)
        for status, count in sorted(state.refused.items()):
            refused.add_metric([f"http_{status}"], count)
        yield refused
        yield GaugeMetricFamily(
            "ctt_rpc_connections", "Open connections, WebSockets too.", value=state.connections
        )
        yield GaugeMetricFamily("ctt_rpc_websockets", "Open WebSockets.", value=state.sockets)
        yield GaugeMetricFamily(
            "ctt_rpc_held_bytes", "Requests and replies that are under way.", value=state.held_bytes
        )
        ends = GaugeMetricFamily(
            "ctt_rpc_certificate_expiry_timestamp_seconds", "When the certificate of --rpc-tls-cert ends."
        )
        if state.certificate_ends is not None:
            ends.add_metric([], state.certificate_ends.timestamp())
        yield ends


def make_registry(state: Callable[[], DoorState]) -> CollectorRegistry:
    """With the door's metrics and those of the process; others may add theirs."""
    registry = CollectorRegistry()
    registry.register(_Door(state))
    ProcessCollector(registry=registry)
    return registry
