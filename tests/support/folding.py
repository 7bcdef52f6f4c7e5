"""Folding changes of a small gallery without Ray, step by step as the job does it."""

from __future__ import annotations

from pathlib import Path

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.artifacts.published import Pair, publish
from retrieval.live.folding import seal
from retrieval.live.folding.parts import fold_part, write_added
from retrieval.live.folding.plan import FoldPlan, plan_fold
from retrieval.live.store import Store
from retrieval.search.settings import IndexConfig
from tests.support.workspace import make_index


def write_parts(plan: FoldPlan, store: Store) -> list[dict]:
    where = (plan.pair.collection, plan.embeddings, plan.collection, plan.vectors, plan.out_of)
    parts = [fold_part(part, *where) for part in plan.parts]
    dim = int(read_manifest(plan.embeddings).counts["dim"])
    new = [write_added(number, rows, store.jpeg, plan.collection, plan.vectors, dim) for number, rows in plan.new_parts]
    return parts + new


def fold(pair: Pair, store: Store) -> tuple[FoldPlan, Manifest, Pair]:
    """Plan, write, seal, index, note and publish. Returns the plan, the new collection's seal and the new pair."""
    plan = plan_fold(pair, store)
    assert seal.begin_collection(plan) is None
    parts = write_parts(plan, store)
    made = seal.seal_collection(plan, parts)
    assert seal.sealed_vectors(plan, made.fingerprint) is None
    assert seal.seal_vectors(plan, made.fingerprint, parts) == seal.sealed_vectors(plan, made.fingerprint)
    index = plan.folder("index")
    make_index(index, plan.vectors, IndexConfig(**read_manifest(pair.index).config["index"]), plan.collection)
    store.note_fold(made.fingerprint, plan.seq)
    publish(pair.workspace, collection=plan.collection, model=pair.model, index=index)
    return plan, made, Pair.open(pair.workspace.uri)


def bytes_below(folder: Folder) -> bytes:
    """Everything that lies in a folder."""
    return b"".join(path.read_bytes() for path in sorted(Path(folder.path).rglob("*")) if path.is_file())
