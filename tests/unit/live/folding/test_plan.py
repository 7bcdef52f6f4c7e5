"""What is folded: only what is new to the collection, named after it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from retrieval.live.folding import plan as plans
from retrieval.live.folding.plan import plan_fold, still_there
from retrieval.live.store import Store
from tests.support.gallery import Sealed, new_image, sealed_gallery


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed_gallery(tmp_path)


def test_nothing_changed_is_nothing_to_fold(made: Sealed) -> None:
    store = Store.open(made.workspace)
    plan = plan_fold(made.pair, store)
    assert plan.is_empty and plan.new_parts == [] and plan.parts == tuple(range(6))
    store.edit_people("name", {"person": 1, "name": "Ada"})
    store.delete(["nobody.jpg"], {})
    assert plan_fold(made.pair, store).is_empty


def test_a_plan_is_named_after_what_it_folds(made: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "ROWS_A_PART", 2)
    store, model = Store.open(made.workspace), made.pair.model_fingerprint
    for number in range(3):
        store.add([new_image(f"{2 - number}.jpg", number)], model)
    first = plan_fold(made.pair, store)
    assert [(part, [one.entry.image_id for one in rows]) for part, rows in first.new_parts] == [
        (6, ["0.jpg", "1.jpg"]), (7, ["2.jpg"])
    ]  # fmt: skip
    assert first.key == plan_fold(made.pair, store).key
    store.delete(["a/ada-000.jpg"], {})
    second = plan_fold(made.pair, store)
    assert second.key != first.key and second.out_of == {"a/ada-000.jpg", "a/twin.jpg"}
    assert second.collection.uri.endswith(f"collection/{plans.PREFIX}{second.key}")


def test_what_cannot_be_folded_is_said(made: Sealed) -> None:
    store = Store.open(made.workspace)
    store.add([new_image("p.jpg", 1)], "another model")
    with pytest.raises(ValueError, match="1 images that were added, 'p.jpg' for one, have no embedding"):
        plan_fold(made.pair, store)
    store.delete(["p.jpg"], {})
    (Path(made.workspace.path) / "embeddings/made/manifest.json").unlink()
    with pytest.raises(ValueError, match="are not in"):
        plan_fold(made.pair, store)


def test_still_there_keeps_the_order() -> None:
    table = pa.table({"image_id": ["b", "a", "c"]})
    assert still_there(table, frozenset({"a", "x"}))["image_id"].to_pylist() == ["b", "c"]
    assert still_there(table, frozenset()).num_rows == 3
