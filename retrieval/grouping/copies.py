"""Pictures that are there more than once, as they were found: read from the groups, or from the catalog alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import pyarrow.compute as pc

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.folder import Folder
from retrieval.grouping.settings import DUPLICATES

SAME_FILE, SAME_PICTURE = "same file", "same picture"


@dataclass(frozen=True, slots=True)
class Repeated:
    """image_ids: the first is the one that the others repeat. likeness: the least of them, 1 for the same file."""

    image_ids: tuple[str, ...]
    how: str
    likeness: float


def read_repeated(people: Folder | None, collection: Folder) -> list[Repeated]:
    """Every picture that is there more than once, by its first image_id.

    Args: people: the sealed groups; None or without duplicates.parquet: what the catalog says of the files' bytes.
    """
    if people is not None and people.exists(DUPLICATES):
        table = people.read_table(DUPLICATES, columns=["image_id", "duplicate_of", "how", "likeness"])
        rows = [tuple(row.values()) for row in table.to_pylist()]
    else:
        catalog = read_catalog(collection, columns=("image_id", "duplicate_of"))
        files = catalog.filter(pc.is_valid(catalog["duplicate_of"]))
        rows = [(row["image_id"], row["duplicate_of"], SAME_FILE, 1.0) for row in files.to_pylist()]
    return grouped(rows)


def grouped(rows: list[tuple[str, str, str, float]]) -> list[Repeated]:
    """Args: rows: (image_id, the one that it repeats, how, likeness). One that repeats a copy repeats its original."""
    of = {image_id: first for image_id, first, _, _ in rows}
    groups: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    for image_id, first, how, likeness in rows:
        seen = {image_id}
        while first in of and first not in seen:
            seen.add(first)
            first = of[first]
        groups[first].append((image_id, how, likeness))
    found = []
    for first, copies in sorted(groups.items()):
        how = SAME_FILE if all(one[1] == SAME_FILE for one in copies) else SAME_PICTURE
        found.append(Repeated((first, *sorted(one[0] for one in copies)), how, min(one[2] for one in copies)))
    return found
