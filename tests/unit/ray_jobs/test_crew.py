"""Names of tasks and actors; what they do needs a cluster: tests/cluster/test_parts.py."""

from __future__ import annotations

from ray_jobs.runtime.parallel import crew


class Describe: ...


def describe() -> None: ...


def test_ray_calls_a_step_by_what_it_does() -> None:
    assert crew._named_like(Describe, crew._Actor).__name__ == "Describe"
    named = crew._named_like(describe, crew.task)
    assert (named.__name__, named.__qualname__) == ("describe", "describe")
