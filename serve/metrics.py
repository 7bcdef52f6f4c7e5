"""What Prometheus is told: how long each stage takes, what waits, what was refused, what is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Of one replica. Every series names it, so that what a load balancer mixes can be told apart."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, replica: str) -> None:
        self._registry = CollectorRegistry()
        self._replica = replica
        self._requests = self._counter("requests", "Requests answered.", "route", "status")
        self._refusals = self._counter("refusals", "Requests refused, by reason.", "reason")
        self._lost = self._counter("photo_processes_lost", "Processes for photos that died or hung.", "why")
        self._parts_failed = self._counter(
            "index_part_failures", "Questions that a part of the index did not answer.", "part", "why"
        )
        self._stages = Histogram(
            "retrieval_stage_seconds",
            "Seconds that a stage of a query took.",
            ["stage", "replica"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "retrieval_batch_photos",
            "Photos in one pass of the network.",
            ["replica"],
            buckets=_SIZES,
            registry=self._registry,
        )
        self._watching()
        self._loaded = Gauge(
            "retrieval_loaded",
            "What is loaded; 1 for what answers.",
            ["version", "model", "index", "replica"],
            registry=self._registry,
        )

    def _watching(self) -> None:
        self._swaps = self._counter("swaps", "Times that another version took over.")
        self._refused_versions = self._counter("versions_refused", "Published versions that were refused.", "why")
        self._compared = self._counter("candidate_queries", "Queries offered to the candidate.", "what")
        self._same_first = self._counter("candidate_same_first", "Compared queries with the same image first.")
        self._overlap = self._counter("candidate_overlap", "Sum of the shares of the first ten that both have.")
        self._difference = Summary(
            "retrieval_candidate_score_difference",
            "The candidate's best score less the other's.",
            ["replica"],
            registry=self._registry,
        )

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"retrieval_{name}", says, [*labels, "replica"], registry=self._registry)

    def watch(self, name: str, says: str, value: Callable[[], float]) -> None:
        """A gauge that is asked for its value when it is read."""
        gauge = Gauge(f"retrieval_{name}", says, ["replica"], registry=self._registry)
        gauge.labels(self._replica).set_function(value)

    def answered(self, route: str, status: int) -> None:
        """Args: route: the pattern of the address, never the address: that may hold a name."""
        self._requests.labels(route, str(status), self._replica).inc()

    def refused(self, reason: str) -> None:
        self._refusals.labels(reason, self._replica).inc()

    def lost(self, why: str) -> None:
        """A process for photos was replaced."""
        self._lost.labels(why, self._replica).inc()

    def part_failed(self, part: int, why: str) -> None:
        """Args: part: from 0; it is shown from 1. why: lost, late, or without (it does not hold the index)."""
        self._parts_failed.labels(str(part + 1), why, self._replica).inc()

    def took(self, seconds: Mapping[str, float]) -> None:
        """Seconds by stage."""
        for stage, value in seconds.items():
            self._stages.labels(stage, self._replica).observe(value)

    def batched(self, num: int) -> None:
        self._batches.labels(self._replica).observe(num)

    def loaded(self, version: str, model: str, index: str) -> None:
        """This answers from now on, and nothing else does."""
        self._loaded.clear()
        self._loaded.labels(version, model[:12], index[:12], self._replica).set(1)

    def swapped(self) -> None:
        """Another version took over."""
        self._swaps.labels(self._replica).inc()

    def refused_version(self, why: str) -> None:
        """Args: why: unfit, or storage."""
        self._refused_versions.labels(why, self._replica).inc()

    def compared(self, what: str) -> None:
        """A query was offered to the candidate: compared, passed-by, unusable or failed."""
        self._compared.labels(what, self._replica).inc()

    def agreed(self, same_first: int, overlap: float, score_difference: float) -> None:
        """A query was compared. Args: overlap: 0 to 1. score_difference: the candidate's best less the other's."""
        self._same_first.labels(self._replica).inc(same_first)
        self._overlap.labels(self._replica).inc(overlap)
        self._difference.labels(self._replica).observe(score_difference)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def values(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every figure of `text` but the times at which it was made: (name, its labels) -> value."""
        samples = [sample for family in self._registry.collect() for sample in family.samples]
        kept = [sample for sample in samples if not sample.name.endswith("_created")]
        return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in kept}
