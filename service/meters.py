"""Prometheus metrics, one registry per app. Jobs and workers are read when scraped."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.store import Store

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Meters:
    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(StoreCollector(store))
        self._requests = Counter(
            "forgetting_http_requests_total",
            "Requests answered.",
            ["method", "path", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "forgetting_http_request_seconds",
            "From first byte in to last byte out.",
            ["method", "path"],
            registry=self.registry,
        )

    def count(self, method: str, path: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "other"
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(method, path).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class StoreCollector(Collector):
    """What any service process would report alike."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        """Named without a query, so that a registry can be made before the database is up."""
        return []

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("forgetting_jobs", "Jobs.", labels=["type", "status"])
        for (kind, state), n in self._store.job_counts().items():
            jobs.add_metric([kind, state], n)
        yield jobs
        wait = GaugeMetricFamily(
            "forgetting_queue_wait_seconds", "How long the oldest claimable job has waited."
        )
        wait.add_metric([], self._longest_wait())
        yield wait
        workers = self._store.living_workers()
        alive = GaugeMetricFamily("forgetting_workers_alive", "Workers that beat lately.")
        alive.add_metric([], len(workers))
        yield alive
        gates = CounterMetricFamily("fgt_gate_verdicts", "Gates that ended so.", labels=["verdict"])
        for verdict, n in self._store.verdict_counts().items():
            gates.add_metric([verdict], n)
        yield gates
        age = GaugeMetricFamily(
            "forgetting_worker_heartbeat_age_seconds",
            "Since a living worker beat.",
            labels=["worker"],
        )
        now = self._store.ping()
        for worker in workers:
            age.add_metric([worker.name], max(0.0, now - worker.beaten_at))
        yield age

    def _longest_wait(self) -> float:
        """0 where nothing waits."""
        oldest = self._store.oldest_queued()
        return 0.0 if oldest is None else max(0.0, self._store.ping() - oldest)
