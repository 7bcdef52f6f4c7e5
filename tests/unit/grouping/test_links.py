"""Links of each part, found by the index, against a plain loop over all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.grouping.links import LINK_SCHEMA, LinkFinder, as_table, links_name, read_links
from retrieval.search.ranking import Neighbours
from tests.support.grouped import make_folders, people


def expected(vectors: np.ndarray, k: int, threshold: float) -> set[tuple[int, int]]:
    """Pairs of which one is among the k nearest of the other, and at least so alike."""
    found = set()
    for row, vector in enumerate(vectors.astype(np.float64)):
        scores = {other: np.float32(vector @ vectors[other]) for other in range(len(vectors)) if other != row}
        nearest = sorted(scores, key=lambda other: (-scores[other], other))[:k]
        found |= {(min(row, other), max(row, other)) for other in nearest if scores[other] >= threshold}
    return found


@pytest.mark.parametrize(("k", "threshold"), [(3, -1.0), (3, 0.5), (50, 0.3)])
def test_links_of_all_parts_are_those_of_a_plain_loop(tmp_path: Path, k: int, threshold: float) -> None:
    photos = people(5, 4)
    where = make_folders(tmp_path, photos)
    out = Folder.of(tmp_path / "out")
    find = LinkFinder(where["index"], where["embeddings"], out, k, threshold)
    told: list[tuple[str, int, int]] = []
    done = [find(part, lambda *said: told.append(said)) for part in range(3)]
    links = read_links(out, [str(row["name"]) for row in done], len(photos))
    ordered = np.stack([one.vector for one in sorted(photos, key=lambda one: one.image_id)])
    assert set(zip(links.low.tolist(), links.high.tolist())) == expected(ordered, k, threshold)
    assert len(links) == len(expected(ordered, k, threshold))
    assert [row["taken"] for row in done] == [7, 7, 6]
    assert told == [("links", 7, 7), ("links", 7, 7), ("links", 6, 6)]


def test_only_the_nearest_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    out = Folder.of(tmp_path)
    rows, scores = np.array([[1, 2, 3], [0, 2, -1]]), np.array([[0.9, 0.8, 0.7], [0.9, 0.2, -np.inf]], np.float32)
    out.write_table(links_name(0), as_table(np.array([0, 1]), Neighbours(scores, rows), 0.5))
    assert out.read_table(links_name(0)).to_pydict()["neighbour"] == [1, 2, 3, 0]
    for nearest, pairs in ((1, [(0, 1)]), (2, [(0, 1), (0, 2)]), (None, [(0, 1), (0, 2), (0, 3)])):
        links = read_links(out, [links_name(0)], 4, nearest)
        assert list(zip(links.low.tolist(), links.high.tolist())) == pairs


def test_a_part_that_is_there_is_not_found_again(tmp_path: Path) -> None:
    photos = people(2, 4)
    where, out = make_folders(tmp_path, photos), Folder.of(tmp_path / "out")
    out.write_table(links_name(0), LINK_SCHEMA.empty_table(), about={"taken": 7, "links": 0})
    done = LinkFinder(where["index"], where["embeddings"], out, 3, 0.5)(0)
    assert (done["links"], done["taken"]) == (0, 7)


def test_no_links_at_all(tmp_path: Path) -> None:
    assert len(read_links(Folder.of(tmp_path), [], 10)) == 0
