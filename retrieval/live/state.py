"""The changes of a store as one view takes them in: from one moment to the next."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.artifacts.published import Pair
from retrieval.live.columns import Columns
from retrieval.live.entries import Entry, Hit
from retrieval.live.filters import Filter, allows
from retrieval.live.people import People, apply_edits
from retrieval.live.rows import LiveRow
from retrieval.live.store import Store
from retrieval.search.ranking import scan

logger = logging.getLogger(__name__)

Embed = Callable[[Sequence[bytes]], np.ndarray]
"""Crops -> (n, D) float32 embeddings, unit norm."""

_BATCH = 32


@dataclass(frozen=True, slots=True)
class State:
    """One moment, never changed.

    seq: number of its newest change. entries, vectors: (L,) and (L, D) of what was added, by image_id. places: where
    each stands. hidden: rows of the sealed index that were deleted or replaced, ascending. people: who is who.
    """

    seq: int
    entries: list[Entry]
    vectors: np.ndarray
    places: Mapping[str, int]
    hidden: np.ndarray
    people: People

    @classmethod
    def without_changes(cls, columns: Columns, dim: int, seq: int = 0) -> State:
        vectors, hidden = np.empty((0, dim), np.float32), np.empty(0, np.int64)
        return cls(seq, [], vectors, {}, hidden, People(columns.person, {}, {}))

    def some_there(self, num_sealed: int, num: int) -> np.ndarray:
        """(n,) int64: of so many sealed rows, those that are still there, `num` of them at most, evenly spread."""
        there = num_sealed - len(self.hidden)
        places = np.unique(np.linspace(0, there - 1, min(num, there)).round().astype(np.int64))
        # Of the rows that are there, place p is row p and one more for each hidden row with no more than p before it.
        return places + np.searchsorted(self.hidden - np.arange(len(self.hidden)), places, side="right")

    def nearest(self, queries: np.ndarray, k: int, allowed: Filter | None) -> list[list[Hit]]:
        """The k best of what was added, for each query; each is compared. Args: queries: (Q, D) float32."""
        entries, vectors = self.entries, self.vectors
        if allowed is not None:
            places = [place for place, one in enumerate(entries) if allows(allowed, one)]
            entries, vectors = [entries[place] for place in places], vectors[places]
        if not entries:
            return [[] for _ in queries]
        found = scan(np.asarray(queries, dtype=np.float32), vectors, k)
        return [
            [Hit.of(entries[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if row >= 0]
            for rows, scores in zip(found.rows, found.scores, strict=True)
        ]


class Changes:
    """Not safe to use from several threads; `state` may be read by any.

    left_out: images that are not searched, because this model has not embedded them and cannot from their crops.
    """

    def __init__(
        self, columns: Columns, store: Store, pair: Pair, dim: int, embed: Embed | None, prepared: str
    ) -> None:
        """Args: see `GalleryView`."""
        self._columns, self._store, self._dim = columns, store, dim
        self._model, self._embed, self._prepared = pair.model_fingerprint, embed, prepared
        self._rows: dict[str, LiveRow] = {}
        self._gone: set[str] = set()
        folded = store.folded(pair.collection_fingerprint)
        self._edits = [edit for edit in store.edits() if edit["seq"] <= folded]  # later ones come with other changes
        self._watch, self._seen = store.watch(), -1
        self.left_out = 0
        self._people = apply_edits(columns.person, self._edits, columns.row_of)  # also on images that are gone
        self.state = dataclasses.replace(State.without_changes(columns, dim, folded), people=self._people)

    def take_in(self) -> bool:
        """What was committed until now. Returns whether anything was deleted."""
        version = self._watch()
        if version == self._seen:
            return False
        new = self._store.changed(self.state.seq, self._model)
        for image_id, seq in new.deleted:
            if image_id in self._rows and self._rows[image_id].entry.seq < seq:
                del self._rows[image_id]
            self._gone.add(image_id)
        for row in self._embedded(new.rows):
            self._rows[row.entry.image_id] = row
            self._gone.discard(row.entry.image_id)
        self._edits += new.edits
        of = self._columns
        if new.edits:
            self._people = apply_edits(of.person, self._edits, of.row_of)
        if new.seq != self.state.seq:
            self.state = self._next(new.seq, self._people)
        self._seen = version
        return bool(new.deleted)

    def _next(self, seq: int, people: People) -> State:
        usable = {name: row for name, row in sorted(self._rows.items()) if row.vector is not None}
        before, self.left_out = self.left_out, len(self._rows) - len(usable)
        if self.left_out > before:
            what = "that this model has not embedded, and cannot from their crops, are left out of its answers"
            logger.warning("%d images that were added, %s", self.left_out, what)
        vectors = [row.vector for row in usable.values() if row.vector is not None]
        rows = sorted(row for row in map(self._columns.row_of, self._gone | set(self._rows)) if row is not None)
        hidden = np.array(rows, dtype=np.int64)
        people = people.of_those_there(hidden, usable)
        return State(
            seq=seq,
            entries=[_with_person(row.entry, people) for row in usable.values()],
            vectors=np.stack(vectors) if vectors else np.empty((0, self._dim), np.float32),
            places={name: place for place, name in enumerate(usable)},
            hidden=hidden,
            people=people,
        )

    def _embedded(self, rows: list[LiveRow]) -> list[LiveRow]:
        """With the vectors of this model, made now where there are none."""
        embed = self._embed
        can = [row for row in rows if row.vector is None and row.prepared == self._prepared]
        made: dict[str, np.ndarray] = {}
        for start in range(0, len(can) if embed is not None else 0, _BATCH):
            crops = {row.entry.image_id: self._store.jpeg(row.entry.image_id) for row in can[start : start + _BATCH]}
            there = {name: crop for name, crop in crops.items() if crop is not None}
            if there and embed is not None:
                made |= dict(zip(there, np.asarray(embed(list(there.values())), np.float32), strict=True))
        if made:
            logger.info("%d images that were added are embedded by this model from their crops", len(made))
            seqs = {row.entry.image_id: row.entry.seq for row in can}
            self._store.keep_embeddings(self._model, {(name, seqs[name]): one for name, one in made.items()})
        return [dataclasses.replace(row, vector=made.get(row.entry.image_id, row.vector)) for row in rows]


def _with_person(entry: Entry, people: People) -> Entry:
    number = people.live.get(entry.image_id)
    return entry if number is None else dataclasses.replace(entry, person=number)
