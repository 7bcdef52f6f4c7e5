"""Reports: what the tables say, and that every picture is drawn from what it is given."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.images.pixels import encode_jpeg
from retrieval.reports import charts, scenes, sheets, style, tables
from retrieval.reports.page import ranked_sheet, render
from retrieval.reports.sheets import Hit, SheetRow


def metrics(**data: Any) -> dict[str, Any]:
    """Two systems with attributes, as measure.py makes them."""
    ks, systems = [10, 37], {}
    for name, base in (("before", 0.2), ("after", 0.4)):
        figures: dict[str, Any] = {key: base + 0.1 * i for i, key in enumerate(tables.RETRIEVAL_METRICS)}
        for k in ks:
            figures |= {f"attribute_accuracy@{k}": 0.8 + base / 10, f"attribute_distance@{k}": 0.4 - base / 5}
            figures |= {f"attribute_pairs@{k}": 7 * k, f"query_seconds@{k}": 0.25}
        figures |= {"index_recall@10": 1.0, "index_type": "Flat", "embed_images": 1234}
        systems[name] = figures | {"embed_seconds": 12.34, "embed_seconds_in_model": None}
    floors = {"random_pair": 0.728, "majority_vector": 0.806, "same_identity_pair": None}
    known = {
        "protocol": "query/gallery",
        "asks_itself": False,
        "num_queries": 7,
        "num_gallery": 37,
        "num_identities": 7,
        "num_without_positive": 0,
        "num_queries_without_attributes": 2,
        "ks_asked": [10, 1000],
        "ks": ks,
    }
    return {
        "data": known | data,
        "systems": systems,
        "floors": floors | {"oracle@10": 0.952, "oracle@37": 0.878},
    }


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def close_to(picture: np.ndarray, color: str, tolerance: int = 40) -> int:
    """Number of pixels of about this colour."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture - wanted).max(axis=2) <= tolerance).sum())


def row_of(text: str, title: str, name: str) -> list[str]:
    table = text[text.index(title) :]
    line = next(line for line in table.splitlines() if line.startswith(name))
    return line[len(name) :].split()


def test_text_says_every_figure() -> None:
    text = tables.as_text(metrics())
    assert "7 query photos against a gallery of 37; 7 people (query/gallery)." in text
    assert row_of(text, "Retrieval", "before") == ["0.2000", "0.3000", "0.4000", "0.5000", "1.0000"]
    change = ["+0.2000", "(x2.00)", "+0.2000", "(x1.67)", "+0.2000", "(x1.50)", "+0.2000", "(x1.40)"]
    assert row_of(text, "Retrieval", "change") == change
    assert row_of(text, "Attribute accuracy", "after") == ["84.00%", "84.00%"]
    assert row_of(text, "Attribute accuracy", "best possible") == ["95.20%", "87.80%"]
    assert row_of(text, "Attribute accuracy", "same-identity pair") == ["-", "-"]
    assert row_of(text, "Mean attribute distance", "random pair") == ["0.5440", "0.5440"]
    assert row_of(text, "Seconds", "before") == ["1,234", "12.3", "-", "Flat", "0.2500", "0.2500"]
    assert row_of(text, "Published on CelebA", "ResNet-50, fine-tuned") == ["82.33%", "0.3534", "41", "93-102"]
    assert "259 query-result pairs scored at k=37; 2 queries have no attributes; k=1000 clipped to 37" in text


def test_without_attributes_their_tables_are_left_out() -> None:
    given: dict[str, Any] = metrics(protocol="leave-one-out", asks_itself=True, num_gallery=8) | {"floors": None}
    text = tables.as_text(given)
    assert "each a query against the other 7" in text
    assert "Attribute" not in text and "CelebA" not in text
    assert "change" not in tables.as_text(given | {"systems": {"model": given["systems"]["after"]}})


def test_published_figures_obey_distance_is_twice_the_disagreement() -> None:
    """A transcription slip in one of the two columns would show."""
    table = tables.tables(metrics())[-1]
    assert len(table.rows) == 9
    for name, accuracy, distance, *_ in table.rows:
        assert float(distance) == pytest.approx(2 * (1 - float(accuracy.rstrip("%")) / 100), abs=2e-4), name


def test_html_escapes_names_and_holds_its_pictures() -> None:
    given = metrics()
    given["systems"] = {"<b>old</b>": given["systems"]["before"], "new & better": given["systems"]["after"]}
    page = render(
        given,
        title="a < b",
        plots=[("plot", b"png")],
        sheets=[ranked_sheet("<s>", b"jpg")],
        facts={"model": "x<y"},
    )
    assert "<b>old</b>" not in page and "&lt;b&gt;old&lt;/b&gt;" in page and "new &amp; better" in page
    assert "x&lt;y" in page and "a &lt; b" in page
    assert re.findall(r'src="([^"]+)"', page) == ["data:image/png;base64,cG5n", "data:image/jpeg;base64,anBn"]
    assert "http" not in page and "<script" not in page
    for tag in ("table", "div", "h2", "tr", "td"):
        assert len(re.findall(f"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def test_sheet_frames_right_green_and_wrong_red() -> None:
    grey = encode_jpeg(np.full((40, 40, 3), 128, np.uint8))

    def sheet(*right: bool) -> np.ndarray:
        hits = [Hit(jpeg=grey, label="somebody with a very long name", score=0.5, right=one) for one in right]
        return pixels(sheets.sheet_jpg([SheetRow(jpeg=grey, label="q", hits=hits)], title="t"))

    for shown, green, red in ((sheet(True, True), 2, 0), (sheet(True, False), 1, 1), (sheet(False, False), 0, 2)):
        one_frame = 1000  # pixels, at least: a frame of 4 x 96 and 4 wide, less what JPEG blurs
        assert (close_to(shown, style.RIGHT) > one_frame) == (green > 0)
        assert (close_to(shown, style.WRONG) > one_frame) == (red > 0)
    full, part = sheet(*[True] * 10), sheet(True)
    assert full.shape[0] == part.shape[0] and full.shape[1] > 1.7 * part.shape[1]  # as wide as the longest row asks
    assert close_to(full, style.RIGHT) > 8 * close_to(part, style.RIGHT)


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


def test_many_systems_have_a_line_each_and_no_two_look_the_same() -> None:
    steps = ("", " + QE", " + Lw", " + Lw + QE", " + ms", " + ms + QE", " + ms + Lw", " + ms + Lw + QE", " + rerank")
    names = [f"{stem}{step}" for stem in ("before", "after") for step in steps]
    assert len(set(map(str, style.styles(names)))) == len(names)
    few, many = metrics(), metrics()
    many["systems"] = dict.fromkeys(names, few["systems"]["before"])
    assert pixels(charts.retrieval_png(many)).shape[0] > 3 * pixels(charts.retrieval_png(few)).shape[0]
    # The curves lie along the bottom: all above them is empty, since the names stand beside the plot.
    lines = pixels(charts.precision_recall_png({name: [0.0] * 101 for name in names}))
    plot = lines[40 : lines.shape[0] // 2, 60 : 7 * lines.shape[1] // 10]
    assert close_to(plot, style.INK, 90) == 0
    assert close_to(lines[:, 3 * lines.shape[1] // 4 :], style.INK, 90) > 500


def test_a_badly_placed_camera_does_not_shrink_the_scene_to_a_dot() -> None:
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(500, 3)), 6 * rng.normal(size=(16, 3))
    points[3], centres[5] = 900, 7000
    near_points, near_cameras = scenes.in_view(points, centres)
    assert np.flatnonzero(~near_cameras).tolist() == [5]
    assert np.flatnonzero(~near_points).tolist() == [3]
