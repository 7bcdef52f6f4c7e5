"""Which changes are folded into which collection: what is taken out, what is added, where the new folders lie."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import image_parts, read_catalog
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.artifacts.published import Pair
from retrieval.live.folding.holders import copies_of
from retrieval.live.rows import LiveRow
from retrieval.live.store import Store

PREFIX = "folded-"
"""How the folders begin that are made here, so that unfinished ones of an earlier try are known."""

ROWS_A_PART = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldPlan:
    """What is made of what, and up to which change.

    pair: the gallery as it is published. embeddings: those its index was built from. seq: the last change that is
    folded. deleted, replaced: image_ids that leave the collection. added: what comes in, by image_id. parts: numbers of
    the parts there are. key: names the folders to make.
    """

    pair: Pair
    embeddings: Folder
    seq: int
    deleted: frozenset[str]
    replaced: frozenset[str]
    added: tuple[LiveRow, ...]
    parts: tuple[int, ...]
    key: str

    def folder(self, kind: str) -> Folder:
        """Where what is made of this kind lies."""
        return self.pair.workspace / kind / f"{PREFIX}{self.key}"

    @property
    def collection(self) -> Folder:
        """The collection to make."""
        return self.folder("collection")

    @property
    def vectors(self) -> Folder:
        """Its embeddings."""
        return self.folder("embeddings")

    @property
    def out_of(self) -> frozenset[str]:
        return self.deleted | self.replaced

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to fold."""
        return not self.out_of and not self.added

    @property
    def new_parts(self) -> list[tuple[int, tuple[LiveRow, ...]]]:
        """Number and images of each part that is added behind the others."""
        first = max(self.parts, default=-1) + 1
        starts = range(0, len(self.added), ROWS_A_PART)
        return [(first + place, self.added[start : start + ROWS_A_PART]) for place, start in enumerate(starts)]

    @property
    def config(self) -> dict[str, Any]:
        """What the new collection's manifest records beside the settings of the one it comes from."""
        return {**read_manifest(self.pair.collection).config, "folded": {"key": self.key, "seq": self.seq}}


def plan_fold(pair: Pair, store: Store) -> FoldPlan:
    """Reads the manifests, the catalog and the changes, and writes nothing.

    Raises: ValueError if the embeddings of the index are gone, or an image that was added has none of this model.
    """
    index = read_manifest(pair.index, "index")
    embeddings = _embeddings(pair.workspace, index)
    base = store.folded(pair.collection_fingerprint)
    changed = store.changed(base, pair.model_fingerprint)
    added = tuple(sorted(changed.rows, key=lambda row: row.entry.image_id))
    if lacking := [row.entry.image_id for row in added if row.vector is None]:
        raise ValueError(
            f"{len(lacking)} images that were added, {lacking[0]!r} for one, have no embedding of the model that is "
            f"published. Start the service on it once: it embeds them from their crops."
        )
    deleted = {image_id for image_id, _ in changed.deleted}
    deleted |= set(copies_of(pair.collection, deleted))
    again = _stored(pair.collection, {row.entry.image_id for row in added})
    replaced = frozenset(again | set(copies_of(pair.collection, again)))
    gone = frozenset(_stored(pair.collection, deleted) - replaced)
    names = [(row.entry.image_id, row.entry.content_hash) for row in added]
    key = digest([pair.version, index.fingerprint, sorted(gone | replaced), names])[:10]
    return FoldPlan(
        pair=pair,
        embeddings=embeddings,
        seq=changed.seq,
        deleted=gone,
        replaced=replaced,
        added=added,
        parts=tuple(image_parts(read_manifest(pair.collection))),
        key=key,
    )


def _embeddings(workspace: Folder, index: Manifest) -> Folder:
    """Raises: ValueError if they are not in the workspace."""
    from retrieval.search.vectors import find_embeddings

    wanted = index.inputs.get("embeddings", "")
    found = find_embeddings(workspace, wanted)
    if found is None:
        raise ValueError(
            f"The embeddings that the published index was built from ({wanted[:12]}) are not in {workspace}. "
            f"Make them again: python -m ray_jobs.embed."
        )
    return found


def _stored(collection: Folder, image_ids: Collection[str]) -> set[str]:
    """Those of them that the collection holds."""
    ids = read_catalog(collection, columns=("image_id",))["image_id"]
    return set(ids.filter(pc.is_in(ids, value_set=pa.array(list(image_ids), pa.string()))).to_pylist())


def still_there(table: pa.Table, out_of: frozenset[str]) -> pa.Table:
    """The rows whose image stays. Args: table: with a column image_id."""
    gone = pc.is_in(table["image_id"], value_set=pa.array(sorted(out_of), pa.string()))
    return table.filter(pc.invert(gone))
