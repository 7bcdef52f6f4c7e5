"""From embeddings to the files of an index: which image is which row, the training sample, and one shard's file.

Rows are positions in the list of indexed images sorted by image_id, so that ties broken by row are broken by image_id.
A shard holds the images of a run of embedding parts, and reads no others. Each file is published atomically and comes
out the same every time, so a shard may be built again by anyone, and one that is there is done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.embeddings import part_by_part, read_rows, with_embedding
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS, KIND, TRAINED, settings_of
from retrieval.artifacts.manifest import Books, Manifest, begin, check_made_from, hash_of, read_manifest, seal
from retrieval.search.blocks import Blocks
from retrieval.search.engines.engine import kind_of
from retrieval.search.index import sample_size, train_index
from retrieval.search.settings import IndexConfig

_ROWS_PER_SHARD = 500_000
_BYTES_PER_SHARD = 1 << 30  # of its vectors: a shard is built in the memory that it takes to search it


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexPlan:
    """What an index is made of, and how: folders, settings and fingerprints.

    inputs: fingerprints of its embeddings, collection and model. num: embeddings there are. dim: their dimension.
    sample: of how many of them the kind of index would be trained; 0: of none.
    """

    embeddings: Folder
    collection: Folder
    out: Folder
    splits: tuple[str, ...]
    config: IndexConfig
    inputs: dict[str, str]
    num: int
    dim: int
    sample: int

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest records."""
        return settings_of(self.splits, dataclasses.asdict(self.config))


def plan_index(
    embeddings: Folder, collection: Folder, out: Folder, splits: Sequence[str], config: IndexConfig
) -> IndexPlan:
    """Reads the manifests, and writes nothing.

    Raises: ValueError if the embeddings were made from another collection, or for an unknown factory string.
    """
    embedded, collected = read_manifest(embeddings, "embeddings"), read_manifest(collection, "collection")
    check_made_from(embeddings, embedded, "collection", collected.fingerprint)
    inputs = {"embeddings": embedded.fingerprint, **{of: embedded.inputs[of] for of in ("collection", "model")}}
    num, dim = int(embedded.counts["num"]), int(embedded.counts["dim"])
    sample = sample_size(config, dim)
    return IndexPlan(
        embeddings=embeddings,
        collection=collection,
        out=out,
        splits=tuple(splits),
        config=config,
        inputs=inputs,
        num=num,
        dim=dim,
        sample=sample,
    )


def begin_index(plan: IndexPlan) -> Manifest | None:
    """Claim the folder, or find the very same index sealed there; see `manifest.begin`."""
    return begin(plan.out, kind=KIND, config=plan.settings, inputs=plan.inputs)


def seal_index(
    plan: IndexPlan, found: Mapping[str, int], trained_on: int, shards: Sequence[Mapping[str, Any]]
) -> Manifest:
    """Write the manifest.

    Args: found, trained_on, shards: what `assign_rows`, `write_trained` and every `write_shard` returned.

    Raises: ValueError if embeddings are neither in a shard nor left out by their split.
    """
    shards = sorted(shards, key=lambda shard: shard["name"])
    kept = sum(shard["num"] for shard in shards)
    left_out = {f"split-{split}": count for split, count in found.items() if split not in plan.splits}
    counts = {"num": kept, "dim": plan.dim, "shards": len(shards), "trained_on": trained_on}
    counts["bytes"] = sum(shard["bytes"] for shard in shards)
    files = {shard["name"]: shard["sha256"] for shard in shards}
    files |= {name: hash_of(plan.out, name) for name in (IDS, TRAINED) if plan.out.exists(name)}
    books = [Books(stage="index", taken=plan.num, kept=kept, rejected=left_out)]
    return seal(plan.out, kind=KIND, config=plan.settings, inputs=plan.inputs, counts=counts, books=books, files=files)


def assign_rows(
    collection: Folder, out: Folder, splits: Sequence[str], embeddings: Folder | None = None
) -> dict[str, int]:
    """Write ids.parquet: the images of `splits`, sorted by image_id (as UTF-8 bytes), row after row.

    Args: embeddings: images that they left out are left out.

    Returns: how many images the catalog has in each split, under its name.

    Raises: ValueError if no image is in `splits`.
    """
    catalog = read_catalog(collection, columns=("image_id", "label", "split", "part", "row"))
    catalog = catalog if embeddings is None else with_embedding(embeddings, catalog)
    counts = catalog["split"].value_counts().to_pylist()
    found = {str(count["values"]): int(count["counts"]) for count in counts}
    kept = catalog.filter(pc.field("split").isin(list(splits)))
    if not len(kept):
        raise ValueError(f"No image of {collection} is in splits {tuple(splits)}: it has {found}. Choose from these.")
    kept = kept.rename_columns(["image_id", "label", "split", "part", "row_in_part"])
    out.write_table(IDS, kept.drop_columns(["split"]), about={})
    return found


def num_shards(config: IndexConfig, num_images: int, dim: int) -> int:
    """As many as asked for, but no empty ones."""
    wanted = config.num_shards
    if wanted == "auto":
        wanted = max(-(-num_images // _ROWS_PER_SHARD), -(-num_images * 4 * dim // _BYTES_PER_SHARD))
    return max(1, min(wanted, num_images))


def write_trained(embeddings: Folder, out: Folder, config: IndexConfig, dim: int, num_threads: int = 1) -> int:
    """Write trained.faiss, the empty index that shards start from, if this kind starts from something.

    Returns: how many embeddings it was trained on.
    """
    if kind_of(config.factory).train is None:
        return 0
    num = min(sample_size(config, dim), out.read_table(IDS, columns=["part"]).num_rows)
    if out.done(TRAINED) is None:
        sample = _draw_sample(embeddings, out, num, config.seed, dim)
        out.write_bytes(TRAINED, train_index(config, sample, num_threads), about={})
    return num


def _draw_sample(embeddings: Folder, out: Folder, num: int, seed: int, dim: int) -> np.ndarray:
    """(num, D) float32: indexed images drawn at random without repeats, one part in memory at a time."""
    if num == 0:
        return np.empty((0, dim), dtype=np.float32)
    where = _Where(out)
    drawn = np.sort(np.random.default_rng(seed).choice(len(where), size=num, replace=False))
    return read_rows(embeddings, *where.of(drawn), dim)


def write_shard(
    embeddings: Folder, out: Folder, config: IndexConfig, dim: int, shard: int, shards: int
) -> dict[str, str | int]:
    """Build shard number `shard` of `shards` and write its file.

    Returns: {"name", "sha256", "num": embeddings in it, "taken": the same, "bytes"}.

    Raises: ValueError if the embeddings are not those of the images that ids.parquet names.
    """
    kind = kind_of(config.factory)
    name = f"shard-{shard:05d}{kind.suffix}"
    if (done := out.done(name)) is None:
        where = _Where(out)
        rows = where.rows_of_shard(shard, shards)
        images = where.of(rows)
        del where  # of the whole index, and large
        pa.default_memory_pool().release_unused()  # what reading it took
        trained = b"" if kind.train is None else out.read_bytes(TRAINED)
        write = kind.build(config, trained, Blocks(rows, dim, lambda: part_by_part(embeddings, *images, dim)))
        done = out.write_stream(name, write, about={"num": len(rows), "taken": len(rows)})
    return {"name": name, "sha256": done.sha256, "bytes": done.num_bytes, **done.about}


class _Where:
    """Where each row of ids.parquet lies: 8 bytes a row; names only of those that are asked for."""

    def __init__(self, out: Folder) -> None:
        self._out = out
        table = out.read_table(IDS, columns=["part", "row_in_part"])
        self._parts, self._places = table["part"].to_numpy(), table["row_in_part"].to_numpy()

    def __len__(self) -> int:
        return len(self._parts)

    def rows_of_shard(self, shard: int, shards: int) -> np.ndarray:
        """Its rows, ascending: those of a run of parts."""
        stored = np.lexsort((self._places, self._parts))
        return np.sort(stored[len(stored) * shard // shards : len(stored) * (shard + 1) // shards])

    def of(self, rows: np.ndarray) -> tuple[pa.ChunkedArray, np.ndarray, np.ndarray]:
        """image_id, part and row there of some rows."""
        names = self._out.read_table(IDS, columns=["image_id"])["image_id"]
        names = names if len(rows) == len(self) else names.take(pa.array(rows))
        return names, self._parts[rows], self._places[rows]
