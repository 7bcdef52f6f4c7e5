"""Every plot is drawn from what it is given."""

from __future__ import annotations

from typing import Any

import pytest

from retrieval.reports import charts, style
from tests.support.figures import close_to, metrics, pixels


def test_curves_have_a_panel_for_each_kind_recorded() -> None:
    losses = [{"epoch": e, "train/loss": 1.0 / e} for e in (1, 2, 3)]
    one = pixels(charts.curves_png(losses))
    rows = [row | {"val/mAP": 0.1 * row["epoch"], "seconds/train": 2.0} for row in losses]
    three = pixels(charts.curves_png(rows))
    assert three.shape[0] == 2 * one.shape[0] and three.shape[1] == 2 * one.shape[1]
    assert close_to(three, style.RIGHT) > 50 > close_to(one, style.RIGHT)  # the best epoch is marked, if there is one


def test_curves_pass_over_gaps_and_refuse_nothing_to_draw() -> None:
    gaps: list[dict[str, Any]] = [{"epoch": 0, "val/mAP": 0.2}, {"epoch": 1, "train/loss": float("nan"), "note": "x"}]
    gaps.append({"epoch": 2, "train/loss": 0.3, "val/mAP": 0.4})
    assert close_to(pixels(charts.curves_png(gaps)), style.RIGHT) > 50
    with pytest.raises(ValueError, match="Nothing to draw in a history of 1 epochs"):
        charts.curves_png([{"epoch": 1, "note": "text"}])  # type: ignore[dict-item]


def test_bars_and_lines_show_both_systems() -> None:
    bars = pixels(charts.retrieval_png(metrics()))
    assert close_to(bars, "#8c96a0", 8) > 2000 and close_to(bars, "#0969da", 8) > 2000
    taller = metrics()
    taller["systems"]["before"]["recall@1"] = 0.6
    assert close_to(pixels(charts.retrieval_png(taller)), "#8c96a0", 8) > close_to(bars, "#8c96a0", 8)
    lines = pixels(charts.attributes_png(metrics()))
    assert close_to(lines, "#0969da", 8) > 300


def test_many_systems_have_a_line_each_and_their_names_stand_beside_the_plot() -> None:
    steps = ("", " + QE", " + Lw", " + Lw + QE", " + ms", " + ms + QE", " + ms + Lw", " + ms + Lw + QE", " + rerank")
    names = [f"{stem}{step}" for stem in ("before", "after") for step in steps]
    few, many = metrics(), metrics()
    many["systems"] = dict.fromkeys(names, few["systems"]["before"])
    assert pixels(charts.retrieval_png(many)).shape[0] > 3 * pixels(charts.retrieval_png(few)).shape[0]
    # The curves lie along the bottom: all above them is empty, since the names stand beside the plot.
    lines = pixels(charts.precision_recall_png({name: [0.0] * 101 for name in names}))
    plot = lines[40 : lines.shape[0] // 2, 60 : 7 * lines.shape[1] // 10]
    assert close_to(plot, style.INK, 90) == 0
    assert close_to(lines[:, 3 * lines.shape[1] // 4 :], style.INK, 90) > 500
