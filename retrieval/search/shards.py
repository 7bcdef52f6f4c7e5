"""From embeddings to the files of an index: which image is which row, the training sample, and one shard's file.

Rows are positions in the list of indexed images sorted by image_id, so that ties broken by row are broken by image_id.
A shard holds the images of a run of embedding parts, and reads no others. Each file is published atomically and comes
out the same every time, so a shard may be built again by anyone, and one that is there is done.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import CATALOG
from retrieval.artifacts.embeddings import left_out, name_keys, part_by_part, read_rows
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import CHOICE, CHOSEN, IDS, KIND, TRAINED, settings_of
from retrieval.artifacts.manifest import Books, Manifest, begin, check_made_from, hash_of, read_manifest, seal
from retrieval.artifacts.node.scratch import Scratch
from retrieval.search.blocks import Blocks
from retrieval.search.engines.engine import kind_of
from retrieval.search.index import sample_size, train_index
from retrieval.search.settings import IndexConfig

_IDS = pa.schema([("image_id", pa.string()), ("label", pa.string()), ("part", pa.int32()), ("row_in_part", pa.int32())])
_ROWS_PER_SHARD = 500_000
_BYTES_PER_SHARD = 1 << 30  # of its vectors: a shard is built in the memory that it takes to search it


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexPlan:
    """What an index is made of, and how: folders, settings and fingerprints.

    inputs: fingerprints of its embeddings, collection and model. num: embeddings there are. dim: their dimension.
    """

    embeddings: Folder
    collection: Folder
    out: Folder
    splits: tuple[str, ...]
    config: IndexConfig
    inputs: dict[str, str]
    num: int
    dim: int

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
    sample_size(config, dim)  # asked now, since it knows which factory strings there are
    return IndexPlan(
        embeddings=embeddings,
        collection=collection,
        out=out,
        splits=tuple(splits),
        config=config,
        inputs=inputs,
        num=num,
        dim=dim,
    )


def begin_index(plan: IndexPlan) -> Manifest | None:
    """Claim the folder, or find the very same index sealed there; see `manifest.begin`."""
    return begin(plan.out, kind=KIND, config=plan.settings, inputs=plan.inputs)


def seal_index(
    plan: IndexPlan,
    found: Mapping[str, int],
    trained_on: int,
    shards: Sequence[Mapping[str, Any]],
    promise: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write the manifest.

    Args:
        found, trained_on, shards: what `assign_rows`, `write_trained` and every `write_shard` returned.
        promise: what `promise.keep` returned, of an index that promises something.

    Raises: ValueError if embeddings are neither in a shard nor left out by their split.
    """
    shards = sorted(shards, key=lambda shard: shard["name"])
    kept = sum(shard["num"] for shard in shards)
    left_out = {f"split-{split}": count for split, count in found.items() if split not in plan.splits}
    counts: dict[str, Any] = {"num": kept, "dim": plan.dim, "shards": len(shards), "trained_on": trained_on}
    counts |= {"promise": dict(promise)} if promise else {}
    counts["bytes"] = sum(shard["bytes"] for shard in shards)
    files = {shard["name"]: shard["sha256"] for shard in shards}
    files |= {name: hash_of(plan.out, name) for name in (IDS, TRAINED, CHOSEN, CHOICE) if plan.out.exists(name)}
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
    found, away = Counter[str](), pa.array([] if embeddings is None else sorted(left_out(embeddings)), pa.string())

    def kept() -> Iterator[pa.RecordBatch]:
        for batch in collection.read_batches(CATALOG, ["image_id", "label", "part", "row", "split"]):
            batch = batch.filter(pc.invert(pc.is_in(batch["image_id"], away)))
            found.update({one["values"]: one["counts"] for one in batch["split"].value_counts().to_pylist()})
            batch = batch.filter(pc.is_in(batch["split"], pa.array(list(splits), pa.string())))
            yield pa.record_batch(batch.columns[:4], schema=_IDS)

    with Scratch() as tables:
        tables.add("ids", _IDS, kept())
        if not tables.one("SELECT count(*) FROM ids")[0]:
            there = dict(found)
            raise ValueError(
                f"No image of {collection} is in splits {tuple(splits)}: it has {there}. Choose from these."
            )
        rows = (batch.cast(_IDS) for batch in tables.read("SELECT * FROM ids ORDER BY image_id"))
        out.write_batches(IDS, _IDS, rows, about={})
    return dict(found)


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
    there = out.num_rows(IDS)
    num = min(sample_size(config, dim), there)
    if out.done(TRAINED) is None:
        sample = draw_sample(embeddings, out, num, there, config.seed, dim)
        out.write_bytes(TRAINED, train_index(config, sample, num_threads), about={})
    return num


def draw_sample(embeddings: Folder, out: Folder, num: int, there: int, seed: int, dim: int) -> np.ndarray:
    """(num, D) float32: images drawn at random of all that are there, without repeats, one part in memory at a time."""
    if num == 0:
        return np.empty((0, dim), dtype=np.float32)
    drawn = np.sort(np.random.default_rng(seed).choice(there, size=num, replace=False))
    start, found = 0, []
    for table in out.read_groups(IDS, ["image_id", "part", "row_in_part"]):
        low, high = np.searchsorted(drawn, [start, start + len(table)])
        found.append(table.take(pa.array(drawn[low:high] - start)))
        start += len(table)
    some = pa.concat_tables(found)
    return read_rows(embeddings, some["image_id"], some["part"].to_numpy(), some["row_in_part"].to_numpy(), dim)


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
        images = images_of(out, shard, shards)
        trained = b"" if kind.train is None else out.read_bytes(TRAINED)
        places = images.keys, images.parts, images.places
        write = kind.build(config, trained, Blocks(images.rows, dim, lambda: part_by_part(embeddings, *places, dim)))
        done = out.write_stream(name, write, about={"num": len(images.rows), "taken": len(images.rows)})
    return {"name": name, "sha256": done.sha256, "bytes": done.num_bytes, **done.about}


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """The n images of a shard, by row. rows: (n,) int64, ascending. parts, places: (n,) int32, where their embeddings
    lie. keys: (n,) int64, their `name_keys`."""

    rows: np.ndarray
    parts: np.ndarray
    places: np.ndarray
    keys: np.ndarray


def images_of(out: Folder, shard: int, shards: int) -> Images:
    """Those of a run of parts: ids.parquet is read through, and only they are kept."""
    ends = np.cumsum(_in_parts(out))
    begin, end = (int(ends[-1]) * number // shards for number in (shard, shard + 1))
    first, last = np.searchsorted(ends, [begin, end - 1], side="right")
    start, columns = 0, dict[str, list[np.ndarray]](rows=[], parts=[], places=[], keys=[])
    for table in out.read_groups(IDS, ["image_id", "part", "row_in_part"]):
        parts = table["part"].to_numpy()
        mine = np.flatnonzero((first <= parts) & (parts <= last))
        table = table.take(pa.array(mine))
        columns["rows"].append(mine + start)
        columns["parts"].append(table["part"].to_numpy())
        columns["places"].append(table["row_in_part"].to_numpy())
        columns["keys"].append(name_keys(table["image_id"]))
        start += len(parts)
    kept = {name: np.concatenate(columns.pop(name)) for name in tuple(columns)}
    # Of its first part and its last it may hold some only: those after, and before, other shards' by place.
    stored = np.lexsort((kept["places"], kept["parts"]))
    before = int(ends[first - 1]) if first else 0
    own = np.sort(stored[begin - before : end - before])
    pa.default_memory_pool().release_unused()  # what reading took
    return Images(**{name: values[own] for name, values in kept.items()})


def _in_parts(out: Folder) -> np.ndarray:
    """How many images of ids.parquet lie in each part: (parts,) int64."""
    counts = np.zeros(0, dtype=np.int64)
    for table in out.read_groups(IDS, ["part"]):
        more = np.bincount(table["part"].to_numpy())
        counts = np.pad(counts, (0, max(0, len(more) - len(counts))))
        counts[: len(more)] += more
    return counts
