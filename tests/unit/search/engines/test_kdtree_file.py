"""A tree that is written while its vectors are put in order is the one whose vectors were in order."""

from __future__ import annotations

import io

import numpy as np
import pytest
from safetensors.numpy import load

from retrieval.search.engines import kdtree_file
from retrieval.search.engines.kdtree import KDTree
from retrieval.search.engines.kdtree_file import write_tree
from tests.support.vectors import clustered


@pytest.mark.parametrize("block", [1, 4 * 8 * 7, 1 << 20])
def test_blocks_of_any_size_make_the_same_file(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(300, 8)
    tree = KDTree.build(vectors, leaf_size=16, max_visits=3)
    monkeypatch.setattr(kdtree_file, "BLOCK", block)
    file, rows = io.BytesIO(), np.arange(300) * 2
    write_tree(file, tree.nodes, tree.axes, tree.scale, tree.order, 3, {"rows": rows}, vectors, tree.order)
    assert file.getvalue() == tree.to_bytes(rows=rows)
    arrays = load(file.getvalue())
    assert np.array_equal(arrays["vectors"], vectors[tree.order])
    assert arrays["extra.rows"].tolist() == rows.tolist() and arrays["max_visits"].tolist() == [3]
    assert all(np.array_equal(arrays[f"node.{name}"], getattr(tree.nodes, name)) for name in kdtree_file.NODE_FIELDS)


def test_every_array_begins_at_a_multiple_of_its_width() -> None:
    data = KDTree.build(clustered(51, 3), leaf_size=4).to_bytes(rows=np.arange(51))
    header = int.from_bytes(data[:8], "little")
    assert header % 8 == 0
    for name, array in load(data).items():
        begin = data.find(np.ascontiguousarray(array).tobytes(), 8 + header) - 8 - header
        assert begin % array.dtype.itemsize == 0, name
