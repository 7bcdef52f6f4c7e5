"""One system's figures against a plain loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.evaluation import systems, tasks
from retrieval.search.index import flat_search
from tests.support.measured import write_collection, write_system


@pytest.fixture
def collection(tmp_path: Path) -> Folder:
    return write_collection(Folder.of(tmp_path / "collection"))


@pytest.mark.parametrize("make", [tasks.leave_one_out, tasks.query_gallery])
def test_figures_equal_a_plain_loop(collection: Folder, tmp_path: Path, make: object) -> None:
    task = tasks.leave_one_out(collection, (2,)) if make is tasks.leave_one_out else make(collection, (2,))  # type: ignore[operator]
    embeddings = write_system(Folder.of(tmp_path), collection).embeddings
    queries, gallery = (tasks.read_embeddings(embeddings, s) for s in (task.queries, task.gallery))
    measured = systems.measure(task, queries, gallery, flat_search(gallery))
    figures, found = measured.figures, measured.found
    hits, accuracy, pairs = [], [], 0
    for query in range(len(queries)):
        others = [row for row in range(len(gallery)) if task.gallery.ids[row] != task.queries.ids[query]]
        best = sorted(others, key=lambda row: -float(queries[query] @ gallery[row]))
        assert found.rows[query].tolist() == best[:2]
        hits.append(task.gallery.labels[best[0]] == task.queries.labels[query])
        mine = task.queries.attributes[query]
        known = [task.gallery.attributes[row] for row in best[:2] if task.gallery.attributes[row].any()]
        if mine.any() and known:
            accuracy.append(np.mean([(theirs == mine).mean() for theirs in known]))
            pairs += len(known)
    assert figures["recall@1"] == pytest.approx(np.mean(hits))
    assert figures["attribute_accuracy@2"] == pytest.approx(np.mean(accuracy))
    assert figures["attribute_pairs@2"] == pairs
    assert figures["index_recall@10"] == 1.0
    assert list(measured.seconds) == ["query_seconds@2"] and measured.seconds["query_seconds@2"] > 0


def test_baselines_are_none_where_nothing_has_attributes(collection: Folder) -> None:
    task = tasks.query_gallery(collection)
    found = systems.baselines(task)
    assert found is not None and found["oracle@3"] >= found["same_identity_pair"]
    task.gallery.attributes[:] = 0
    assert systems.baselines(task) is None
