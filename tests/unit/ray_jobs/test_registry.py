"""Who takes the champion's place."""

from __future__ import annotations

import pytest

from ray_jobs.runtime.registry import beats

OLD = {"metric": "val/mAP", "value": "0.5", "measured_on": "data-1"}


@pytest.mark.parametrize(
    ("new", "better", "reason"),
    [
        ({}, False, "0.5000 does not beat 0.5000"),
        ({"value": "0.50001"}, True, "beats"),
        ({"value": "0.4"}, False, "does not beat"),
        ({"value": "0.9", "measured_on": "data-2"}, False, "do not compare"),
        ({"value": "0.9", "metric": "val/recall@1"}, False, "do not compare"),
    ],
)
def test_only_more_of_the_same_metric_on_the_same_data_is_better(
    new: dict[str, str], better: bool, reason: str
) -> None:
    found = beats({**OLD, **new}, OLD)
    assert found[0] is better
    assert reason in found[1]


def test_a_champion_made_by_hand_is_not_replaced_by_itself() -> None:
    assert beats(OLD, {}) == (False, "it has no recorded metric to beat; promote a version by hand")
