"""Real processes that change a gallery, killed in the midst of it; and that a lost change would be noticed."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest

from retrieval.live.store import Store
from tests.support.object_store import ObjectStore
from tests.support.writers import MODEL, drawn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kill_gallery", ROOT / "benchmarks/kill_gallery.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["kill_gallery"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("hosts", [False, True])
def test_what_was_acknowledged_survives_sigkill(
    bench: ModuleType, hosts: bool, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "object_store", lambda: nullcontext(s3))
    known = bench.main(bench.Config(rounds=3, seed=11, hosts=hosts))
    assert known.acknowledged > 3 * 4


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("add a 2", "none of"),
        ("delete a 0", "none of"),
        ("add b 1", "acknowledged and is gone"),
    ],
)
def test_what_is_lost_or_too_much_is_noticed(bench: ModuleType, tmp_path: Path, line: str, complaint: str) -> None:
    store, known = Store.open(str(tmp_path)), bench.Known()
    store.add([drawn("a", 1)], MODEL)
    for said in ("try add a 1", "done add a 1"):
        known.read(said)
    bench.check(str(tmp_path), known, tmp_path)
    known.read(f"try {line}")  # not yet acknowledged: either is right
    bench.check(str(tmp_path), known, tmp_path)
    for said in (f"try {line}", f"done {line}"):
        known.read(said)
    with pytest.raises(AssertionError, match=complaint):
        bench.check(str(tmp_path), known, tmp_path)
