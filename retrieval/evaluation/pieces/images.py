"""Images of one side of an evaluation, read from the catalogue."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import CATALOG, CATALOG_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.node.scratch import Scratch
from retrieval.data.layouts.celeba import ATTRIBUTES

_NAME = pa.large_string()
_KEPT = ("image_id", "label", "attributes", "part", "row")


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Images of one side, sorted by image_id; of the names only what is looked at is in memory.

    ids: (N,) image_ids. codes: (N,) int32 into `labels`, -1 for none; the two sides of a task have the same `labels`.
    attributes: (N, A) int8, a row of zeros where they are not known. parts, rows: (N,) int32, where each lies in the
    collection.
    """

    ids: pa.ChunkedArray
    codes: np.ndarray
    labels: pa.Array
    attributes: np.ndarray
    parts: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def label(self, row: int) -> str | None:
        """Who or what an image shows, if that is known."""
        return self.labels[int(self.codes[row])].as_py() if self.codes[row] >= 0 else None

    def id(self, row: int) -> str:
        """The image_id of one image."""
        return self.ids[int(row)].as_py()

    def places(self, rows: np.ndarray) -> np.ndarray:
        """(...) rows -> (..., 2) int64: the part of the collection each lies in and its row there; -1, -1 of row -1."""
        found = np.stack([self.parts[rows], self.rows[rows]], axis=-1).astype(np.int64)
        return np.where(np.asarray(rows)[..., None] >= 0, found, -1)

    def place(self, row: int) -> tuple[int, int]:
        """Part and row in it of one image."""
        return int(self.parts[row]), int(self.rows[row])

    def take(self, rows: np.ndarray) -> Images:
        """Those images, in that order."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self
        numbers = {name: getattr(self, name)[rows] for name in ("codes", "attributes", "parts", "rows")}
        return Images(ids=_names_of(self.ids, np.asarray(rows)), labels=self.labels, **numbers)


def _names_of(ids: pa.ChunkedArray, rows: np.ndarray) -> pa.ChunkedArray:
    """Some names. Chunk by chunk: Arrow itself would put all of them together first, in memory."""
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum([len(chunk) for chunk in ids.chunks])
    cuts = np.searchsorted(rows[order], ends)
    found, begun, start = [], 0, 0
    for chunk, end, cut in zip(ids.chunks, ends, cuts, strict=True):
        found.append(chunk.take(pa.array(rows[order[begun:cut]] - start, pa.int64())))
        begun, start = cut, end
    names = pa.chunked_array(found, ids.type)
    if (np.diff(order) > 0).all():
        return names
    return names.take(pa.array(np.argsort(order)))


def read_side(collection: Folder, without: Collection[str], wanted: str) -> pa.Table:
    """What `Images` takes of the catalogue, of photos that a condition holds of, sorted; mapped from this node's disk,
    so that the names of all take no memory."""
    columns = ("image_id", "label", "split", "reason", "attributes", "part", "row")
    schema = pa.schema([CATALOG_SCHEMA.field(name) for name in columns])
    found = pa.schema([(name, _NAME if name in ("image_id", "label") else schema.field(name).type) for name in _KEPT])
    with Scratch() as tables:
        tables.add("catalog", schema, collection.read_batches(CATALOG, list(columns)))
        away = pa.table({"image_id": pa.array(sorted(without), pa.string())})
        tables.add("away", away.schema, away.to_batches())
        left = "image_id NOT IN (SELECT image_id FROM away)"
        asked = f"SELECT {', '.join(_KEPT)} FROM catalog WHERE {wanted} AND {left} ORDER BY image_id"
        return tables.map(asked, found)


def as_sides(*tables: pa.Table) -> list[Images]:
    """Of what was read of each side, with one numbering of their labels, in order of the labels."""
    chunks = [chunk for table in tables for chunk in table["label"].chunks]
    coded = pa.chunked_array(chunks, _NAME).dictionary_encode().unify_dictionaries()
    labels = coded.chunk(0).dictionary if coded.num_chunks else pa.array([], _NAME)
    order = pc.sort_indices(labels).to_numpy()
    place = np.append(np.argsort(order), -1).astype(np.int32)  # the last is that of null
    codes = [place[pc.fill_null(chunk.indices, -1).to_numpy()] for chunk in coded.chunks]
    ends = np.cumsum([len(table) for table in tables])
    return [
        Images(
            ids=table["image_id"],
            codes=mine,
            labels=labels.take(pa.array(order)),
            attributes=_attributes(table["attributes"]),
            parts=table["part"].to_numpy(),
            rows=table["row"].to_numpy(),
        )
        for table, mine in zip(
            tables, np.split(np.concatenate([np.empty(0, np.int32), *codes]), ends[:-1]), strict=True
        )
    ]


def _attributes(said: pa.ChunkedArray) -> np.ndarray:
    out, at = np.zeros((len(said), len(ATTRIBUTES)), dtype=np.int8), 0
    for chunk in said.chunks:
        known = np.flatnonzero(chunk.is_valid().to_numpy(zero_copy_only=False))
        if len(known):
            out[at + known] = chunk.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(len(known), -1)
        at += len(chunk)
    return out
