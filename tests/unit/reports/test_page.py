"""One page with everything in it, that escapes what it is given and colours gains and losses."""

from __future__ import annotations

import re
from typing import Any

import pytest

from retrieval.reports.page import Sheet, page, ranked_sheet, render
from retrieval.reports.tables import Table
from tests.support.figures import metrics


def shown(given: dict[str, Any], **others: Any) -> str:
    return render(given, **({"title": "t", "plots": [], "sheets": [], "facts": {}} | others))


def test_names_are_escaped_and_pictures_are_inside() -> None:
    given = metrics()
    given["systems"] = {"<b>old</b>": given["systems"]["before"], "new & better": given["systems"]["after"]}
    html = shown(
        given, title="a < b", plots=[("<p>", b"png")], sheets=[ranked_sheet("<s>", b"jpg")], facts={"<m>": "x<y"}
    )
    assert "<b>old</b>" not in html and "&lt;b&gt;old&lt;/b&gt;" in html and "new &amp; better" in html
    for raw in ("x<y", "a < b", "<p>p", 'alt="<', "<s>", "<m>"):
        assert raw not in html, raw
    assert "x&lt;y" in html and "a &lt; b" in html and "&lt;s&gt;" in html and "&lt;m&gt;" in html
    assert re.findall(r'src="([^"]+)"', html) == ["data:image/png;base64,cG5n", "data:image/jpeg;base64,anBn"]
    assert "http" not in html and "<script" not in html
    for tag in ("table", "div", "h2", "tr", "td"):
        assert len(re.findall(f"<{tag}[ >]", html)) == html.count(f"</{tag}>"), tag


def cards(html: str) -> list[str]:
    return re.findall(r'<div class="card">(.*?)</div>', html)


def test_gains_are_up_losses_are_down() -> None:
    given = metrics()
    given["systems"]["after"] |= {"recall@1": 0.05, "recall@5": 0.3}
    first, second, third, fourth = cards(shown(given))
    then = '<span class="faint">before: 0.200</span>'
    assert first == f'<span class="faint">recall@1</span><b>0.050</b><span class="down">-0.150</span> {then}'
    assert '<b>0.300</b><span class="faint">+0.000</span>' in second
    assert '<b>0.600</b><span class="up">+0.200</span>' in third and "before: 0.400" in third
    assert '<span class="faint">mAP</span><b>0.700</b>' in fourth


def test_the_last_system_is_the_headline_and_one_alone_has_nothing_before_it() -> None:
    given = metrics()
    given["systems"] = {"a": given["systems"]["before"], "b": given["systems"]["before"] | {"recall@1": 0.9}} | {
        "c": given["systems"]["after"]
    }
    assert "<b>0.400</b>" in cards(shown(given))[0] and "a: 0.200" in cards(shown(given))[0]
    given["systems"] = {"c": given["systems"]["c"]}
    assert cards(shown(given))[0] == '<span class="faint">recall@1</span><b>0.400</b>'


def test_a_figure_that_could_not_be_measured_is_a_dash() -> None:
    given = metrics()
    given["systems"]["after"]["mAP"] = None
    assert cards(shown(given))[3] == '<span class="faint">mAP</span><b>-</b>'


@pytest.mark.parametrize(
    ("floors", "subject", "said"), [(None, "person", True), (None, "place", False), ({}, "person", False)]
)
def test_missing_attributes_are_said_of_people_only(floors: Any, subject: str, said: bool) -> None:
    given = metrics(subject=subject)
    given = given if floors is not None else given | {"floors": None}
    assert ("Not measured" in shown(given)) == said


def test_parts_stand_in_order_and_faint_rows_are_faint() -> None:
    table = Table(
        title="T1", header=("", "x"), rows=(("ours", "1"), ("theirs", "2")), note="n", faint=frozenset({"theirs"})
    )
    bare = Table(title="T2", header=("", "x"), rows=())
    html = page(
        title="Title",
        summary="Summary",
        tables=[table, bare],
        plots=[("plot", b"1")],
        facts={"key": "value"},
        lead="<i>lead</i>",
        more=("<i>more</i>",),
        sheets=[Sheet(title="sheet", note="look", data=b"2")],
    )
    places = [
        html.index(part)
        for part in (
            "<h1>Title</h1>",
            "Summary",
            "<i>lead</i>",
            "<h2>T1</h2>",
            '<p class="note">n.</p>',
            "<h2>T2</h2>",
            "<i>more</i>",
            "<h2>Plots</h2>",
            'alt="plot"',
            "<h2>sheet</h2>",
            "look",
            'alt="sheet"',
            "<td>key</td>",
        )
    ]
    assert places == sorted(places)
    assert '<tr class="faint"><td>theirs</td><td>2</td></tr>' in html and "<tr><td>ours</td><td>1</td></tr>" in html
    assert html.count('class="note"') == 2 and "<title>Title</title>" in html
    assert '<img class="sheet" alt="sheet"' in html and '<img class="" alt="plot"' in html
