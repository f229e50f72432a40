"""What Prometheus reads at `/metrics`: requests by route and outcome, decisions, webhooks, and the inbox's state.

Requests are counted in plain dictionaries and only turned into samples when somebody asks: a labelled counter of the
client library would cost several microseconds in every check.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class RequestMetrics(Collector):
    """Counts of one process. `route` is a path template, so that ids never become labels."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], int] = {}
        self._durations: dict[str, list[float]] = {}  # one count for each bound, one beyond, then the sum
        self._webhooks: dict[tuple[str, str], int] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (method, route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        row = self._durations.get(route)
        if row is None:
            row = self._durations[route] = [0.0] * (len(_BOUNDS_SECONDS) + 2)
        row[bisect_left(_BOUNDS_SECONDS, seconds)] += 1
        row[-1] += seconds

    def webhook_received(self, environment: str, outcome: str) -> None:
        """Count one webhook: `stored`, `repeated`, `ignored` or `refused`."""
        key = (environment, outcome)
        self._webhooks[key] = self._webhooks.get(key, 0) + 1

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """The counts as Prometheus samples."""
        requests = CounterMetricFamily("plangate_requests", "Requests answered.", labels=["method", "route", "status"])
        for (method, route, status), count in self._requests.items():
            requests.add_metric([method, route, str(status)], count)
        yield requests
        durations = HistogramMetricFamily(
            "plangate_request_seconds", "Time from the request's head to the end of the answer.", labels=["route"]
        )
        for route, row in self._durations.items():
            total = 0.0
            buckets: list[tuple[str, float]] = []
            for bound, answered in zip((*_BOUNDS_SECONDS, float("inf")), row, strict=False):
                total += answered
                buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
            durations.add_metric([route], buckets, sum_value=row[-1])
        yield durations
        webhooks = CounterMetricFamily("plangate_webhooks", "Webhooks received.", labels=["environment", "outcome"])
        for (environment, outcome), count in self._webhooks.items():
            webhooks.add_metric([environment, outcome], count)
        yield webhooks

    def render(self, gauges: Mapping[str, tuple[str, Mapping[tuple[str, str], float]]]) -> bytes:
        """The exposition text: the counts, then `gauges` (name → help and values by environment and state)."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Gauges(gauges))
        return generate_latest(self.registry) + generate_latest(registry)


class _Gauges(Collector):
    def __init__(self, gauges: Mapping[str, tuple[str, Mapping[tuple[str, str], float]]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, (text, values) in self._gauges.items():
            family = GaugeMetricFamily(name, text, labels=["environment", "state"])
            for (environment, state), value in values.items():
                family.add_metric([environment, state], value)
            yield family
