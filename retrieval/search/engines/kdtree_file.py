"""A KD-tree as a safetensors file, with its vectors put in order of leaf on the way: none is held twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from retrieval.search.blocks import BLOCK
from retrieval.search.engines.kdtree_nodes import Nodes

NODE_FIELDS = tuple(Nodes.__dataclass_fields__)
_DTYPES = {"<f8": "F64", "<f4": "F32", "<i8": "I64", "<i4": "I32"}  # as safetensors calls them


def write_tree(
    file: Any,
    nodes: Nodes,
    axes: np.ndarray,
    scale: float,
    order: np.ndarray,
    max_visits: int | None,
    extra: Mapping[str, np.ndarray],
    vectors: np.ndarray,
    places: np.ndarray | None = None,
) -> None:
    """A tree as safetensors: a header's length, the header, then the arrays one after another.

    Args: vectors: (n, D) float32, leaf after leaf, or in any order, with `places`, (n,), of the one that comes next:
        then they are put in order while they are written, and not held twice.
    """
    arrays = {f"node.{name}": getattr(nodes, name) for name in NODE_FIELDS}
    arrays |= {f"extra.{name}": value for name, value in extra.items()}
    arrays |= {"axes": axes, "order": order, "scale": np.array([scale]), "max_visits": np.array([max_visits or 0])}
    # The widest numbers first, so that each array begins at a multiple of its width.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)) | {"vectors": vectors}
    header, end = {}, 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.str], "shape": array.shape, "data_offsets": [begin, end]}
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    file.write(len(told).to_bytes(8, "little") + told)
    step = max(1, BLOCK // max(1, 4 * vectors.shape[1]))
    for name, array in arrays.items():
        if name != "vectors" or places is None:
            file.write(np.ascontiguousarray(array).data)
            continue
        for start in range(0, len(places), step):
            file.write(vectors[places[start : start + step]].data)
