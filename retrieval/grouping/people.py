"""Groups as an artefact: who is with whom, what is there twice, the books, the seal.

plan = plan_people(index=..., embeddings=..., collection=..., out=..., config=..., threshold=..., previous=None)
if begin_people(plan) is None:
    ...                                        # links of every part (links.py), copies (duplicates.py)
    counts = write_people(plan, names)         # people.parquet
    seal_people(plan, counts, files)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.embeddings import name_keys, part_by_part
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import Books, Manifest, begin, check_made_from, hash_of, read_manifest, seal
from retrieval.artifacts.progress import Progress, silent
from retrieval.grouping.duplicates import read_copies
from retrieval.grouping.links import read_links
from retrieval.grouping.merging import cohesion, merge
from retrieval.grouping.numbering import Numbered, number_groups
from retrieval.grouping.settings import DUPLICATES, PEOPLE, GroupingConfig
from retrieval.grouping.threshold import Threshold

KIND = "people"

PEOPLE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # of every stored photo, sorted
        ("person", pa.int32()),  # the group's number, or null
        ("role", pa.string()),  # grouped, single (nobody is like it) or unembedded (not in the index)
        ("score", pa.float32()),  # mean cosine with the others of its group, or null
        ("was", pa.int32()),  # the number it had in the previous groups, or null
    ]
)
DUPLICATES_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("duplicate_of", pa.string()),  # the first photo, by image_id, of that picture
        ("how", pa.string()),  # same file (byte for byte) or same picture
        ("likeness", pa.float32()),  # of the fine detail, 1 for the same file
    ]
)
ASIDE = ("*.html", "*.jpg")


@dataclass(frozen=True, kw_only=True, slots=True)
class PeoplePlan:
    """What is grouped, and how. inputs: fingerprints. num: photos in the index."""

    index: Folder
    embeddings: Folder
    collection: Folder
    out: Folder
    config: GroupingConfig
    threshold: Threshold
    inputs: dict[str, str]
    num: int
    previous: Folder | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest records."""
        return {"group": plain(self.config), "threshold": self.threshold.value, "threshold_from": self.threshold.source}


def plan_people(
    *,
    index: Folder,
    embeddings: Folder,
    collection: Folder,
    out: Folder,
    config: GroupingConfig,
    threshold: Threshold,
    previous: Folder | None = None,
) -> PeoplePlan:
    """Reads the manifests, and writes nothing.

    Raises: ValueError for a folder that is not sealed, or an index made from other embeddings or another collection.
    """
    indexed = read_manifest(index, "index")
    inputs = {"index": indexed.fingerprint}
    for kind, folder in (("embeddings", embeddings), ("collection", collection)):
        inputs[kind] = read_manifest(folder, kind).fingerprint
        check_made_from(index, indexed, kind, inputs[kind])
    inputs["model"] = indexed.inputs["model"]
    if previous is not None:
        inputs["previous"] = read_manifest(previous, KIND).fingerprint
    return PeoplePlan(
        index=index,
        embeddings=embeddings,
        collection=collection,
        out=out,
        config=config,
        threshold=threshold,
        inputs=inputs,
        num=int(indexed.counts["num"]),
        previous=previous,
    )


def begin_people(plan: PeoplePlan) -> Manifest | None:
    """Claim the folder, or find the very same groups sealed there; see `manifest.begin`."""
    return begin(plan.out, kind=KIND, config=plan.settings, inputs=plan.inputs)


def write_people(plan: PeoplePlan, names: Sequence[str], progress: Progress = silent) -> dict[str, Any]:
    """Make groups of all links and write people.parquet.

    Args: names: the files of links, of every part.

    Returns: counts: links, people, the largest of them, photos by role, and those of `Numbered`.
    """
    ids = plan.index.read_table(IDS, columns=["image_id", "part", "row_in_part"])
    before = _previous(plan.previous)
    stored = _stored(plan.collection, ids["image_id"], before)
    where = name_keys(ids["image_id"]), ids["part"].to_numpy(), ids["row_in_part"].to_numpy()
    del ids
    links = read_links(plan.out, names, plan.num)
    num_links, start, dim = len(links), _start(plan, stored.earlier), read_manifest(plan.embeddings).counts["dim"]
    sums = np.empty((plan.num, dim), dtype=np.float32)
    for rows, vectors in part_by_part(plan.embeddings, *where, dim):
        sums[rows] = vectors
    groups = merge(sums, links.low, links.high, plan.threshold.value, start, progress)
    del links
    # Read once more rather than held twice.
    score = cohesion(part_by_part(plan.embeddings, *where, dim), groups, sums)
    del sums
    person, numbered = _numbered(groups, stored.earlier, before)
    table = _people(stored, person, score)
    plan.out.write_table(PEOPLE, table, about={})
    roles = _counted(table["role"])
    counts = {"num": len(table), **{role: roles[role] for role in ("grouped", "single", "unembedded")}}
    counts |= {"links": num_links, "people": len(numbered.numbers)}
    counts["largest"] = int(np.bincount(person[person >= 0]).max(initial=0))
    return counts | numbered.counts


def write_duplicates(plan: PeoplePlan, blocks: int) -> None:
    """Write duplicates.parquet: what the pixels say, and the catalog's copies byte for byte.

    Args: blocks: of pairs that were compared; 0: none were.
    """
    copies = read_copies(plan.out, blocks, plan.num)
    ids = plan.index.read_table(IDS, columns=["image_id"])["image_id"]
    catalog = read_catalog(plan.collection, columns=("image_id", "duplicate_of"))
    files = catalog.filter(pc.is_valid(catalog["duplicate_of"]))
    seen, firsts = ids.take(pa.array(copies.row)), ids.take(pa.array(copies.of))
    both = {
        "image_id": pa.chunked_array([*files["image_id"].chunks, *seen.chunks]),
        "duplicate_of": pa.chunked_array([*files["duplicate_of"].chunks, *firsts.chunks]),
        "how": pa.concat_arrays([pa.repeat("same file", len(files)), pa.repeat("same picture", len(copies.row))]),
        "likeness": np.concatenate([np.ones(len(files), np.float32), copies.likeness]),
    }
    plan.out.write_table(DUPLICATES, pa.table(both, schema=DUPLICATES_SCHEMA).sort_by("image_id"), about={})


def count_duplicates(out: Folder) -> dict[str, int]:
    """Photos of duplicates.parquet by how they repeat another."""
    found = _counted(out.read_table(DUPLICATES, columns=["how"])["how"])
    return {"same_file": found["same file"], "same_picture": found["same picture"]}


def _counted(values: pa.ChunkedArray) -> Counter[str]:
    """How often each occurs."""
    return Counter({row["values"]: row["counts"] for row in values.value_counts().to_pylist()})


def seal_people(plan: PeoplePlan, counts: Mapping[str, Any], files: Mapping[str, str]) -> Manifest:
    """Write the manifest. Args: files: name -> sha256 of the files of links.

    Raises: ValueError if photos are neither grouped nor single nor left out.
    """
    rejected = {role: counts[role] for role in ("single", "unembedded") if counts[role]}
    books = [Books(stage="group", taken=counts["num"], kept=counts["grouped"], rejected=rejected)]
    hashes = {name: hash_of(plan.out, name) for name in (PEOPLE, DUPLICATES)} | dict(files)
    about: dict[str, Any] = {"kind": KIND, "config": plan.settings, "inputs": plan.inputs, "aside": ASIDE}
    return seal(plan.out, counts=counts, books=books, files=hashes, **about)


@dataclass(frozen=True, slots=True)
class _Before:
    """The previous groups: image_id and number (null: none) of each photo; what was given."""

    ids: pa.ChunkedArray
    person: np.ndarray
    next_number: int = 1
    given: int = 0

    def of(self, image_ids: pa.ChunkedArray) -> np.ndarray:
        """(n,) int64: the number that each of these had, -1 for none."""
        at = pc.fill_null(pc.index_in(image_ids, value_set=self.ids), -1).to_numpy().astype(np.int64)
        return np.where(at >= 0, np.append(self.person, -1)[at], -1)


def _previous(folder: Folder | None) -> _Before:
    if folder is None:
        return _Before(pa.chunked_array([], pa.string()), np.empty(0, dtype=np.int64))
    counts = read_manifest(folder, KIND).counts
    table = folder.read_table(PEOPLE, columns=["image_id", "person"])
    numbers = pc.fill_null(table["person"], -1).to_numpy().astype(np.int64)
    return _Before(table["image_id"], numbers, counts["next_number"], counts["people"])


def _start(plan: PeoplePlan, was: np.ndarray) -> np.ndarray | None:
    """The groups to begin with: the previous ones, if they are to be kept and mean the same; else None."""
    if plan.previous is None or not plan.config.keep:
        return None
    earlier = read_manifest(plan.previous, KIND)
    if earlier.inputs["model"] != plan.inputs["model"] or earlier.config["threshold"] != plan.threshold.value:
        return None
    start, inside = np.arange(len(was)), np.flatnonzero(was >= 0)
    _, first, codes = np.unique(was[inside], return_index=True, return_inverse=True)
    start[inside] = inside[first[codes]]
    return start


def _numbered(groups: np.ndarray, earlier: np.ndarray, before: _Before) -> tuple[np.ndarray, Numbered]:
    """(N,) int64: the number of each photo's group, -1 for a photo that is alone; and how the numbers came about."""
    inside = np.flatnonzero(np.bincount(groups, minlength=len(groups))[groups] > 1)
    _, codes = np.unique(groups[inside], return_inverse=True)
    numbered = number_groups(codes, earlier[inside], before.next_number, before.given)
    person = np.full(len(groups), -1, dtype=np.int64)
    person[inside] = numbered.numbers[codes]
    return person, numbered


@dataclass(frozen=True, slots=True)
class _Stored:
    """All photos of the collection.

    row: (M,) of the index, of a copy byte for byte that of the photo it repeats, -1 where neither is in it. was: (M,)
    its earlier number, -1 for none. earlier: (N,) that of each row: the photo's own, else that of a copy of it.
    """

    ids: pa.ChunkedArray
    row: np.ndarray
    was: np.ndarray
    earlier: np.ndarray


def _stored(collection: Folder, indexed: pa.ChunkedArray, before: _Before) -> _Stored:
    """A copy that is added under an earlier name takes the place of the first in the index, and its number with it."""
    catalog = read_catalog(collection, columns=("image_id", "duplicate_of"))
    itself, original = (pc.index_in(catalog[name], value_set=indexed) for name in ("image_id", "duplicate_of"))
    row = pc.fill_null(pc.coalesce(itself, original), -1).to_numpy().astype(np.int64)
    was, own = before.of(catalog["image_id"]), pc.is_valid(itself).to_numpy()
    earlier = np.full(len(indexed), -1, dtype=np.int64)
    for some in (~own, own):  # the photo's own comes last, and stays
        numbered = some & (row >= 0) & (was >= 0)
        earlier[row[numbered]] = was[numbered]
    return _Stored(catalog["image_id"], row, was, earlier)


def _people(stored: _Stored, person: np.ndarray, score: np.ndarray) -> pa.Table:
    """A row for every stored photo. A copy of an indexed photo, byte for byte, is where that one is."""
    row, was = stored.row, stored.was
    number, score = np.append(person, -1)[row], np.append(score, np.float32(np.nan))[row]
    inside = pc.if_else(pa.array(number < 0), "single", "grouped")
    columns = {
        "image_id": stored.ids,
        "person": pa.array(number, pa.int32(), mask=number < 0),
        "role": pc.if_else(pa.array(row < 0), "unembedded", inside),
        "score": pa.array(score, pa.float32(), mask=np.isnan(score)),
        "was": pa.array(was, pa.int32(), mask=was < 0),
    }
    return pa.table(columns, schema=PEOPLE_SCHEMA)
