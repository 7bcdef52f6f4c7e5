"""A gallery asked piece by piece answers as one that is held whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.evaluation import systems, tasks
from retrieval.evaluation.pieces.gallery import Gallery
from retrieval.search.settings import ExpansionConfig
from tests.support.asking import asking, in_pieces


def test_pieces_and_blocks_change_no_figure(
    crowd: tuple[tasks.Task, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, vectors = crowd
    whole = systems.measure(asking(task, vectors, vectors))
    monkeypatch.setattr(systems, "_QUERIES", 10)
    monkeypatch.setattr(systems, "_PAIRS", 40)
    split = dataclasses.replace(asking(task, vectors, vectors), gallery=in_pieces(vectors, 4))
    sizes = [len(some) for some in split.blocks()]
    assert sum(sizes) == 211 and 2 <= max(sizes) <= 11 and len(sizes) > 211 // 11
    found = systems.measure(split)
    assert found.figures == pytest.approx(whole.figures, rel=1e-12) and found.curve == pytest.approx(whole.curve)
    assert np.array_equal(found.found.rows, whole.found.rows)
    assert list(found.seconds) == ["query_seconds@3", "query_seconds@20"] and min(found.seconds.values()) > 0


def test_a_query_with_many_positives_is_asked_alone(
    crowd: tuple[tasks.Task, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, vectors = crowd
    monkeypatch.setattr(systems, "_QUERIES", 100)
    monkeypatch.setattr(systems, "_PAIRS", 100)
    one = dataclasses.replace(task.gallery, codes=np.zeros(211, np.int32))
    alike = asking(dataclasses.replace(task, queries=one, gallery=one), vectors, vectors)
    assert max(len(some) for some in alike.blocks()) == 1, "211 positives each, of 100 that are held"


def test_progress_counts_the_queries(
    stored: tuple[tasks.Task, systems.System, Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, system, collection = stored
    monkeypatch.setattr(systems, "_QUERIES", 2)
    monkeypatch.setattr(systems, "_PAIRS", 4)
    told: list[tuple[str, int, int]] = []
    scoring = systems.Scoring(expansion=ExpansionConfig(), augmentation=ExpansionConfig())
    list(systems.scored(system, task, collection, scoring, progress=lambda *said: told.append(said)))
    assert told[0] == ("queries", 0, 5) and [done for _, done, _ in told] == sorted({done for _, done, _ in told})
    assert len(told) >= 2


def test_what_a_search_took_is_the_sum_of_its_pieces(crowd: tuple[tasks.Task, np.ndarray]) -> None:
    """As if one process had searched them all, one after another, in whatever order they come back."""
    vectors = crowd[1]
    found = [in_pieces(vectors, 2).search(vectors[:3], 4)] * 2

    def spread(*_: Any) -> Iterator[Any]:
        return iter([(found[0], {2: 1.0, 4: 3.0}), (found[1], {2: 0.5, 4: 0.25})])

    split = dataclasses.replace(in_pieces(vectors, 2), spread=spread)
    assert split.timed(vectors[:3], [2, 4])[1] == {2: 1.5, 4: 3.25}


def test_an_empty_gallery_is_refused() -> None:
    nothing = Gallery(slices=list, shards=list)
    with pytest.raises(ValueError, match="The gallery is empty"):
        nothing.search(np.zeros((1, 2), np.float32), 1)
    none = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="The gallery is empty"):
        nothing.rank(np.zeros((1, 2), np.float32), np.array([-1]), none, none, 1)


def test_what_is_calibrated_on_is_whole_people_drawn(
    crowd: tuple[tasks.Task, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = crowd
    assert tasks.labelled_photos(task).ids.equals(task.gallery.ids)
    monkeypatch.setattr(tasks, "_CALIBRATED", 60)
    some = tasks.labelled_photos(task)
    sizes = np.bincount(task.gallery.codes)
    assert 40 < len(some) <= 60
    assert all(count in (0, sizes[code]) for code, count in enumerate(np.bincount(some.codes, minlength=len(sizes))))
    assert some.codes.max() > 15, "not those whose names come first"
