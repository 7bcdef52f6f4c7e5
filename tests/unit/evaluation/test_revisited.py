"""Benchmark scores from blocks equal those of the whole ranking, and chance gives what was published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation import metrics as figures
from retrieval.evaluation.ground_truth import GroundTruth, read_pickle
from retrieval.evaluation.metrics import average_precision, precision_recall
from retrieval.evaluation.revisited import (
    FULL_SIZES,
    PUBLISHED,
    RANDOM_MAP,
    BenchmarkResult,
    in_blocks,
    protocols,
    score,
)
from tests.support.oracles import slow_map, slow_ranking, slow_ranks


def made_truth(seed: int, num: int = 60, queries: int = 12, name: str = "made-up") -> GroundTruth:
    """Random lists; the last query has no easy one and the one before no positive at all."""
    rng = np.random.default_rng(seed)
    lists: list[list[np.ndarray]] = [[], [], []]
    for query in range(queries):
        rows = rng.permutation(num)
        cuts = np.cumsum(rng.integers(1, 8, 3))
        if query == queries - 1:
            cuts[0] = 0
        if query == queries - 2:
            cuts[:2] = 0
        for kind, part in enumerate(np.split(rows[: cuts[2]], cuts[:2])):
            lists[kind].append(np.sort(part))
    return GroundTruth(
        name=name,
        gallery=tuple(f"g{row}" for row in range(num)),
        queries=tuple(f"q{query}" for query in range(queries)),
        boxes=np.tile([0.0, 0, 1, 1], (queries, 1)),
        easy=tuple(lists[0]),
        hard=tuple(lists[1]),
        junk=tuple(lists[2]),
    )


def slow_values(truth: GroundTruth, queries: np.ndarray, gallery: np.ndarray, extra: np.ndarray) -> dict[str, float]:
    """The whole ranking of gallery and distractors, then the metrics as they are defined."""
    rankings = [slow_ranking(query, np.concatenate([gallery, extra])) for query in queries]
    values = {}
    for protocol in ("easy", "medium", "hard"):
        positives, junks, precision = [], [], {1: [], 5: [], 10: []}
        for ranking, easy, hard, junk in zip(rankings, truth.easy, truth.hard, truth.junk):
            good = {"easy": [*easy], "medium": [*easy, *hard], "hard": [*hard]}[protocol]
            bad = {"easy": [*junk, *hard], "medium": [*junk], "hard": [*junk, *easy]}[protocol]
            positives.append(good)
            junks.append(bad)
            ranks = slow_ranks(ranking, good, bad)
            for k, found in precision.items():
                if ranks:
                    depth = min(k, ranks[-1] + 1)
                    found.append(sum(rank < depth for rank in ranks) / depth)
        values[f"mAP/{protocol}"] = slow_map(rankings, positives, junks)
        values |= {f"mP@{k}/{protocol}": float(np.mean(found)) for k, found in precision.items()}
    return values


@pytest.mark.parametrize("block", [1, 7, 60])
@pytest.mark.parametrize("num_extra", [0, 45])
@pytest.mark.parametrize("seed", [0, 1])
def test_blocks_equal_the_whole_ranking(seed: int, num_extra: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_BLOCK_ELEMENTS", 100)
    rng = np.random.default_rng(seed)
    truth = made_truth(seed)
    queries, gallery, extra = (rng.integers(-2, 3, (num, 4)).astype(np.float32) for num in (12, 60, num_extra))  # ties
    order = rng.permutation(60)  # blocks need not come in order of row
    found = score(
        truth,
        queries,
        in_blocks(gallery[order], block, order),
        lambda: (extra[i : i + 9] for i in range(0, num_extra, 9)),
    )
    assert found.values == pytest.approx(slow_values(truth, queries, gallery, extra), abs=1e-12)
    assert found.num_queries == {"easy": 10, "medium": 11, "hard": 11}
    assert (found.complete, found.num_gallery, found.num_distractors) == (True, 60, num_extra)
    assert np.isnan(found.average_precision["easy"][-2:]).all()
    assert np.nanmean(found.average_precision["hard"]) == pytest.approx(found.values["mAP/hard"])


def line(scores: Sequence[float]) -> np.ndarray:
    """Gallery embeddings whose scores with the query [1] are these."""
    return np.array(scores, np.float32)[:, None]


def one_query(easy: list[int], hard: list[int], junk: list[int], num: int, classic: bool = False) -> GroundTruth:
    lists = [(np.array(rows, np.int64),) for rows in (easy, hard, junk)]
    names = tuple(map(str, range(num)))
    box = np.array([[0.0, 0, 1, 1]])
    return GroundTruth(
        name="one",
        gallery=names,
        queries=("q",),
        boxes=box,
        easy=lists[0],
        hard=lists[1],
        junk=lists[2],
        classic=classic,
    )


def test_by_hand() -> None:
    # Best first: 0 hard, 1 easy, 2 junk, 3 nothing, 4 easy, 5 nothing, 6 hard.
    truth = one_query([1, 4], [0, 6], [2], 7)
    values = score(truth, line([1.0]), in_blocks(line([7, 6, 5, 4, 3, 2, 1]), 2)).values
    assert values["mAP/easy"] == pytest.approx(average_precision([0, 2], 2))  # 0, 2 and 6 are out
    assert values["mAP/medium"] == pytest.approx(average_precision([0, 1, 3, 5], 4))
    assert values["mAP/hard"] == pytest.approx(average_precision([0, 3], 2))
    assert values["mP@5/medium"] == pytest.approx(3 / 5)
    assert values["mP@10/medium"] == pytest.approx(4 / 6)
    assert values["mP@10/hard"] == pytest.approx(2 / 4)
    classic = score(one_query([0, 2, 5], [], [1], 6, classic=True), line([1.0]), in_blocks(line([6, 5, 4, 3, 2, 1])))
    assert classic.values["mAP/classic"] == pytest.approx(average_precision([0, 1, 4], 3))
    assert set(classic.values) == {"mAP/classic", "mP@1/classic", "mP@5/classic", "mP@10/classic"}


def test_ties_are_settled_by_row_and_distractors_come_last() -> None:
    gallery = in_blocks(line([1, 1, 1, 1]), 3)
    assert score(one_query([2], [], [0], 4), line([1.0]), gallery).values["mAP/medium"] == average_precision([1], 1)
    tied = score(one_query([2], [], [0], 4), line([1.0]), gallery, lambda: iter([line([1, 1])])).values
    assert tied["mAP/medium"] == average_precision([1], 1)
    above = score(one_query([2], [], [0], 4), line([1.0]), gallery, lambda: iter([line([1, 2]), line([3])])).values
    assert above["mAP/medium"] == average_precision([3], 1)


def test_perfect_is_one() -> None:
    truth = made_truth(3)
    queries = np.eye(12, dtype=np.float32)
    gallery = np.zeros((60, 12), np.float32)
    for query, rows in enumerate(zip(truth.easy, truth.hard)):
        gallery[np.concatenate(rows), query] = 1
    found = score(truth, queries, in_blocks(gallery))
    assert {name: value for name, value in found.values.items() if value != 1} == {}
    assert found.curves["hard"].tolist() == [1.0] * 101


def test_nothing_to_find_gives_nan() -> None:
    values = score(one_query([1], [], [], 3), line([1.0]), in_blocks(line([1, 2, 3]))).values
    assert math.isnan(values["mAP/hard"])
    assert math.isnan(values["mP@1/hard"])
    assert not math.isnan(values["mAP/easy"])


def test_missing_images_make_it_partial() -> None:
    truth = one_query([1, 3], [], [], 4)
    rows = np.array([0, 1, 2])
    found = score(truth, line([1.0]), in_blocks(line([3, 2, 1]), 2, rows))
    assert (found.complete, found.num_missing, found.num_gallery) == (False, 1, 3)
    assert "mAP/medium" not in found.values
    assert found.values["partial mAP/medium"] == pytest.approx(average_precision([1], 2))  # the lost one counts
    without = score(truth, line([1.0]), in_blocks(line([4, 3, 2, 1])), known=np.array([False]))
    assert (without.complete, without.num_missing_queries) == (False, 1)
    assert math.isnan(without.values["partial mAP/medium"])
    none = score(truth, line([1.0]), in_blocks(line([1, 1]), 2, np.array([0, 2]))).values
    assert none["partial mAP/medium"] == none["partial mP@1/medium"] == 0


def test_a_part_of_a_published_benchmark_is_not_the_benchmark() -> None:
    truth = made_truth(0, name="roxford5k")
    found = score(truth, np.ones((12, 1), np.float32), in_blocks(np.ones((60, 1), np.float32)))
    assert (found.complete, found.num_missing) == (False, 4993 - 60)


def test_wrong_shapes_and_rows_are_refused() -> None:
    truth = one_query([1], [], [], 3)
    good = line([1, 2, 3])
    with pytest.raises(ValueError, match=r"expected \(1, D\) for one"):
        score(truth, line([1, 2]), in_blocks(good))
    with pytest.raises(ValueError, match="comes twice"):
        score(truth, line([1]), in_blocks(good, 2, np.array([0, 1, 0])))
    with pytest.raises(ValueError, match="rows 1 to 3; one has 3"):
        score(truth, line([1]), in_blocks(good, 3, np.array([1, 2, 3])))
    with pytest.raises(ValueError, match="1 dimensions. Embed both"):
        score(truth, line([1]), in_blocks(np.ones((3, 2), np.float32)))
    with pytest.raises(ValueError, match=r"shape \(3, 2\), the queries have 1"):
        score(truth, line([1]), in_blocks(good), lambda: iter([np.ones((3, 2), np.float32)]))


def test_published_figures() -> None:
    vgg, resnet = PUBLISHED
    assert vgg.of("roxford5k") == {"medium": 61.9, "hard": 33.7}
    assert resnet.of("rparis6k") == {"medium": 77.2, "hard": 56.3}
    assert (vgg.of("oxford5k"), resnet.of("paris6k"), vgg.of("made-up")) == ({"classic": 87.9}, {"classic": 92.7}, {})


def real_result(folder: Path, name: str, seed: int) -> BenchmarkResult:
    truth = read_pickle((folder / f"gnd_{name}.pkl").read_bytes(), name)
    rng = np.random.default_rng(seed)
    queries, gallery = (rng.standard_normal((num, 64)).astype(np.float32) for num in (70, len(truth.gallery)))
    return score(truth, queries, in_blocks(gallery))


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_random_rankings_give_what_was_published(real_faces: Path, name: str) -> None:
    folder = real_faces.parents[1] / "gnd"
    results = [real_result(folder, name, seed) for seed in range(6)]
    assert all(result.complete for result in results)
    assert results[0].num_queries["easy"] == (68 if name == "roxford5k" else 70)
    for protocol, percent in RANDOM_MAP[name].items():
        found = 100 * float(np.mean([result.values[f"mAP/{protocol}"] for result in results]))
        assert found == pytest.approx(percent, rel=0.15)


@pytest.mark.realdata
def test_the_published_lists_by_protocol(real_faces: Path) -> None:
    truth = read_pickle((real_faces.parents[1] / "gnd" / "gnd_roxford5k.pkl").read_bytes(), "roxford5k")
    sets = protocols(truth)
    assert [len(sets[protocol][0][0]) for protocol in ("easy", "medium", "hard")] == [65, 103, 38]
    assert [len(sets[protocol][1][0]) for protocol in ("easy", "medium", "hard")] == [71, 33, 98]


def test_queries_without_an_embedding_are_left_out_of_the_means_alone() -> None:
    rng = np.random.default_rng(4)
    truth = made_truth(4)
    queries, gallery = (rng.normal(size=(num, 5)).astype(np.float32) for num in (12, 60))
    whole = score(truth, queries, in_blocks(gallery))
    known = np.ones(12, bool)
    known[[0, 3]] = False
    part = score(truth, queries, in_blocks(gallery), known=known)
    assert part.num_queries == {"easy": 8, "medium": 9, "hard": 9} and part.num_missing_queries == 2
    kept = np.delete(whole.average_precision["medium"], [0, 3])
    assert np.delete(part.average_precision["medium"], [0, 3]) == pytest.approx(kept, nan_ok=True)
    assert part.values["partial mAP/medium"] == pytest.approx(np.nanmean(kept))
    assert np.isnan(part.average_precision["medium"][[0, 3]]).all()
    assert all(name.startswith("partial ") for name in part.values)


def test_precision_is_taken_at_the_kappas_asked_for() -> None:
    truth = one_query([1, 4], [], [], 6)
    found = score(truth, line([1.0]), in_blocks(line([6, 5, 4, 3, 2, 1])), kappas=(2, 3))
    assert list(found.values) == [f"{name}/{p}" for p in ("easy", "medium", "hard") for name in ("mAP", "mP@2", "mP@3")]
    assert found.values["mP@2/easy"] == 1 / 2 and found.values["mP@3/easy"] == 1 / 3
    assert found.curves["easy"] == pytest.approx(precision_recall([np.array([1, 4])], [2]))


def test_a_tied_image_of_the_lists_is_ranked_by_row_among_them_and_among_others() -> None:
    """All score alike: of rows 0 to 5, 1 is junk, 4 and 2 are positives; others 0, 3, 5 count by row."""
    truth = one_query([2], [4], [1], 6)
    order = np.array([5, 2, 0, 4, 1, 3])
    values = score(truth, line([1.0]), in_blocks(line([1] * 6), 2, order)).values
    assert values["mAP/medium"] == pytest.approx(average_precision([1, 3], 2))  # 0, [1], 2, 3, 4, 5
    assert values["mAP/easy"] == pytest.approx(average_precision([1], 1))
    assert values["mAP/hard"] == pytest.approx(average_precision([2], 1))


def test_distractors_that_tie_come_after_and_those_that_score_more_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_BLOCK_ELEMENTS", 1)
    truth = one_query([3], [], [], 4)
    gallery = in_blocks(line([0, 0, 0, 2]), 3)
    for extra, rank in (([2, 2, 2], 0), ([3, 2], 1), ([3, 3, 1], 2)):
        found = score(truth, line([1.0]), gallery, lambda e=extra: iter([line(e[:1]), line(e[1:])]))
        assert found.values["mAP/easy"] == average_precision([rank], 1)
        assert found.num_distractors == len(extra) and found.num_gallery == 4


def test_blocks_hold_each_row_once_in_order() -> None:
    parts = list(in_blocks(line([5, 6, 7, 8, 9]), 2, np.array([4, 0, 3, 1, 2]))())
    assert [rows.tolist() for rows, _ in parts] == [[4, 0], [3, 1], [2]]
    assert [vectors[:, 0].tolist() for _, vectors in parts] == [[5, 6], [7, 8], [9]]
    assert [rows.tolist() for rows, _ in in_blocks(line([5, 6, 7]), 2)()] == [[0, 1], [2]]


def test_a_row_below_nought_is_refused() -> None:
    with pytest.raises(ValueError, match="rows -1 to 1; one has 3"):
        score(one_query([1], [], [], 3), line([1]), in_blocks(line([1, 2, 3]), 3, np.array([-1, 0, 1])))
    with pytest.raises(ValueError, match="comes twice"):
        score(one_query([1], [], [], 3), line([1]), in_blocks(line([1, 2, 3]), 3, np.array([0, 0, 1])))


def test_whole_benchmarks_have_so_many_images() -> None:
    assert FULL_SIZES == {"roxford5k": 4993, "rparis6k": 6322, "oxford5k": 5062, "paris6k": 6392}
    assert PUBLISHED[0].of("rparis6k") == {"medium": 69.3, "hard": 44.3}
    assert PUBLISHED[1].of("roxford5k") == {"medium": 64.7, "hard": 38.5}
    assert (PUBLISHED[0].of("paris6k"), PUBLISHED[1].of("oxford5k")) == ({"classic": 87.7}, {"classic": 87.8})
