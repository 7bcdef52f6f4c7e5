"""Figures can be told apart, and show no more panels than there is something to show in."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from retrieval.reports import style
from tests.support.figures import pixels

STEPS = ("", " + QE", " + Lw", " + Lw + QE", " + ms", " + ms + QE", " + ms + Lw", " + ms + Lw + QE", " + rerank")


def test_no_two_of_many_systems_look_the_same() -> None:
    names = [f"{stem}{step}" for stem in ("before", "after") for step in STEPS]
    found = style.styles(names)
    assert len(set(map(str, found))) == len(names)
    for at in range(len(STEPS)):  # a colour a step; what is last drawn is solid, what was before it dashed
        assert found[at][0] == found[at + len(STEPS)][0] == style.COLORS[at]
        assert found[at][1] != "solid" and found[at + len(STEPS)][1] == "solid"


def test_few_systems_have_a_solid_line_and_a_colour_each() -> None:
    names = [str(number) for number in range(len(style.COLORS))]
    assert style.styles(names) == [(color, "solid") for color in style.COLORS]
    assert style.color_of(len(style.COLORS)) == style.COLORS[0] != style.color_of(1)


def test_numbers_are_those_that_can_be_drawn() -> None:
    assert [style.is_number(value) for value in (1, 0.5, np.float64(2))] == [True] * 3
    assert [style.is_number(value) for value in (True, None, "1", float("nan"), float("inf"))] == [False] * 5


def test_panels_stand_two_in_a_row_and_spare_ones_are_blank() -> None:
    for num, rows, columns in ((1, 1, 1), (2, 1, 2), (3, 2, 2), (5, 3, 2)):
        figure, panels = style.new_figure(num)
        assert len(panels) == num
        assert len(figure.axes) == rows * columns
        assert sum(axes.axison for axes in figure.axes) == num
        assert tuple(figure.get_size_inches().round(2)) == (round(4.2 * columns, 2), round(3.4 * rows, 2))


def test_a_dressed_plot_has_its_title_and_only_its_lower_edge() -> None:
    _, (axes,) = style.new_figure(1)
    style.dress(axes, "the title", "the axis")
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("the title", "the axis")
    assert [side for side, spine in axes.spines.items() if spine.get_visible()] == ["bottom"]
    assert axes.get_axisbelow() is True


def test_names_stand_above_the_plot() -> None:
    figure, (axes,) = style.new_figure(1, width=6.0)
    for name in ("before", "after", "best possible"):
        axes.plot([0, 1], [0, 1], label=name)
    style.dress(axes, "title", "x")
    style.names_above(axes)
    figure.canvas.draw()
    legend = axes.get_legend()
    assert legend is not None
    box, plot = legend.get_window_extent(), axes.get_window_extent()
    assert box.y0 >= plot.y1 - 0.04 * plot.height
    title = axes.title if axes.title.get_text() else axes._left_title  # type: ignore[attr-defined]
    assert box.x0 > title.get_window_extent().x1 and box.x1 <= plot.x1 + 1


def test_pictures_are_what_they_are_called() -> None:
    figure = Figure(figsize=(1, 1), dpi=50)
    for kind, name in (("png", "PNG"), ("jpg", "JPEG")):
        data = style.saved(figure, kind)
        assert Image.open(io.BytesIO(data)).format == name
        assert pixels(data).shape == (50, 50, 3)
