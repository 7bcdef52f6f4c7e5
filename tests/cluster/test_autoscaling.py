"""On a cluster without a machine, whose autoscaler is Ray's own: jobs get what they need, no more, and it goes again.

A sample of tests/faults/growth.py, which does so with every job.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.parallel.placement import Needs, uses_gpu
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from tests.faults.jobs import here, prepare
from tests.support.declared import seen
from tests.support.growing import GrowingCluster, growing_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[GrowingCluster]:
    with growing_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection and a model, made without a cluster."""
    root = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as patch:
        here(patch)
        prepare(root, ["embed"])
    return root


def test_one_job_gets_what_it_needs_while_another_waits_for_what_never_comes(
    cluster: GrowingCluster, inputs: Path, tmp_path: Path
) -> None:
    """What one waits for is not forgotten for the other's sake, and holds up nobody."""
    made = ("--collection", f"{inputs}/collection", "--model", f"{inputs}/model", "--out", f"{tmp_path}/never")
    never = ("--device", "cuda", "--cpus-per-worker", "64", "--wait-seconds", "25")
    waits, said = cluster.start(sys.executable, "-m", "ray_jobs.embed", *made, *never)
    small = ("--size", "48", "--crop", "none", "--part-size", "11")
    source = ("--source", f"{inputs}/drawn", "--out", f"{tmp_path}/collection")
    growth = cluster.run(sys.executable, "-m", "ray_jobs.ingest", *source, *small)
    assert growth.code == 0, growth.said
    assert read_manifest(Folder.of(tmp_path / "collection")).counts["stored"] > 0
    assert set(growth.most) == {"cpu"} and growth.most["cpu"] <= 2, "three parts, a core each"
    assert growth.before == growth.after == Counter()
    assert re.search(r"plan: waiting for 1 x 1 CPU.*; the autoscaler was asked\n", growth.said), growth.said
    assert "1 x GPU 1, CPU 64, memory 1.5 GB" in growth.asked and any("x CPU 1" in one for one in growth.asked)
    assert waits.wait(60) == 2
    told = said.read_text()
    assert "embed: waiting for 1 x 64 CPU and 1 GPU and 1.5 GB of memory; the autoscaler was asked" in told
    assert re.search(r"embed waited 25 s .* room for 0\..*To go on, use --device cpu, or add such a type", told), told
    assert "Traceback" not in told
    assert cluster.look() == (Counter(), [])


def what_is_seen(part: int) -> dict[str, str]:
    return {"seen": seen()}


def on_a_gpu() -> None:
    """For a process of its own."""
    with session():
        assert uses_gpu("cuda") and not uses_gpu("auto")
        (row,) = run_parts("look", range(1), what_is_seen, needs=Needs(gpus=1))
        print("WITH", row["seen"], "WITHOUT", repr(on_cluster(seen)))


def test_cuda_brings_a_machine_with_a_gpu_and_who_asked_for_none_sees_none(cluster: GrowingCluster) -> None:
    code = "from tests.cluster import test_autoscaling as t; t.on_a_gpu()"
    growth = cluster.run(sys.executable, "-c", code)
    assert growth.code == 0, growth.said
    assert growth.most == Counter(gpu=1) and growth.after == Counter()
    assert "look: waiting for 1 x 1 CPU and 1 GPU; the autoscaler was asked" in growth.said
    assert "WITH 0 WITHOUT ''" in growth.said
