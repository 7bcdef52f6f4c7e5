"""Embeddings on storage: one Parquet part for each part of the collection; who reads or writes them does it here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.writing.done import Done

KIND = "embeddings"

EMBEDDING_SCHEMA = pa.schema([("image_id", pa.string()), ("embedding", pa.list_(pa.float32()))])


def write_part(
    embeddings: Folder,
    part: int,
    image_ids: pa.ChunkedArray | Sequence[str],
    vectors: np.ndarray,
    about: Mapping[str, Any] | None = None,
) -> Done:
    """Write one part: (n,) image_ids in the order of the collection's part, and their (n, D) float32 vectors.

    Args: about: as of `Folder.write_bytes`.
    """
    num, dim = vectors.shape
    offsets = pa.array(np.arange(num + 1, dtype=np.int32) * dim)
    listed = pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1)))
    table = pa.table({"image_id": image_ids, "embedding": listed}, schema=EMBEDDING_SCHEMA)
    return embeddings.write_table(part_name(part), table, about=about)


def read_parts(embeddings: Folder) -> Iterator[tuple[list[str], np.ndarray]]:
    """(n,) image_ids and (n, D) float32 vectors of each part that holds any, in the order of the parts.

    Raises: ValueError if the embeddings are not sealed, or do not all have one length.
    """
    dim = None
    for name in _names(embeddings):
        table = embeddings.read_table(name)
        if table.num_rows:
            vectors = _vectors(table, dim, f"{embeddings}/{name}")
            dim = vectors.shape[1]
            yield table["image_id"].to_pylist(), vectors


def read_ids(embeddings: Folder) -> Iterator[str]:
    """The image_ids that have an embedding, part after part. Raises: ValueError if the embeddings are not sealed."""
    for name in _names(embeddings):
        yield from embeddings.read_table(name, columns=["image_id"])["image_id"].to_pylist()


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
    ids = image_ids if isinstance(image_ids, pa.ChunkedArray) else pa.chunked_array([pa.array(image_ids, pa.string())])
    out = None if dim is None else np.empty((len(rows), dim), dtype=np.float32)
    for part in np.unique(parts):
        mine = np.flatnonzero(parts == part)
        name = f"{embeddings}/{part_name(int(part))}"
        table = embeddings.read_table(part_name(int(part)))
        if rows[mine].max() >= len(table):
            raise ValueError(f"{name} has only {len(table)} rows. Embed again.")
        table = table.take(pa.array(rows[mine]))
        if not table["image_id"].equals(ids.take(pa.array(mine))):
            raise ValueError(f"{name} holds other images than the collection's catalog. Embed again.")
        vectors = _vectors(table, None if out is None else out.shape[1], name)
        out = np.empty((len(rows), vectors.shape[1]), dtype=np.float32) if out is None else out
        out[mine] = vectors
    return np.empty((0, 0), dtype=np.float32) if out is None else out


def _names(embeddings: Folder) -> list[str]:
    return sorted(read_manifest(embeddings, KIND).files)


def _vectors(table: pa.Table, dim: int | None, name: str) -> np.ndarray:
    """(n, dim) float32, of a table that is not empty."""
    listed = table["embedding"].combine_chunks()
    lengths = listed.value_lengths().to_numpy(zero_copy_only=False)  # NaN, which equals nothing, where there is none
    if (lengths != (lengths[0] if dim is None else dim)).any():
        expected = "one number of values" if dim is None else f"{dim} values"
        raise ValueError(f"{name}: not every embedding has {expected}. Embed again.")
    return listed.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
