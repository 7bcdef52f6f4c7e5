"""The same picture more than once: resized, recompressed, cropped a little. Copies byte for byte are known already.

Two photos are one picture if their embeddings are linked, one among the nearest of the other, and their stored images
show the same fine detail once they are laid over each other (images/likeness.py, given here as a function). A person's
other photos have embeddings as near as some copies have, so the pixels decide; and the pixels of all pairs need not be
looked at, since the embeddings propose. What is held of the collection is a thumbnail a photo, of the pairs at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import sparse
from scipy.sparse import csgraph

from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.index import IDS
from retrieval.artifacts.progress import Progress, silent
from retrieval.grouping.links import read_links

# Rows of the index; the part of each, and which of the thumbnails of that part is its.
PAIR_SCHEMA = pa.schema(
    [(name, pa.int32()) for name in ("low", "high", "low_part", "low_place", "high_part", "high_place")]
)
COMPARED_SCHEMA = pa.schema([("low", pa.int32()), ("high", pa.int32()), ("likeness", pa.float32())])
_PAIRS_AT_ONCE = 20_000
_TELL_EVERY = 100
_AT_ONCE = 8  # reads: an object store takes long for each


@dataclass(frozen=True, slots=True)
class Copies:
    """Rows that repeat another: row (n,) int64, ascending; of: (n,) int64, the first row of that picture.

    likeness: (n,) float32, the greatest of those with which the row was found to be one picture.
    """

    row: np.ndarray
    of: np.ndarray
    likeness: np.ndarray


def thumbnails_name(part: int) -> str:
    """The file of a part's thumbnails, one behind the other; it is taken away when the groups are sealed."""
    return f"compared/thumbnails/{part_name(part).removesuffix('.parquet')}.bin"


def pairs_name(block: int) -> str:
    """The file of a block of pairs; taken away as well."""
    return f"compared/pairs/{part_name(block)}"


def compared_name(block: int) -> str:
    """The file of the pairs of a block that are one picture; taken away as well."""
    return f"compared/alike/{part_name(block)}"


def write_thumbnails(
    index: Folder,
    collection: Folder,
    out: Folder,
    part: int,
    look: Callable[[bytes], np.ndarray],
    progress: Progress = silent,
) -> dict[str, int]:
    """Write the thumbnails of the indexed photos of one part of the collection, in the order of their rows.

    Args: look: stored JPEG -> uint8 thumbnail, all of one shape.

    Returns: {"taken": how many}.
    """
    name = thumbnails_name(part)
    if (done := out.done(name)) is None:
        places = index.read_where(IDS, "part", part, ["row_in_part"])["row_in_part"].to_pylist()
        jpegs, found = collection.read_table(f"images/{part_name(part)}", columns=["jpeg"])["jpeg"], list[bytes]()
        for num, place in enumerate(places, start=1):
            found.append(look(jpegs[place].as_py()).tobytes())
            if num % _TELL_EVERY == 0:
                progress("thumbnails", num, len(places))
        done = out.write_bytes(name, b"".join(found), about={"taken": len(places)})
    return dict(done.about)


def write_pairs(index: Folder, out: Folder, names: Sequence[str], nearest: int) -> dict[str, int]:
    """Write which photos are to be compared: those linked, one among the `nearest` of the other; in blocks whose photos
    lie in few parts where they can.

    Args: names: the files of links, of every part.

    Returns: {"pairs", "blocks": in how many pieces they are compared}.
    """
    part = index.read_table(IDS, columns=["part"])["part"].to_numpy()
    by_part = np.argsort(part, kind="stable")
    place = np.empty(len(part), dtype=np.int32)
    place[by_part] = np.arange(len(part)) - np.searchsorted(part[by_part], part[by_part])
    del by_part
    links = read_links(out, names, len(part), nearest)
    order = np.lexsort((part[links.high], part[links.low]))
    blocks = range(-(-len(links) // _PAIRS_AT_ONCE))
    for block in blocks:
        some = order[block * _PAIRS_AT_ONCE : (block + 1) * _PAIRS_AT_ONCE]
        low, high = links.low[some], links.high[some]
        columns = [low, high, part[low], place[low], part[high], place[high]]
        out.write_table(pairs_name(block), pa.table(columns, schema=PAIR_SCHEMA))
    return {"pairs": len(links), "blocks": len(blocks)}


def compare(
    out: Folder,
    block: int,
    side: int,
    alike: Callable[[np.ndarray, np.ndarray], float],
    least: float,
    progress: Progress = silent,
) -> dict[str, int]:
    """Compare one block of pairs, unless that is done, and write those that are one picture.

    Args:
        side: pixels along a side of a thumbnail.
        alike: two thumbnails -> 0 to 1. least: of pairs that are one picture.

    Returns: {"taken": pairs compared, "found": pairs written}.

    Raises: ValueError if thumbnails are missing.
    """
    name = compared_name(block)
    if (done := out.done(name)) is not None:
        return dict(done.about)
    table = out.read_table(pairs_name(block))
    pairs = {name: column.to_numpy() for name, column in zip(PAIR_SCHEMA.names, table.itercolumns())}
    low, high, num = pairs["low"], pairs["high"], len(pairs["low"])
    places = np.concatenate([np.stack([pairs[f"{end}_part"], pairs[f"{end}_place"]], 1) for end in ("low", "high")])
    wanted, at = np.unique(places, axis=0, return_inverse=True)
    thumbnails, found = _read_thumbnails(out, wanted, side), np.zeros(num, dtype=np.float32)
    for pair, (one, other) in enumerate(at.reshape(2, num).T):
        found[pair] = alike(thumbnails[one], thumbnails[other])
        if (pair + 1) % _TELL_EVERY == 0:
            progress("compare", pair + 1, num)
    same = found >= least
    columns = {"low": low[same], "high": high[same], "likeness": found[same]}
    counts = {"taken": num, "found": int(same.sum())}
    out.write_table(name, pa.table(columns, schema=COMPARED_SCHEMA), about=counts)
    return counts


def read_copies(out: Folder, blocks: int, num_rows: int) -> Copies:
    """Which photos repeat another, of all blocks: what is one picture with one that is one with a third is all one."""
    tables = [out.read_table(compared_name(block)) for block in range(blocks)]
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
    out.remove_all("compared")


def _read_thumbnails(out: Folder, wanted: np.ndarray, side: int) -> np.ndarray:
    """(K, side, side) uint8. Of each part that holds some, what lies between the first and the last of them is read.

    Args: wanted: (K, 2) int, part and place in it, in order.
    """
    found, size = np.empty((len(wanted), side, side), dtype=np.uint8), side * side

    def read(mine: np.ndarray) -> None:
        part, first, last = (int(number) for number in (*wanted[mine[0]], wanted[mine[-1], 1]))
        name, num = thumbnails_name(part), last - first + 1
        data = np.frombuffer(out.read_range(name, first * size, num * size), dtype=np.uint8)
        if len(data) < num * size:
            raise ValueError(f"{out / name} has no thumbnail {last}. Group again, into a new folder.")
        found[mine] = data.reshape(num, side, side)[wanted[mine, 1] - first]

    parts = np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted[:, 0])) + 1)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="read-thumbnails") as pool:
        list(pool.map(read, parts))
    return found
