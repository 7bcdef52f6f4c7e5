"""The gallery as it is now: what was sealed, without what was deleted since, and with what was added.

    view = GalleryView(pair, store, embed)
    live = view.refresh()                       # what other processes changed, seen from now on
    hits = view.search(queries, k=10, allowed=Filter(label=("ada",)))

Deleted images are kept out inside the search, so that k stays k; those that were added are few, and each is compared.
"""

from __future__ import annotations

import dataclasses
import heapq
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from retrieval.artifacts.node.cache import NodeCache
from retrieval.artifacts.published import Pair
from retrieval.live.columns import Masks
from retrieval.live.entries import Entry, Hit
from retrieval.live.filters import Filter, allows
from retrieval.live.people import People
from retrieval.live.sealed import SealedGallery
from retrieval.live.state import Changes, Embed, State
from retrieval.live.store import Store
from retrieval.search.index import Searchable
from retrieval.search.vectors import Source

_FEW = 64  # as many deleted images are asked for in excess, which costs an index less than a selector


class GalleryView:
    """Safe to use from several threads; each call answers from one moment.

    `seq` is the number of the newest change it knows, 0 without any.
    """

    def __init__(
        self,
        pair: Pair,
        store: Store | None = None,
        embed: Embed | None = None,
        prepared: str = "",
        shards: Sequence[Searchable] | None = None,
        cache: NodeCache | None = None,
    ) -> None:
        """Args:
            store: of the changes; None: the gallery stays as it was sealed.
            embed: by this pair's model. Images that another model embedded are embedded again from their crops.
            prepared: how this model wants photos cut (`preparation_key`); images cut otherwise are left out.
            shards: what searches the sealed index; None: it is opened here. cache: see `node.rows.open_rows`.

        Raises: ValueError if the index is not the one of the pair.
        """
        self.pair, self.sealed = pair, SealedGallery(pair, shards=shards, cache=cache)
        self.store, self.searcher = store, self.sealed.searcher
        self._changes = None
        self._lock = threading.Lock()
        if store is not None:
            self._changes = Changes(self.sealed.columns, store, pair, self.sealed.dim, embed, prepared)
        self._still = State.without_changes(self.sealed.columns, self.sealed.dim)
        self._masks = Masks(self.sealed.columns)
        self.refresh()

    @property
    def _state(self) -> State:
        return self._still if self._changes is None else self._changes.state

    @property
    def left_out(self) -> int:
        """Images that are not searched: this model has not embedded them, and cannot from their crops."""
        return 0 if self._changes is None else self._changes.left_out

    @property
    def num_added(self) -> int:
        """Images that were added, as far as it knows without looking."""
        return len(self._state.entries)

    @property
    def seq(self) -> int:
        return self._state.seq

    @property
    def people(self) -> People:
        """Who is who now."""
        return self._state.people

    @property
    def vectors(self) -> Source:
        """Where the sealed embeddings are read: index, embeddings or none."""
        return self.sealed.vectors

    @property
    def factory(self) -> str:
        return self.sealed.factory

    @property
    def dim(self) -> int:
        return self.sealed.dim

    def __len__(self) -> int:
        self.refresh()
        state = self._state
        return len(self.sealed) - len(state.hidden) + len(state.entries)

    @property
    def num_identities(self) -> int:
        """Different labels."""
        return self.sealed.columns.label.num_with({one.label for one in self._state.entries} - {None})

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """That filters may ask for."""
        return self.sealed.columns.attribute_names if self.sealed.columns.attributes is not None else ()

    def why_no_vectors(self) -> str:
        return self.sealed.why_no_vectors()

    def close(self) -> None:
        """Nobody asks it any more: lets go of the store, the maps and the memory."""
        if self.store is not None:
            self.store.close()
        self.sealed.close()
        del self.sealed, self.searcher, self._masks, self._changes, self._still

    def refresh(self) -> int:
        """Take in what was committed until now. Returns the number of the newest change.

        Raises: sqlite3.Error if the store cannot be read.
        """
        if self._changes is None:
            return 0
        with self._lock:
            if self._changes.take_in():
                self.sealed.forget()
            return self._changes.state.seq

    def search(self, queries: np.ndarray, k: int, allowed: Filter | None = None) -> list[list[Hit]]:
        """The k best of each query, best first, equal scores by image_id; all there are where there are no more.

        Args: queries: (Q, D) float32.
        """
        self.refresh()
        state = self._state
        allowed = None if allowed is None or allowed.is_empty else allowed
        sealed, live = self._among_sealed(state, queries, k, allowed), state.nearest(queries, k, allowed)
        return [
            heapq.nsmallest(k, [*one, *other], key=lambda hit: (-hit.score, hit.image_id)) if other else one[:k]
            for one, other in zip(sealed, live, strict=True)
        ]

    def num_allowed(self, wanted: Filter | None = None) -> int:
        """How many images a filter leaves."""
        self.refresh()
        state = self._state
        if wanted is None or wanted.is_empty:
            return len(self)
        return int(self._allowed(state, wanted).sum()) + sum(allows(wanted, one) for one in state.entries)

    def image_ids(self, wanted: Filter) -> list[str]:
        """All that a filter leaves, in no order."""
        self.refresh()
        state = self._state
        sealed = self.sealed.columns.ids.take(np.flatnonzero(self._allowed(state, wanted))).to_pylist()
        return sealed + [one.image_id for one in state.entries if allows(wanted, one)]

    def some_sealed_rows(self, num: int) -> np.ndarray:
        """(n,) int64: rows of the sealed index whose images are still there, `num` of them at most, evenly spread."""
        self.refresh()
        return self._state.some_there(len(self.sealed), num)

    def entry(self, image_id: str) -> Entry:
        """Raises: KeyError if there is no such image, or it was deleted."""
        self.refresh()
        return self._entry(self._state, image_id)

    def entries(self, after: str | None, limit: int, wanted: Filter | None = None) -> tuple[list[Entry], str | None]:
        """A page of the gallery by image_id: those after `after`, and where the next page begins (None: nowhere)."""
        self.refresh()
        state = self._state
        found: list[Entry] = []
        for image_id in heapq.merge(self._sealed_ids(state, after, wanted), self._live_ids(state, after, wanted)):
            if len(found) == limit:
                return found, found[-1].image_id
            found.append(self._entry(state, image_id))
        return found, None

    def images_of(self, photo: str) -> list[str]:
        """The images that a photo is in the gallery: itself, or each face of it."""
        self.refresh()
        state, columns = self._state, self.sealed.columns
        numbered = [columns.ids[row].as_py() for row in columns.rows_that_begin(f"{photo}#")]
        sealed = [name for name in (photo, *numbered) if self._row(state, name) is not None]
        of = [name for name in sealed if self._entry(state, name).photo == photo]
        return of + [one.image_id for one in state.entries if one.photo == photo]

    def jpeg(self, image_id: str) -> bytes:
        """The stored crop. Raises: KeyError if there is no such image; ValueError if the collection is damaged."""
        self.refresh()
        state = self._state
        if image_id in state.places:
            jpeg = None if self.store is None else self.store.jpeg(image_id)
            if jpeg is None:  # deleted since
                raise KeyError(image_id)
            return jpeg
        return self.sealed.jpeg_at(self._there(state, image_id))

    def jpeg_at(self, row: int) -> bytes:
        """The stored crop of a row of the sealed index.

        Raises: IndexError if there is no such row, or its image was deleted.
        """
        self.refresh()
        if row in self._state.hidden:
            raise IndexError(f"Row {row} was deleted.")
        return self.sealed.jpeg_at(row)

    def original(self, image_id: str) -> bytes | None:
        """The photo as it was sent; None where it was not kept. Raises: KeyError."""
        entry = self.entry(image_id)
        return self.store.original(entry.photo) if self.store is not None and entry.original else None

    def row_of(self, image_id: str) -> int:
        """The row of the sealed index. Raises: KeyError for a live image too, which has none."""
        self.refresh()
        return self._there(self._state, image_id)

    def read_one(self) -> bytes:
        """A stored crop, from where it is stored. Raises: OSError or ValueError if it cannot be read."""
        return self.sealed.read_one()

    def vector(self, image_id: str) -> np.ndarray:
        """(D,) float32. Raises: KeyError; ValueError where the index keeps codes only and the embeddings are gone."""
        return self.vectors_of([image_id])[0]

    def vectors_of(self, image_ids: Sequence[str]) -> np.ndarray:
        """(n, D) float32, as they were embedded. Raises: as `vector`."""
        self.refresh()
        state = self._state
        places = state.places
        out = np.empty((len(image_ids), self.dim), dtype=np.float32)
        rows = {}
        for place, image_id in enumerate(image_ids):
            if image_id in places:
                out[place] = state.vectors[places[image_id]]
            else:
                rows[place] = self._there(state, image_id)
        if rows:
            out[list(rows)] = self.sealed.vectors_of_rows(np.array(list(rows.values()), dtype=np.int64))
        return out

    # Below: one moment.

    def _among_sealed(self, state: State, queries: np.ndarray, k: int, allowed: Filter | None) -> list[list[Hit]]:
        hidden = len(state.hidden)
        if allowed is None and hidden <= _FEW:
            found = self.sealed.nearest(queries, k + hidden)
        else:
            found = self.sealed.nearest(queries, k, self._allowed(state, allowed or Filter()))
        keep = (found.rows >= 0) & ~np.isin(found.rows, state.hidden)
        return [
            self.sealed.hits(rows[kept][:k].tolist(), scores[kept][:k].tolist(), state.people.person)
            for rows, scores, kept in zip(found.rows, found.scores, keep, strict=True)
        ]

    def _allowed(self, state: State, wanted: Filter) -> np.ndarray:
        """(N,) bool: the sealed rows that pass, and are not deleted."""
        mask = self._masks.of(wanted, state.people.person)
        mask[state.hidden] = False
        return mask

    def _row(self, state: State, image_id: str) -> int | None:
        row = self.sealed.columns.row_of(image_id)
        return None if row is None or row in state.hidden else row

    def _there(self, state: State, image_id: str) -> int:
        row = self._row(state, image_id)
        if row is None:
            raise KeyError(image_id)
        return row

    def _entry(self, state: State, image_id: str) -> Entry:
        if image_id in state.places:
            return state.entries[state.places[image_id]]
        entry = self.sealed.entry(self._there(state, image_id), state.people.person)
        kept = entry.added is not None and self.store is not None and self.store.keeps_original(entry.photo)
        return dataclasses.replace(entry, original=True) if kept else entry

    def _sealed_ids(self, state: State, after: str | None, wanted: Filter | None) -> Iterator[str]:
        columns = self.sealed.columns
        start = 0 if after is None else columns.place_after(after)
        for row in np.flatnonzero(self._allowed(state, wanted or Filter())[start:]):
            yield columns.ids[start + int(row)].as_py()

    def _live_ids(self, state: State, after: str | None, wanted: Filter | None) -> Iterator[str]:
        for image_id, entry in zip(state.places, state.entries, strict=True):
            if (after is None or image_id > after) and (wanted is None or allows(wanted, entry)):
                yield image_id
