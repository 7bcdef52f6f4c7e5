"""Plots of a training and of an evaluation: its history or the content of metrics.json (see tables) in, PNG out.

Figures are drawn through matplotlib's object interface: no global state, no display, safe in any worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retrieval.artifacts.calibration import Calibration
from retrieval.reports.style import (
    COLORS,
    FAINT,
    INK,
    RIGHT,
    color_of,
    dress,
    is_number,
    names_above,
    new_figure,
    saved,
    styles,
)
from retrieval.reports.tables import BASELINES, RETRIEVAL_METRICS


def curves_png(history: Sequence[Mapping[str, float]]) -> bytes:
    """Training curves: loss, validation metrics, spread of the embeddings, seconds an epoch; a panel each, if recorded.

    Args:
        history: one mapping per epoch with keys such as epoch, train/loss, val/mAP, val/recall@1, train/spread,
            seconds/train. Keys may be missing from some epochs; other numbers are not drawn.

    Raises: ValueError if no epoch holds a number that can be drawn.
    """
    epochs = [float(row.get("epoch", number)) for number, row in enumerate(history)]
    panels = [(title, keys) for title, keys in _panels(history) if keys]
    if not panels:
        raise ValueError(
            f"Nothing to draw in a history of {len(history)} epochs: expected train/..., val/..., seconds/..."
        )
    figure, grid = new_figure(len(panels))
    for axes, (title, keys) in zip(grid, panels):
        for number, key in enumerate(keys):
            points = [(at, row[key]) for at, row in zip(epochs, history) if is_number(row.get(key))]
            color = COLORS[(number + 1) % len(COLORS)]
            axes.plot(*zip(*points), color=color, label=key.partition("/")[2], linewidth=2, marker="o", markersize=3.5)
        if title == "validation":
            _mark_best(axes, epochs, history, keys[0])
        dress(axes, title, "epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
        if title.startswith("seconds"):
            axes.set_ylim(bottom=0)
        if len(keys) > 1 or title == "validation":
            names_above(axes)
    return saved(figure, "png")


def _panels(history: Sequence[Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    numbers = sorted({key for row in history for key, value in row.items() if is_number(value)})
    val = [key for key in numbers if key.startswith("val/") and not key.endswith("loss")]
    val.sort(key=lambda key: key != "val/mAP")  # mAP chooses the checkpoint, so it leads and gets the mark
    losses = [key for key in numbers if key.endswith("loss")]
    spread = [key for key in numbers if key == "train/spread"]
    seconds = [key for key in numbers if key.startswith("seconds/")]
    power = [key for key in numbers if key == "train/p"]
    panels = [("loss", losses), ("validation", val), ("spread of embeddings", spread), ("GeM's p", power)]
    return [*panels, ("seconds an epoch", seconds)]


def _mark_best(axes: Axes, epochs: Sequence[float], history: Sequence[Mapping[str, float]], key: str) -> None:
    value, at = max((row[key], -epoch) for epoch, row in zip(epochs, history) if is_number(row.get(key)))
    axes.plot(
        [-at], [value], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=RIGHT, markeredgewidth=1.8
    )
    axes.annotate(
        f"best {value:.3f}",
        (-at, value),
        textcoords="offset points",
        xytext=(0, 9),
        ha="center",
        fontsize=8,
        color=RIGHT,
    )


def attributes_png(metrics: Mapping[str, Any]) -> bytes:
    """Attribute accuracy over k for every system, between the baselines and the ceiling measured on the same data."""
    figure, (axes,) = new_figure(1, width=6.6)
    baselines, ks = metrics["floors"], metrics["data"]["ks"]
    for key, name in BASELINES.items():
        if is_number(baselines.get(key)):
            axes.axhline(baselines[key], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
            axes.text(
                1.01, baselines[key], name, transform=axes.get_yaxis_transform(), fontsize=8, color=FAINT, va="center"
            )
    best = [baselines[f"oracle@{k}"] for k in ks]
    axes.plot(ks, best, color=FAINT, linewidth=1.2, marker="v", markersize=4, label="best possible")
    for number, (name, system) in enumerate(metrics["systems"].items()):
        values = [system[f"attribute_accuracy@{k}"] for k in ks]
        axes.plot(ks, values, color=color_of(number), linewidth=2.2, marker="o", markersize=5, label=name)
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    dress(axes, "attribute accuracy of the top k", "k")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    if len(metrics["systems"]) <= 4:
        names_above(axes)
    else:
        figure.legend(frameon=False, fontsize=8, labelcolor=INK, loc="outside lower left", ncols=4)
    return saved(figure, "png")


def retrieval_png(metrics: Mapping[str, Any]) -> bytes:
    """Bars of recall@1/5/10 and mAP, a panel each; a line for each system, under its name, however many there are."""
    names = list(metrics["systems"])
    colors = [color for color, _ in styles(names)]
    size = (3.2 + 2.3 * len(RETRIEVAL_METRICS), 0.9 + 0.27 * len(names))
    figure = Figure(figsize=size, dpi=110, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(RETRIEVAL_METRICS), sharey=True)
    for axes, metric in zip(panels, RETRIEVAL_METRICS, strict=True):
        values = [metrics["systems"][name][metric] for name in names]
        bars = axes.barh(names, [value or 0 for value in values], 0.72, color=colors)
        labels = ["-" if value is None else f"{value:.3f}" for value in values]
        axes.bar_label(bars, labels, fontsize=8, color=INK, padding=2)
        dress(axes, metric, "")
        axes.set_xlim(0, 1.22)  # room for the figure beside a bar
        axes.set_xticks((0, 0.5, 1))
        axes.grid(visible=False, axis="y")
    panels[0].invert_yaxis()
    return saved(figure, "png")


def precision_recall_png(curves: Mapping[str, Sequence[float]], title: str = "precision and recall") -> bytes:
    """Interpolated precision over recall, the mean of the queries, for every system; their names stand beside it."""
    figure, (axes,) = new_figure(1, width=8.0)
    for (name, curve), (color, dashes) in zip(curves.items(), styles(list(curves)), strict=True):
        axes.plot(np.arange(101) / 100, curve, color=color, linestyle=dashes, linewidth=1.6, label=name)
    dress(axes, title, "recall")
    axes.set_ylim(0, 1.03)
    axes.set_xlim(0, 1)
    figure.legend(frameon=False, fontsize=8, labelcolor=INK, loc="outside right upper")
    return saved(figure, "png")


def reliability_png(calibrations: Mapping[str, Calibration]) -> bytes:
    """What was told beside what was found, a line for each system; a dot's area is the share of pairs behind it."""
    figure, (axes,) = new_figure(1, width=5.6)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    for (name, calibration), (color, _) in zip(calibrations.items(), styles(list(calibrations)), strict=True):
        bars = calibration.reliability
        told, found = [bar.told for bar in bars], [bar.found for bar in bars]
        axes.plot(told, found, color=color, linewidth=1.6, label=name)
        axes.scatter(told, found, s=[20 + 300 * bar.share for bar in bars], color=color, alpha=0.75, linewidths=0)
    dress(axes, "reliability of probabilities", "told, by a curve of other people")
    axes.set_ylabel("found: share that shows the same", color=FAINT)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    names_above(axes)
    return saved(figure, "png")


def trade_off_png(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    chosen: tuple[str, float, float],
    recall: float | None = None,
    seconds: float | None = None,
) -> bytes:
    """What an index finds for its time: a line for each kind, through the best of its settings.

    Args:
        lines: name -> (recall, seconds of a query) of its settings. chosen: name, recall and seconds of what was taken.
        recall, seconds: what was asked for, if it was.
    """
    figure, (axes,) = new_figure(1, width=8.0)
    for (name, points), (color, dashes) in zip(lines.items(), styles(list(lines)), strict=True):
        best, kept = 0.0, []
        for time, found in sorted((time, found) for found, time in points):
            if found > best:  # no setting that is slower and finds no more
                best = found
                kept.append((1e3 * time, found))
        axes.plot(*zip(*kept), color=color, linestyle=dashes, linewidth=1.6, marker="o", markersize=3, label=name)
    if recall is not None:
        axes.axhline(recall, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    if seconds is not None:
        axes.axvline(1e3 * seconds, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    name, found, time = chosen
    axes.plot([1e3 * time], [found], marker="*", markersize=15, color=RIGHT, linestyle="none", label=f"chosen: {name}")
    axes.set_xscale("log")
    dress(axes, "recall of the 10 nearest", "milliseconds a query, one thread, 95 of 100")
    figure.legend(frameon=False, fontsize=8, labelcolor=INK, loc="outside right upper")
    return saved(figure, "png")
