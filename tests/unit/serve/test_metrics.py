"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from serve.metrics import Metrics


def test_what_happened_is_told_and_names_the_replica() -> None:
    metrics = Metrics("r1")
    metrics.took({"prepare": 0.02, "embed": 0.2})
    metrics.took({"embed": 0.4})
    metrics.batched(3)
    metrics.lost("crashed")
    metrics.loaded("v1", "m" * 64, "i" * 64)
    metrics.loaded("v2", "n" * 64, "i" * 64)
    waiting = [7]
    metrics.watch("queries", "Queries.", lambda: waiting[0])
    waiting[0] = 8
    families = list(text_string_to_metric_families(metrics.text().decode()))
    told = {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "replica")): sample.value
        for family in families
        for sample in family.samples
    }
    assert told["retrieval_stage_seconds_count", "embed"] == 2
    assert abs(told["retrieval_stage_seconds_sum", "embed"] - 0.6) < 1e-9
    assert told["retrieval_stage_seconds_bucket", "0.025", "prepare"] == 1
    assert told["retrieval_batch_photos_sum",] == 3
    assert told["retrieval_photo_processes_lost_total", "crashed"] == 1
    assert told["retrieval_queries",] == 8
    assert [key for key in told if key[0] == "retrieval_loaded"] == [("retrieval_loaded", "i" * 12, "n" * 12, "v2")]
    assert all(sample.labels["replica"] == "r1" for family in families for sample in family.samples)
