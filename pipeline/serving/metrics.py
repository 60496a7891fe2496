"""Counts and times of the service, in Prometheus's format."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics:
    """What /metrics shows, beside memory and CPU time of this process.

    Args:
        waiting: returns how many images wait for the network.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)
        self._requests = Counter("requests", "Requests by path and status", ["path", "status"], registry=own)
        self._seconds = Histogram("request_seconds", "From a request to its answer", ["path"], registry=own)
        self._predictions = Counter("predictions", "Images by predicted class", ["label"], registry=own)
        self._confidence = Histogram(
            "confidence", "Largest probability of an image", buckets=CONFIDENCES, registry=own
        )
        self._model = Gauge("model", "The version that is served", ["name", "version"], registry=own)
        Gauge("images_waiting", "Images that wait for the network", registry=own).set_function(waiting)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def predicted(self, label: str, probability: float) -> None:
        """Count an image."""
        self._predictions.labels(label).inc()
        self._confidence.observe(probability)

    def text(self, model: str, version: str) -> bytes:
        """Return all metrics; those of the model with what is served now."""
        self._model.clear()
        self._model.labels(model, version).set(1)
        return generate_latest(self.registry)
