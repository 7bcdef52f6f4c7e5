"""Embeddings on storage: what is written is read back, by part and by row, and never that of another image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.embeddings import (
    EMBEDDING_SCHEMA,
    KIND,
    REJECTED,
    left_out,
    read_ids,
    read_parts,
    read_rows,
    with_embedding,
    write_part,
)
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import seal

SIZES = (3, 0, 4, 1)  # of the parts
DIM = 2


def name(part: int, row: int) -> str:
    return f"{(7 * part + 5 * row) % 11:02d}-{part}-{row}.jpg"


def vector(part: int, row: int) -> list[float]:
    return [10.0 * part + row, 0.5]


@pytest.fixture
def made(tmp_path: Path) -> Folder:
    """Sealed embeddings of 8 images in four parts, one of them empty."""
    folder = Folder.of(tmp_path / "embeddings")
    for part, size in enumerate(SIZES):
        vectors = np.array([vector(part, row) for row in range(size)], np.float32).reshape(size, DIM)
        write_part(folder, part, [name(part, row) for row in range(size)], vectors)
    seal(folder, kind=KIND, config={}, inputs={}, counts={})
    return folder


def test_a_part_is_stored_as_the_format_says(made: Folder) -> None:
    table = made.read_table(part_name(2))
    assert table.schema.equals(EMBEDDING_SCHEMA)
    assert table.to_pylist() == [{"image_id": name(2, row), "embedding": vector(2, row)} for row in range(4)]
    assert made.read_table(part_name(1)).num_rows == 0
    assert [file for file in made.list() if file.endswith(".parquet")] == [part_name(part) for part in range(4)]


def test_ids_may_come_straight_from_another_table(tmp_path: Path) -> None:
    folder, ids = Folder.of(tmp_path), pa.chunked_array([["a"], ["b", "c"]])
    write_part(folder, 5, ids, np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    assert folder.read_table("part-00005.parquet")["embedding"].to_pylist() == [[1, 2], [3, 4], [5, 6]]
    assert folder.read_table("part-00005.parquet")["image_id"].to_pylist() == ["a", "b", "c"]


def test_a_photo_that_was_left_out_keeps_its_row_and_has_no_vector(tmp_path: Path) -> None:
    folder, vectors = Folder.of(tmp_path / "some"), np.arange(8, dtype=np.float32).reshape(4, 2)
    write_part(folder, 0, ["a", "b", "c", "d"], vectors, without=[1, 3])
    rejected = [{"image_id": one, "stage": KIND, "reason": "crashed", "detail": "SIGSEGV"} for one in ("b", "d")]
    folder.write_table(REJECTED, pa.Table.from_pylist(rejected))
    seal(folder, kind=KIND, config={}, inputs={}, counts={})
    assert folder.read_table(part_name(0))["embedding"].to_pylist() == [[0, 1], None, [4, 5], None]
    ((ids, found),) = read_parts(folder)
    assert ids == list(read_ids(folder)) == ["a", "c"] and found.tolist() == [[0, 1], [4, 5]]
    assert read_rows(folder, ["c"], np.array([0]), np.array([2])).tolist() == [[4, 5]]
    with pytest.raises(ValueError, match="not every embedding has"):
        read_rows(folder, ["a", "b"], np.array([0, 0]), np.array([0, 1]))
    assert left_out(folder) == {"b": "crashed", "d": "crashed"}
    images = pa.table({"image_id": ["d", "c", "b", "a"], "row": [3, 2, 1, 0]})
    assert with_embedding(folder, images)["row"].to_pylist() == [2, 0]


def test_parts_are_read_in_their_order_and_empty_ones_passed_over(made: Folder) -> None:
    found = list(read_parts(made))
    assert [ids for ids, _ in found] == [[name(part, row) for row in range(SIZES[part])] for part in (0, 2, 3)]
    for (_, vectors), part in zip(found, (0, 2, 3), strict=True):
        assert vectors.dtype == np.float32
        assert vectors.tolist() == [vector(part, row) for row in range(SIZES[part])]
    assert left_out(made) == {}
    assert list(read_ids(made)) == [image_id for ids, _ in found for image_id in ids]


def test_only_sealed_embeddings_are_read_part_by_part(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    write_part(folder, 0, ["a"], np.ones((1, 2), np.float32))
    for read in (read_parts, read_ids):
        with pytest.raises(ValueError, match="No sealed embeddings"):
            list(read(folder))
    seal(folder, kind="model", config={}, inputs={}, counts={})
    with pytest.raises(ValueError, match="expected a 'embeddings'"):
        list(read_parts(folder))


@pytest.mark.parametrize("dim", [None, DIM])
@pytest.mark.parametrize("kind", ["list", "chunked", "array"])
def test_rows_come_in_the_order_asked_for(made: Folder, dim: int | None, kind: str) -> None:
    places = [(2, 3), (0, 1), (3, 0), (2, 0), (0, 0), (2, 3)]
    ids = [name(*place) for place in places]
    asked = {"list": ids, "chunked": pa.chunked_array([ids[:2], ids[2:]]), "array": np.array(ids, object)}[kind]
    parts, rows = np.array(places).T
    found = read_rows(made, asked, parts, rows, dim)
    assert found.dtype == np.float32 and found.tolist() == [vector(*place) for place in places]


def test_no_rows_are_none(made: Folder) -> None:
    nothing = np.empty(0, np.int64)
    assert read_rows(made, [], nothing, nothing, 7).shape == (0, 7)
    assert read_rows(made, [], nothing, nothing).shape == (0, 0)


def test_only_the_parts_that_hold_them_are_read(made: Folder) -> None:
    made.remove(part_name(3))
    assert read_rows(made, [name(2, 1)], np.array([2]), np.array([1])).tolist() == [vector(2, 1)]
    with pytest.raises(FileNotFoundError):
        read_rows(made, [name(3, 0)], np.array([3]), np.array([0]))


def test_embeddings_of_other_images_are_refused(made: Folder) -> None:
    ids = [name(0, 0), name(2, 1), name(2, 2)]
    parts, rows = np.array([0, 2, 2]), np.array([0, 1, 2])
    assert len(read_rows(made, ids, parts, rows)) == 3
    with pytest.raises(ValueError, match=r"part-00002.parquet holds other images than the collection's catalog"):
        read_rows(made, [ids[0], ids[2], ids[1]], parts, rows)
    with pytest.raises(ValueError, match=r"part-00002.parquet has only 4 rows"):
        read_rows(made, ids, parts, np.array([0, 1, 4]))
    assert read_rows(made, [name(2, 3)], np.array([2]), np.array([3])).tolist() == [vector(2, 3)], "the last row"


def test_embeddings_of_another_length_are_refused(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    write_part(folder, 0, ["a", "b"], np.ones((2, 2), np.float32))
    write_part(folder, 1, ["c"], np.ones((1, 3), np.float32))
    uneven = pa.table({"image_id": ["d", "e"], "embedding": [[1.0], [1.0, 2.0, 3.0]]}, schema=EMBEDDING_SCHEMA)
    folder.write_table(part_name(2), uneven)
    absent = pa.table({"image_id": ["f", "g"], "embedding": [[1.0, 2.0], None]}, schema=EMBEDDING_SCHEMA)
    folder.write_table(part_name(3), absent)
    with pytest.raises(ValueError, match="part-00000.parquet: not every embedding has 3 values"):
        read_rows(folder, ["a", "b"], np.array([0, 0]), np.array([0, 1]), 3)
    with pytest.raises(ValueError, match="part-00001.parquet: not every embedding has 2 values"):
        read_rows(folder, ["a", "c"], np.array([0, 1]), np.array([0, 0]))
    with pytest.raises(ValueError, match="not every embedding has 2 values"):  # four values in all, as two by two has
        read_rows(folder, ["d", "e"], np.array([2, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="not every embedding has one number of values"):
        read_rows(folder, ["d", "e"], np.array([2, 2]), np.array([0, 1]))
    with pytest.raises(ValueError, match="not every embedding has 2 values"):
        read_rows(folder, ["f", "g"], np.array([3, 3]), np.array([0, 1]), 2)
    folder.remove(part_name(2))
    folder.remove(part_name(3))
    seal(folder, kind=KIND, config={}, inputs={}, counts={})
    with pytest.raises(ValueError, match="part-00001.parquet: not every embedding has 2 values"):
        list(read_parts(folder))
