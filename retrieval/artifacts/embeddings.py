"""Embeddings on storage: one Parquet part for each part of the collection; who reads or writes them does it here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import read_manifest

EMBEDDING_SCHEMA = pa.schema([("image_id", pa.string()), ("embedding", pa.list_(pa.float32()))])


def read_parts(embeddings: Folder) -> Iterator[tuple[list[str], np.ndarray]]:
    """(image_ids, (n, D) float32) of each part."""
    for name in sorted(read_manifest(embeddings, "embeddings").files):
        table = embeddings.read_table(name)
        if table.num_rows:
            flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            yield table["image_id"].to_pylist(), flat.reshape(table.num_rows, -1)


def read_rows(embeddings: Folder, ids: pa.Table, rows: np.ndarray, dim: int) -> np.ndarray:
    """(len(rows), dim) float32 embeddings of rows of ids.parquet, read part after part.

    Raises: ValueError if the embeddings are not those of the images that `ids` names.
    """
    wanted = ids.take(pa.array(rows))
    parts, places = wanted["part"].to_numpy(), wanted["row_in_part"].to_numpy()
    out = np.empty((len(rows), dim), dtype=np.float32)
    for part in np.unique(parts):
        mine = np.flatnonzero(parts == part)
        table = embeddings.read_table(part_name(int(part)))
        if places[mine].max() >= len(table):
            raise ValueError(f"{embeddings}/{part_name(int(part))} has only {len(table)} rows. Embed again.")
        table = table.take(pa.array(places[mine]))
        if not table["image_id"].equals(wanted["image_id"].take(pa.array(mine))):
            raise ValueError(
                f"{embeddings}/{part_name(int(part))} holds other images than the catalog says. Embed again."
            )
        values = table["embedding"].combine_chunks()
        flat = values.flatten().to_numpy(zero_copy_only=False)
        if values.null_count or flat.size != len(mine) * dim:
            raise ValueError(f"{embeddings}/{part_name(int(part))}: not every embedding has {dim} values. Embed again.")
        out[mine] = flat.reshape(len(mine), dim)
    return out
