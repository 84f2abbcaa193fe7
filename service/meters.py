"""Prometheus metrics, one registry per app. What the store knows is read when scraped.

Names: docs/operations.md. What a worker's own disk holds (`fgt_base_cache_bytes`) and what is
computed when it is asked for (residuals of laws) is in no table, and so not here.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from service.store import Store

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

SUMMARIES = {
    "job_wait_seconds": ("From submission to the first start, of jobs that succeeded.", ["type"]),
    "job_phase_seconds": ("Wall-clock of phases of jobs that succeeded.", ["type", "phase"]),
}
COUNTERS = {
    "scored_tokens": ("Forward tokens of results, by whose pass it was.", ["pass"]),
    "base_cache_hits": ("Results whose base pass came from the cache.", []),
    "base_cache_misses": ("Results whose base pass was computed for them.", []),
    "backend_parity_failed": ("Results on which the engines differed too much.", ["engine"]),
}
GAUGES = {
    "noise_floor": ("|KL| of the base against itself in the newest result, nats.", ["engine"]),
    "backend_parity_max_diff": ("Of KL at a position, in the newest result, nats.", ["engine"]),
}
OWNERS = {"gpu_seconds": ("Wall-clock of jobs that succeeded on a GPU.", ["owner"])}


class Meters:
    def __init__(self, store: Store) -> None:
        self.registry, self._owners = CollectorRegistry(), CollectorRegistry()
        self.registry.register(StoreCollector(store))
        self.registry.register(TallyCollector(store, SUMMARIES, COUNTERS, GAUGES))
        self._owners.register(TallyCollector(store, {}, OWNERS, {}))
        self._requests = Counter(
            "fgt_http_requests_total",
            "Requests answered.",
            ["method", "path", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "fgt_http_request_seconds",
            "From first byte in to last byte out.",
            ["method", "path"],
            registry=self.registry,
        )

    def count(self, method: str, path: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "other"
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(method, path).observe(seconds)

    def text(self, *, owners: bool) -> bytes:
        """`owners`: also what names them, which is not for each other's eyes."""
        everybody = generate_latest(self.registry)
        return everybody + generate_latest(self._owners) if owners else everybody


class _AtScrape(Collector):
    """What any service process would report alike."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        """Named without a query, so that a registry can be made before the database is up."""
        return []


Described = dict[str, tuple[str, list[str]]]
"""Help and names of labels by name of tally."""


class TallyCollector(_AtScrape):
    """What results said: `service.tallying`."""

    def __init__(
        self, store: Store, summaries: Described, counters: Described, gauges: Described
    ) -> None:
        super().__init__(store)
        self._summaries, self._counters, self._gauges = summaries, counters, gauges

    def collect(self) -> Iterator[Metric]:
        found = self._store.tallies()
        for name, (text, labels) in self._summaries.items():
            summary = SummaryMetricFamily(f"fgt_{name}", text, labels=labels)
            for values, total in found.get(name, {}).items():
                n = found[f"{name}_count"][values]
                summary.add_metric(list(values), count_value=int(n), sum_value=total)
            yield summary
        for name, (text, labels) in self._counters.items():
            counter = CounterMetricFamily(f"fgt_{name}", text, labels=labels)
            for values, total in found.get(name, {}).items():
                counter.add_metric(list(values), total)
            yield counter
        for name, (text, labels) in self._gauges.items():
            gauge = GaugeMetricFamily(f"fgt_{name}", text, labels=labels)
            for values, latest in found.get(name, {}).items():
                gauge.add_metric(list(values), latest)
            yield gauge


class StoreCollector(_AtScrape):
    """Jobs, workers and verdicts as they are."""

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("fgt_jobs", "Jobs.", labels=["type", "status"])
        for (kind, state), n in self._store.job_counts().items():
            jobs.add_metric([kind, state], n)
        yield jobs
        wait = GaugeMetricFamily(
            "fgt_queue_wait_seconds", "How long the oldest claimable job has waited."
        )
        wait.add_metric([], self._longest_wait())
        yield wait
        workers = self._store.living_workers()
        alive = GaugeMetricFamily("fgt_workers_alive", "Workers that beat lately.")
        alive.add_metric([], len(workers))
        yield alive
        gates = CounterMetricFamily("fgt_gate_verdicts", "Gates that ended so.", labels=["verdict"])
        for verdict, n in self._store.verdict_counts().items():
            gates.add_metric([verdict], n)
        yield gates
        age = GaugeMetricFamily(
            "fgt_worker_heartbeat_age_seconds", "Since a living worker beat.", labels=["worker"]
        )
        now = self._store.ping()
        for worker in workers:
            age.add_metric([worker.name], max(0.0, now - worker.beaten_at))
        yield age

    def _longest_wait(self) -> float:
        """0 where nothing waits."""
        oldest = self._store.oldest_queued()
        return 0.0 if oldest is None else max(0.0, self._store.ping() - oldest)
