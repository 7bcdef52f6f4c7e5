"""What the tables say, figure by figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.calibration import Calibration, Rate
from retrieval.artifacts.folder import Folder
from retrieval.reports import tables
from retrieval.reports.tables import Table, text_of
from tests.support.figures import metrics

CELEBA = {"random_pair": 0.7331, "majority_vector": 0.7989, "same_identity_pair": 0.8611}


def row_of(text: str, title: str, name: str) -> list[str]:
    table = text[text.index(title) :]
    line = next(line for line in table.splitlines() if line.startswith(name))
    return line[len(name) :].split()


def with_baselines(**values: float | None) -> dict[str, Any]:
    given = metrics()
    return given | {"floors": given["floors"] | values}


def test_text_says_every_figure() -> None:
    text = tables.as_text(with_baselines(**CELEBA))
    assert "7 query photos against a gallery of 37; 7 people (query/gallery)." in text
    assert row_of(text, "Retrieval", "before") == ["0.2000", "0.3000", "0.4000", "0.5000", "1.0000"]
    change = ["+0.2000", "(x2.00)", "+0.2000", "(x1.67)", "+0.2000", "(x1.50)", "+0.2000", "(x1.40)"]
    assert row_of(text, "Retrieval", "change") == change
    assert row_of(text, "Attribute accuracy", "before") == ["82.00%", "82.00%"]
    assert row_of(text, "Attribute accuracy", "after") == ["84.00%", "84.00%"]
    assert row_of(text, "Attribute accuracy", "majority vector") == ["79.89%", "79.89%"]
    assert row_of(text, "Attribute accuracy", "best possible") == ["95.20%", "87.80%"]
    assert row_of(text, "Mean attribute distance", "before") == ["0.3600", "0.3600"]
    assert row_of(text, "Mean attribute distance", "random pair") == ["0.5338", "0.5338"]
    assert row_of(text, "Mean attribute distance", "best possible") == ["0.0960", "0.2440"]
    assert row_of(text, "Seconds", "before") == ["1,234", "12.3", "-", "Flat", "0.2500", "0.2500"]
    assert row_of(text, "Published on CelebA", "ResNet-50, fine-tuned") == ["82.33%", "0.3534", "41", "93-102"]
    assert "259 query-result pairs scored at k=37; 2 queries have no attributes; k=1000 clipped to 37" in text
    assert "all 7 queries through the index, one thread; k=1000 clipped to 37, all there is" in text


def test_a_loss_has_its_sign_and_a_figure_that_is_not_there_has_none() -> None:
    given = metrics()
    given["systems"]["after"] |= {"recall@1": 0.15, "recall@5": 0.3, "mAP": None}
    given["systems"]["before"]["recall@10"] = 0.0
    text = tables.as_text(given)
    assert row_of(text, "Retrieval", "change") == ["-0.0500", "(x0.75)", "+0.0000", "(x1.00)", "+0.6000"]
    assert row_of(text, "Retrieval", "after")[3] == "-"


def test_the_change_is_from_the_first_system_to_the_last() -> None:
    given = metrics()
    given["systems"] = {
        "before": given["systems"]["before"],
        "between": given["systems"]["before"] | {"recall@1": 0.9},
        "after": given["systems"]["after"],
    }
    assert row_of(tables.as_text(given), "Retrieval", "change")[:2] == ["+0.2000", "(x2.00)"]
    alone = given | {"systems": {"model": given["systems"]["after"]}}
    assert "change" not in tables.as_text(alone)


def test_what_was_left_out_is_said() -> None:
    assert "3 queries without a match in the gallery are left out" in tables.as_text(metrics(num_without_positive=3))
    assert "left out" not in tables.as_text(metrics())
    assert "clipped" not in tables.as_text(metrics(ks_asked=[10, 37]))


def test_places_are_no_people() -> None:
    place = tables.as_text(metrics(subject="place"))
    assert "7 places (query/gallery)" in place and "a photo of the same place is among the first k" in place
    assert "person" not in place and "people" not in place
    assert "a photo of the same person is among the first k" in tables.as_text(metrics())


def test_without_attributes_their_tables_are_left_out() -> None:
    given: dict[str, Any] = metrics(protocol="leave-one-out", asks_itself=True, num_gallery=8) | {"floors": None}
    text = tables.as_text(given)
    assert "7 photos, each a query against the other 7; 7 people (leave-one-out)." in text
    assert "Attribute" not in text and "CelebA" not in text
    titles = [table.title for table in tables.tables(given)]
    assert titles == ["Retrieval", "Seconds"]


def test_the_published_stand_beside_figures_of_like_photos_only() -> None:
    """The second line is what the drawn faces of the demo give, which have CelebA's format and not its people."""
    assert tables.like_celeba(CELEBA)
    assert not tables.like_celeba({"random_pair": 0.7217, "majority_vector": 0.8135, "same_identity_pair": 0.9283})
    for name in CELEBA:
        assert not tables.like_celeba(CELEBA | {name: CELEBA[name] + 0.04})
        assert not tables.like_celeba(CELEBA | {name: CELEBA[name] - 0.04})
        assert not tables.like_celeba(CELEBA | {name: None})
    assert not tables.like_celeba(None)
    assert "CelebA" not in tables.as_text(metrics())


def test_published_figures_obey_distance_is_twice_the_disagreement() -> None:
    """A transcription slip in one of the two columns would show."""
    table = tables.tables(with_baselines(**CELEBA))[-1]
    assert len(table.rows) == 9 and table.faint == {row[0] for row in table.rows}
    for name, accuracy, distance, *_ in table.rows:
        assert float(distance) == pytest.approx(2 * (1 - float(accuracy.rstrip("%")) / 100), abs=2e-4), name


def test_what_is_not_ours_is_faint() -> None:
    _, accuracy, distance, seconds = tables.tables(metrics())
    others = {"random pair", "majority vector", "same-identity pair", "best possible"}
    assert accuracy.faint == distance.faint == others and not seconds.faint


def test_columns_are_aligned_and_rows_of_other_length_refused() -> None:
    table = Table(title="T", header=("", "long header", "b"), rows=(("name", "1", "22"), ("n", "333", "4")), note="why")
    assert text_of("H", [table]).splitlines() == [
        "H",
        "",
        "T",
        "      long header   b",
        "----  -----------  --",
        "name            1  22",
        "n             333   4",
        "(why)",
    ]
    with pytest.raises(AssertionError, match="has 2 columns"):
        Table(title="T", header=("", "a"), rows=(("name", "1", "2"),))


def test_seconds_join_the_figures_of_their_system_in_order(tmp_path: Path) -> None:
    report, given = Folder.of(tmp_path), metrics()
    seconds = {}
    for name, factor in (("before", 1), ("after", 2)):
        own = given["systems"][name]
        timed = [key for key in own if "seconds" in key]
        seconds[name] = {key: own.pop(key) and factor * 0.25 for key in timed}
    report.write_json("metrics.json", given | {"order": ["before", "after"]})
    report.write_json("timings.json", {"systems": seconds})
    read = tables.read_metrics(report)
    assert list(read["systems"]) == ["before", "after"]  # files sort them by name
    text = tables.as_text(read)
    assert row_of(text, "Seconds", "before") == ["1,234", "0.2", "-", "Flat", "0.2500", "0.2500"]
    assert row_of(text, "Seconds", "after") == ["1,234", "0.5", "-", "Flat", "0.5000", "0.5000"]
    report.remove("timings.json")
    assert row_of(tables.as_text(tables.read_metrics(report)), "Seconds", "after")[1:] == ["-", "-", "Flat", "-", "-"]


def test_seconds_of_each_k_have_their_own_column() -> None:
    given = metrics()
    given["systems"]["after"] |= {"query_seconds@10": 0.125, "query_seconds@37": 0.5, "embed_seconds_in_model": 3.0}
    assert row_of(tables.as_text(given), "Seconds", "after") == ["1,234", "12.3", "3.0", "Flat", "0.1250", "0.5000"]


def test_pairs_are_those_of_the_system_that_has_most() -> None:
    given = metrics()
    given["systems"]["before"]["attribute_pairs@37"] = 260
    assert "260 query-result pairs scored at k=37" in tables.as_text(given)


def test_what_a_score_means_is_told_for_promised_rates_and_the_others_say_why() -> None:
    rate = Rate(
        far=1e-3,
        threshold=0.3594,
        threshold_interval=(0.3576, 0.3612),
        far_interval=(0.00093, 0.00107),
        true_accept=0.979,
        true_accept_interval=(0.97, 0.985),
        false_accepts=739.3,
    )
    found = Calibration(model="m", people=1200, rates=(rate, Rate(far=1e-4, why="too few for this")))
    text = tables.as_text({**metrics(), "calibrations": {"after": found}})
    row = row_of(text, "What a score means", "after")
    assert " ".join(row) == "0.001 0.359 0.358 to 0.361 0.00093 to 0.00107 97.90% 1,200, 739"
    assert "too few for this" in text
    nothing = tables.as_text({**metrics(), "calibrations": {"after": Calibration(model="m", why="nobody is labelled")}})
    assert "nothing is promised" in nothing and "nobody is labelled" in nothing
    assert "What a score means" not in tables.as_text(metrics())
