"""How all figures look."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

RIGHT, WRONG = "#1a7f37", "#cf222e"

INK, FAINT, GRID = "#1f2328", "#6e7781", "#d8dee4"

COLORS = ("#8c96a0", "#0969da", "#bc4c00", "#8250df", "#1b7c83", "#bf3989", "#4d2d00", "#2da44e", "#54aeff", "#953800")


def color_of(number: int) -> str:
    return COLORS[number % len(COLORS)]


def styles(names: Sequence[str]) -> list[tuple[str, Any]]:
    """Colour and dashes of each system: a colour each; where there are too few, "before + X" is "after + X" dashed."""
    if len(names) <= len(COLORS):
        return [(color_of(number), "solid") for number in range(len(names))]
    parts = [name.partition(" + ") for name in names]
    stems, steps = (list(dict.fromkeys(part[at] for part in parts)) for at in (0, 2))
    dashes = [*((0, (3, 1 + number)) for number in range(len(stems) - 1)), "solid"]
    return [(color_of(steps.index(step)), dashes[stems.index(stem)]) for stem, _, step in parts]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def new_figure(num_panels: int, width: float = 4.2) -> tuple[Figure, Sequence[Axes]]:
    columns = min(num_panels, 2)
    lines = math.ceil(num_panels / columns)
    figure = Figure(figsize=(width * columns, 3.4 * lines), dpi=130, facecolor="white", layout="constrained")
    grid: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for unused in grid[num_panels:]:
        unused.axis("off")
    return figure, grid[:num_panels]


def dress(axes: Axes, title: str, x: str) -> None:
    axes.set_title(title, fontsize=11, color=INK, loc="left", weight="bold")
    axes.set_xlabel(x, color=FAINT)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def names_above(axes: Axes) -> None:
    """The lines' names in a row above the plot, at its right end: no line can run through them."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=20, borderaxespad=0, frameon=False, fontsize=8,
        labelcolor=INK, handlelength=1.1, handletextpad=0.4, columnspacing=0.9,
    )  # fmt: skip


def saved(figure: Figure, kind: str) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format=kind, pil_kwargs={"quality": 88} if kind == "jpg" else None)
    return data.getvalue()
