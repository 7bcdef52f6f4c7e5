"""What is sorted beyond memory comes out as sorted() gives it, and nothing is left of it."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from retrieval.artifacts.node.scratch import Scratch

SCHEMA = pa.schema([("name", pa.string()), ("number", pa.int64())])


def batches(names: list[str], step: int = 700) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(names), step):
        some = names[start : start + step]
        yield pa.record_batch([some, range(start, start + len(some))], schema=SCHEMA)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_rows_are_in_order_of_their_bytes_whether_they_fit_into_memory_or_not(room: Path) -> None:
    """Twenty megabytes, twice (as given and as sorted), in less."""
    letters = "aZ/é \ufb00\U0001d4b3#0"
    draw = random.Random(0)
    names = ["".join(draw.choices(letters, k=9)) + f"{row:0200d}" for row in range(100_000)]
    spilled = 0
    with Scratch(memory=28 << 20) as tables:
        tables.add("given", SCHEMA, batches(names))
        found = []
        for batch in tables.read("SELECT * FROM given ORDER BY name"):
            spilled = max(spilled, sum(file.stat().st_size for file in room.rglob("*") if file.is_file()))
            found += batch["number"].to_pylist()
    assert found == sorted(range(len(names)), key=lambda row: names[row].encode())
    assert spilled > 1 << 20 and list(room.iterdir()) == []


def test_a_draw_is_that_of_python() -> None:
    with Scratch() as tables:
        (drawn,) = tables.one("SELECT sha256(concat_ws(chr(0), '7', $what, 'é'))", what="identity")
    assert drawn == hashlib.sha256("7\0identity\0é".encode()).hexdigest()


def test_what_is_wrong_with_the_rows_is_raised_as_it_was(room: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield next(batches(["a"]))
        raise KeyError("this row")

    with Scratch() as tables:
        with pytest.raises(KeyError, match="this row"):
            tables.add("given", SCHEMA, broken())
        tables.add("given", SCHEMA, batches(["a", "b"]))
        assert tables.rows("SELECT name FROM given WHERE number > $least", least=0) == [("b",)]
    assert list(room.iterdir()) == []


def test_too_little_room_is_said_in_words(room: Path) -> None:
    with Scratch(memory=8 << 20) as tables:
        tables.run("SET max_temp_directory_size = '1MiB'")
        with pytest.raises(ValueError, match=r"no room to sort in .*Free some, or name a folder .* \$TMPDIR"):
            tables.add("given", SCHEMA, batches([f"{row:0300d}" for row in range(100_000)]))
    assert list(room.iterdir()) == []
