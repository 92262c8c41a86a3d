"""Counters of a service, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from hbr.service.jobs import JobQueue, PhotoJob


class ServiceCounters:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "hbr_requests", "Requests answered.", ["path", "status"], registry=self.registry
        )
        self._jobs = Counter("hbr_jobs", "Jobs ended.", ["state"], registry=self.registry)
        self._seconds = Histogram(
            "hbr_restore_seconds",
            "Time to restore a photo.",
            buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
            registry=self.registry,
        )
        self._waiting = Gauge("hbr_waiting", "Photos in the queue.", registry=self.registry)
        self._held = Gauge("hbr_held", "Jobs that are known.", registry=self.registry)

    def answered(self, path: str, status: int) -> None:
        """Count a response."""
        self._requests.labels(path, str(status)).inc()

    def ended(self, job: PhotoJob) -> None:
        """Count a job."""
        self._jobs.labels(job.state).inc()
        if job.timings is not None:
            self._seconds.observe(job.timings["total"])

    def show(self, queue: JobQueue) -> None:
        """Read what is measured when it is asked for."""
        self._waiting.set(queue.waiting)
        self._held.set(queue.held)
