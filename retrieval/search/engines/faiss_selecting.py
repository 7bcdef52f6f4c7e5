"""Searching a FAISS index among some of its vectors only: what to hand to its `search`."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np


def selecting(index: Any, allowed: np.ndarray) -> Any:
    """Search parameters that look as hard as the index does otherwise, and find only what is allowed.

    Args: allowed: (n,) bool by local position.

    Kinds that know no selector raise a RuntimeError when they are searched with this.
    """
    of: Any = faiss  # its classes take arguments that their stubs do not know
    return _parameters(index, of.IDSelectorBitmap(np.packbits(allowed, bitorder="little")))


def _parameters(index: Any, selector: Any) -> Any:
    of: Any = faiss
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        base = _parameters(index.base_index, selector)
        return of.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=base)
    if isinstance(index, faiss.IndexPreTransform):
        return of.SearchParametersPreTransform(index_params=_parameters(index.index, selector))
    if isinstance(index, faiss.IndexIVF):
        return of.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
    if isinstance(index, faiss.IndexHNSW):
        return of.SearchParametersHNSW(sel=selector, efSearch=index.hnsw.efSearch)
    return of.SearchParameters(sel=selector)
