"""A part without what was deleted, and a part of what was added: written once, embeddings in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.live.folding.parts import attributes_of, fold_part, write_added
from retrieval.live.store import Store
from tests.support.gallery import Sealed, new_image, sealed_gallery
from tests.support.vectors import DIM


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed_gallery(tmp_path)


def test_images_and_embeddings_leave_together(made: Sealed, tmp_path: Path) -> None:
    to, vectors = Folder.of(tmp_path / "to"), Folder.of(tmp_path / "vectors")
    names = made.pair.collection.read_table("images/part-00000.parquet")["image_id"].to_pylist()
    where = (made.pair.collection, made.workspace / "embeddings/made", to, vectors)
    told = fold_part(0, *where, frozenset({names[2], "nobody"}))
    assert (told["taken"], told["kept"]) == (7, 6)
    assert to.read_table("images/part-00000.parquet")["image_id"].to_pylist() == names[:2] + names[3:]
    assert vectors.read_table("part-00000.parquet")["image_id"].to_pylist() == names[:2] + names[3:]
    assert fold_part(0, *where, frozenset({names[2], "nobody"})) == told
    whole = fold_part(1, *where, frozenset())
    assert to.read_table("images/part-00001.parquet").equals(
        made.pair.collection.read_table("images/part-00001.parquet")
    )
    assert whole["kept"] == 7


def test_embeddings_of_other_images_are_noticed(made: Sealed, tmp_path: Path) -> None:
    embeddings = made.workspace / "embeddings/made"
    embeddings.write_bytes("part-00000.parquet", embeddings.read_bytes("part-00001.parquet"))
    with pytest.raises(ValueError, match="holds other images"):
        fold_part(
            0, made.pair.collection, embeddings, Folder.of(tmp_path / "t"), Folder.of(tmp_path / "v"), frozenset()
        )


def test_what_was_added_is_stored_as_ingest_stores(made: Sealed, tmp_path: Path) -> None:
    store = Store(tmp_path / "it.db")
    image = new_image("p.jpg", 1, label="eve", attributes={"Male": 1}, box=[1, 2, 3, 4], points=[0.5] * 10)
    store.add([image], "m")
    to, vectors = Folder.of(tmp_path / "to"), Folder.of(tmp_path / "vectors")
    rows = store.changed(0, "m").rows
    told = write_added(9, rows, store.jpeg, to, vectors, DIM)
    (row,) = to.read_table("images/part-00009.parquet").to_pylist()
    assert (row["image_id"], row["jpeg"], row["label"], row["content_hash"]) == (
        "p.jpg", image.jpeg, "eve", image.content_hash
    )  # fmt: skip
    assert (row["box"], row["points"], sum(row["attributes"])) == ([1, 2, 3, 4], [0.5] * 10, 1)
    assert (told["taken"], told["kept"], sorted(told["files"])) == (
        1, 1, ["images/part-00009.parquet", "rejected/part-00009.parquet"]
    )  # fmt: skip
    with pytest.raises(ValueError, match="deleted while it was folded"):
        write_added(10, rows, lambda _: None, to, vectors, DIM)


def test_attributes_are_in_the_order_of_their_names() -> None:
    told = attributes_of({"5_o_Clock_Shadow": -1, "Young": 1})
    assert told is not None and (told[0], told[-1], len(told)) == (-1, 1, 40) and not any(told[1:-1])
    assert attributes_of(None) is None
