"""Photos of a collection: the tables that hold them, single JPEGs, and a copy on a node's disk for random access."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval.artifacts.folder import Folder, part_name, part_number
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.artifacts.node.cache import Kept, NodeCache
from retrieval.artifacts.storage.patience import patiently

logger = logging.getLogger(__name__)

KIND = "collection"

CATALOG = "catalog.parquet"

DETECTOR = "detector.onnx"
"""The network that found the faces, beside what was made with it: in a collection, and in a bundle whose preparation
needs it. So no worker or server has to find it again."""

QUALITY = pa.struct(
    [("confidence", pa.float32()), ("size", pa.float32()), ("sharpness", pa.float32()), ("turn", pa.float32())]
)
"""See `retrieval.images.quality`; null what the detector does not say."""

IMAGE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # stable, relative POSIX path; of a face among all of a photo: <path>#<face>
        ("jpeg", pa.binary()),  # bytes as stored after crop and resize
        ("width", pa.int32()),  # of the stored JPEG, pixels
        ("height", pa.int32()),
        ("box", pa.list_(pa.float32(), 4)),  # x1, y1, x2, y2 in the upright source photo, pixels; may reach outside it
        ("label", pa.string()),  # identity or cluster, nullable
        ("split", pa.string()),  # the source's own partition, nullable
        ("attributes", pa.list_(pa.int8())),  # -1/1 each (CelebA: 40), or null
        ("content_hash", pa.string()),  # sha256 hex of the source bytes
        ("photo", pa.string()),  # image_id of the photo that the row is of
        ("face", pa.int32()),  # which face of the photo, 0 the largest; null where a photo is one row
        ("points", pa.list_(pa.float32())),  # x, y of eyes, nose, mouth corners in the upright source photo, or null
        ("quality", QUALITY),  # of the face, or null where none was looked for
    ]
)

IMAGE_OPTIONS: dict[str, Any] = {"row_group_size": 64, "compression": "none"}
"""How image parts are written: a group is what a reader must take in for one image, and JPEG does not shrink."""

FACE_STAGE = "face"
"""The stage in the rejected table of a single face of a photo, whose image_id is <path>#<face>."""

REJECTED_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)

CATALOG_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),  # ours: train, val, query, gallery or dropped
        ("reason", pa.string()),  # why dropped, else null
        ("duplicate_of", pa.string()),  # first image_id with the same content_hash, else null
        ("attributes", pa.list_(pa.int8())),
        ("part", pa.int32()),  # images/part-<part>.parquet ...
        ("row", pa.int32()),  # ... and the row in it
        ("photo", pa.string()),  # as in IMAGE_SCHEMA; catalogs made before there were faces have neither
        ("face", pa.int32()),
    ]
)

_CHUNK = 1 << 20  # rows of a chunk of a column: 2 GiB, if each name had 2,000 letters

ADDED = "added"
ADDED_FIELD = pa.field(ADDED, pa.timestamp("us", "UTC"))
"""One more column of the catalog, where photos were added to a running service and folded in: when, else null."""


def image_parts(manifest: Manifest) -> list[int]:
    """Numbers of the parts of a sealed collection, ascending."""
    names = [name.removeprefix("images/") for name in manifest.files if name.startswith("images/")]
    return sorted(part_number(name) for name in names)


def detector_of(folder: Folder) -> bytes | None:
    """The network that found the faces of a collection, or that a bundle wants queries searched with, if there is."""
    return folder.read_bytes(DETECTOR) if folder.exists(DETECTOR) else None


def keep_detector(folder: Folder, out: Folder) -> None:
    """Copy that network, if there is one, so that queries are searched for faces as the photos were."""
    if (network := detector_of(folder)) is not None:
        out.write_bytes(DETECTOR, network, about={})


def read_catalog(
    collection: Folder,
    splits: Sequence[str] | None = None,
    columns: Sequence[str] = ("image_id", "label", "part", "row"),
) -> pa.Table:
    """These columns of the catalog, of the photos in `splits`, sorted by image_id (as UTF-8 bytes); None: of all."""
    return _in_chunks(_read_sorted(collection, splits, columns))


def read_catalog_of_part(collection: Folder, part: int, splits: Sequence[str]) -> pa.Table:
    """image_id, label, part and row of the photos in `splits` that lie in one part, sorted by image_id. Of the catalog
    what may hold them is read: little, where parts follow the order of names."""
    photos = collection.read_where(CATALOG, "part", part, ["image_id", "label", "part", "row", "split"])
    inside = pc.is_in(photos["split"], pa.array(list(splits), pa.string()))
    return photos.filter(inside).drop_columns("split").sort_by("image_id")


def _read_sorted(collection: Folder, splits: Sequence[str] | None, columns: Sequence[str]) -> pa.Table:
    """The same with names of 64-bit offsets: those of 32 bits, which a file has, end at 2 GiB of letters a column."""
    needed = [name for name in (*CATALOG_SCHEMA.names, ADDED) if name in {*columns, "image_id", "split"}]
    catalog = _read_columns(collection, needed)
    catalog = catalog.cast(pa.schema([_with_type(field, pa.string(), pa.large_string()) for field in catalog.schema]))
    if splits is not None:
        catalog = catalog.filter(pc.is_in(catalog["split"], pa.array(list(splits), pa.string())))
    return catalog.sort_by("image_id").select(list(columns))


def _in_chunks(table: pa.Table) -> pa.Table:
    """Names as a file has them, in chunks whose letters 32 bits can count."""
    schema = pa.schema([_with_type(field, pa.large_string(), pa.string()) for field in table.schema])
    starts = range(0, max(1, len(table)), _CHUNK)
    blocks = (table.take(pa.array(np.arange(start, min(start + _CHUNK, len(table))))) for start in starts)
    return pa.concat_tables(block.cast(schema) for block in blocks)


def _with_type(field: pa.Field, old: pa.DataType, new: pa.DataType) -> pa.Field:
    return field.with_type(new) if field.type == old else field


def _read_columns(collection: Folder, needed: list[str]) -> pa.Table:
    """Columns of the catalog, also of one from when a photo was one row: it does not say of which photo a row is."""
    there = set(needed)
    if there & {"photo", "face", ADDED}:
        read = functools.partial(pq.read_schema, collection.file(CATALOG), filesystem=collection.fs)
        there &= set(patiently(read, f"reading {collection / CATALOG}").names)
    catalog = collection.read_table(CATALOG, columns=[name for name in needed if name in there])
    if "photo" in set(needed) - there:
        catalog = catalog.append_column("photo", catalog["image_id"])
    if "face" in set(needed) - there:
        catalog = catalog.append_column("face", pa.nulls(len(catalog), pa.int32()))
    if ADDED in set(needed) - there:
        catalog = catalog.append_column(ADDED_FIELD, pa.nulls(len(catalog), ADDED_FIELD.type))
    return catalog


class Jpegs:
    """Single JPEGs of a collection, by part and row in it. Safe to use from several threads.

    Holds the footers of the parts that were used last, about 10 KB each.
    """

    def __init__(self, collection: Folder) -> None:
        self._images = collection / "images"
        self._footer = functools.lru_cache(maxsize=256)(self._read_footer)

    def read(self, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """(part, row) -> JPEG of each place. Reads the row groups that hold them, each once, and no others.

        Raises: ValueError if the collection has no such row.
        """
        wanted: dict[int, set[int]] = {}
        for part, row in places:
            wanted.setdefault(part, set()).add(row)
        return {(part, row): jpeg for part in sorted(wanted) for row, jpeg in self._read_part(part, wanted[part])}

    def _read_part(self, part: int, rows: set[int]) -> Iterator[tuple[int, bytes]]:
        footer = self._footer(part)
        if odd := [row for row in sorted(rows) if not 0 <= row < footer.num_rows]:
            raise ValueError(f"{self._images / part_name(part)} has no row {odd[0]}: the collection is damaged.")
        # A file of our own each time: Parquet readers must not be shared between threads.
        with self._images.fs.open_input_file(self._images.file(part_name(part))) as stream:
            reader, start = pq.ParquetFile(stream, metadata=footer), 0
            for group in range(footer.num_row_groups):
                end = start + footer.row_group(group).num_rows
                if inside := [row for row in sorted(rows) if start <= row < end]:
                    jpegs = reader.read_row_group(group, columns=["jpeg"])["jpeg"]
                    yield from ((row, jpegs[row - start].as_py()) for row in inside)
                start = end

    def _read_footer(self, part: int) -> pq.FileMetaData:
        with self._images.fs.open_input_file(self._images.file(part_name(part))) as stream:
            return pq.read_metadata(stream)


_LOCAL_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("label", pa.string()), ("split", pa.string()), ("jpeg", pa.large_binary())]
)


class LocalCollection:
    """Crops of some splits, part after part. Reading a row touches that row's pages only.

    Attributes: image_ids (N,) str; labels (N,) str; splits (N,) str.
    """

    def __init__(self, path: Path, kept: Kept | None = None) -> None:
        """Args: kept: what keeps the file there for as long as this is used."""
        self.path = path
        self._kept = kept
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._jpegs = table.column("jpeg")
        self.image_ids = table.column("image_id").to_numpy(zero_copy_only=False)
        self.labels = table.column("label").to_numpy(zero_copy_only=False)
        self.splits = table.column("split").to_numpy(zero_copy_only=False)

    def __len__(self) -> int:
        return len(self.image_ids)

    def jpegs(self, rows: Sequence[int] | np.ndarray) -> list[bytes]:
        """The stored JPEG of each row."""
        return [self._jpegs[int(row)].as_py() for row in rows]

    def rows_of(self, split: str) -> np.ndarray:
        """(n,) int64 rows of one split, ascending."""
        return np.flatnonzero(self.splits == split)


def localise(collection: Folder, cache: Path, splits: Sequence[str]) -> LocalCollection:
    """Copy the crops of `splits` into `cache`, unless they are there. Safe to call from every process of a node.

    Raises: ValueError if the collection is not sealed, has no image in any of `splits`, or the disk is full.
    """
    manifest = read_manifest(collection, KIND)
    name = f"{manifest.fingerprint[:16]}-{'-'.join(sorted(splits))}.arrow"
    all_bytes = sum(size for file, size in collection.list().items() if file.startswith("images/"))
    share = len(read_catalog(collection, splits, ("image_id",))) / max(1, manifest.counts["stored"])
    kept = NodeCache.of_node(cache).keep(
        name, lambda path: _copy(collection, path, splits), int(all_bytes * share), f"the photos of {collection}"
    )
    local = LocalCollection(kept.path, kept)
    if not len(local):
        raise ValueError(
            f"The collection {collection} has no image in the splits {', '.join(splits)} (its counts: "
            f"{manifest.counts}). Training needs labelled photos, at least two a person."
        )
    return local


def _copy(collection: Folder, path: Path, splits: Sequence[str]) -> None:
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _LOCAL_SCHEMA) as writer:
        for table in _wanted(collection, splits):
            for batch in table.to_batches(max_chunksize=256):
                writer.write_batch(batch)
            rows += len(table)
    logger.info("Localised %d crops of %s to %s", rows, collection, path)


def _wanted(collection: Folder, splits: Sequence[str]) -> Iterator[pa.Table]:
    """One table a part, its rows in order: the wanted rows of the catalog with their bytes."""
    catalog = read_catalog(collection, splits, ("image_id", "label", "split", "part", "row"))
    for part in sorted(set(catalog["part"].to_pylist())):
        rows = catalog.filter(pc.equal(catalog["part"], part)).sort_by("row")
        images = collection.read_table(f"images/{part_name(part)}", columns=["image_id", "jpeg"])
        picked = images.take(rows["row"])
        if picked["image_id"].to_pylist() != rows["image_id"].to_pylist():
            raise ValueError(f"{CATALOG} and images/{part_name(part)} of {collection} disagree. Ingest again.")
        columns = {name: rows[name] for name in ("image_id", "label", "split")}
        yield pa.table({**columns, "jpeg": picked["jpeg"].cast(pa.large_binary())}, schema=_LOCAL_SCHEMA)
