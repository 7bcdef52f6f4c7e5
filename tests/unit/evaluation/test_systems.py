"""One system's figures against a plain loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.evaluation import systems, tasks
from retrieval.evaluation.metrics import precision_recall
from retrieval.search.index import flat_search
from retrieval.search.ranking import Neighbours
from tests.support.measured import write_collection, write_system
from tests.support.oracles import slow_average_precision


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


def reranked(task: tasks.Task, rows: np.ndarray) -> systems.Measured:
    before = systems.Measured(
        figures={"recall@1": 0.5, "mAP": 0.5, "index_recall@10": 0.25},
        found=Neighbours(np.zeros((1, 1)), np.zeros((1, 1), np.int64)),
        curve=np.zeros(101),
        seconds={"query_seconds@2": 3.0},
    )
    return systems.measure_reranked(
        task, before, Neighbours(-np.arange(rows.size, dtype=float).reshape(rows.shape), rows)
    )


def test_figures_of_an_imperfect_order_follow_it(collection: Folder) -> None:
    """Queries ann 0, 1, 2 and bob 3, 4, of six photos; the lists are cut after three, one query's own photo among them.

    Query 0: ann at rank 1 only, of two. 1: both, at 0 and 2. 2: none. 3: itself dropped, bob then at 1. 4: bob at 2.
    """
    task = tasks.leave_one_out(collection, (2,))
    rows = np.array([[5, 2, 3], [0, 4, 2], [5, 3, 4], [0, 3, 4], [0, 1, 3]])
    found = reranked(task, rows)
    ranks = [([1], 2), ([0, 2], 2), ([], 2), ([1], 1), ([2], 1)]
    wanted = [slow_average_precision(own, total) for own, total in ranks]
    assert found.figures["mAP"] == pytest.approx(np.mean(wanted))
    assert [found.figures[f"recall@{k}"] for k in (1, 5, 10)] == pytest.approx([1 / 5, 4 / 5, 4 / 5])
    assert found.figures["index_recall@10"] == 0.25 and found.seconds == {"query_seconds@2": 3.0}
    assert found.found.rows is rows
    assert found.curve == pytest.approx(precision_recall([np.array(r, int) for r, _ in ranks], [n for _, n in ranks]))


def test_figures_of_a_perfect_order_are_one(collection: Folder) -> None:
    task = tasks.leave_one_out(collection, (2,))
    labels = task.gallery.labels
    order = [np.argsort([of != own for of in labels], kind="stable") for own in task.queries.labels]
    found = reranked(task, np.stack(order))
    assert [found.figures[key] for key in ("mAP", "recall@1", "recall@10")] == pytest.approx([1, 1, 1])
    assert np.allclose(found.curve, 1.0)
