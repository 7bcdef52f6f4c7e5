"""Embeddings on storage: one Parquet part for each part of the collection; who reads or writes them does it here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.writing.done import Done

KIND = "embeddings"

REJECTED = "rejected.parquet"
"""Photos that have no embedding, as collection.REJECTED_SCHEMA; there if there are any."""

_NAMES = 1 << 13  # that are Python strings at once

EMBEDDING_SCHEMA = pa.schema([("image_id", pa.string()), ("embedding", pa.list_(pa.float32()))])


def write_part(
    embeddings: Folder,
    part: int,
    image_ids: pa.ChunkedArray | Sequence[str],
    vectors: np.ndarray,
    about: Mapping[str, Any] | None = None,
    without: Collection[int] = (),
) -> Done:
    """Write one part: (n,) image_ids in the order of the collection's part, and their (n, D) float32 vectors.

    Args:
        about: as of `Folder.write_bytes`.
        without: rows that have no vector, so that row r stays row r; `seal_embeddings` lists them.
    """
    num, dim = vectors.shape
    has = ~np.isin(np.arange(num), list(without))
    offsets = pa.array(np.concatenate([[0], np.cumsum(has * dim)]).astype(np.int32))
    mask = None if has.all() else pa.array(~has)
    listed = pa.ListArray.from_arrays(offsets, pa.array(vectors[has].reshape(-1)), mask=mask)
    table = pa.table({"image_id": image_ids, "embedding": listed}, schema=EMBEDDING_SCHEMA)
    return embeddings.write_table(part_name(part), table, about=about)


def read_parts(embeddings: Folder) -> Iterator[tuple[list[str], np.ndarray]]:
    """(n,) image_ids and (n, D) float32 vectors of each part that holds any, in the order of the parts; those that were
    left out are not among them.

    Raises: ValueError if the embeddings are not sealed, or do not all have one length.
    """
    dim = None
    for name in _names(embeddings):
        table = embeddings.read_table(name)
        table = table.filter(pc.is_valid(table["embedding"]))
        if table.num_rows:
            vectors = _vectors(table, dim, f"{embeddings}/{name}")
            dim = vectors.shape[1]
            yield table["image_id"].to_pylist(), vectors


def read_ids(embeddings: Folder) -> Iterator[str]:
    """The image_ids that have an embedding, part after part. Raises: ValueError if the embeddings are not sealed."""
    away = left_out(embeddings)
    for name in _names(embeddings):
        image_ids = embeddings.read_table(name, columns=["image_id"])["image_id"].to_pylist()
        yield from (image_id for image_id in image_ids if image_id not in away)


def left_out(embeddings: Folder) -> dict[str, str]:
    """image_id -> reason, of photos of the collection that have no embedding: they ended what embedded them."""
    if not embeddings.exists(REJECTED):
        return {}
    return {row["image_id"]: row["reason"] for row in embeddings.read_table(REJECTED).to_pylist()}


def with_embedding(embeddings: Folder, images: pa.Table) -> pa.Table:
    """These rows, which have a column image_id, without those that were left out."""
    away = pa.array(sorted(left_out(embeddings)), pa.string())
    return images.filter(pc.invert(pc.is_in(images["image_id"], away))) if len(away) else images


def read_rows(
    embeddings: Folder,
    image_ids: pa.ChunkedArray | Sequence[str] | np.ndarray,
    parts: np.ndarray,
    rows: np.ndarray,
    dim: int | None = None,
) -> np.ndarray:
    """(N, D) float32 embeddings of N images, in their order, with one part in memory at a time.

    Args:
        image_ids, parts, rows: (N,) each: who they are, the part each lies in, and its row there.
        dim: D; None takes that of the first part read.

    Raises: ValueError if other images lie there, or an embedding has not D values.
    """
    out = None if dim is None else np.empty((len(rows), dim), dtype=np.float32)
    for mine, vectors in part_by_part(embeddings, name_keys(image_ids), parts, rows, dim):
        out = np.empty((len(rows), vectors.shape[1]), dtype=np.float32) if out is None else out
        out[mine] = vectors
    return np.empty((0, 0), dtype=np.float32) if out is None else out


def name_keys(image_ids: pa.ChunkedArray | pa.Array | Sequence[str] | np.ndarray) -> np.ndarray:
    """(N,) int64, equal for equal names, and in this process alone: 8 bytes instead of a name, where the names of many
    are only compared."""
    if not isinstance(image_ids, (pa.ChunkedArray, pa.Array)):
        return np.fromiter(map(hash, image_ids), dtype=np.int64)
    some = (image_ids.slice(start, _NAMES) for start in range(0, len(image_ids), _NAMES))
    return np.concatenate([np.empty(0, np.int64), *(name_keys(names.to_pylist()) for names in some)])


def part_by_part(
    embeddings: Folder, keys: np.ndarray, parts: np.ndarray, rows: np.ndarray, dim: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `read_rows`, for who does not want them all at once: of each part that holds some of the N images, which they
    are, (n,) int64 ascending, and their (n, D) float32 embeddings. Args: keys: `name_keys` of the N images."""
    order = np.argsort(parts, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(parts[order])) + 1) if len(order) else ():
        part = int(parts[mine[0]])
        name = f"{embeddings}/{part_name(part)}"
        table = embeddings.read_table(part_name(part))
        if rows[mine].max() >= len(table):
            raise ValueError(f"{name} has only {len(table)} rows. Embed again.")
        if len(mine) < len(table) or (np.diff(rows[mine]) != 1).any():
            table = table.take(pa.array(rows[mine]))
        if (name_keys(table["image_id"]) != keys[mine]).any():
            raise ValueError(f"{name} holds other images than the collection's catalog. Embed again.")
        vectors = _vectors(table, dim, name)
        dim = vectors.shape[1]
        yield mine, vectors


def _names(embeddings: Folder) -> list[str]:
    return sorted(name for name in read_manifest(embeddings, KIND).files if name != REJECTED)


def _vectors(table: pa.Table, dim: int | None, name: str) -> np.ndarray:
    """(n, dim) float32, of a table that is not empty."""
    listed = table["embedding"].combine_chunks()
    lengths = listed.value_lengths().to_numpy(zero_copy_only=False)  # NaN, which equals nothing, where there is none
    if (lengths != (lengths[0] if dim is None else dim)).any():
        expected = "one number of values" if dim is None else f"{dim} values"
        raise ValueError(f"{name}: not every embedding has {expected}. Embed again.")
    return listed.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
