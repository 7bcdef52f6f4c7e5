"""Other people's pickles give back plain values, and one that wants to run something is refused before it does."""

from __future__ import annotations

import builtins
import functools
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.data import plain_pickle
from retrieval.data.plain_pickle import load_plain


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
        b"cbuiltins\nopen\n(S'SENTINEL'\nS'w'\ntR.",  # pickle itself would write it as io.open
        b"c__builtin__\nopen\n(S'SENTINEL'\nS'w'\ntR.",
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


def test_an_array_of_a_negative_shape_is_refused() -> None:
    data = pickle.dumps(np.arange(3, dtype=np.int32), 2)
    with pytest.raises(ValueError, match=r"an array of shape \(-1,\)"):
        load_plain(data.replace(b"K\x03\x85", b"J" + struct.pack("<i", -1) + b"\x85"))


def test_names_that_python_2_wrote_are_text() -> None:
    """As the published files were written: protocol 0, and texts that were bytes."""
    assert load_plain(b"(dp0\nS'cids'\np1\n(lp2\nS'a\\xe9'\nas.") == {"cids": ["a\u00e9"]}


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


def test_limits_hold_at_the_last_value(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(["a", ["b"], {"c": 1}])  # 7 values: the list, a, a list, b, a dict, c, 1
    monkeypatch.setattr(plain_pickle, "MAX_VALUES", 7)
    assert load_plain(data) == ["a", ["b"], {"c": 1}]
    monkeypatch.setattr(plain_pickle, "MAX_VALUES", 6)
    with pytest.raises(ValueError, match="over 6 values or 50 levels"):
        load_plain(data)
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", len(data))
    monkeypatch.setattr(plain_pickle, "MAX_VALUES", 100)
    assert load_plain(data)[0] == "a"
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", len(data) - 1)
    with pytest.raises(ValueError, match=f"has {len(data)} bytes, the limit is {len(data) - 1}"):
        load_plain(data)


@pytest.mark.parametrize("make", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}], ids=["list", "tuple", "dict"])
def test_depth_is_bounded_in_every_container(make: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(50):
        value = make(value)
    assert load_plain(pickle.dumps(value)) == value
    with pytest.raises(ValueError, match="50 levels"):
        load_plain(pickle.dumps(make(value)))


def test_a_file_of_the_published_size_is_within_the_limits() -> None:
    """retrieval-SfM-120k has a million numbers and names in 10 MB; a file may not take all of a worker's memory."""
    assert 64 << 20 <= plain_pickle.MAX_BYTES <= 1 << 30
    assert 2_000_000 <= plain_pickle.MAX_VALUES <= 100_000_000


def test_containers_keep_their_kind_and_arrays_inside_them_are_found() -> None:
    row = np.arange(3, dtype=np.int16)
    found = load_plain(pickle.dumps({"t": (1, [row]), ("k", 2): {3, 4}, "n": None}, 2))
    assert (type(found["t"]), type(found["t"][1]), found["n"]) == (tuple, list, None)
    assert found["k", 2] == {3, 4} and type(found["k", 2]) is set
    assert np.array_equal(found["t"][1][0], row)
    found["t"][1][0][0] = 9  # as writable as an array read from anywhere


def test_a_refusal_names_what_the_file_wanted() -> None:
    with pytest.raises(ValueError, match=r"wants to use \w+.system. Only lists.*Do not trust this file"):
        load_plain(pickle.dumps(Calls(os.system, "true")))
    with pytest.raises(ValueError, match="refers to objects outside itself"):
        load_plain(b"P1\n.")
    with pytest.raises(ValueError, match="sets attributes on a function"):
        load_plain(b"cnumpy\ndtype\n(N}S'__new__'\ncnumpy\nndarray\nstb.")
    with pytest.raises(ValueError, match="not a readable pickle: "):
        load_plain(b"")
    with pytest.raises(ValueError, match="encodes str as 'rot13', expected text as 'latin1'"):
        load_plain(b"c_codecs\nencode\n(S'abc'\nS'rot13'\ntR.")
    with pytest.raises(ValueError, match="array of object, expected numbers or text"):
        load_plain(b"cnumpy\ndtype\n(S'O'\ntR.")
    with pytest.raises(ValueError, match="odd numpy scalar"):
        load_plain(b"cnumpy.core.multiarray\nscalar\n(S'i4'\nS'abcd'\ntR.")
    with pytest.raises(ValueError, match="makes a set of str, expected a list"):
        load_plain(b"c__builtin__\nset\n(S'abc'\ntR.")
