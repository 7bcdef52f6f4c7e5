"""A network is exported once, by one process; a damaged one is made anew; a refusal is remembered."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from retrieval.models.engines import kept
from retrieval.models.engines.exported import DoesNotExport, Exported
from retrieval.models.engines.kept import cache, keep

MADE = Exported(graph=b"a graph", power=3.0, projection=np.ones((2, 3), np.float32), mean=np.ones(3, np.float32))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


def never() -> Exported:
    raise AssertionError("it was exported before")


def test_it_is_made_once_and_comes_back_equal() -> None:
    assert keep("abc", lambda: MADE) is MADE
    again = keep("abc", never)
    assert (again.graph, again.power) == (MADE.graph, 3.0)
    assert np.array_equal(np.asarray(again.projection), np.ones((2, 3)))
    assert np.array_equal(np.asarray(again.mean), np.ones(3))
    other = Exported(graph=b"other")
    assert keep("abd", lambda: other) is other


def test_those_who_come_at_once_wait_for_the_first() -> None:
    made: list[float] = []

    def make() -> Exported:
        made.append(time.monotonic())
        time.sleep(0.2)
        return MADE

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: keep("abc", make), range(4)))
    assert len(made) == 1 and {one.graph for one in found} == {b"a graph"}


def test_a_refusal_is_remembered_with_its_reason() -> None:
    def refuse() -> Exported:
        raise DoesNotExport("PyTorch does not export it: too odd")

    for make in (refuse, never):
        with pytest.raises(ValueError, match="does not export it: too odd"):
            keep("abc", make)


@pytest.mark.parametrize("name", [kept.GRAPH, kept.TAIL])
def test_a_damaged_one_is_made_anew(name: str) -> None:
    keep("abc", lambda: MADE)
    (file,) = cache().glob(f"*/{name}")
    for harm in (lambda: file.write_bytes(b"cut short"), file.unlink):
        harm()
        assert keep("abc", lambda: MADE) is MADE
        assert keep("abc", never).graph == b"a graph"


def test_an_unfinished_one_is_made_anew() -> None:
    keep("abc", lambda: MADE)
    (seal,) = cache().glob(f"*/{kept.SEAL}")
    seal.unlink()
    assert keep("abc", lambda: MADE) is MADE


@pytest.mark.parametrize("error", [ValueError("the bundle is damaged"), OSError("no space"), MemoryError()])
def test_what_says_nothing_of_the_network_is_not_remembered(error: Exception) -> None:
    def fails() -> Exported:
        raise error

    with pytest.raises(type(error)):
        keep("abc", fails)
    assert keep("abc", lambda: MADE) is MADE


def test_another_pytorch_or_onnxruntime_exports_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    keep("abc", lambda: MADE)
    monkeypatch.setattr(kept, "_versions", lambda: {"torch": "9", "onnxruntime": "9"})
    other = Exported(graph=b"other")
    assert keep("abc", lambda: other) is other


def test_the_cache_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache() == tmp_path / "cache/engines"
    assert (tmp_path / "cache/engines").stat().st_mode & 0o077 == 0
    monkeypatch.delenv("RETRIEVAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache() == tmp_path / "xdg/retrieval/engines"


def test_a_cache_that_cannot_be_made_is_said_or_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="nothing can be written there. Name another folder"):
        cache()
    monkeypatch.delenv("RETRIEVAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache().parent == tmp_path and cache().stat().st_mode & 0o077 == 0
