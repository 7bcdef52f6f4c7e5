"""Parts of a collection and of its embeddings, one by one: without what was deleted, and those of what was added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.artifacts.collection import IMAGE_OPTIONS, IMAGE_SCHEMA, REJECTED_SCHEMA
from retrieval.artifacts.embeddings import write_part
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import MANIFEST, hash_of
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.live.folding.plan import still_there
from retrieval.live.rows import LiveRow


def fold_part(
    part: int, collection: Folder, embeddings: Folder, to: Folder, vectors: Folder, out_of: frozenset[str]
) -> dict[str, Any]:
    """Write a part without the images in `out_of`, and the embeddings of those that stay, unless they are there.

    Args: collection, embeddings: what is read. to, vectors: what is written.

    Returns: part, taken and kept (images), files (name -> sha256 in `to`), embedded (sha256 of the part of `vectors`).
    """
    name = part_name(part)
    before = collection.read_table(f"images/{name}")
    images = still_there(before, out_of)
    if not _is_there(to, f"images/{name}"):
        to.write_table(f"images/{name}", images, about={}, **IMAGE_OPTIONS)
    if collection.exists(f"rejected/{name}") and not _is_there(to, f"rejected/{name}"):
        # Photos that were rejected are named here; one that was deleted later is named nowhere.
        to.write_table(f"rejected/{name}", still_there(collection.read_table(f"rejected/{name}"), out_of), about={})
    if not _is_there(vectors, name):
        table = still_there(embeddings.read_table(name), out_of)
        if table["image_id"].to_pylist() != images["image_id"].to_pylist():
            raise ValueError(f"{embeddings}/{name} holds other images than {collection}/images/{name}. Embed again.")
        vectors.write_table(name, table, about={})
    return _told(part, len(before), len(images), to, vectors)


def write_added(
    part: int, rows: Sequence[LiveRow], jpeg: Callable[[str], bytes | None], to: Folder, vectors: Folder, dim: int
) -> dict[str, Any]:
    """Write a part of what was added, unless it is there. Args: jpeg: the crop of an image, None if it was deleted.

    Returns: as `fold_part`.

    Raises: ValueError if an image was deleted meanwhile.
    """
    name = part_name(part)
    if not _is_there(to, f"images/{name}"):
        images = [_image(row, jpeg(row.entry.image_id)) for row in rows]
        to.write_table(f"images/{name}", pa.Table.from_pylist(images, schema=IMAGE_SCHEMA), about={}, **IMAGE_OPTIONS)
    if not _is_there(to, f"rejected/{name}"):
        to.write_table(f"rejected/{name}", REJECTED_SCHEMA.empty_table(), about={})
    if not _is_there(vectors, name):
        stacked = np.stack([row.vector for row in rows if row.vector is not None])
        write_part(vectors, part, [row.entry.image_id for row in rows], stacked.reshape(len(rows), dim), about={})
    return _told(part, len(rows), len(rows), to, vectors)


def _is_there(folder: Folder, name: str) -> bool:
    """Whether a file is done. The collection may be sealed already while its embeddings are not."""
    return folder.done(name) is not None or (folder.exists(MANIFEST) and folder.exists(name))


def _image(row: LiveRow, jpeg: bytes | None) -> dict[str, Any]:
    entry = row.entry
    if jpeg is None:
        raise ValueError(f"{entry.image_id!r} was deleted while it was folded. Run it again.")
    return {
        "image_id": entry.image_id,
        "jpeg": jpeg,
        "width": entry.width,
        "height": entry.height,
        "box": row.box or [0, 0, entry.width, entry.height],  # Parquet reads no null in a list of fixed size
        "label": entry.label,
        "split": None,
        "attributes": attributes_of(entry.attributes),
        "content_hash": entry.content_hash,
        "photo": entry.photo,
        "face": entry.face,
        "points": row.points,
        "quality": row.quality,
    }


def attributes_of(said: Mapping[str, int] | None) -> list[int] | None:
    """As a collection stores them: one number each, in the order of their names."""
    return None if said is None else [said.get(name, 0) for name in ATTRIBUTES]


def _told(part: int, taken: int, kept: int, to: Folder, vectors: Folder) -> dict[str, Any]:
    name = part_name(part)
    names = [one for one in (f"images/{name}", f"rejected/{name}") if to.exists(one)]
    files = {one: hash_of(to, one) for one in names}
    return {"part": part, "taken": taken, "kept": kept, "files": files, "embedded": hash_of(vectors, name)}
