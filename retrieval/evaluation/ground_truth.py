"""Ground truth of the landmark benchmarks, read from files of others without trusting them.

The one place where a pickle is read, by an unpickler that knows plain containers, numbers, strings and numeric arrays,
and nothing that runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.data.plain_pickle import load_plain

QUERY = "query/"
"""Begins the name of a query in a collection."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundTruth:
    """Which gallery images answer which query.

    boxes: (Q, 4) float64: x1, y1, x2, y2 in pixels of the upright query photo, zero-based.
    easy, hard, junk: Q arrays each, (n,) int64 rows of `gallery`, ascending; one row is in one of the three at most.
    classic: one protocol (easy holds good and ok, hard nothing) instead of easy, medium and hard.
    """

    name: str
    gallery: tuple[str, ...]
    queries: tuple[str, ...]
    boxes: np.ndarray
    easy: tuple[np.ndarray, ...]
    hard: tuple[np.ndarray, ...]
    junk: tuple[np.ndarray, ...]
    classic: bool = False

    def __post_init__(self) -> None:
        num = len(self.queries)
        if not num or not (len(self.easy) == len(self.hard) == len(self.junk) == num and self.boxes.shape == (num, 4)):
            raise ValueError(
                f"{self.name}: {num} queries, boxes of shape {self.boxes.shape} and {len(self.easy)} easy, "
                f"{len(self.hard)} hard and {len(self.junk)} junk lists; expected one of each a query, and a query."
            )
        if len(set(self.gallery)) != len(self.gallery):
            raise ValueError(f"{self.name}: the gallery names an image twice, so that its rows mean nothing sure.")
        for query, lists in enumerate(zip(self.easy, self.hard, self.junk, strict=True)):
            rows = np.concatenate(lists)
            if len(np.unique(rows)) != len(rows):
                raise ValueError(
                    f"{self.name}: an image is twice in the lists of query {self.queries[query]}; expected easy, hard "
                    f"and junk to have none in common. Get the file again from its publishers."
                )
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(self.gallery):
                raise ValueError(
                    f"{self.name}: the lists of query {self.queries[query]} name rows {rows.min()} to {rows.max()}, "
                    f"and the gallery has {len(self.gallery)} images."
                )

    def query_ids(self) -> list[str]:
        """Names of the query photos in a collection: `query/NAME`, and `query/NAME#2` where a photo asks twice.

        Unlike the photo's own name, which may be in the gallery as well.
        """
        seen: Counter[str] = Counter()
        names = []
        for name in self.queries:
            seen[name] += 1
            names.append(f"{QUERY}{name}" + (f"#{seen[name]}" if seen[name] > 1 else ""))
        return names


def read_pickle(data: bytes, name: str) -> GroundTruth:
    """A gnd_*.pkl: {imlist, qimlist, gnd: [{bbx, easy, hard, junk} or {bbx, ok, junk}]}.

    Raises: ValueError if it holds anything but plain values, or they do not make a ground truth.
    """
    value = load_plain(data)
    try:
        entries = value["gnd"]
        classic = all("ok" in entry for entry in entries)
        return GroundTruth(
            name=name,
            gallery=tuple(str(image) for image in value["imlist"]),
            queries=tuple(str(image) for image in value["qimlist"]),
            boxes=np.array([entry["bbx"] for entry in entries], dtype=np.float64).reshape(-1, 4),
            easy=tuple(_rows(entry["ok" if classic else "easy"]) for entry in entries),
            hard=tuple(_rows(() if classic else entry["hard"]) for entry in entries),
            junk=tuple(_rows(entry["junk"]) for entry in entries),
            classic=classic,
        )
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{name}: this is no ground truth ({type(error).__name__}: {error}). Expected a dict of imlist, qimlist "
            f"and gnd, a list of dicts with bbx, easy, hard and junk."
        ) from error


def read_classic(texts: Mapping[str, str], photos: Iterable[str], name: str) -> GroundTruth:
    """The text files of Oxford5k and Paris6k: LANDMARK_N_query.txt (image, x1 y1 x2 y2), _good, _ok and _junk.txt.

    A query stays in the gallery, and counts there as the lists say.

    Args:
        texts: file name -> content.
        photos: names of the gallery's photos without ending. Images that only the lists name are added, so that they
            are found missing rather than forgotten.

    Raises: ValueError if there is no query, a file is missing (it is named), or a query cannot be read.
    """
    asked = sorted(file.removesuffix("_query.txt") for file in texts if file.endswith("_query.txt"))
    wanted = [f"{query}_{kind}.txt" for query in asked for kind in ("good", "ok", "junk")]
    absent = [file for file in wanted if file not in texts]
    if not asked or absent:
        told = f"{len(absent)} files are missing ({', '.join(absent[:5])})" if asked else "there is no *_query.txt"
        raise ValueError(f"{name}: {told}. Expected _query, _good, _ok and _junk.txt of each query beside the photos.")
    parsed = [_query_line(texts[f"{query}_query.txt"], f"{query}_query.txt") for query in asked]
    lists = {file: [_without_prefix(line) for line in texts[file].split()] for file in wanted}
    gallery = sorted({*photos, *(image for images in lists.values() for image in images)})
    row_of = {image: row for row, image in enumerate(gallery)}

    def rows(query: str, *kinds: str) -> np.ndarray:
        return _rows(sorted({row_of[image] for kind in kinds for image in lists[f"{query}_{kind}.txt"]}))

    return GroundTruth(
        name=name,
        gallery=tuple(gallery),
        queries=tuple(image for image, _ in parsed),
        boxes=np.array([box for _, box in parsed], dtype=np.float64),
        easy=tuple(rows(query, "good", "ok") for query in asked),
        hard=tuple(_rows(()) for _ in asked),
        junk=tuple(rows(query, "junk") for query in asked),
        classic=True,
    )


def _rows(values: Any) -> np.ndarray:
    rows = np.asarray(values)
    if len(rows) and rows.dtype.kind not in "iu":
        raise ValueError(f"A ground-truth list holds {rows.dtype}, expected row numbers.")
    return np.sort(rows.astype(np.int64).reshape(-1))


def _query_line(text: str, file: str) -> tuple[str, list[float]]:
    try:
        image, *edges = text.split()
        x1, y1, x2, y2 = (float(edge) for edge in edges)
    except ValueError as error:
        raise ValueError(f"{file} holds {text[:80]!r}, expected an image's name and x1 y1 x2 y2.") from error
    return _without_prefix(image), [x1, y1, x2, y2]


def _without_prefix(image: str) -> str:
    return image.removeprefix("oxc1_")  # Oxford's query files have it, its photos do not
