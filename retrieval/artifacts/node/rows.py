"""What is known of every row of an index, as arrays on this node's disk: mapped, so that it takes no memory to hold.

    rows = open_rows(index, collection, people, cache=NodeCache.of_node())
    rows.ids[5].as_py()

Tables on storage are compressed and lie in the order of the parts. Here each column is an array by row of the index,
in a file of its own, made once a node from the tables, some rows at a time. Processes that map it share its pages, and
the system takes them back where memory is short.
"""

from __future__ import annotations

import bisect
import mmap
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import ADDED, CATALOG
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.node.cache import Kept, NodeCache

NEVER = np.iinfo(np.int64).min
"""`added` of what was not added to a running service."""

_NUMBERS = {"part": np.int32, "row_in_part": np.int32, "label": np.int32, "split": np.int32, "face": np.int32}
_NUMBERS |= {"added": np.int64, "person": np.int32}
_NAME = pa.large_string()
_BLOCK = 1 << 20  # rows that are looked at together
_BYTES_A_ROW = 150  # about, for the disk's sake: the name, the numbers, forty attributes


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """N rows of an index, sorted by image_id.

    ids: (N,) image_ids. label, split: (N,) int32, codes into `labels` and `splits`, -1 for none. person: (N,) int32, -1
    for none. face: (N,) int32, -1 where a photo is one row. added: (N,) int64, microseconds since 1970, or NEVER.
    attributes: (N, A) int8, rows of 0 where nobody said; None where nobody said anything, or not of everyone the same.
    part, row_in_part: (N,) int32, where each lies in the collection.
    """

    ids: pa.LargeStringArray
    label: np.ndarray
    labels: pa.LargeStringArray
    split: np.ndarray
    splits: pa.LargeStringArray
    person: np.ndarray
    face: np.ndarray
    added: np.ndarray
    attributes: np.ndarray | None
    part: np.ndarray
    row_in_part: np.ndarray
    kept: Kept | None = None
    """What keeps the files there for as long as they are used."""


def open_rows(index: Folder, collection: Folder, people: Folder | None = None, cache: NodeCache | None = None) -> Rows:
    """The rows of an index of photos of a collection.

    Args: people: groups of its photos, if they were grouped. cache: where the arrays are kept for all processes of this
        node, by the fingerprints of what they are made of; None: in files without a name, for this process.

    Raises: ValueError if the index names places that the collection has not, or the disk is full.
    """
    if cache is None:
        with tempfile.TemporaryDirectory() as own:
            _make(Path(own) / "rows", index, collection, people)
            return _open(Path(own) / "rows", None)  # what is mapped stays, without a name
    made_of = [None if one is None else read_manifest(one).fingerprint for one in (index, collection, people)]
    num_bytes = _BYTES_A_ROW * index.num_rows(IDS)
    name = f"rows-{digest(made_of)[:32]}"
    kept = cache.keep(name, lambda path: _make(path, index, collection, people), num_bytes, "the rows of the index")
    return _open(kept.path, kept)


def _make(path: Path, index: Folder, collection: Folder, people: Folder | None) -> None:
    path.mkdir()
    num = index.num_rows(IDS)
    out = {name: _array(path / f"{name}.npy", kind, (num,)) for name, kind in _NUMBERS.items()}
    for name, value in {"person": -1, "face": -1, "added": NEVER}.items():
        out[name][:] = value
    _write_ids(path, index, out)
    for kind, names in (("labels", _code_labels(index, out["label"])), ("splits", _join(path, collection, out))):
        with _Strings(path, kind) as file:
            file.add(names)
    if people is not None:
        _join_people(_strings(path, "ids"), people, out["person"])
    for array in out.values():
        array.flush()
    pa.default_memory_pool().release_unused()


def _write_ids(path: Path, index: Folder, out: dict[str, np.ndarray]) -> None:
    with _Strings(path, "ids") as ids:
        at = 0
        for batch in index.read_batches(IDS, ["image_id", "part", "row_in_part"]):
            ids.add(batch["image_id"])
            for name in ("part", "row_in_part"):
                out[name][at : at + len(batch)] = batch[name].to_numpy()
            at += len(batch)


def _code_labels(index: Folder, out: np.ndarray) -> pa.Array:
    """Writes the code of each row's label, -1 for none, and returns the labels, in the order in which they come."""
    read = (batch["label"].cast(pa.large_string()) for batch in index.read_batches(IDS, ["label"]))
    chunks = pa.chunked_array([labels.dictionary_encode() for labels in read], pa.dictionary(pa.int32(), _NAME))
    at, names = 0, pa.array([], _NAME)
    for chunk in chunks.unify_dictionaries().chunks:
        names = chunk.dictionary
        out[at : at + len(chunk)] = pc.fill_null(chunk.indices, -1).to_numpy()
        at += len(chunk)
    return names


def _code(column: pa.Array, names: pa.Array, out: np.ndarray) -> pa.Array:
    """Writes the codes of a few names, -1 for null, and returns the names with those that are new."""
    coded = column.cast(_NAME).dictionary_encode()
    new = coded.dictionary.filter(pc.invert(pc.is_in(coded.dictionary, names)))
    names = pa.concat_arrays([names, new])
    code = np.append(pc.index_in(coded.dictionary, names).to_numpy(), -1)  # the last is that of null
    out[:] = code[pc.fill_null(coded.indices, -1).to_numpy()]
    return names


def _join(path: Path, collection: Folder, out: dict[str, np.ndarray]) -> pa.Array:
    """Writes what the catalogue says of each row, found by its place; returns the names of the splits."""
    row_at = _RowAt(collection, out["part"], out["row_in_part"])
    splits, attributes = pa.array([], _NAME), _Attributes(path / "attributes.npy", len(out["part"]))
    wanted = ["part", "row", "split", "attributes", "face", ADDED]
    there = set(collection.columns(CATALOG))
    out["split"][:] = -1
    for batch in collection.read_batches(CATALOG, [name for name in wanted if name in there]):
        rows = row_at(batch["part"].to_numpy(), batch["row"].to_numpy())
        mine, rows = np.flatnonzero(rows >= 0), rows[rows >= 0]
        batch = batch.take(pa.array(mine))
        codes = np.empty(len(rows), np.int32)
        splits = _code(batch["split"], splits, codes)
        out["split"][rows] = codes
        if "face" in there:
            out["face"][rows] = pc.fill_null(batch["face"], -1).to_numpy()
        if ADDED in there:
            out["added"][rows] = pc.fill_null(batch[ADDED].cast(pa.int64()), NEVER).to_numpy()
        attributes.add(rows, batch["attributes"])
    attributes.close()
    return splits


class _RowAt:
    """Which row of the index lies at a place of the collection: a table in a file, as long as the catalogue."""

    def __init__(self, collection: Folder, parts: np.ndarray, places: np.ndarray) -> None:
        sizes = np.zeros(0, np.int64)
        for batch in collection.read_batches(CATALOG, ["part", "row"]):
            part, row = batch["part"].to_numpy(), batch["row"].to_numpy()
            if len(part) and part.max() >= len(sizes):
                sizes = np.pad(sizes, (0, int(part.max()) + 1 - len(sizes)))
            np.maximum.at(sizes, part, row + 1)
        self._starts, self._sizes = np.concatenate([[0], np.cumsum(sizes)]), sizes
        with tempfile.TemporaryFile() as file:  # without a name: it is gone when nobody maps it
            file.truncate(8 * int(self._starts[-1]))
            self._rows = np.memmap(file, np.int64, "r+", shape=(int(self._starts[-1]),))
        for start in range(0, len(parts), _BLOCK):  # a row is kept as one more than it is: the file begins as zeros
            part, place = parts[start : start + _BLOCK], places[start : start + _BLOCK]
            if (part >= len(sizes)).any() or (place >= sizes[part]).any():
                raise ValueError(f"The index names photos that {collection} does not hold. Build the index again.")
            self._rows[self._starts[part] + place] = np.arange(start + 1, start + len(part) + 1)

    def __call__(self, parts: np.ndarray, places: np.ndarray) -> np.ndarray:
        """(n,) int64, -1 for what is not indexed."""
        return self._rows[self._starts[parts] + places] - 1


class _Attributes:
    """The file of attributes; there is none unless all that is said has one width."""

    def __init__(self, path: Path, num: int) -> None:
        self._path, self._num = path, num
        self._array: np.ndarray | None = None
        self._differ = False

    def add(self, rows: np.ndarray, said: pa.Array) -> None:
        known, lists = said.is_valid().to_numpy(zero_copy_only=False), said.drop_null()
        widths = np.unique(lists.value_lengths().to_numpy(zero_copy_only=False)).tolist()
        if not widths or self._differ:
            return
        if self._array is None and len(widths) == 1 and widths[0]:
            self._array = _array(self._path, np.int8, (self._num, widths[0]))
        self._differ = self._array is None or widths != [self._array.shape[1]]
        if self._array is not None and not self._differ:
            values = lists.flatten().to_numpy(zero_copy_only=False)
            self._array[rows[known]] = values.reshape(len(lists), -1)

    def close(self) -> None:
        if self._differ:
            self._path.unlink(missing_ok=True)


def _join_people(ids: pa.LargeStringArray, people: Folder, out: np.ndarray) -> None:
    """Both are sorted by image_id: a run of one is looked up in a run of the other."""
    for batch in people.read_batches("people.parquet", ["image_id", "person"]):
        if not len(batch):
            continue
        names = batch["image_id"].cast(_NAME)
        first, last = pc.min_max(names).as_py().values()
        start, stop = place_of(ids, first), place_of(ids, last) + 1
        at = pc.index_in(names, ids.slice(start, stop - start))
        mine = at.is_valid()
        person = pc.fill_null(batch["person"].filter(mine), -1).to_numpy()
        out[start + at.drop_null().to_numpy()] = person


def place_of(ids: pa.LargeStringArray, image_id: str) -> int:
    """Where an image_id stands in sorted ones, or would stand."""
    return bisect.bisect_left(range(len(ids)), image_id, key=lambda row: ids[row].as_py())


def _array(path: Path, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A file of numbers, 0 at first, that is written through its map."""
    return np.lib.format.open_memmap(path, "w+", kind, shape)


class _Strings:
    """Strings in two files, as Arrow has them in memory: where each begins, and all of them in a row."""

    def __init__(self, path: Path, name: str) -> None:
        self._offsets: BinaryIO = (path / f"{name}.offsets").open("wb")
        self._bytes: BinaryIO = (path / f"{name}.bytes").open("wb")
        self._end = 0
        self._offsets.write(np.zeros(1, np.int64).tobytes())

    def __enter__(self) -> _Strings:
        return self

    def __exit__(self, *_: object) -> None:
        self._offsets.close()
        self._bytes.close()

    def add(self, strings: pa.Array) -> None:
        """Strings, none of them null."""
        if not len(strings):
            return
        strings = strings.cast(_NAME)
        _, offsets, data = strings.buffers()
        at = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
        self._offsets.write((at[1:] - at[0] + self._end).tobytes())
        self._bytes.write(memoryview(data)[at[0] : at[-1]] if data else b"")
        self._end += int(at[-1] - at[0])


def _strings(path: Path, name: str) -> pa.LargeStringArray:
    offsets, data = _mapped(path / f"{name}.offsets"), _mapped(path / f"{name}.bytes")
    return pa.LargeStringArray.from_buffers(offsets.size // 8 - 1, offsets, data)


def _mapped(path: Path) -> pa.Buffer:
    with path.open("rb") as file:
        empty = not path.stat().st_size  # which cannot be mapped
        return pa.py_buffer(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _open(path: Path, kept: Kept | None) -> Rows:
    numbers = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in _NUMBERS}
    attributes = path / "attributes.npy"
    return Rows(
        **numbers,
        **{name: _strings(path, name) for name in ("ids", "labels", "splits")},
        attributes=np.load(attributes, mmap_mode="r") if attributes.exists() else None,
        kept=kept,
    )
