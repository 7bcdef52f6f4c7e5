"""Parts of a collection whose photos nobody ingested: for what costs by the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from retrieval.artifacts.collection import IMAGE_OPTIONS, IMAGE_SCHEMA
from retrieval.artifacts.folder import Folder, part_name


def write_images(collection: Folder, part: int, known: Mapping[str, Sequence[Any]]) -> None:
    """A part as ingest leaves it, with these columns of IMAGE_SCHEMA and nothing in the others."""
    nothing = [None] * len(known["image_id"])
    table = pa.table({field.name: known.get(field.name, nothing) for field in IMAGE_SCHEMA}, schema=IMAGE_SCHEMA)
    collection.write_table(f"images/{part_name(part)}", table, about={}, **IMAGE_OPTIONS)
