"""The lists of mutants are fit to be run: each change can still be made, and each test it names is there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants_run", ROOT / "tests/mutants/run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants_run"] = module
    spec.loader.exec_module(module)
    return module


def test_every_mutant_can_still_be_made(run: ModuleType) -> None:
    mutants = run.read_mutants()
    assert [f"{mutant}: {reason}" for mutant in mutants if (reason := run.stale(mutant))] == []
    assert [str(mutant) for mutant in mutants if mutant.old == mutant.new] == []


def test_a_list_that_went_stale_is_found(run: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    made = {"room": "r", "file": "a.py", "new": "y", "tests": (), "why": "w"}
    assert "2 times" in run.stale(run.Mutant(old="x = 1", **made), tmp_path)
    assert "0 times" in run.stale(run.Mutant(old="z", **made), tmp_path)
    assert "not there" in run.stale(run.Mutant(old="x", **{**made, "file": "b.py"}), tmp_path)
    assert run.stale(run.Mutant(old="x = 1\nx", **{**made, "tests": ("t.py",)}), tmp_path) == "no test t.py"
    (tmp_path / "t.py").write_text("def test_it() -> None: ...\n")
    for test, said in (("t.py::test_it[1]", ""), ("t.py::test_i", "no test t.py::test_i")):
        assert run.stale(run.Mutant(old="x = 1\nx", **{**made, "tests": (test,)}), tmp_path) == said


def test_a_survivor_without_a_reason_fails_the_run(run: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"file": "a.py", "old": "x", "new": "y", "tests": (), "why": "harm"}
    known = [run.Mutant(room="a", **made), run.Mutant(room="b", **made, survives="it is equal")]
    assert run.tell(known, {0: False, 1: True}) == 0
    assert run.tell(known, {0: True, 1: True}) == 1
    assert run.tell(known, {0: False, 1: False}) == 1
    assert "1 of    1 noticed, 100%" in capsys.readouterr().out
