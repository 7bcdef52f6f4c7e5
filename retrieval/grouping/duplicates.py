"""The same picture more than once: resized, recompressed, cropped a little. Copies byte for byte are known already.

Two photos are one picture if their embeddings are linked, one among the nearest of the other, and their stored images
show the same fine detail once they are laid over each other (images/likeness.py, given here as a function). A person's
other photos have embeddings as near as some copies have, so the pixels decide; and the pixels of all pairs need not be
looked at, since the embeddings propose. What is held of the collection is a thumbnail a photo, of the pairs at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import sparse
from scipy.sparse import csgraph

from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.index import IDS
from retrieval.artifacts.progress import Progress, silent
from retrieval.grouping.links import read_links

PAIRS = "compared/pairs.parquet"
PAIR_SCHEMA = pa.schema([("low", pa.int32()), ("high", pa.int32())])
COMPARED_SCHEMA = pa.schema([*PAIR_SCHEMA, ("likeness", pa.float32())])
_THUMBNAIL_SCHEMA = pa.schema([("row", pa.int32()), ("thumbnail", pa.binary())])
_PAIRS_AT_ONCE = 20_000
_TELL_EVERY = 100


@dataclass(frozen=True, slots=True)
class Copies:
    """Rows that repeat another: row (n,) int64, ascending; of: (n,) int64, the first row of that picture.

    likeness: (n,) float32, the greatest of those with which the row was found to be one picture.
    """

    row: np.ndarray
    of: np.ndarray
    likeness: np.ndarray


def thumbnails_name(part: int) -> str:
    """The file of a part's thumbnails; it is taken away when the groups are sealed."""
    return f"compared/thumbnails/{part_name(part)}"


def write_thumbnails(
    index: Folder,
    collection: Folder,
    out: Folder,
    part: int,
    look: Callable[[bytes], np.ndarray],
    progress: Progress = silent,
) -> dict[str, int]:
    """Write the thumbnails of the indexed photos of one part of the collection.

    Args: look: stored JPEG -> uint8 thumbnail, all of one shape.

    Returns: {"taken": how many}.
    """
    ids = index.read_table(IDS, columns=["part", "row_in_part"])
    rows = np.flatnonzero(ids["part"].to_numpy() == part)
    name, places = thumbnails_name(part), ids["row_in_part"].to_numpy()[rows].tolist()
    if out.done(name) is None:
        jpegs, found = collection.read_table(f"images/{part_name(part)}", columns=["jpeg"])["jpeg"], []
        for done, place in enumerate(places, start=1):
            found.append(look(jpegs[place].as_py()).tobytes())
            if done % _TELL_EVERY == 0:
                progress("thumbnails", done, len(places))
        table = pa.table({"row": rows.astype(np.int32), "thumbnail": found}, schema=_THUMBNAIL_SCHEMA)
        out.write_table(name, table, about={})
    return {"taken": len(rows)}


def write_pairs(out: Folder, names: Sequence[str], num_rows: int, nearest: int) -> dict[str, int]:
    """Write which photos are to be compared: those linked, one among the `nearest` of the other.

    Args: names: the files of links, of every part. num_rows: photos in the index.

    Returns: {"pairs", "blocks": in how many pieces they are compared}.
    """
    links = read_links(out, names, num_rows, nearest)
    table = pa.table({"low": links.low.astype(np.int32), "high": links.high.astype(np.int32)}, schema=PAIR_SCHEMA)
    out.write_table(PAIRS, table)
    return {"pairs": len(links), "blocks": -(-len(links) // _PAIRS_AT_ONCE)}


def compare(
    out: Folder,
    parts: Iterable[int],
    block: int,
    side: int,
    alike: Callable[[np.ndarray, np.ndarray], float],
    least: float,
    progress: Progress = silent,
) -> dict[str, int]:
    """Compare one block of pairs, unless that is done, and write those that are one picture.

    Args:
        parts: those that have thumbnails. side: pixels along a side of one.
        alike: two thumbnails -> 0 to 1. least: of pairs that are one picture.

    Returns: {"taken": pairs compared, "found": pairs written}.
    """
    name = f"compared/{part_name(block)}"
    if (done := out.done(name)) is not None:
        return dict(done.about)
    pairs = out.read_table(PAIRS).slice(block * _PAIRS_AT_ONCE, _PAIRS_AT_ONCE)
    low, high = (pairs[name].to_numpy().astype(np.int64) for name in ("low", "high"))
    wanted = np.unique(np.concatenate([low, high]))
    thumbnails = np.empty((len(wanted), side, side), dtype=np.uint8)
    for rows, images in _read_thumbnails(out, parts, side):
        at = np.minimum(np.searchsorted(wanted, rows), len(wanted) - 1)
        mine = wanted[at] == rows
        thumbnails[at[mine]] = images[mine]
    found = np.zeros(len(low), dtype=np.float32)
    one, other = np.searchsorted(wanted, low), np.searchsorted(wanted, high)
    for pair in range(len(low)):
        found[pair] = alike(thumbnails[one[pair]], thumbnails[other[pair]])
        if (pair + 1) % _TELL_EVERY == 0:
            progress("compare", pair + 1, len(low))
    same = found >= least
    columns = {"low": low[same].astype(np.int32), "high": high[same].astype(np.int32), "likeness": found[same]}
    counts = {"taken": len(low), "found": int(same.sum())}
    out.write_table(name, pa.table(columns, schema=COMPARED_SCHEMA), about=counts)
    return counts


def read_copies(out: Folder, blocks: int, num_rows: int) -> Copies:
    """Which photos repeat another, of all blocks: what is one picture with one that is one with a third is all one."""
    tables = [out.read_table(f"compared/{part_name(block)}") for block in range(blocks)]
    table = pa.concat_tables([COMPARED_SCHEMA.empty_table(), *tables])
    low, high = (table[name].to_numpy().astype(np.int64) for name in ("low", "high"))
    pairs = sparse.coo_array((np.ones(len(low), bool), (low, high)), shape=(num_rows, num_rows))
    pictures = csgraph.connected_components(pairs, directed=False)[1]
    first = np.unique(pictures, return_index=True)[1][pictures]
    best = np.zeros(num_rows, dtype=np.float32)
    for end in (low, high):
        np.maximum.at(best, end, table["likeness"].to_numpy())
    rows = np.flatnonzero(first != np.arange(num_rows))
    return Copies(rows, first[rows], best[rows])


def remove_thumbnails(out: Folder) -> None:
    """Take away what was only needed to compare."""
    for name in list(out.list()):
        if name.startswith("compared/"):
            out.remove(name)


def _read_thumbnails(out: Folder, parts: Iterable[int], side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows (n,) of each part and their thumbnails (n, side, side) uint8, one part in memory at a time."""
    for part in parts:
        table = out.read_table(thumbnails_name(part))
        if table.num_rows:
            flat = np.frombuffer(b"".join(table["thumbnail"].to_pylist()), dtype=np.uint8)
            yield table["row"].to_numpy(), flat.reshape(-1, side, side)
