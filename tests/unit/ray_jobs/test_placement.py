"""How much fits where, and waiting for what is not there yet."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.runtime import places
from ray_jobs.runtime.parallel import placement
from ray_jobs.runtime.parallel.placement import GB, Needs, all_have_bfloat16, uses_gpu, wait_for


@pytest.mark.parametrize(
    ("needs", "fit"),
    [
        (Needs(), 8),
        (Needs(cpus=0.5), 16),
        (Needs(cpus=3), 2),
        (Needs(memory=3 * GB), 3),  # two large ones more than the cores would hold
        (Needs(cpus=1, gpus=1), 2),
        (Needs(memory=11 * GB), 0),
    ],
)
def test_as_many_workers_fit_as_the_scarcest_holds(needs: Needs, fit: int) -> None:
    assert needs.fit({"CPU": 8.0, "GPU": 2.0, "memory": 10.0 * GB, "node:1": 1.0}) == fit
    assert Needs(gpus=1).fit({"CPU": 8.0}) == 0


def test_ray_is_asked_for_memory_only_where_some_is_named() -> None:
    assert Needs(cpus=2, gpus=1).options() == {"num_cpus": 2, "num_gpus": 1}
    assert Needs(memory=GB).options()["memory"] == 1 << 30


@pytest.mark.parametrize(
    ("gpu", "lacks", "asked", "expected"),
    [
        (False, "", "ab", True),
        (False, "b", "ab", False),
        (True, "", "b", True),
        (True, "a", "b", True),  # a has no GPU, and does none of it
        (True, "b", "b", False),
    ],
)
def test_one_machine_without_bfloat16_decides_for_all_that_do_the_work(
    gpu: bool, lacks: str, asked: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = {"a": {"CPU": 2.0}, "b": {"CPU": 2.0, "GPU": 1.0}, "gone": {"CPU": 2.0, "GPU": 1.0}, "head": {}}
    nodes = [
        {"NodeID": name, "NodeManagerHostname": name, "Alive": name != "gone", "Resources": has}
        for name, has in resources.items()
    ]

    def ask_nodes(names: dict[str, str], question: Any, *args: Any, **options: Any) -> dict[str, bool]:
        assert "".join(names) == asked and args == (gpu,) and bool(options) == gpu
        return {name: name not in lacks for name in names}

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes))  # type: ignore[arg-type]
    monkeypatch.setattr(places, "ask_nodes", ask_nodes)
    assert all_have_bfloat16(gpu=gpu) == expected


class Growing:
    """Stands for `ray`: a head without cores, and a machine with a GPU that is there from the `at`-th look on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int = 1 << 30) -> None:
        self.looks, self.at, self.asked, self.memory = 0, at, list[Any](), 0.0
        util = SimpleNamespace(placement_group=self.place, remove_placement_group=self.asked.append)
        monkeypatch.setitem(sys.modules, "ray", self)  # type: ignore[arg-type]
        monkeypatch.setitem(sys.modules, "ray.util", util)  # type: ignore[arg-type]
        monkeypatch.setattr(placement, "_LOOK_EVERY", 0.01)
        monkeypatch.setattr(placement, "_SAY_EVERY", 0.0)

    def place(self, bundles: list[dict[str, float]], strategy: str) -> str:
        self.asked.append(bundles)
        return "taken back"

    def nodes(self) -> list[dict[str, Any]]:
        self.looks += 1
        gone = {"CPU": 9.0, "GPU": 9.0, "memory": 99.0 * GB}
        there = [{"Alive": True, "Resources": {"CPU": 0.0}}, {"Alive": False, "Resources": gone}]
        came = {"CPU": 4.0, "GPU": 1.0, "memory": self.memory}
        return there + [{"Alive": True, "Resources": came}] * (self.looks >= self.at)

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": 1.0} if self.looks >= self.at else {}


def test_the_autoscaler_is_asked_and_the_request_taken_back_when_the_machine_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Growing(monkeypatch, at=4)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with caplog.at_level("INFO"):
        wait_for(Needs(cpus=2, gpus=1), "embed", 60)
    assert cluster.asked == [[{"CPU": 2.0, "GPU": 1.0}], "taken back"]
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "embed: waiting for 1 x 2 CPU and 1 GPU; the autoscaler was asked"
    assert "still waiting for" in told[1] and told[-1].startswith("embed: there is room after ")
    wait_for(Needs(cpus=2, gpus=1), "embed", 60)
    assert len(cluster.asked) == 2, "nothing is asked for what is there"


def test_what_does_not_come_is_given_up_with_advice_and_asked_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Growing(monkeypatch)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ValueError, match=r"waited 0.05 s for 3 x 1 CPU and 1 GPU, .* use --device cpu, .*--wait-sec"):
        wait_for(Needs(gpus=1), "train", 0.05, workers=3)
    assert cluster.asked == [[{"CPU": 1.0, "GPU": 1.0}] * 3, "taken back"]


def test_where_nothing_can_come_it_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Growing(monkeypatch)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="ingest needs 1 x 1 CPU and 2.0 GB of memory, and .* has room for 0"):
        wait_for(Needs(memory=2 * GB), "ingest", 900)
    assert cluster.asked == []


@pytest.mark.parametrize("address", ["", "auto"])
def test_memory_that_no_machine_has_is_waited_for_and_refuses_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    """It is an estimate: who needs more than the largest machine has is alone there, and told."""
    cluster = Growing(monkeypatch, at=0)
    cluster.memory = 8.0 * GB
    monkeypatch.setenv("RAY_ADDRESS", address)
    asked = Needs(cpus=2, memory=20 * GB)
    assert wait_for(asked, "group", 0.05) == Needs(cpus=2, memory=8 * GB)
    assert "group: no machine has 2 CPU and 20.0 GB of memory; each worker is given 2 CPU and 8.0 GB" in caplog.text
    assert cluster.asked == ([[{"CPU": 2.0, "memory": 20.0 * GB}], "taken back"] if address else [])
    fits = Needs(memory=3 * GB)
    assert wait_for(fits, "group", 0.05, workers=2) is fits
    with pytest.raises(ValueError, match="room for 1"):  # alone on a machine each, and there is one
        wait_for(asked, "group", 0.05, workers=2)


def test_cuda_is_waited_for_or_refused_and_never_done_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Growing(monkeypatch)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not uses_gpu("auto") and not uses_gpu("cpu")
    with pytest.raises(ValueError, match="--device cuda, and there is no GPU here. Use --device cpu or auto"):
        uses_gpu("cuda")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with caplog.at_level("INFO"):
        assert uses_gpu("cuda") and not uses_gpu("auto")
    assert "--device cuda waits for one" in caplog.text
    cluster.at = 0
    assert uses_gpu("auto") and uses_gpu("cuda") and not uses_gpu("cpu")
