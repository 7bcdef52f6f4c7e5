"""What the dashboard draws is there to be drawn: figures of a real job and of a real replica's, at Ray's endpoint."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from ray_jobs.runtime.news import meters
from ray_jobs.runtime.parallel.parts import run_parts
from serve.metrics import Metrics
from serve.mirror import Mirror

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "cluster/grafana.json").read_text())
Samples = dict[str, list[tuple[dict[str, str], float]]]


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def names_of(expression: str) -> set[str]:
    return set(re.findall(r"\bray_[a-z_]+", expression))


class Replica:
    """Holds figures as a replica of the service does, and mirrors them."""

    def __init__(self) -> None:
        self.metrics = Metrics("r1")
        self.mirror = Mirror(self.metrics)
        self.metrics.watch("queries", "Queries.", lambda: 3)
        self.metrics.watch("uploads", "Uploads.", lambda: 0)

    def work(self, version: str) -> None:
        """A little of everything, and a version that takes over."""
        self.metrics.answered("/v1/search", 200)
        self.metrics.refused("busy")
        self.metrics.lost("crashed")
        self.metrics.took({"embed": 0.2})
        self.metrics.batched(4)
        self.metrics.swapped()
        self.metrics.refused_version("unfit")
        self.metrics.loaded(version, "m" * 64, "i" * 64)
        self.mirror.copy()


def work(part: int) -> dict[str, Any]:
    return {"taken": 10 * part}


def scraped() -> Samples:
    """What Ray's endpoint says, by name."""
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def has(samples: Samples, name: str, value: float, **labels: str) -> bool:
    return any(seen == value and labels.items() <= told.items() for told, seen in samples.get(name, []))


@pytest.fixture(scope="module")
def samples(ray_local: None) -> Iterator[Samples]:
    """Two parts of a job and a replica that changed its version; scraped until Ray has reported both."""
    list(run_parts("measured", [1, 2], work, total_items=30))
    meters.left_out("measured", {"no-face": 3, "unreadable": 0})
    meters.count("retrieval_job_busy_seconds", 1.5, step="measured", host="here")
    meters.count("retrieval_job_part_seconds", 1.5, step="measured")
    replica: Any = ray.remote(num_cpus=0)(Replica).remote()
    ray.get([replica.work.remote("v1"), replica.work.remote("v2")])
    end = time.monotonic() + 90
    while True:
        found = scraped()
        if has(found, "ray_retrieval_loaded", 1, version="v2") and "ray_retrieval_job_rejected_total" in found:
            break
        assert time.monotonic() < end, sorted(found)
        time.sleep(1)
    yield found
    ray.kill(replica)


def test_a_job_counts_what_it_did(samples: Samples) -> None:
    assert has(samples, "ray_retrieval_job_items_total", 30, step="measured")
    assert has(samples, "ray_retrieval_job_parts_total", 2, step="measured")
    assert has(samples, "ray_retrieval_job_rejected_total", 3, step="measured", reason="no-face")
    assert not [1 for labels, _ in samples["ray_retrieval_job_rejected_total"] if labels["reason"] == "unreadable"]
    assert has(samples, "ray_retrieval_job_steps_total", 1, step="measured", how="done")
    assert has(samples, "ray_retrieval_job_done", 30, step="measured")


def test_a_replica_s_figures_are_those_of_its_own_page(samples: Samples) -> None:
    assert has(samples, "ray_retrieval_requests_total", 2, route="/v1/search", status="200", replica="r1")
    assert has(samples, "ray_retrieval_stage_seconds_count", 2, stage="embed", replica="r1")
    assert has(samples, "ray_retrieval_stage_seconds_bucket", 0, stage="embed", le="0.1")
    assert has(samples, "ray_retrieval_stage_seconds_bucket", 2, stage="embed", le="0.25")
    assert has(samples, "ray_retrieval_queries", 3, replica="r1")


def test_a_version_that_no_longer_answers_is_not_said_to(samples: Samples) -> None:
    assert has(samples, "ray_retrieval_loaded", 0, version="v1")


def test_every_figure_that_is_declared_is_one_of_the_dashboard_s_and_the_other_way_round() -> None:
    drawn = set().union(*map(names_of, expressions()))
    suffix = {"Counter": "_total", "Histogram": "_bucket", "Gauge": ""}
    declared = {f"ray_{name}{suffix[kind]}" for name, (kind, *_) in meters.FIGURES.items()}
    assert {name for name in drawn if name.startswith("ray_retrieval_job_")} == declared


@pytest.mark.parametrize("expression", expressions())
def test_every_name_of_the_dashboard_exists(expression: str, samples: Samples) -> None:
    names = names_of(expression)
    assert names, "a panel that draws nothing"
    for name in names - set(samples):
        assert name == "ray_node_gpus_utilization", f"nobody says {name}"  # only where there is a GPU
        from ray.dashboard.modules.reporter import reporter_agent

        assert name.removeprefix("ray_") in reporter_agent.METRICS_GAUGES


def test_panels_have_numbers_of_their_own_and_one_source() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    sources = {json.dumps(panel["datasource"]) for panel in DASHBOARD["panels"] if panel["type"] != "row"}
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
