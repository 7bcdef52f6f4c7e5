"""What one task takes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.evaluation import systems, tasks
from retrieval.evaluation.pieces import slices
from retrieval.evaluation.pieces.gallery import here
from retrieval.search.ranking import Neighbours
from retrieval.search.settings import ExpansionConfig
from tests.support.asking import Searching


def test_embeddings_are_read_a_slice_at_a_time(
    stored: tuple[tasks.Task, systems.System, Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six photos of four numbers, sixteen bytes each: slices of two."""
    task, system, collection = stored
    scoring = systems.Scoring(expansion=ExpansionConfig(num=2), augmentation=ExpansionConfig())
    whole = dict(systems.scored(system, task, collection, scoring))
    seen: list[tuple[str, int]] = []

    def spread(function: Callable[..., Any], pieces: Any, *others: Any) -> Iterator[Any]:
        pieces = list(pieces)
        seen.append((function.__name__, len(pieces)))
        assert all(len(piece.load()) == 2 == len(piece.rows) for piece in pieces)
        assert sorted(row for piece in pieces for row in piece.rows) == list(range(6))
        assert [sorted(set(piece.parts)) for piece in pieces] == [[0], [0, 1], [1]], "a part is read by few"
        return here(function, pieces, *others)

    monkeypatch.setattr(slices, "SLICE", 32)
    found = dict(systems.scored(system, task, collection, scoring, spread=spread))
    assert set(seen) == {("score_pairs", 3), ("count_and_find", 3), ("search_piece", 3)}
    for name, measured in whole.items():
        assert found[name].figures == pytest.approx(measured.figures, rel=1e-12)
        assert np.array_equal(found[name].found.rows, measured.found.rows)


def test_all_but_the_last_k_are_timed_with_some_of_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second for each query that is searched."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(slices, "TIMED", 4)
    monkeypatch.setattr(slices.time, "perf_counter", lambda: float(sum(num for num, _ in asked)))

    def search(queries: np.ndarray, k: int) -> Neighbours:
        asked.append((len(queries), k))
        return Neighbours(np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64))

    piece: Any = Searching(search)
    found, seconds = slices.search_piece(piece, np.zeros((10, 2), np.float32), [2, 5, 9])
    assert asked == [(4, 1), (4, 2), (4, 5), (10, 9)] and found.rows.shape == (10, 9)
    assert seconds == {2: 10.0, 5: 10.0, 9: 10.0} and list(seconds) == [2, 5, 9]
    asked.clear()
    assert slices.search_piece(piece, np.zeros((3, 2), np.float32), [7])[1] == {7: 3.0} and asked == [(3, 7)]
