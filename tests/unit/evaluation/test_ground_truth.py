"""Ground truth is read as it is written, and odd ground truth is refused in words."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.evaluation.ground_truth import GroundTruth, read_classic, read_pickle


def revisited(**changes: Any) -> bytes:
    entry = {"bbx": [1, 2.5, 30, 40], "easy": [3, 1], "hard": [0], "junk": []}
    return pickle.dumps({"imlist": list("abcd"), "qimlist": ["q"], "gnd": [entry | changes]}, 2)


def test_revisited_pickle() -> None:
    truth = read_pickle(revisited(junk=np.array([2])), "roxford5k")
    assert (truth.name, truth.gallery, truth.queries, truth.classic) == (
        "roxford5k",
        ("a", "b", "c", "d"),
        ("q",),
        False,
    )
    assert truth.boxes.tolist() == [[1, 2.5, 30, 40]]
    assert [rows[0].tolist() for rows in (truth.easy, truth.hard, truth.junk)] == [[1, 3], [0], [2]]
    older = pickle.dumps(
        {"imlist": ["a", "b"], "qimlist": ["a"], "gnd": [{"bbx": [0, 0, 1, 1], "ok": [0], "junk": []}]}
    )
    assert read_pickle(older, "oxford5k").classic


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pickle.dumps({"imlist": []}), "this is no ground truth"),
        (pickle.dumps([1]), "this is no ground truth"),
        (revisited(easy=[4]), "rows 0 to 4, and the gallery has 4"),
        (revisited(easy=[-1]), "rows -1 to 0"),
        (revisited(junk=[0]), "twice in the lists of query q"),
        (revisited(easy=[0.5]), "expected row numbers"),
        (revisited(bbx=[1, 2, 3]), "reshape"),
    ],
)
def test_odd_ground_truth_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_pickle(data, "made-up")


def test_query_ids_are_unique() -> None:
    none = (np.array([], np.int64),) * 3
    truth = GroundTruth(
        name="x", gallery=("a",), queries=("a", "b", "a"), boxes=np.zeros((3, 4)), easy=none, hard=none, junk=none
    )
    assert truth.query_ids() == ["query/a", "query/b", "query/a#2"]


CLASSIC = {
    "church_1_query.txt": "oxc1_church_07 10.5 20 300 400.25\n",
    "church_1_good.txt": "church_07\nchurch_02\n",
    "church_1_ok.txt": "church_01\n",
    "church_1_junk.txt": "gone_09\n",
    "arch_2_query.txt": "arch_00 0 0 9 9",
    "arch_2_good.txt": "arch_00",
    "arch_2_ok.txt": "",
    "arch_2_junk.txt": "",
    "README.txt": "not a list",
}


def test_classic_text_files() -> None:
    truth = read_classic(CLASSIC, ["church_01", "church_02", "church_07", "arch_00", "other"], "oxford5k")
    assert truth.gallery == ("arch_00", "church_01", "church_02", "church_07", "gone_09", "other")
    assert truth.queries == ("arch_00", "church_07")
    assert truth.boxes.tolist() == [[0, 0, 9, 9], [10.5, 20, 300, 400.25]]
    assert [rows.tolist() for rows in truth.easy] == [[0], [1, 2, 3]]  # the query itself is a good one
    assert [rows.tolist() for rows in truth.hard] == [[], []]
    assert [rows.tolist() for rows in truth.junk] == [[], [4]]
    assert truth.classic


def test_classic_errors_name_the_file() -> None:
    with pytest.raises(ValueError, match="arch_2_junk.txt"):
        read_classic({name: text for name, text in CLASSIC.items() if name != "arch_2_junk.txt"}, [], "oxford5k")
    with pytest.raises(ValueError, match=r"there is no \*_query.txt"):
        read_classic({}, ["a"], "oxford5k")
    with pytest.raises(ValueError, match="arch_2_query.txt holds 'arch_00 0 0'"):
        read_classic(CLASSIC | {"arch_2_query.txt": "arch_00 0 0"}, [], "oxford5k")


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "num", "easy"), [("roxford5k", 4993, 68), ("rparis6k", 6322, 70)])
def test_the_published_files(real_faces: Path, name: str, num: int, easy: int) -> None:
    truth = read_pickle((real_faces.parents[1] / "gnd" / f"gnd_{name}.pkl").read_bytes(), name)
    assert (len(truth.gallery), len(truth.queries)) == (num, 70)
    assert sum(len(rows) > 0 for rows in truth.easy) == easy
    assert (truth.boxes[:, 2:] > truth.boxes[:, :2]).all()


def lists(*rows: list[int]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(some, np.int64) for some in rows)


def test_a_ground_truth_checks_itself() -> None:
    right: dict[str, Any] = {"name": "x", "gallery": ("a", "b", "c"), "queries": ("q", "r"), "boxes": np.zeros((2, 4))}
    right |= {"easy": lists([0], [1]), "hard": lists([1], []), "junk": lists([2], [0])}
    assert GroundTruth(**right).hard[0].tolist() == [1]
    odd: list[tuple[dict[str, Any], str]] = [
        ({"gallery": ("a", "b", "a")}, "names an image twice"),
        ({"boxes": np.zeros((2, 3))}, r"boxes of shape \(2, 3\)"),
        ({"boxes": np.zeros((1, 4))}, r"boxes of shape \(1, 4\)"),
        ({"easy": lists([0])}, "1 easy"),
        ({"hard": lists([0])}, "1 hard"),
        ({"junk": lists([2], [0], [1])}, "3 junk"),
        ({"junk": lists([2], [1])}, "twice in the lists of query r"),
        ({"easy": lists([0, 0], [1])}, "twice in the lists of query q"),
        ({"hard": lists([1], [3])}, "query r name rows 0 to 3, and the gallery has 3"),
        ({"junk": lists([-1], [0])}, "query q name rows -1 to 1"),
    ]
    for change, said in odd:
        with pytest.raises(ValueError, match=said):
            GroundTruth(**(right | change))
    none: dict[str, Any] = {"queries": (), "boxes": np.zeros((0, 4)), "easy": (), "hard": (), "junk": ()}
    with pytest.raises(ValueError, match="0 queries"):
        GroundTruth(**(right | none))


def test_an_older_pickle_has_one_protocol() -> None:
    entries = [{"bbx": [0, 0, 1, 1], "ok": [2, 0], "junk": [1]}, {"bbx": [1, 2, 3, 4], "ok": [], "junk": []}]
    truth = read_pickle(pickle.dumps({"imlist": list("abc"), "qimlist": ["a", "z"], "gnd": entries}), "oxford5k")
    assert truth.classic and truth.queries == ("a", "z")
    assert [rows.tolist() for rows in (*truth.easy, *truth.hard, *truth.junk)] == [[0, 2], [], [], [], [1], []]
    mixed = [entries[0], {"bbx": [0, 0, 1, 1], "easy": [0], "hard": [], "junk": []}]
    with pytest.raises(ValueError, match="this is no ground truth"):
        read_pickle(pickle.dumps({"imlist": list("abc"), "qimlist": ["a", "z"], "gnd": mixed}), "x")


def test_a_broken_query_line_is_named() -> None:
    for text in ("arch_00 0 0 9 nine", "arch_00 0 0 9 9 9", ""):
        with pytest.raises(ValueError, match="arch_2_query.txt holds"):
            read_classic(CLASSIC | {"arch_2_query.txt": text}, [], "oxford5k")


def test_only_the_prefix_of_a_name_is_taken_off() -> None:
    texts = {"a_1_query.txt": "oxc1_oxc1_x 0 0 1 1", "a_1_good.txt": "oxc1_y y_oxc1_z", "a_1_ok.txt": "y"}
    truth = read_classic(texts | {"a_1_junk.txt": ""}, [], "oxford5k")
    assert truth.queries == ("oxc1_x",) and truth.gallery == ("y", "y_oxc1_z")
    assert truth.easy[0].tolist() == [0, 1]  # good and ok both name y: once
