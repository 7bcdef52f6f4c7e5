"""Every plot is drawn from what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.calibration import Bin, Calibration
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


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of the figure that is drawn last."""
    found: list[Any] = []
    real = style.saved

    def spy(figure: Any, kind: str) -> bytes:
        found[:] = [axes for axes in figure.axes if axes.axison]
        return real(figure, kind)

    monkeypatch.setattr(charts, "saved", spy)
    return found


def lines(axes: Any) -> dict[str, list[list[float]]]:
    """Of each named line its x and y."""
    return {
        line.get_label(): [list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))]
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def test_curves_are_what_the_history_holds(seen: list[Any]) -> None:
    history: list[dict[str, float]] = [
        {"epoch": 0, "val/mAP": 0.3, "val/recall@1": 0.9, "train/p": 3.0},
        {"epoch": 1, "train/loss": 2.0, "val/mAP": 0.5, "val/recall@5": 0.6, "train/spread": 1.0, "seconds/mine": 9.0},
        {"epoch": 2, "train/loss": 1.0, "val/mAP": 0.5, "val/recall@1": 0.8, "seconds/train": 3.0, "train/steps": 7},
    ]
    charts.curves_png(history)
    loss, validation, spread, power, seconds = seen
    titles = ["loss", "validation", "spread of embeddings", "GeM's p", "seconds an epoch"]
    assert [axes.get_title(loc="left") for axes in seen] == titles
    assert lines(loss) == {"loss": [[1, 2], [2, 1]]}
    assert lines(validation) == {
        "mAP": [[0, 1, 2], [0.3, 0.5, 0.5]],
        "recall@1": [[0, 2], [0.9, 0.8]],
        "recall@5": [[1], [0.6]],
    }
    assert list(lines(validation)) == ["mAP", "recall@1", "recall@5"]  # what chooses the checkpoint comes first
    assert lines(spread) == {"spread": [[1], [1]]} and lines(power) == {"p": [[0], [3]]}
    assert lines(seconds) == {"mine": [[1], [9]], "train": [[2], [3]]}
    assert seconds.get_ylim()[0] == 0 and validation.get_xlabel() == "epoch"
    (said,) = validation.texts
    assert (said.get_text(), tuple(said.xy)) == ("best 0.500", (1, 0.5))  # of equal ones the first
    assert validation.get_legend() is not None and spread.get_legend() is None


def test_losses_of_training_and_validation_share_a_panel(seen: list[Any]) -> None:
    """Epochs are counted where the history does not number them."""
    charts.curves_png([{"train/loss": 2.0, "val/loss": 1.5}, {"train/loss": 1.0, "val/loss": 0.5}])
    (loss,) = seen
    assert sorted([list(line.get_xdata()), list(line.get_ydata())] for line in loss.get_lines()) == [
        [[0, 1], [1.5, 0.5]],
        [[0, 1], [2.0, 1.0]],
    ]


def test_attributes_lie_between_their_baselines(seen: list[Any]) -> None:
    given = metrics()
    for k, accuracy in ((10, 0.9), (37, 0.75)):
        given["systems"]["after"][f"attribute_accuracy@{k}"] = accuracy
    charts.attributes_png(given)
    (axes,) = seen
    assert lines(axes) == {
        "best possible": [[10, 37], [0.952, 0.878]],
        "before": [[10, 37], [pytest.approx(0.82)] * 2],
        "after": [[10, 37], [0.9, 0.75]],
    }
    level = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert level == {"random pair": 0.728, "majority vector": 0.806}  # the third is not known
    dashed = [line.get_ydata()[0] for line in axes.get_lines() if line.get_label().startswith("_")]
    assert sorted(dashed) == [0.728, 0.806]
    assert axes.get_xscale() == "log" and [label.get_text() for label in axes.get_xticklabels()] == ["10", "37"]
    assert axes.yaxis.get_major_formatter()(0.85, 0) == "85%"
    assert len(axes.get_legend().get_texts()) == 3


def test_names_of_many_systems_do_not_stand_above_the_plot(seen: list[Any]) -> None:
    given = metrics()
    given["systems"] = {f"system {n}": given["systems"]["before"] for n in range(6)}
    charts.attributes_png(given)
    (axes,) = seen
    assert axes.get_legend() is None
    (legend,) = axes.figure.legends
    assert len(legend.get_texts()) == 7


def test_bars_are_as_long_as_the_figures(seen: list[Any]) -> None:
    given = metrics()
    given["systems"]["after"]["mAP"] = None
    charts.retrieval_png(given)
    assert [axes.get_title(loc="left") for axes in seen] == ["recall@1", "recall@5", "recall@10", "mAP"]
    widths = [[bar.get_width() for bar in axes.patches] for axes in seen]
    assert widths == [pytest.approx(pair) for pair in ([0.2, 0.4], [0.3, 0.5], [0.4, 0.6], [0.5, 0])]
    assert [text.get_text() for text in seen[3].texts] == ["0.500", "-"]
    assert [text.get_text() for text in seen[0].texts] == ["0.200", "0.400"]
    assert seen[0].yaxis_inverted()  # the first system on top
    assert seen[0].get_xlim() == (0, 1.22)


def test_a_trade_off_leaves_out_what_is_slower_and_finds_no_more(seen: list[Any]) -> None:
    lines = {"Flat": [(1.0, 0.02)], "lists": [(0.5, 0.001), (0.4, 0.002), (0.9, 0.004)]}
    charts.trade_off_png(lines, ("lists nprobe 8", 0.9, 0.004), recall=0.8, seconds=0.01)
    (axes,) = seen
    drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}
    assert drawn["Flat"] == [(20.0, 1.0)] and drawn["lists"] == [(1.0, 0.5), (4.0, 0.9)]
    assert drawn["chosen: lists nprobe 8"] == [(4.0, 0.9)]
    assert [0.8, 0.8] in [list(line.get_ydata()) for line in axes.lines]
    assert [10.0, 10.0] in [list(line.get_xdata()) for line in axes.lines]


def test_precision_over_recall(seen: list[Any]) -> None:
    curve = np.linspace(1, 0, 101)
    charts.precision_recall_png({"a": curve.tolist(), "b": [0.5] * 101}, "a title")
    (axes,) = seen
    found = lines(axes)
    assert found["a"][0] == pytest.approx(np.arange(101) / 100) and found["a"][1] == pytest.approx(curve)
    assert found["b"][1] == [0.5] * 101
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("a title", "recall")
    assert axes.get_xlim() == (0, 1) and axes.get_ylim() == (0, 1.03)
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_curves_start_where_the_history_does(seen: list[Any]) -> None:
    charts.curves_png([{"epoch": 5, "train/loss": 2.0}, {"epoch": 6, "train/loss": 1.0}])
    (loss,) = seen
    assert list(loss.get_lines()[0].get_xdata()) == [5, 6]


def test_reliability_is_what_was_found_over_what_was_told(seen: list[Any]) -> None:
    bars = (
        Bin(low=0.0, high=0.1, told=0.02, found=0.01, share=0.5),
        Bin(low=0.4, high=0.5, told=0.45, found=0.6, share=0.01),
        Bin(low=0.9, high=1.0, told=0.99, found=1.0, share=0.49),
    )
    charts.reliability_png({"a": Calibration(model="m", reliability=bars)})
    (axes,) = seen
    assert lines(axes)["a"] == [[0.02, 0.45, 0.99], [0.01, 0.6, 1.0]]
    (dots,) = axes.collections
    assert dots.get_sizes() == pytest.approx([170, 23, 167])
    assert axes.get_xlim() == axes.get_ylim() == (-0.03, 1.03)
