"""The page of groups that nobody named: who is together, to be looked at before it is believed.

Drawn are the largest groups, those whose members are least alike, where a mistake would be, and photos that are there
twice. Of each group a few photos from the most typical to the least: a stranger among them is the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.calibration import MANY
from retrieval.artifacts.collection import Jpegs, read_catalog
from retrieval.artifacts.folder import Folder
from retrieval.reports.page import Sheet, page
from retrieval.reports.sheets import blank_sheet, caption, thumbnail
from retrieval.reports.style import FAINT, INK, RIGHT, dress, new_figure, saved
from retrieval.reports.tables import Table

PAGE = "people.html"
_GROUPS, _PHOTOS, _PAIRS = 20, 10, 40
_OF_EARLIER = ("split", "merged", "gone")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One line of a sheet: its name, what is said of it, and photos with a few words each."""

    name: str
    said: str
    photos: Sequence[tuple[bytes, str]]


def write_page(
    out: Folder,
    collection: Folder,
    people: pa.Table,
    duplicates: pa.Table,
    counts: Mapping[str, Any],
    facts: Mapping[str, str],
    subject: str = "person",
) -> None:
    """Write people.html, and its sheets beside it.

    Args:
        people: image_id, person, score of every stored photo, sorted by image_id; person null where it has no group.
        duplicates: image_id, duplicate_of, how, likeness.
        counts: of the manifest. facts: how it was made. subject: what a group is, person or place.
    """
    sheets = {}
    if (grouped := people.filter(pc.is_valid(people["person"]))).num_rows:
        members = _Members(grouped)
        sheets["largest"] = ("The largest groups", _lines(collection, members, members.largest(), subject))
        sheets["least-sure"] = (
            "The groups that are least alike",
            _lines(collection, members, members.unsure(), subject),
        )
    if duplicates.num_rows:
        sheets["duplicates"] = ("There twice", _pairs(collection, duplicates))
    drawn = []
    for name, (title, lines) in sheets.items():
        picture = people_jpg(lines, title=title)
        out.write_bytes(f"{name}.jpg", picture)
        drawn.append(Sheet(title=title, note=_NOTES[name], data=picture))
    told = f"{counts['people']:,} groups in {counts['grouped']:,} of {counts['num']:,} photos; nobody named them."
    plots = [("How large the groups are", _sizes_png(grouped))] if grouped.num_rows else []
    about: dict[str, Any] = {"tables": [_figures(counts)], "plots": plots, "first": drawn, "facts": facts}
    out.write_bytes(PAGE, page(title=f"{MANY[subject].capitalize()} nobody named", summary=told, **about).encode())


_NOTES = {
    "largest": "Of each, photos from the one most like the others to the one least like them, with its mean cosine.",
    "least-sure": "A wrong one would be here, at the right. Raise --group.threshold if strangers are together.",
    "duplicates": "Left, the first of that picture by its name; right, those that repeat it.",
}


def people_jpg(lines: Sequence[Shown], *, title: str, thumb: int = 96) -> bytes:
    """A contact sheet: one line a group, its name at the left."""
    lead = 1.35  # axes units: a thumbnail is 0.86 wide
    width, height = lead + max([5, *(len(line.photos) for line in lines)]), len(lines) * 1.16
    figure, axes = blank_sheet(width, height, title, thumb)
    for number, line in enumerate(lines):
        top = number * 1.16 + 0.03
        axes.text(0.1, top + 0.36, line.name, va="center", fontsize=9, color=INK, weight="bold")
        axes.text(0.1, top + 0.56, line.said, va="center", fontsize=6.5, color=FAINT)
        for place, (jpeg, said) in enumerate(line.photos):
            thumbnail(axes, jpeg, lead + place, top, thumb, FAINT, 0.6)
            caption(axes, lead + place + 0.43, top, said, FAINT)
    return saved(figure, "jpg")


class _Members:
    """Photos by group, the most typical first; memory: some 40 bytes a photo beside the table."""

    def __init__(self, grouped: pa.Table) -> None:
        """Args: grouped: image_id, person and score of each photo that is in a group."""
        self._ids, self._scores = grouped["image_id"], pc.fill_null(grouped["score"], 0.0).to_numpy()
        person = grouped["person"].to_numpy()
        self._order = np.lexsort((-self._scores, person))
        self._numbers, self._starts, self._sizes = np.unique(person[self._order], return_index=True, return_counts=True)

    def largest(self) -> list[int]:
        """Numbers of the groups with most photos."""
        return self._numbers[np.argsort(-self._sizes, kind="stable")[:_GROUPS]].tolist()

    def unsure(self) -> list[int]:
        """Numbers of the groups whose least typical photo is least like the others."""
        last = self._scores[self._order[self._starts + self._sizes - 1]]
        return self._numbers[np.argsort(last, kind="stable")[:_GROUPS]].tolist()

    def size(self, number: int) -> int:
        return int(self._sizes[np.searchsorted(self._numbers, number)])

    def some(self, number: int) -> list[tuple[str, float]]:
        """(image_id, score) of photos at equal steps from the most to the least typical."""
        group = np.searchsorted(self._numbers, number)
        rows = self._order[self._starts[group] : self._starts[group] + self._sizes[group]]
        return [(self._ids[row].as_py(), float(self._scores[row])) for row in rows[_spread(len(rows))].tolist()]


def _lines(collection: Folder, members: _Members, numbers: Sequence[int], subject: str) -> list[Shown]:
    chosen = {number: members.some(number) for number in numbers}
    jpegs = _jpegs(collection, [image_id for photos in chosen.values() for image_id, _ in photos])
    return [
        Shown(
            name=f"{subject} {number}",
            said=f"{members.size(number)} photos",
            photos=[(jpegs[image_id], f"{score:.2f}  {image_id}") for image_id, score in photos],
        )
        for number, photos in chosen.items()
    ]


def _spread(num: int) -> np.ndarray:
    """Places, at equal steps from the first to the last of so many."""
    return np.unique(np.linspace(0, num - 1, min(_PHOTOS, num)).round().astype(int))


def _pairs(collection: Folder, duplicates: pa.Table) -> list[Shown]:
    """Each picture with those that repeat it: such as are no copies byte for byte first, they need looking at."""
    ordered = duplicates.append_column("file", pc.equal(duplicates["how"], "same file"))
    ordered = ordered.sort_by([("file", "ascending"), ("likeness", "ascending")])
    firsts = pc.unique(ordered["duplicate_of"])[:_PAIRS]
    repeated: dict[str, list[dict[str, Any]]] = {first: [] for first in firsts.to_pylist()}
    for row in ordered.filter(pc.is_in(ordered["duplicate_of"], firsts)).to_pylist():
        repeated[row["duplicate_of"]].append(row)
    wanted = [*repeated, *(row["image_id"] for rows in repeated.values() for row in rows[:_PHOTOS])]
    jpegs = _jpegs(collection, wanted)
    return [
        Shown(
            name=f"{len(rows) + 1} times",
            said=rows[0]["how"],
            photos=[(jpegs[first], first)]
            + [(jpegs[row["image_id"]], f"{row['likeness']:.3f}  {row['image_id']}") for row in rows[: _PHOTOS - 1]],
        )
        for first, rows in repeated.items()
    ]


def _jpegs(collection: Folder, image_ids: Sequence[str]) -> dict[str, bytes]:
    catalog = read_catalog(collection, columns=("image_id", "part", "row"))
    found = catalog.filter(pc.is_in(catalog["image_id"], pa.array(sorted(set(image_ids)), pa.string()))).to_pylist()
    jpegs = Jpegs(collection).read((row["part"], row["row"]) for row in found)
    return {row["image_id"]: jpegs[row["part"], row["row"]] for row in found}


def _figures(counts: Mapping[str, Any]) -> Table:
    told = {
        "groups": "people",
        "photos in a group": "grouped",
        "photos like no other": "single",
        "photos not in the index": "unembedded",
        "photos in the largest group": "largest",
        "groups that kept their number": "kept",
        "groups with a new number": "new",
        "earlier groups that fell apart": "split",
        "groups made of several earlier ones": "merged",
        "numbers that nobody bears any more": "gone",
        "copies byte for byte": "same_file",
        "other copies of a picture": "same_picture",
        "BCubed precision, by the labels": "bcubed_precision",
        "BCubed recall, by the labels": "bcubed_recall",
        "pairwise F, by the labels": "pair_f",
    }
    if not any(counts.get(key) for key in ("kept", *_OF_EARLIER)):  # the first time there is nothing to compare with
        told = {name: key for name, key in told.items() if key not in ("kept", "new", *_OF_EARLIER)}
    rows = [(name, _cell(counts[key])) for name, key in told.items() if key in counts]
    return Table(title="What was found", header=("", "count"), rows=tuple(rows))


def _cell(value: float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def _sizes_png(grouped: pa.Table) -> bytes:
    sizes = grouped["person"].value_counts().field("counts").to_numpy()
    times = np.bincount(sizes)
    figure, (axes,) = new_figure(1, width=6.4)
    shown = np.flatnonzero(times)
    axes.bar(shown, times[shown], width=0.8 if len(times) < 80 else 1.0, color=RIGHT)
    dress(axes, "Groups by how many photos they have", "photos in a group")
    return saved(figure, "png")
