"""A published pair is opened from this node's disk, and its copies stay for as long as they are in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retrieval.artifacts.node.cache import NodeCache
from retrieval.artifacts.node.triple import on_this_node
from retrieval.artifacts.published import Pair
from retrieval.models.embedder import Embedder
from retrieval.search.index import Searcher
from tests.support.workspace import make_workspace, stored_vectors


def test_model_and_index_are_copied_opened_there_and_kept_while_in_use(tmp_path: Path) -> None:
    made = make_workspace(tmp_path)
    pair = Pair.open(f"file://{made.folder}")
    with on_this_node(pair, NodeCache(root=tmp_path / "copies")) as same:
        assert (same.model.path, same.index.path) == (pair.model.path, pair.index.path)
    size = sum(sum(folder.list().values()) for folder in (pair.model, pair.index))
    cache = NodeCache(root=tmp_path / "copies", limit=size + 100)
    with on_this_node(pair, cache, also_local=True) as near:
        assert {Path(folder.path).parent for folder in (near.model, near.index)} == {cache.root}
        assert near.version == pair.version and near.collection == pair.collection
        searcher, vectors = Searcher.open(near.index), stored_vectors(made.folder)
        assert Embedder(near.model, precision="fp32").fingerprint == pair.model_fingerprint
        assert cache._fits(200) is False
        found = searcher.search(vectors, 1)
        assert np.array_equal(found.rows[:, 0], np.arange(len(vectors)))

    small = NodeCache(root=tmp_path / "small")
    with on_this_node(pair, small, also_local=True, with_shards=False) as near:
        assert sorted(near.index.list()) == sorted(
            name for name in pair.index.list() if not name.startswith("shard-") and name != "started.json"
        )

    # Nobody uses them any more: both may go, and what is mapped can still be read.
    def other(path: Path) -> None:
        path.write_bytes(b"x")

    cache.keep("other", other, size, "it").close()
    assert [path.name for path in cache.root.iterdir() if path.suffix != ".lock"] == ["other"]
    assert np.array_equal(searcher.search(vectors, 1).rows, found.rows)
