"""Ground truth is read as it is written, and a file that wants to run something is refused before it does."""

from __future__ import annotations

import builtins
import functools
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.data import plain_pickle
from retrieval.data.plain_pickle import load_plain
from retrieval.evaluation.ground_truth import GroundTruth, read_classic, read_pickle


class Calls:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(protocol: int) -> None:
    value = {
        "text": "caf\u00e9",
        "bytes": b"\x00\xff",
        "numbers": [1, -2, 3.5, 2**70, True, None],
        "nested": {(1, "a"): [[], {}, ()]},
        "sets": {1, 2},
    }
    assert load_plain(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(4, dtype=">i4"),
        np.array([], dtype=np.float32),
        np.array([True, False]),
        np.array(["a", "bcd"]),
    ],
)
def test_numeric_arrays_come_back(array: np.ndarray, protocol: int) -> None:
    found = load_plain(pickle.dumps({"rows": [array, array.dtype.type(array.flat[0]) if array.size else 0]}, protocol))
    np.testing.assert_array_equal(found["rows"][0], array)
    assert found["rows"][0].dtype == array.dtype
    assert not array.size or found["rows"][1] == array.flat[0]


HOSTILE = [
    Calls(os.system, "touch SENTINEL"),
    Calls(builtins.eval, "open('SENTINEL', 'w')"),
    Calls(builtins.exec, "open('SENTINEL', 'w')"),
    Calls(builtins.open, "SENTINEL", "w"),
    Calls(functools.partial, os.system, "touch SENTINEL"),
    Calls(builtins.getattr, [], "append"),
    Calls(np.load, "SENTINEL"),
    Calls(np.fromfile, "SENTINEL"),
    Calls(np.memmap, "SENTINEL", "u1", "w+", 0, (1,)),
    OrderedDict(a=1),
    np.array([{"a": 1}], dtype=object),
    np.array([Calls(os.system, "touch SENTINEL")], dtype=object),
    np.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
    np.datetime64("2020-01-01"),
    Path("a"),
    len,
]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(getattr(value, "function", value))[:30])
def test_all_else_is_refused_and_not_run(
    value: object, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for held in (value, {"gnd": [value]}):
        with pytest.raises(ValueError, match="pickle"):
            load_plain(pickle.dumps(held, protocol))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch SENTINEL'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.",
        b"cnumpy\nload\n(S'SENTINEL'\ntR.",
        b"cnumpy.testing._private.utils\nrunstring\n(S'1'\n}tR.",
        b"cnumpy\ndtype\n(S'O'\ntR.",
        b"cnumpy\ndtype\n(S'i4,O'\ntR.",
        b"cnumpy\ndtype\n((S'a'\nS'i4'\ntltR.",
        b"c_codecs\nencode\n(S'abc'\nS'rot13'\ntR.",
        b"c_codecs\ndecode\n(S'abc'\nS'hex'\ntR.",
        b"c_codecs\nlookup\n(S'hex'\ntR.",
        b"(S'touch SENTINEL'\nios\nsystem\n.",
        b"P1\n.",  # persistent id
        b"cnumpy\ndtype\n.",  # an admitted name as a value
        b"cnumpy\ndtype\n(N}S'__new__'\ncnumpy\nndarray\nstb.",  # sets an attribute on it
        b"cnumpy.core.multiarray\n_reconstruct\n(N}S'__defaults__'\n(I1\ntstb.",
        b"cnumpy.core.multiarray\nscalar\n(S'i4'\nS'abcd'\ntR.",
        b"c__builtin__\nbytes\n(I9\ntR.",
        b"",
        b"\x80\x04",
        b"no pickle at all",
        b"]q\x00h\x00a.",  # a list that holds itself
    ],
)
def test_handmade_programs_are_refused(program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(vars(plain_pickle._Dtype)), plain_pickle._reconstruct.__defaults__
    with pytest.raises(ValueError):
        load_plain(program)
    assert (dict(vars(plain_pickle._Dtype)), plain_pickle._reconstruct.__defaults__) == before
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_claims_more_than_it_holds_is_refused() -> None:
    data = pickle.dumps(np.arange(3, dtype=np.int32), 2)
    assert b"K\x03" in data
    with pytest.raises(ValueError, match="reshape|pickle"):
        load_plain(data.replace(b"K\x03\x85", b"J" + struct.pack("<i", 2**30) + b"\x85"))


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb: list[Any] = []
    for _ in range(40):
        bomb = [bomb, bomb]
    monkeypatch.setattr(plain_pickle, "MAX_VALUES", 1000)
    with pytest.raises(ValueError, match="unfolds to over 1000"):
        load_plain(pickle.dumps(bomb))
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="the limit is 10"):
        load_plain(pickle.dumps("a" * 20))


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
