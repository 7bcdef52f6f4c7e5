"""How much fits where."""

from __future__ import annotations

import pytest

from ray_jobs.runtime.placement import GB, Needs


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
