"""Which images may answer: a filter, and what it means for one image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from retrieval.live.entries import Entry


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """All that is given must hold; of a list, any one. Hashable, so that a view can remember what it leaves.

    folder: starts of image_id, up to a '/'. attributes: (name, 1, -1 or 0) each. added_after: at this time or later.
    added_before: before it. What has no time of its own was not added.

    Raises: ValueError for a time without a zone, or a value of an attribute that there is none of.
    """

    label: tuple[str, ...] | None = None
    split: tuple[str, ...] | None = None
    person: tuple[int, ...] | None = None
    folder: tuple[str, ...] | None = None
    attributes: tuple[tuple[str, int], ...] | None = None
    added_after: datetime | None = None
    added_before: datetime | None = None
    image_id: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("added_after", "added_before"):
            time = getattr(self, name)
            if time is not None and time.tzinfo is None:
                raise ValueError(f"{name} is {time}, expected a time with its zone, for example 2026-03-01T00:00:00Z.")
        for name, value in self.attributes or ():
            if value not in (-1, 0, 1):
                raise ValueError(f"attribute {name} is {value}, expected 1, -1 or 0.")

    @property
    def is_empty(self) -> bool:
        """Whether it leaves everything."""
        return all(getattr(self, one.name) is None for one in fields(self))

    @property
    def folders(self) -> tuple[str, ...] | None:
        """Each as the start of the ids below it."""
        return None if self.folder is None else tuple(f"{name.rstrip('/')}/" if name else "" for name in self.folder)


def allows(wanted: Filter, entry: Entry) -> bool:
    """Whether one image passes. `columns.Columns.allowed` says the same of a million at once."""
    listed = ((wanted.label, entry.label), (wanted.split, entry.split), (wanted.person, entry.person))
    if any(some is not None and value not in some for some, value in listed):
        return False
    if wanted.image_id is not None and entry.image_id not in wanted.image_id:
        return False
    if wanted.folders is not None and not entry.image_id.startswith(wanted.folders):
        return False
    said = entry.attributes or {}
    if any(said.get(name, 0) != value for name, value in wanted.attributes or ()):
        return False
    if wanted.added_after is not None and (entry.added is None or entry.added < wanted.added_after):
        return False
    return wanted.added_before is None or (entry.added is not None and entry.added < wanted.added_before)
