"""Pictures of an evaluation: the content of metrics.json (see report_tables) or photos in, image bytes out.

Figures are drawn through matplotlib's object interface: no global state, no display, safe in any worker.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from retrieval import images
from retrieval.covisibility import SparseModel
from retrieval.report_tables import FLOORS, RETRIEVAL_METRICS

RIGHT, WRONG = "#1a7f37", "#cf222e"
INK, FAINT, GRID = "#1f2328", "#6e7781", "#d8dee4"
_COLORS = ("#8c96a0", "#0969da", "#bc4c00", "#8250df", "#1b7c83", "#bf3989", "#4d2d00", "#2da44e", "#54aeff", "#953800")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One result on a ranked sheet: `jpeg` bytes, its label, its score and whether it shows the query's identity."""

    jpeg: bytes
    label: str
    score: float
    right: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetRow:
    """One query with its best results, best first."""

    jpeg: bytes
    label: str
    hits: Sequence[Hit]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedPhotos:
    """Two JPEGs, and the (n, 2) points x, y of each that match."""

    jpegs: tuple[bytes, bytes]
    points: tuple[np.ndarray, np.ndarray]
    caption: str


def sheet_jpg(rows: Sequence[SheetRow], *, title: str, thumb: int = 96) -> bytes:
    """A ranked-result sheet: each query, then its results left to right, framed green (right) or red (wrong).

    Right and wrong differ in the mark under the picture too, for readers who do not tell red from green.
    """
    cell, lead = 1.0, 0.35  # axes units: a thumbnail is 0.86 wide, the query stands a little apart
    longest = max([5, *(len(row.hits) for row in rows)])  # five leave room for the title
    width, height = (longest + 1) * cell + lead, len(rows) * 1.22 * cell
    figure = Figure(figsize=(width, height + 0.55), dpi=thumb / 0.86, facecolor="white")
    axes = figure.add_axes((0, 0, 1, height / (height + 0.55)))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    figure.text(0.012, 1 - 0.3 / (height + 0.55), title, va="center", fontsize=11, color=INK, weight="bold")
    for number, row in enumerate(rows):
        top = number * 1.22 + 0.03
        _thumbnail(axes, row.jpeg, 0.07, top, thumb, INK, 1.0)
        _caption(axes, 0.5, top, f"query {row.label}", INK)
        for place, hit in enumerate(row.hits):
            left = (place + 1) * cell + lead + 0.03
            color = RIGHT if hit.right else WRONG
            _thumbnail(axes, hit.jpeg, left, top, thumb, color, 3.0)
            _caption(axes, left + 0.43, top, f"{'✓' if hit.right else '✗'} {hit.score:.2f}  {hit.label}", color)
    return _saved(figure, "jpg")


def _thumbnail(axes: Axes, jpeg: bytes, left: float, top: float, thumb: int, color: str, line: float) -> None:
    picture = images.decode_fit(jpeg, 2 * thumb)
    tall, wide = (0.86 * side / max(picture.shape[:2]) for side in picture.shape[:2])
    x, y = left + (0.86 - wide) / 2, top + (0.86 - tall) / 2
    axes.imshow(picture, extent=(x, x + wide, y + tall, y), aspect="auto", interpolation="antialiased")
    axes.add_patch(Rectangle((left, top), 0.86, 0.86, fill=False, edgecolor=color, linewidth=line, joinstyle="round"))


def _caption(axes: Axes, x: float, top: float, text: str, color: str) -> None:
    short = text if len(text) <= 19 else f"{text[:18]}…"
    axes.text(x, top + 0.99, short, ha="center", va="center", fontsize=5.8, color=color)


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
    figure, grid = _figure(len(panels))
    for axes, (title, keys) in zip(grid, panels):
        for number, key in enumerate(keys):
            points = [(at, row[key]) for at, row in zip(epochs, history) if _is_number(row.get(key))]
            color = _COLORS[(number + 1) % len(_COLORS)]
            axes.plot(*zip(*points), color=color, label=key.partition("/")[2], linewidth=2, marker="o", markersize=3.5)
        if title == "validation":
            _mark_best(axes, epochs, history, keys[0])
        _dress(axes, title, "epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
        if title.startswith("seconds"):
            axes.set_ylim(bottom=0)
        if len(keys) > 1 or title == "validation":
            axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return _saved(figure, "png")


def _panels(history: Sequence[Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    numbers = sorted({key for row in history for key, value in row.items() if _is_number(value)})
    val = [key for key in numbers if key.startswith("val/") and not key.endswith("loss")]
    val.sort(key=lambda key: key != "val/mAP")  # mAP chooses the checkpoint, so it leads and gets the mark
    losses = [key for key in numbers if key.endswith("loss")]
    spread = [key for key in numbers if key == "train/spread"]
    seconds = [key for key in numbers if key.startswith("seconds/")]
    power = [key for key in numbers if key == "train/p"]
    panels = [("loss", losses), ("validation", val), ("spread of embeddings", spread), ("GeM's p", power)]
    return [*panels, ("seconds an epoch", seconds)]


def _mark_best(axes: Axes, epochs: Sequence[float], history: Sequence[Mapping[str, float]], key: str) -> None:
    value, at = max((row[key], -epoch) for epoch, row in zip(epochs, history) if _is_number(row.get(key)))
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
    """Attribute accuracy over k for every system, between the floors and the ceiling measured on the same data."""
    figure, (axes,) = _figure(1, width=6.6)
    floors, ks = metrics["floors"], metrics["data"]["ks"]
    for key, name in FLOORS.items():
        if _is_number(floors.get(key)):
            axes.axhline(floors[key], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
            axes.text(
                1.01, floors[key], name, transform=axes.get_yaxis_transform(), fontsize=8, color=FAINT, va="center"
            )
    best = [floors[f"oracle@{k}"] for k in ks]
    axes.plot(ks, best, color=FAINT, linewidth=1.2, marker="v", markersize=4, label="best possible")
    for number, (name, system) in enumerate(metrics["systems"].items()):
        values = [system[f"attribute_accuracy@{k}"] for k in ks]
        axes.plot(ks, values, color=_color(number), linewidth=2.2, marker="o", markersize=5, label=name)
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    _dress(axes, "attribute accuracy of the top k", "k")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return _saved(figure, "png")


def retrieval_png(metrics: Mapping[str, Any]) -> bytes:
    """Bars of recall@1/5/10 and mAP, a panel each; a line for each system, under its name, however many there are."""
    names = list(metrics["systems"])
    colors = [color for color, _ in _styles(names)]
    size = (3.2 + 2.3 * len(RETRIEVAL_METRICS), 0.9 + 0.27 * len(names))
    figure = Figure(figsize=size, dpi=110, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(RETRIEVAL_METRICS), sharey=True)
    for axes, metric in zip(panels, RETRIEVAL_METRICS, strict=True):
        values = [metrics["systems"][name][metric] for name in names]
        bars = axes.barh(names, values, 0.72, color=colors)
        axes.bar_label(bars, fmt="%.3f", fontsize=8, color=INK, padding=2)
        _dress(axes, metric, "")
        axes.set_xlim(0, 1.22)  # room for the figure beside a bar
        axes.set_xticks((0, 0.5, 1))
        axes.grid(visible=False, axis="y")
    panels[0].invert_yaxis()
    return _saved(figure, "png")


def precision_recall_png(curves: Mapping[str, Sequence[float]], title: str = "precision and recall") -> bytes:
    """Interpolated precision over recall, the mean of the queries, for every system; their names stand beside it."""
    figure, (axes,) = _figure(1, width=8.0)
    for (name, curve), (color, dashes) in zip(curves.items(), _styles(list(curves)), strict=True):
        axes.plot(np.arange(101) / 100, curve, color=color, linestyle=dashes, linewidth=1.6, label=name)
    _dress(axes, title, "recall")
    axes.set_ylim(0, 1.03)
    axes.set_xlim(0, 1)
    figure.legend(frameon=False, fontsize=8, labelcolor=INK, loc="outside right upper")
    return _saved(figure, "png")


def scene_png(model: SparseModel, title: str, second: str) -> bytes:
    """A reconstructed place from above and from the side: its points in their colours, its cameras and where they look.

    A reconstruction has no up of its own: the view is along the axes in which cameras and points spread most. What lies
    far outside (one badly placed camera would shrink all else to a dot) is left out, and the first title counts it.

    Args: title, second: what stands over each of the two views.
    """
    middle = np.median(model.points, axis=0)
    near_points, near_cameras = in_view(model.points, model.centres)
    points, cameras = model.points[near_points] - middle, model.centres[near_cameras] - middle
    axes_of = np.linalg.svd(np.concatenate([points, cameras]), full_matrices=False)[2]
    points, cameras, looks = points @ axes_of.T, cameras @ axes_of.T, model.directions[near_cameras] @ axes_of.T
    if outside := int((~near_cameras).sum()):
        title += f" ({outside} far outside)"
    low, high = np.percentile(np.concatenate([points, cameras]), (1, 99), axis=0)
    low, high = np.minimum(low, cameras.min(axis=0)), np.maximum(high, cameras.max(axis=0))
    length = 0.06 * float(np.linalg.norm(high - low))
    figure, panels = _figure(2, width=5.0)
    for axes, (x, y), name in zip(panels, ((0, 1), (0, 2)), (title, second), strict=True):
        axes.scatter(points[:, x], points[:, y], s=1.6, c=model.colours[near_points] / 255, linewidths=0)
        axes.quiver(
            cameras[:, x], cameras[:, y], looks[:, x] * length, looks[:, y] * length,
            angles="xy", scale_units="xy", scale=1, color=WRONG, width=0.004, zorder=3,
        )  # fmt: skip
        axes.scatter(cameras[:, x], cameras[:, y], s=14, color=WRONG, zorder=4)
        margin = 0.05 * (high - low)
        axes.set_xlim(low[x] - margin[x], high[x] + margin[x])
        axes.set_ylim(low[y] - margin[y], high[y] + margin[y])
        axes.set_aspect("equal")
        _dress(axes, name, "")
    return _saved(figure, "png")


def in_view(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which points (P, 3) and camera centres (N, 3) are worth showing: (P,) and (N,) bool.

    Those no further from the points' middle than four times what half of the cameras are.
    """
    middle = np.median(points, axis=0)
    to_points, to_cameras = (np.linalg.norm(of - middle, axis=1) for of in (points, centres))
    reach = 4 * float(np.median(to_cameras))
    return to_points <= reach, to_cameras <= reach


def matches_jpg(pairs: Sequence[MatchedPhotos], *, title: str) -> bytes:
    """Pairs of photos, one a line, with a line between the points of each that match."""
    figure = Figure(figsize=(9.6, 3.5 * len(pairs) + 0.5), dpi=110, facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, weight="bold", x=0.01, ha="left")
    for axes, pair in zip(figure.subplots(len(pairs), 1, squeeze=False).ravel(), pairs, strict=True):
        left, right = (images.decode_whole(jpeg) for jpeg in pair.jpegs)
        height, gap = max(left.shape[0], right.shape[0]), 12
        both = np.full((height, left.shape[1] + gap + right.shape[1], 3), 255, np.uint8)
        both[: left.shape[0], : left.shape[1]] = left
        both[: right.shape[0], left.shape[1] + gap :] = right
        axes.imshow(both)
        shift = np.array([left.shape[1] + gap, 0])
        for number, (a, b) in enumerate(zip(pair.points[0], pair.points[1] + shift, strict=True)):
            axes.plot(*zip(a, b), color=_COLORS[1 + number % 4], linewidth=0.7, alpha=0.8, marker=".", markersize=3)
        axes.set_title(f"{pair.caption}: {len(pair.points[0])} points fit one geometry", fontsize=9, color=INK)
        axes.axis("off")
    return _saved(figure, "jpg")


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _styles(names: Sequence[str]) -> list[tuple[str, Any]]:
    """Colour and dashes of each system: a colour each; where there are too few, "before + X" is "after + X" dashed."""
    if len(names) <= len(_COLORS):
        return [(_color(number), "solid") for number in range(len(names))]
    parts = [name.partition(" + ") for name in names]
    stems, steps = (list(dict.fromkeys(part[at] for part in parts)) for at in (0, 2))
    dashes = [*((0, (3, 1 + number)) for number in range(len(stems) - 1)), "solid"]
    return [(_color(steps.index(step)), dashes[stems.index(stem)]) for stem, _, step in parts]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _figure(num_panels: int, width: float = 4.2) -> tuple[Figure, Sequence[Axes]]:
    columns = min(num_panels, 2)
    lines = math.ceil(num_panels / columns)
    figure = Figure(figsize=(width * columns, 3.4 * lines), dpi=130, facecolor="white", layout="constrained")
    grid: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for unused in grid[num_panels:]:
        unused.axis("off")
    return figure, grid[:num_panels]


def _dress(axes: Axes, title: str, x: str) -> None:
    axes.set_title(title, fontsize=11, color=INK, loc="left", weight="bold")
    axes.set_xlabel(x, color=FAINT)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _saved(figure: Figure, kind: str) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format=kind, pil_kwargs={"quality": 88} if kind == "jpg" else None)
    return data.getvalue()
