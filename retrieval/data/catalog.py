"""The two ends of making a collection: the plan, which says who does what, and the catalogue, which divides the result.

Both go through a row per photograph, on the disk of one node: jobs run them on the cluster, and only counts come back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import CATALOG, CATALOG_SCHEMA, DETECTOR, KIND
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.hashing import digest
from retrieval.artifacts.manifest import Books, Manifest, begin, hash_of, seal
from retrieval.artifacts.node.scratch import Scratch
from retrieval.artifacts.writing.done import Done
from retrieval.data.ingestion import PLAN_SCHEMA
from retrieval.data.listed import Photos
from retrieval.data.listing import Source, list_source
from retrieval.data.settings import Layout, SplitConfig
from retrieval.data.splits import ASSIGNED, assign_splits

SOURCE = "source.json"

NOT_COMPARED = ("source", "out", "cpus_per_part", "limits")
"""Settings that say where and how fast, not what: a collection made elsewhere of the same photos is the same."""

_MAX_PART, _MIN_PART, _MIN_PARTS = 256, 16, 16
_AHEAD, _TOGETHER = 8, 64  # parts that are read or written at once, and whose tables are held


def source_fingerprint(where: str, layout: Layout = "auto") -> str:
    """Name of a source's state: its photos' names and sizes in bytes and all that its lists say of them.

    Not their content, which is read only once, in `ingest_part`; and not its place, so a copy has the same name.
    """
    return _fingerprint(list_source(where, layout).photos)


def plan_collection(
    out: str,
    *,
    source: str,
    layout: Layout,
    config: dict[str, Any],
    part_size: int | None,
    network: bytes | None = None,
) -> dict[str, Any]:
    """List the source and write down which photographs each part is made of; or read that back.

    Args:
        config: what `begin` compares, without NOT_COMPARED.
        part_size: photographs a part; None: at most 256, and at least 16 parts where that leaves 16 a part. It
            depends on nothing else, so that the same source gives the same files on any cluster.
        network: the detector's file, where one is needed; it is written beside the plan, for all workers.

    Returns: {"sealed": whether all is done, "parts", "photos", "inputs": what it is made from, by fingerprint, "root":
        what relative uris are below, "source": the report of what was listed}.

    Raises: ValueError if the source is empty, `out` cannot be written or holds other work; where the source changed
        since the work was begun, with what changed.
    """
    folder = Folder.of(out)
    listed = list_source(source, layout)
    fingerprint = _fingerprint(listed.photos)
    inputs = {"source": fingerprint}
    if network is not None:
        inputs["detector"] = hashlib.sha256(network).hexdigest()
    try:
        done = begin(folder, kind=KIND, config=config, inputs=inputs, ignore=NOT_COMPARED)
    except OSError as error:
        raise ValueError(
            f"Cannot write to {folder}: {error}. Name a folder that can be made and written with --out."
        ) from error
    except ValueError as error:
        raise ValueError(f"{error}{_what_changed(folder, listed.photos, fingerprint)}") from error
    if done is None and network is not None and folder.done(DETECTOR) is None:
        folder.write_bytes(DETECTOR, network, about={})
    if not folder.exists(SOURCE):
        _write_plan(folder, listed, fingerprint, part_size)
    plan = folder.read_json(SOURCE)
    return {
        "sealed": done is not None,
        "parts": plan["parts"],
        "photos": plan["photos"],
        "inputs": inputs,
        "root": listed.root.uri,
        "source": listed.report,
    }


def write_catalog(out: str, num_parts: int, config: SplitConfig, parts: str = "") -> dict[str, Any]:
    """Divide the stored photographs and write `catalog.parquet`, a row for each, in the order of the parts.

    With several faces a photo each is a row; the same face of the same file at two places counts as one.

    Args: parts: the `parts_digest` of what is divided. A catalogue that is there and was made of the same is kept, and
        no part is read again for it; empty: it is made.

    Returns: {"counts": {...}, "dropped": reason -> count, "files": name -> sha256 of what `ingest_part` did not write}.
    """
    folder = Folder.of(out)
    kept = folder.done(CATALOG) if parts else None
    if kept is None or kept.about.get("parts") != parts:
        kept = _divide(folder, num_parts, config, parts)
    files = {name: hash_of(folder, name) for name in (SOURCE, DETECTOR) if folder.exists(name)}
    about = kept.about
    return {"counts": about["counts"], "dropped": about["dropped"], "files": {CATALOG: kept.sha256} | files}


def parts_digest(parts: Sequence[Mapping[str, Any]]) -> str:
    """One name for all that the parts hold. Args: parts: the fields of every part's `ingestion.PartResult`."""
    return digest(sorted((name, sha256) for part in parts for name, sha256 in part["files"].items()))


def _divide(folder: Folder, num_parts: int, config: SplitConfig, parts: str) -> Done:
    """Write the catalogue; its marker says what was counted, and of what."""
    with Scratch() as tables:
        tables.add("stored", _STORED, _stored(folder, num_parts))
        assign_splits(tables, config, "stored")
        columns = ", ".join(CATALOG_SCHEMA.names)
        reasons = tables.rows(f"SELECT reason, count(*) FROM {ASSIGNED} WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1")
        about = {"parts": parts, "counts": _counts(tables), "dropped": dict(reasons)}
        rows = tables.read(f"SELECT {columns} FROM {ASSIGNED} ORDER BY part, row")
        catalog = (batch.cast(CATALOG_SCHEMA) for batch in rows)
        return folder.write_batches(CATALOG, CATALOG_SCHEMA, catalog, about=about)


_STORED = pa.schema([("hash", pa.string()), ("given", pa.string())])
for _name in ("image_id", "label", "attributes", "part", "row", "photo", "face"):
    _STORED = _STORED.append(CATALOG_SCHEMA.field(_name))


def _stored(folder: Folder, num_parts: int) -> Iterator[pa.RecordBatch]:
    """What the parts hold, in their order, without pixels."""
    columns = ["image_id", "label", "split", "attributes", "content_hash", "photo", "face"]
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="read-parts") as pool:
        for start in range(0, num_parts, _TOGETHER):
            parts = range(start, min(num_parts, start + _TOGETHER))
            read = pool.map(lambda part: folder.read_table(f"images/{part_name(part)}", columns), parts)
            for part, table in zip(parts, read, strict=True):
                face = pc.fill_null(table["face"].cast(pa.string()), "None")
                of = {
                    **{name: table[name] for name in ("image_id", "label", "attributes", "photo", "face")},
                    "hash": pc.binary_join_element_wise(table["content_hash"], face, "#"),
                    "given": table["split"],
                    "part": pa.array(np.full(len(table), part, np.int32)),
                    "row": pa.array(np.arange(len(table), dtype=np.int32)),
                }
                yield from pa.table(of, schema=_STORED).to_batches()


def seal_collection(
    out: Folder,
    settings: Mapping[str, Any],
    plan: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
    divided: Mapping[str, Any],
) -> Manifest:
    """Write the manifest.

    Args:
        settings: the config that `plan_collection` was given. plan, divided: what it and `write_catalog` returned.
        parts: the fields of every part's `ingestion.PartResult`.

    Raises: ValueError if photos, or with faces=all faces, are neither stored nor rejected.
    """
    taken, stored, photos = (sum(part[name] for part in parts) for name in ("taken", "stored", "photos"))
    rejected, refused = Counter[str](), Counter[str]()
    files: dict[str, str] = {}
    for part in parts:
        rejected.update(part["rejected"])
        refused.update(part["refused"])
        files |= part["files"]
    counts = {"source": plan["photos"], "stored": stored, "rejected": taken - photos}
    counts["rejected_by_reason"] = dict(sorted(rejected.items()))
    kept = stored - divided["counts"]["dropped"]
    books = [
        Books(stage="plan", taken=plan["photos"], kept=taken),
        Books(stage="ingest", taken=taken, kept=photos, rejected=dict(rejected)),
    ]
    if settings.get("prepare", {}).get("faces") == "all":
        found = sum(part["faces"] for part in parts)
        counts |= {"photos": photos, "faces": found, "faces_refused": dict(sorted(refused.items()))}
        books.append(Books(stage="faces", taken=found, kept=stored, rejected=dict(refused)))
    books.append(Books(stage="split", taken=stored, kept=kept, rejected=divided["dropped"]))
    return seal(
        out,
        kind=KIND,
        config=settings,
        inputs=plan["inputs"],
        counts=counts | divided["counts"],
        books=books,
        files=files | divided["files"],
    )


def _counts(tables: Scratch) -> dict[str, int]:
    """Photographs and identities of each split."""
    images = dict(tables.rows(f"SELECT split, count(*) FROM {ASSIGNED} GROUP BY split"))
    people = f"FROM {ASSIGNED} WHERE label IS NOT NULL AND split <> 'dropped'"
    of_split = dict(tables.rows(f"SELECT split, count(*) FROM (SELECT DISTINCT split, label {people}) GROUP BY split"))
    counts = {name: images.get(name, 0) for name in ("train", "val", "query", "gallery", "dropped")}
    counts["duplicates"], counts["with_attributes"] = tables.one(
        f"SELECT count(duplicate_of), count(attributes) FROM {ASSIGNED}"
    )
    (counts["identities"],) = tables.one(f"SELECT count(*) FROM (SELECT DISTINCT label {people})")
    return counts | {f"{name}_identities": of_split.get(name, 0) for name in ("train", "val", "query")}


def _write_plan(folder: Folder, listed: Source, fingerprint: str, part_size: int | None) -> None:
    photos = listed.photos
    size = part_size or min(_MAX_PART, max(_MIN_PART, math.ceil(len(photos) / _MIN_PARTS)))
    num_parts = math.ceil(len(photos) / size)

    def write(part: int) -> None:
        rows = photos.table.slice(part * size, size).combine_chunks().cast(PLAN_SCHEMA)
        folder.write_table(f"plan/{part_name(part)}", rows, about={})

    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="write-plan") as pool:  # each waits for a disk, or a store
        for start in range(0, num_parts, _TOGETHER):
            list(pool.map(write, range(start, min(num_parts, start + _TOGETHER))))
    report = dataclasses.asdict(listed.report)
    # Last, since its presence says that the plan is whole.
    folder.write_json(SOURCE, report | {"parts": num_parts, "part_size": size, "fingerprint": fingerprint}, about={})


def _fingerprint(photos: Photos) -> str:
    total = hashlib.sha256()
    for image_id, uri, size, label, split, attributes, box in photos.values():
        total.update(repr((image_id, uri, size, label, split, attributes, box)).encode())
    return total.hexdigest()


def _what_changed(folder: Folder, photos: Photos, fingerprint: str) -> str:
    """A sentence on how the source differs from the one the folder was planned from; empty where it does not."""
    if not folder.exists(SOURCE):
        return ""
    plan = folder.read_json(SOURCE)
    if plan.get("fingerprint") == fingerprint:
        return ""
    names = [f"plan/{part_name(part)}" for part in range(plan["parts"])]
    columns = ["image_id", "size", "label"]
    schema = pa.schema([PLAN_SCHEMA.field(name) for name in columns])
    with Scratch() as tables:
        before = (batch for name in names for batch in folder.read_batches(name, columns))
        tables.add("before", schema, before)
        tables.add("now", schema, photos.table.select(columns).to_batches())
        both = "FROM before b FULL JOIN now n USING (image_id) WHERE"
        told = []
        for kind, which in (
            ("new", "b.image_id IS NULL"),
            ("gone", "n.image_id IS NULL"),
            ("changed", "b.image_id = n.image_id AND (b.size <> n.size OR b.label IS DISTINCT FROM n.label)"),
        ):
            if num := tables.one(f"SELECT count(*) {both} {which}")[0]:
                first = tables.rows(f"SELECT image_id {both} {which} ORDER BY image_id LIMIT 3")
                told.append(f"{num} {kind} (first: {', '.join(image_id for (image_id,) in first)})")
    return f" The source differs from the one planned there: {'; '.join(told) or 'attributes, splits or boxes'}."
