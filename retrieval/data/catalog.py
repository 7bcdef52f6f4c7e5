"""The two ends of making a collection: the plan, which says who does what, and the catalogue, which divides the result.

Both hold a row per photograph, so jobs run them on the cluster and only counts come back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from retrieval.artifacts.collection import CATALOG, CATALOG_SCHEMA, DETECTOR, KIND
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import Books, Manifest, begin, hash_of, seal
from retrieval.data.ingestion import PLAN_SCHEMA
from retrieval.data.listing import list_source
from retrieval.data.settings import Layout, SplitConfig
from retrieval.data.source import Photo, Source
from retrieval.data.splits import Assignment, assign_splits

SOURCE = "source.json"

NOT_COMPARED = ("source", "out", "cpus_per_part", "limits")
"""Settings that say where and how fast, not what: a collection made elsewhere of the same photos is the same."""

_MAX_PART, _MIN_PART, _MIN_PARTS = 256, 16, 16


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


def write_catalog(out: str, num_parts: int, config: SplitConfig) -> dict[str, Any]:
    """Divide the stored photographs and write `catalog.parquet`, a row for each, in the order of the parts.

    With several faces a photo each is a row; the same face of the same file at two places counts as one.

    Returns: {"counts": {...}, "dropped": reason -> count, "files": name -> sha256 of what `ingest_part` did not write}.
    """
    folder = Folder.of(out)
    columns = ["image_id", "label", "split", "attributes", "content_hash", "photo", "face"]
    tables = [folder.read_table(f"images/{part_name(part)}", columns) for part in range(num_parts)]
    stored = pa.concat_tables(tables)
    image_ids, labels = stored.column("image_id").to_pylist(), stored.column("label").to_pylist()
    hashes = [f"{one}#{face}" for one, face in zip(*(stored[n].to_pylist() for n in ("content_hash", "face")))]
    assigned = assign_splits(image_ids, labels, hashes, config, stored.column("split").to_pylist())
    catalog = {
        "image_id": image_ids,
        "label": labels,
        "split": [one.split for one in assigned],
        "reason": [one.reason for one in assigned],
        "duplicate_of": [one.duplicate_of for one in assigned],
        "attributes": stored.column("attributes"),
        "part": [part for part, table in enumerate(tables) for _ in range(table.num_rows)],
        "row": [row for table in tables for row in range(table.num_rows)],
        "photo": stored.column("photo"),
        "face": stored.column("face"),
    }
    folder.write_table(CATALOG, pa.table(catalog, schema=CATALOG_SCHEMA), about={})
    counts = _counts(labels, assigned) | {"with_attributes": len(assigned) - stored.column("attributes").null_count}
    dropped = Counter(one.reason for one in assigned if one.reason is not None)
    files = {name: hash_of(folder, name) for name in (CATALOG, SOURCE, DETECTOR) if folder.exists(name)}
    return {"counts": counts, "dropped": dict(sorted(dropped.items())), "files": files}


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


def _counts(labels: Sequence[str | None], assigned: Sequence[Assignment]) -> dict[str, int]:
    """Photographs and identities of each split."""
    images = Counter(one.split for one in assigned)
    people: dict[str, set[str]] = {}
    for label, one in zip(labels, assigned):
        if label is not None and one.split != "dropped":
            people.setdefault(one.split, set()).add(label)
    counts = {name: images[name] for name in ("train", "val", "query", "gallery", "dropped")}
    counts["duplicates"] = sum(one.duplicate_of is not None for one in assigned)
    counts["identities"] = len(set().union(*people.values()))
    return counts | {f"{name}_identities": len(people.get(name, ())) for name in ("train", "val", "query")}


def _write_plan(folder: Folder, listed: Source, fingerprint: str, part_size: int | None) -> None:
    photos = listed.photos
    size = part_size or min(_MAX_PART, max(_MIN_PART, math.ceil(len(photos) / _MIN_PARTS)))
    num_parts = math.ceil(len(photos) / size)
    for part in range(num_parts):
        rows = [dataclasses.asdict(photo) for photo in photos[part * size : (part + 1) * size]]
        folder.write_table(f"plan/{part_name(part)}", pa.Table.from_pylist(rows, PLAN_SCHEMA), about={})
    report = dataclasses.asdict(listed.report)
    # Last, since its presence says that the plan is whole.
    folder.write_json(SOURCE, report | {"parts": num_parts, "part_size": size, "fingerprint": fingerprint}, about={})


def _fingerprint(photos: Sequence[Photo]) -> str:
    total = hashlib.sha256()
    for photo in photos:
        known = (photo.label, photo.split, photo.attributes, photo.box)
        total.update(repr((photo.image_id, photo.uri, photo.size, *known)).encode())
    return total.hexdigest()


def _what_changed(folder: Folder, photos: Sequence[Photo], fingerprint: str) -> str:
    """A sentence on how the source differs from the one the folder was planned from; empty where it does not."""
    if not folder.exists(SOURCE):
        return ""
    plan = folder.read_json(SOURCE)
    if plan.get("fingerprint") == fingerprint:
        return ""
    names = [f"plan/{part_name(part)}" for part in range(plan["parts"])]
    before = {row["image_id"]: (row["size"], row["label"]) for n in names for row in folder.read_table(n).to_pylist()}
    now = {photo.image_id: (photo.size, photo.label) for photo in photos}
    differences = (
        ("new", sorted(set(now) - set(before))),
        ("gone", sorted(set(before) - set(now))),
        ("changed", sorted(name for name in set(now) & set(before) if now[name] != before[name])),
    )
    told = [f"{len(ids)} {kind} (first: {', '.join(ids[:3])})" for kind, ids in differences if ids]
    return f" The source differs from the one planned there: {'; '.join(told) or 'attributes, splits or boxes'}."
