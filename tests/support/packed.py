"""Photos packed into tars and Parquet, as people keep a great many of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""As `datasets` writes a photo."""


def tar_of(members: Sequence[tuple[str, bytes | str]]) -> bytes:
    """A tar of these members in their order; a text is what a link names, None a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def write_photos(
    file: Path,
    photos: Sequence[bytes | None],
    *,
    rows: int = 4,
    about: Mapping[bytes, bytes] | None = None,
    **more: Any,
) -> None:
    """Parquet with a column `image`, as `datasets` writes it, and others; so many rows a group."""
    images = pa.array([{"bytes": photo, "path": None} for photo in photos], IMAGE)
    table = pa.table({"image": images, **more}).replace_schema_metadata(about)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=rows)
