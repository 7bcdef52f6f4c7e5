"""How a query's photo is made ready: as its gallery was, under the server's own limits."""

from __future__ import annotations

import pytest

from retrieval.artifacts import hashing
from retrieval.images.settings import PrepareConfig
from serve.embedder import query_preparation


def test_a_query_is_prepared_as_its_gallery_under_this_servers_limits() -> None:
    gallery = PrepareConfig(size=96, margin=0.3)
    query = query_preparation(hashing.plain(gallery), max_pixels=1000)
    assert (query.crop, query.size, query.margin, query.max_pixels) == ("haar", 96, 0.3, 1000)
    assert query_preparation({"crop": "none"}, 1000).crop == "none"
    assert query_preparation({"crop": "box"}, 1000).crop == "haar"
    with pytest.raises(TypeError):
        query_preparation({"colour": "blue"}, 1000)
