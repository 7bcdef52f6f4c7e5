"""Tables that are sorted, joined and grouped on this node's disk, in memory that does not grow with them.

    with Scratch() as tables:
        tables.add("photos", schema, batches)
        for batch in tables.read("SELECT * FROM photos ORDER BY image_id"):
            ...

DuckDB does it: what is beyond its memory lies in a folder for temporary files ($TMPDIR), which goes with it. Rows come
and go some at a time, as Arrow's. Strings are in order of their bytes, as everywhere here. It is asked for no order but
the one that a query names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

MEMORY = 512 << 20
"""Bytes that the tables may take before they lie on the disk; the process has about as much again."""

_READ_AT_ONCE = 1 << 15  # rows


class Scratch:
    """One database that nobody else sees. Not safe to use from several threads."""

    def __init__(self, memory: int = MEMORY) -> None:
        """Args: memory: bytes, about. It sorts on one core, as a task has."""
        self._memory = memory

    def __enter__(self) -> Scratch:
        import duckdb

        self._folder = tempfile.TemporaryDirectory(prefix="scratch-")
        settings = {
            "memory_limit": f"{self._memory >> 10}KiB",
            "threads": 1,
            "temp_directory": self._folder.name,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._base: duckdb.DuckDBPyConnection = duckdb.connect(":memory:", config=settings)
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()
        self._folder.cleanup()

    def add(self, table: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """A new table of these rows, which are read once.

        Raises: ValueError if the disk has no room for them; whatever `batches` raises.
        """
        failed: list[BaseException] = []
        reader = pa.RecordBatchReader.from_batches(schema, _watched(batches, failed))
        self._base.register("_given", reader)
        try:
            self.run(f"CREATE TABLE {table} AS SELECT * FROM _given")
        except Exception:
            if failed:
                raise failed[0] from None  # as it was raised, not as the database tells of it
            raise
        finally:
            self._base.unregister("_given")

    def run(self, sql: str, **values: Any) -> None:
        """A statement; `values` stand in it as $name. Raises: ValueError if the disk has no room for its result."""
        with _Room(self._folder.name):
            self._base.execute(sql, values or None)

    def one(self, sql: str, **values: Any) -> tuple[Any, ...]:
        """The first row of what a query gives."""
        return self.rows(sql, **values)[0]

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """All of the few rows that a query gives."""
        with _Room(self._folder.name):
            return self._base.execute(sql, values or None).fetchall()

    def read(self, sql: str) -> Iterator[pa.RecordBatch]:
        """What a query gives, some rows at a time. Raises: ValueError if the disk has no room to make it."""
        with _Room(self._folder.name):
            yield from self._base.sql(sql).to_arrow_reader(_READ_AT_ONCE)

    def map(self, sql: str, schema: pa.Schema) -> pa.Table:
        """What a query gives, as a table that is mapped from a file without a name: it takes no memory to hold, and
        outlives the database."""
        path = Path(self._folder.name) / "mapped.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in self.read(sql):
                writer.write_batch(batch.cast(schema))
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        path.unlink()
        return table


def _watched(batches: Iterable[pa.RecordBatch], failed: list[BaseException]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except BaseException as error:
        failed.append(error)
        raise


class _Room:
    """Says in words that there was none."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: object) -> None:
        import duckdb

        if isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException):
            why = str(error).partition("\n")[0]
            raise ValueError(
                f"There is no room to sort in {self._folder} ({why}). Free some, or name a folder on another disk "
                f"with $TMPDIR."
            ) from error
