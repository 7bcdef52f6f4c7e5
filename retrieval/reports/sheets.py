"""Pictures of photographs: ranked results, training tuples, points that match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from retrieval.artifacts.collection import Jpegs, LocalCollection
from retrieval.artifacts.folder import Folder
from retrieval.evaluation.tasks import Task
from retrieval.geometry.matching.planes import verify_plane
from retrieval.images import pixels
from retrieval.reports.style import COLORS, INK, RIGHT, WRONG, saved
from retrieval.search.ranking import Neighbours
from retrieval.search.rerank import MIN_INLIERS, features_of

_SHEET_RESULTS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One result on a ranked sheet: `jpeg` bytes, its label, its score and whether it shows the query's identity."""

    jpeg: bytes
    label: str
    score: float
    right: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetRow:
    """One query with its best results, best first."""

    jpeg: bytes
    label: str
    hits: Sequence[Hit]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedPhotos:
    """Two JPEGs, and the (n, 2) points x, y of each that match."""

    jpegs: tuple[bytes, bytes]
    points: tuple[np.ndarray, np.ndarray]
    caption: str


def sheet_rows(task: Task, found: Neighbours, collection: Folder, drawn: np.ndarray) -> list[SheetRow]:
    """The queries `drawn` (n,), ascending, with their best results and photos."""
    wanted: dict[tuple[int, int], bytes] = {}
    for query in drawn:
        wanted[task.queries.place(query)] = b""
        for row in found.rows[query, :_SHEET_RESULTS]:
            if row >= 0:
                wanted[task.gallery.place(row)] = b""
    jpegs = Jpegs(collection).read(wanted)
    rows = []
    for query in np.sort(drawn):
        label = task.queries.label(query)
        hits = [
            Hit(
                jpeg=jpegs[task.gallery.place(row)],
                label=task.gallery.label(row) or "unlabelled",
                score=float(score),
                right=label is not None and task.gallery.label(row) == label,
            )
            for row, score in zip(found.rows[query], found.scores[query][:_SHEET_RESULTS])
            if row >= 0
        ]
        rows.append(SheetRow(jpeg=jpegs[task.queries.place(query)], label=str(label), hits=hits))
    return rows


def tuple_rows(local: LocalCollection, rows: np.ndarray, scores: np.ndarray) -> list[SheetRow]:
    """Training tuples as a sheet: each query, its positive (right), its negatives (wrong).

    Args: rows: (T, 2 + negatives) int64, of `local`. scores: (T, 1 + negatives) with the query.
    """
    sheet = []
    for own, score in zip(rows, scores, strict=True):
        query, *others = local.jpegs(own)
        hits = [
            Hit(jpeg=jpeg, label="negative" if place else "positive", score=float(score[place]), right=place == 0)
            for place, jpeg in enumerate(others)
        ]
        sheet.append(SheetRow(jpeg=query, label=local.image_ids[own[0]], hits=hits))
    return sheet


def blank_sheet(width: float, height: float, title: str, thumb: int) -> tuple[Figure, Axes]:
    """A figure with its title, and axes below it of width x height cells, the first at the top left."""
    figure = Figure(figsize=(width, height + 0.55), dpi=thumb / 0.86, facecolor="white")
    axes = figure.add_axes((0, 0, 1, height / (height + 0.55)))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    figure.text(0.012, 1 - 0.3 / (height + 0.55), title, va="center", fontsize=11, color=INK, weight="bold")
    return figure, axes


def sheet_jpg(rows: Sequence[SheetRow], *, title: str, thumb: int = 96) -> bytes:
    """A ranked-result sheet: each query, then its results left to right, framed green (right) or red (wrong).

    Right and wrong differ in the mark under the picture too, for readers who do not tell red from green.
    """
    cell, lead = 1.0, 0.35  # axes units: a thumbnail is 0.86 wide, the query stands a little apart
    longest = max([5, *(len(row.hits) for row in rows)])  # five leave room for the title
    width, height = (longest + 1) * cell + lead, len(rows) * 1.22 * cell
    figure, axes = blank_sheet(width, height, title, thumb)
    for number, row in enumerate(rows):
        top = number * 1.22 + 0.03
        thumbnail(axes, row.jpeg, 0.07, top, thumb, INK, 1.0)
        caption(axes, 0.5, top, f"query {row.label}", INK)
        for place, hit in enumerate(row.hits):
            left = (place + 1) * cell + lead + 0.03
            color = RIGHT if hit.right else WRONG
            thumbnail(axes, hit.jpeg, left, top, thumb, color, 3.0)
            caption(axes, left + 0.43, top, f"{'✓' if hit.right else '✗'} {hit.score:.2f}  {hit.label}", color)
    return saved(figure, "jpg")


def thumbnail(axes: Axes, jpeg: bytes, left: float, top: float, thumb: int, color: str, line: float) -> None:
    """A stored photo, 0.86 wide and high at most, framed. Args: thumb: pixels that 0.86 is drawn as."""
    picture = pixels.decode_fit(jpeg, 2 * thumb)
    tall, wide = (0.86 * side / max(picture.shape[:2]) for side in picture.shape[:2])
    x, y = left + (0.86 - wide) / 2, top + (0.86 - tall) / 2
    axes.imshow(picture, extent=(x, x + wide, y + tall, y), aspect="auto", interpolation="antialiased")
    axes.add_patch(Rectangle((left, top), 0.86, 0.86, fill=False, edgecolor=color, linewidth=line, joinstyle="round"))


def caption(axes: Axes, x: float, top: float, text: str, color: str) -> None:
    """A few words under a thumbnail that begins at `top`, cut where they are long."""
    short = text if len(text) <= 19 else f"{text[:18]}…"
    axes.text(x, top + 0.99, short, ha="center", va="center", fontsize=5.8, color=color)


def matches_jpg(pairs: Sequence[MatchedPhotos], *, title: str) -> bytes:
    """Pairs of photos, one a line, with a line between the points of each that match."""
    figure = Figure(figsize=(9.6, 3.5 * len(pairs) + 0.5), dpi=110, facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, weight="bold", x=0.01, ha="left")
    for axes, pair in zip(figure.subplots(len(pairs), 1, squeeze=False).ravel(), pairs, strict=True):
        left, right = (pixels.decode_whole(jpeg) for jpeg in pair.jpegs)
        height, gap = max(left.shape[0], right.shape[0]), 12
        both = np.full((height, left.shape[1] + gap + right.shape[1], 3), 255, np.uint8)
        both[: left.shape[0], : left.shape[1]] = left
        both[: right.shape[0], left.shape[1] + gap :] = right
        axes.imshow(both)
        shift = np.array([left.shape[1] + gap, 0])
        for number, (a, b) in enumerate(zip(pair.points[0], pair.points[1] + shift, strict=True)):
            axes.plot(*zip(a, b), color=COLORS[1 + number % 4], linewidth=0.7, alpha=0.8, marker=".", markersize=3)
        axes.set_title(f"{pair.caption}: {len(pair.points[0])} points fit one geometry", fontsize=9, color=INK)
        axes.axis("off")
    return saved(figure, "jpg")


def evidence(
    collection: Folder, task: Task, found: Neighbours, inliers: np.ndarray, num: int, kept: Folder | None = None
) -> list[MatchedPhotos]:
    """The `num` queries' best results with most matches, each query once, with the points that match.

    Args: kept: as `rerank.count_inliers`, which counted.
    """
    best = inliers.max(axis=1)
    picked = []
    for query in np.argsort(-best, kind="stable")[:num]:
        column = int(inliers[query].argmax())
        row = int(found.rows[query][column])
        if best[query] < MIN_INLIERS:
            break
        places = (task.queries.place(int(query)), task.gallery.place(row))
        jpegs = Jpegs(collection).read(places)
        known = features_of(collection, np.array(places), kept)
        first, second = (known[place] for place in places)
        matches = verify_plane(first, second).matches
        picked.append(
            MatchedPhotos(
                jpegs=(jpegs[places[0]], jpegs[places[1]]),
                points=(first.keypoints[matches[:, 0], :2], second.keypoints[matches[:, 1], :2]),
                caption=f"{task.queries.id(query)} and {task.gallery.id(row)}",
            )
        )
    return picked
