"""The catalog, the books and the seals of what was folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts import collection as collections
from retrieval.artifacts.collection import ADDED, ADDED_FIELD, CATALOG, CATALOG_SCHEMA, DETECTOR
from retrieval.artifacts.embeddings import REJECTED
from retrieval.artifacts.folder import part_name
from retrieval.artifacts.manifest import MANIFEST, Books, Manifest, begin, hash_of, read_manifest, seal
from retrieval.live.folding.parts import attributes_of
from retrieval.live.folding.plan import FoldPlan, still_there

_SPLITS = ("train", "val", "query", "gallery", "dropped")
_SCHEMA = CATALOG_SCHEMA.append(ADDED_FIELD)


def begin_collection(plan: FoldPlan) -> Manifest | None:
    """Claim the folder, or find the very same folding sealed there; see `manifest.begin`."""
    return begin(plan.collection, kind=collections.KIND, config=plan.config, inputs=_inputs(plan))


def sealed_vectors(plan: FoldPlan, made: str) -> Manifest | None:
    """The embeddings of the new collection, whose fingerprint is `made`, if they are sealed.

    They cannot be begun: what they are made from has no fingerprint before all parts of both are written.
    """
    manifest = read_manifest(plan.vectors) if plan.vectors.exists(MANIFEST) else None
    return manifest if manifest is not None and manifest.inputs["collection"] == made else None


def write_catalog(plan: FoldPlan) -> pa.Table:
    """Write `catalog.parquet`: the old one without what left, behind it what came. Rows count anew in each part."""
    before = collections.read_catalog(plan.pair.collection, columns=_SCHEMA.names)
    kept = still_there(before, plan.out_of).sort_by([("part", "ascending"), ("row", "ascending")])
    part = kept["part"].to_numpy()
    first = np.searchsorted(part, part, side="left")
    row = pa.array((np.arange(len(part)) - first).astype(np.int32))
    kept = kept.set_column(_SCHEMA.get_field_index("row"), "row", row).select(_SCHEMA.names).cast(_SCHEMA)
    came = [
        {
            **{name: getattr(one.entry, name) for name in ("image_id", "label", "split", "photo", "face", ADDED)},
            "attributes": attributes_of(one.entry.attributes),
            "part": number,
            "row": place,
        }
        for number, rows in plan.new_parts
        for place, one in enumerate(rows)
    ]
    whole = pa.concat_tables([kept, pa.Table.from_pylist(came, schema=_SCHEMA)])
    plan.collection.write_table(CATALOG, whole, about={})
    return whole


def seal_collection(plan: FoldPlan, parts: Sequence[Mapping[str, Any]]) -> Manifest:
    """Write the catalog and the manifest. Args: parts: what `fold_part` and `write_added` returned.

    Raises: ValueError if an image is neither kept, nor deleted, nor replaced, nor added.
    """
    old, catalog = read_manifest(plan.pair.collection, collections.KIND), write_catalog(plan)
    collections.keep_detector(plan.pair.collection, plan.collection)
    files: dict[str, str] = {}
    for part in parts:
        files |= part["files"]
    names = [name for name in (CATALOG, DETECTOR) if plan.collection.exists(name)]
    files |= {name: hash_of(plan.collection, name) for name in names}
    taken, kept = sum(part["taken"] for part in parts), sum(part["kept"] for part in parts)
    left = {"deleted": len(plan.deleted), "replaced": len(plan.replaced)}
    reasons = Counter(reason for reason in catalog["reason"].to_pylist() if reason is not None)
    dropped = int(pc.sum(pc.equal(catalog["split"], "dropped")).as_py() or 0)
    unsaid = dropped - sum(reasons.values())
    books = [
        Books(stage="fold", taken=taken, kept=len(catalog), rejected={name: num for name, num in left.items() if num}),
        Books(
            stage="split",
            taken=kept,
            kept=kept - dropped,
            rejected=dict(sorted(reasons.items())) | ({"not said": unsaid} if unsaid else {}),
        ),
    ]
    about: dict[str, Any] = {"kind": collections.KIND, "config": plan.config, "inputs": _inputs(plan)}
    return seal(plan.collection, counts=_counts(old, catalog), books=books, files=files, **about)


def seal_vectors(plan: FoldPlan, made: str, parts: Sequence[Mapping[str, Any]]) -> Manifest:
    """Write the manifest of the embeddings. Args: made: fingerprint of the new collection. parts: as above."""
    old, stored, reasons = read_manifest(plan.embeddings), sum(part["kept"] for part in parts), Counter[str]()
    files = {part_name(part["part"]): part["embedded"] for part in parts}
    if plan.embeddings.exists(REJECTED):
        table = still_there(plan.embeddings.read_table(REJECTED), plan.out_of)
        files[REJECTED] = plan.vectors.write_table(REJECTED, table, about={}).sha256
        reasons.update(table["reason"].to_pylist())
    kept = stored - reasons.total()
    books = [
        Books(stage="embed", taken=stored, kept=kept, rejected=dict(reasons)),
        Books(stage="write", taken=kept, kept=kept),
    ]
    counts = {"num": kept, "dim": old.counts["dim"]}
    return seal(plan.vectors, counts=counts, books=books, files=files, **_vectors(plan, made))


def _inputs(plan: FoldPlan) -> dict[str, str]:
    return {**read_manifest(plan.pair.collection).inputs, "folded": plan.pair.collection_fingerprint}


def _vectors(plan: FoldPlan, made: str) -> dict[str, Any]:
    inputs = {"collection": made, "model": plan.pair.model_fingerprint}
    return {"kind": "embeddings", "config": read_manifest(plan.embeddings).config, "inputs": inputs}


def _counts(old: Manifest, catalog: pa.Table) -> dict[str, Any]:
    """As ingest counts, of what is there now; what was rejected then stays counted."""
    splits, labels = catalog["split"].to_pylist(), catalog["label"].to_pylist()
    images, people = Counter(splits), {split: set[str]() for split in _SPLITS}
    for split, label in zip(splits, labels, strict=True):
        if label is not None:
            people[split].add(label)
    counts = dict(old.counts) | {"stored": len(catalog), "source": len(catalog) + int(old.counts.get("rejected", 0))}
    counts |= {split: images[split] for split in _SPLITS}
    counts["duplicates"] = len(catalog) - catalog["duplicate_of"].null_count
    counts["with_attributes"] = len(catalog) - catalog["attributes"].null_count
    counts["identities"] = len(set().union(*(people[split] for split in _SPLITS if split != "dropped")))
    counts |= {f"{split}_identities": len(people[split]) for split in ("train", "val", "query")}
    if "photos" in old.counts:
        counts["photos"] = len(pc.unique(catalog["photo"]))
        counts["faces"] = len(catalog) + sum(old.counts.get("faces_refused", {}).values())
    return counts
