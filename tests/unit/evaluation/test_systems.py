"""One system's figures against a plain loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import read_manifest, seal
from retrieval.evaluation import systems, tasks
from retrieval.evaluation.attributes import attribute_baselines
from retrieval.evaluation.metrics import precision_recall
from retrieval.evaluation.settings import System
from retrieval.search import shards
from retrieval.search.index import flat_search
from retrieval.search.ranking import Neighbours, drop_rows
from retrieval.search.settings import ExpansionConfig, IndexConfig
from tests.support.asking import asking, images_of, labels_of
from tests.support.measured import write_system
from tests.support.oracles import slow_average_precision


@pytest.mark.parametrize("make", [tasks.leave_one_out, tasks.query_gallery])
def test_figures_equal_a_plain_loop(collection: Folder, tmp_path: Path, make: object) -> None:
    task = tasks.leave_one_out(collection, (2,)) if make is tasks.leave_one_out else make(collection, (2,))  # type: ignore[operator]
    embeddings = write_system(Folder.of(tmp_path), collection).embeddings
    queries, gallery = (tasks.read_embeddings(embeddings, s) for s in (task.queries, task.gallery))
    measured = systems.measure(asking(task, queries, gallery))
    figures, found = measured.figures, measured.found
    hits, accuracy, pairs = [], [], 0
    for query in range(len(queries)):
        others = [row for row in range(len(gallery)) if task.gallery.id(row) != task.queries.id(query)]
        best = sorted(others, key=lambda row: -float(queries[query] @ gallery[row]))
        assert found.rows[query].tolist() == best[:2]
        hits.append(task.gallery.label(best[0]) == task.queries.label(query))
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
    itself = tasks.leave_one_out(collection)
    attributes, labels = itself.gallery.attributes, np.array(labels_of(itself.gallery), object)
    some = itself.exclude
    assert systems.baselines(itself) == attribute_baselines(
        attributes[some], attributes, labels[some], labels, ks=itself.ks, exclude_rows=some
    )
    task.gallery.attributes[:] = 0
    assert systems.baselines(task) is None


def reranked(task: tasks.Task, rows: np.ndarray) -> systems.Measured:
    """The figures of these lists, which a search gives and nothing puts in another order."""

    def search(queries: np.ndarray, k: int) -> Neighbours:
        asked = queries[:, 0].astype(int)
        order = -np.arange(rows.size, dtype=np.float32).reshape(rows.shape)
        return Neighbours(order[asked], rows[asked])

    before = systems.Measured(
        figures={"recall@1": 0.5, "mAP": 0.5, "index_recall@10": 0.25},
        found=Neighbours(np.zeros((5, 3), np.float32), np.zeros((5, 3), np.int64)),
        curve=np.zeros(101),
        seconds={"query_seconds@2": 3.0},
    )
    queries = np.arange(len(task.queries), dtype=np.float32)[:, None]
    scoring = systems.Scoring(expansion=ExpansionConfig(), augmentation=ExpansionConfig(), rerank=1)
    of = asking(task, queries, np.zeros((len(task.gallery), 1), np.float32), search)
    return systems.measure_reranked(of, before, Folder.of("."), scoring, lambda *_: np.zeros((len(queries), 1), int))


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
    assert found.found.rows[[0, 3], :3].tolist() == [[5, 2, 3], [0, 4, -1]]
    assert found.curve == pytest.approx(precision_recall([np.array(r, int) for r, _ in ranks], [n for _, n in ranks]))


def test_figures_of_a_perfect_order_are_one(collection: Folder) -> None:
    task = tasks.leave_one_out(collection, (2,))
    labels = labels_of(task.gallery)
    order = [np.argsort([of != own for of in labels], kind="stable") for own in labels_of(task.queries)]
    found = reranked(task, np.stack(order))
    assert [found.figures[key] for key in ("mAP", "recall@1", "recall@10")] == pytest.approx([1, 1, 1])
    assert np.allclose(found.curve, 1.0)


def write_index(folder: Folder, collection: Folder, system: System, splits: tuple[str, ...]) -> Folder:
    config = IndexConfig(num_shards=1, factory="Flat")
    shards.assign_rows(collection, folder, splits)
    shards.write_trained(system.embeddings, folder, config, 4)
    shards.write_shard(system.embeddings, folder, config, 4, 0, 1)
    inputs = {"embeddings": read_manifest(system.embeddings).fingerprint}
    seal(folder, kind="index", config={"index": plain(config)}, inputs=inputs, counts={"dim": 4})
    return folder


def test_an_index_must_hold_the_gallery_and_nothing_else(collection: Folder, tmp_path: Path) -> None:
    system, task = write_system(Folder.of(tmp_path), collection), tasks.query_gallery(collection, (2,))
    index = write_index(Folder.of(tmp_path / "i"), collection, system, ("gallery",))
    queries, gallery = (tasks.read_embeddings(system.embeddings, side) for side in (task.queries, task.gallery))
    whole = dataclasses.replace(system, index=index)
    found = systems.gallery_of(whole, task).search(queries, 2)
    assert found.rows.tolist() == flat_search(gallery)(queries, 2).rows.tolist()
    assert whole.fingerprints(read_manifest(collection))["before.index"] == read_manifest(index).fingerprint
    wide = write_index(Folder.of(tmp_path / "w"), collection, system, ("query", "gallery"))
    with pytest.raises(ValueError, match="holds 5 images, the gallery has 3, and they differ"):
        systems.gallery_of(dataclasses.replace(system, index=wide), task)
    other = write_system(Folder.of(tmp_path), collection, "other", seed=9)
    with pytest.raises(ValueError, match="of system 'other' was made with embeddings"):
        dataclasses.replace(other, index=index).fingerprints(read_manifest(collection))


def test_an_index_that_finds_less_is_said_to(collection: Folder, tmp_path: Path) -> None:
    """A search that never finds row 0, and gives each query itself back."""
    task = tasks.leave_one_out(collection, (2, 4))
    vectors = tasks.read_embeddings(write_system(Folder.of(tmp_path), collection).embeddings, task.gallery)
    exact = flat_search(vectors)

    def without_first(queries: np.ndarray, k: int) -> Neighbours:
        return drop_rows(exact(queries, k + 1), np.zeros(len(queries), np.int64), k)

    found = systems.measure(asking(task, vectors[task.exclude], vectors, without_first))
    whole = systems.measure(asking(task, vectors[task.exclude], vectors))
    near = whole.found.rows[:, :4]
    assert whole.figures["index_recall@10"] == 1
    assert found.figures["index_recall@10"] == pytest.approx(1 - (near == 0).sum() / near.size)
    assert found.figures["recall@1"] == whole.figures["recall@1"]  # exact, whatever the index
    assert list(found.seconds) == ["query_seconds@2", "query_seconds@4"]
    assert found.found.rows.shape == (5, 4)
    assert not (found.found.rows == task.exclude[:, None]).any()


def test_a_query_is_left_out_of_its_results_only_where_it_asks_itself(collection: Folder, tmp_path: Path) -> None:
    system = write_system(Folder.of(tmp_path), collection)
    task = tasks.query_gallery(collection, (2,))
    queries, gallery = (tasks.read_embeddings(system.embeddings, side) for side in (task.queries, task.gallery))
    asked: list[int] = []

    def spy(some: np.ndarray, k: int) -> Neighbours:
        asked.append(k)
        return flat_search(gallery)(some, k)

    both = np.arange(2)
    assert asking(task, queries, gallery).without_own(both, spy, queries, 3).rows.shape == (2, 3)
    own = dataclasses.replace(task, exclude=np.array([2, -1]))
    found = asking(own, queries, gallery).without_own(both, spy, queries, 2).rows
    assert 2 not in found[0] and asked == [3, 3]


def test_a_system_is_scored_in_each_way_asked_for(collection: Folder, tmp_path: Path) -> None:
    system, task = write_system(Folder.of(tmp_path), collection), tasks.leave_one_out(collection, (3,))
    vectors = tasks.read_embeddings(system.embeddings, task.gallery)
    queries = vectors[task.exclude]
    counted: list[tuple[list[list[int]], np.ndarray]] = []

    def count(where: Folder, asked: np.ndarray, found: np.ndarray, kept: Folder | None) -> np.ndarray:
        assert where is collection and kept is features
        counted.append((asked.tolist(), found))
        counts = np.zeros(found.shape[:2], np.int64)
        counts[:, -1] = 99  # the last that is looked at comes first
        return counts

    one, features = ExpansionConfig(num=1, alpha=0), Folder.of(tmp_path / "features")
    augmentation = ExpansionConfig(num=2, alpha=0)
    scoring = systems.Scoring(expansion=one, augmentation=augmentation, rerank=2, features=features)
    found = dict(systems.scored(system, task, collection, scoring, count))
    assert list(found) == ["before", "before + QE", "before + DBA", "before + rerank"]
    plain_ = systems.measure(asking(task, queries, vectors))
    assert found["before"].figures == plain_.figures
    # A query takes on its nearest other; a gallery vector its two nearest others.
    scores = queries.astype(float) @ vectors.T.astype(float)
    scores[np.arange(5), task.exclude] = -np.inf
    asked = queries + vectors[scores.argmax(axis=1)]
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    expanded = systems.measure(asking(task, asked, vectors))
    assert found["before + QE"].figures == pytest.approx(expanded.figures)
    assert found["before + QE"].found.scores == pytest.approx(expanded.found.scores, abs=1e-6)
    between = vectors.astype(float) @ vectors.T.astype(float)
    np.fill_diagonal(between, -np.inf)
    held = vectors + vectors[np.argsort(-between, axis=1)[:, :2]].sum(axis=1)
    held = (held / np.linalg.norm(held, axis=1, keepdims=True)).astype(np.float32)
    augmented = systems.measure(asking(task, queries, held))
    assert found["before + DBA"].figures == pytest.approx(augmented.figures)
    assert found["before + DBA"].found.scores == pytest.approx(augmented.found.scores, abs=1e-6)
    ((places, looked),) = counted
    assert places == [[n % 2, n // 2] for n in range(5)]
    rows = drop_rows(flat_search(vectors)(queries, 6), task.exclude, 5).rows
    assert looked.tolist() == [[[row % 2, row // 2] for row in some[:2]] for some in rows.tolist()]
    assert found["before + rerank"].found.rows.tolist() == rows[:, [1, 0, 2, 3, 4]].tolist()
    nothing = systems.Scoring(expansion=ExpansionConfig(), augmentation=ExpansionConfig())
    assert [name for name, _ in systems.scored(system, task, collection, nothing)] == ["before"]


def test_the_whole_gallery_is_put_in_order_where_nobody_asks_itself(collection: Folder, tmp_path: Path) -> None:
    system, task = write_system(Folder.of(tmp_path), collection), tasks.query_gallery(collection, (2,))
    scoring = systems.Scoring(expansion=ExpansionConfig(), augmentation=ExpansionConfig(), rerank=1)
    found = dict(systems.scored(system, task, collection, scoring, lambda *_: np.zeros((2, 1), int)))
    again = found["before + rerank"]
    assert again.found.rows.shape == (2, 3) and again.figures == pytest.approx(found["before"].figures)


def test_manifests_tell_where_a_system_comes_from(collection: Folder, tmp_path: Path) -> None:
    system = write_system(Folder.of(tmp_path), collection)
    assert systems.origin(system) == {
        "embed_images": 8,
        "embedding_dim": 4,
        "index_type": "Flat",
        "model": read_manifest(system.model).fingerprint,
    }
    assert systems.embed_seconds(system) == {"embed_seconds": 12.5, "embed_seconds_in_model": 3.25}


def test_what_is_no_number_becomes_none() -> None:
    assert systems.clean({"a": float("nan"), "b": 0.0, "c": "x", "d": 3}) == {"a": None, "b": 0.0, "c": "x", "d": 3}


def wide_task(num: int = 15) -> tuple[tasks.Task, np.ndarray]:
    """Fifteen photos of five people that all ask all others, and their embeddings."""
    ids, labels = [f"{n:02d}.jpg" for n in range(num)], [f"p{n % 5}" for n in range(num)]
    images = images_of(ids, labels, np.ones((num, 3), np.int8))
    task = tasks.Task(protocol="x", queries=images, gallery=images, exclude=np.arange(num), ks_asked=(14,))
    return task, np.random.default_rng(1).normal(size=(num, 4)).astype(np.float32)


def test_index_recall_looks_at_ten() -> None:
    """A search that is exact up to the tenth result, and finds nothing beyond."""
    task, vectors = wide_task()
    exact = flat_search(vectors)

    def ten(queries: np.ndarray, k: int) -> Neighbours:
        found = exact(queries, k)
        return Neighbours(found.scores, np.where(np.arange(k) <= 10, found.rows, -1))

    found = systems.measure(asking(task, vectors, vectors, ten))
    assert found.figures["index_recall@10"] == 1.0 and found.found.rows.shape == (15, 10)
    # Gaps are no pairs: ten results of each query have attributes like its own.
    assert found.figures["attribute_pairs@14"] == 15 * 10


def test_pairs_are_of_results_that_are_there_and_known() -> None:
    task, vectors = wide_task()
    attributes = np.ones((15, 3), np.int8)
    attributes[:2] = 0
    task = dataclasses.replace(task, gallery=dataclasses.replace(task.gallery, attributes=attributes))
    whole = systems.measure(asking(task, vectors, vectors))
    assert whole.figures["attribute_pairs@14"] == 15 * 13 - 13  # thirteen known; those that ask leave themselves out


def test_an_index_of_others_is_refused(collection: Folder, tmp_path: Path) -> None:
    """As many images as the gallery has, and not those."""
    system, task = write_system(Folder.of(tmp_path), collection), tasks.query_gallery(collection)
    dropped = write_index(Folder.of(tmp_path / "d"), collection, system, ("dropped",))
    with pytest.raises(ValueError, match="holds 3 images, the gallery has 3, and they differ"):
        systems.gallery_of(dataclasses.replace(system, index=dropped), task)
