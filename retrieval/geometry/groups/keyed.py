"""Photos and links by group, so that the task that maps a group reads its own and nothing of others.

    keyed/members.parquet   of each group: its photos, and where the collection has them
    keyed/links.parquet     of each group: links between its photos, and where their matches are

Both are sorted by group, and read by the row groups of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.folder import Folder
from retrieval.geometry.stages import links_name

_MEMBERS, _LINKS = "keyed/members.parquet", "keyed/links.parquet"
_READ_TOGETHER = 1 << 12  # rows, 100 KB

Linked = tuple[int, int, np.ndarray]
"""Two photos, as rows of photos.parquet, and the (M, 2) int32 rows of their features that match."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Members:
    """Photos of a group. rows: (n,) int64 of photos.parquet, ascending. places: part and row in the collection."""

    rows: np.ndarray
    image_ids: list[str]
    places: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.rows)


def write_keyed(out: Folder, group: np.ndarray, member: np.ndarray, links: pa.Table) -> None:
    """Write both tables.

    Args:
        group, member: (m,) int each: photo `member`, a row of photos.parquet, is one of `group`; it may be of several.
        links: rows of `links_of_rounds`. Those whose photos are both of a group are its own.
    """
    order = np.lexsort((member, group))
    group, member = group[order].astype(np.int32), member[order].astype(np.int32)
    photos = out.read_table("photos.parquet", columns=["image_id", "part", "row"]).take(pa.array(member))
    columns = {"group": group, "photo": member} | {name: photos[name] for name in photos.column_names}
    _write(out, _MEMBERS, pa.table(columns))
    a, b = links["a"].to_numpy(), links["b"].to_numpy()
    by_photo = np.lexsort((group, member))
    of, member_sorted = group[by_photo].astype(np.int64), member[by_photo]
    starts, ends = np.searchsorted(member_sorted, a, "left"), np.searchsorted(member_sorted, a, "right")
    num = ends - starts  # groups that hold the first photo
    link = np.repeat(np.arange(len(a)), num)
    own = of[np.repeat(starts, num) + np.arange(len(link)) - np.repeat(np.cumsum(num) - num, num)]
    pair = np.stack([own, b[link].astype(np.int64)], axis=1)
    inside = _among(pair, np.stack([group.astype(np.int64), member.astype(np.int64)], axis=1))
    link, own = link[inside], own[inside]
    order = np.lexsort((b[link], a[link], own))
    table = links.take(pa.array(link[order]))
    _write(out, _LINKS, table.add_column(0, "group", pa.array(own[order].astype(np.int32))))


def _among(pairs: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n,) bool: which rows of (n, 2) int64 pairs are among the rows of the sorted (m, 2) ones."""
    if not len(known):
        return np.zeros(len(pairs), bool)
    span = int(max(pairs[:, 1].max(initial=0), known[:, 1].max())) + 1
    keys, wanted = known[:, 0] * span + known[:, 1], pairs[:, 0] * span + pairs[:, 1]
    return keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted


def _write(out: Folder, name: str, table: pa.Table) -> None:
    out.write_table(name, table, about={}, row_group_size=_READ_TOGETHER)


def members_of(out: Folder, number: int) -> Members:
    """The photos of a group."""
    table = out.read_where(_MEMBERS, "group", number)
    places = list(zip(table["part"].to_pylist(), table["row"].to_pylist(), strict=True))
    return Members(
        rows=table["photo"].to_numpy().astype(np.int64), image_ids=table["image_id"].to_pylist(), places=places
    )


def links_of(out: Folder, number: int) -> list[Linked]:
    """The links of a group, in order of their photos. Reads the blocks that hold some."""
    table = out.read_where(_LINKS, "group", number)
    found: dict[tuple[int, int], np.ndarray] = {}
    blocks = zip(table["round"].to_pylist(), table["block"].to_pylist(), strict=True)
    for round_, block in sorted(set(blocks)):
        mine = table.filter((pc.field("round") == round_) & (pc.field("block") == block))
        held = out.read_table(links_name(round_, block)).take(mine["at"])
        for row in held.to_pylist():
            found[row["a"], row["b"]] = np.frombuffer(row["matches"], np.int32).reshape(-1, 2)
    return [(a, b, found[a, b]) for a, b in sorted(found)]
