"""The split of lists of photos, by the library and by a plain loop over them, which says the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from retrieval.artifacts.node.scratch import Scratch
from retrieval.data.settings import SplitConfig
from retrieval.data.splits import ASSIGNED, DUPLICATE, SINGLE, STORED, UNLABELLED
from retrieval.data.splits import assign_splits as assign_in_tables


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """Where one photograph goes: train, val, query, gallery or dropped (then `reason` says why)."""

    split: str
    reason: str | None = None
    duplicate_of: str | None = None


def assign_splits(
    image_ids: Sequence[str],
    labels: Sequence[str | None],
    hashes: Sequence[str],
    config: SplitConfig,
    given: Sequence[str | None] | None = None,
) -> list[Assignment]:
    """What the library says of each, in their order."""
    given = [None] * len(image_ids) if given is None else given
    schema = STORED.append(pa.field("seq", pa.int64()))
    batch = pa.record_batch([image_ids, labels, hashes, given, range(len(image_ids))], schema=schema)
    with Scratch() as tables:
        tables.add("stored", schema, [batch])
        assign_in_tables(tables, config, "stored")
        rows = tables.rows(f"SELECT split, reason, duplicate_of FROM {ASSIGNED} ORDER BY seq")
    return [Assignment(split=split, reason=reason, duplicate_of=of) for split, reason, of in rows]


def assign_plainly(
    image_ids: Sequence[str],
    labels: Sequence[str | None],
    hashes: Sequence[str],
    config: SplitConfig,
    given: Sequence[str | None] | None = None,
) -> list[Assignment]:
    """The same by lists and dicts of all photos."""
    ours = {"query", "gallery"} if config.honour_source and given is not None else set[str]()
    fixed = {row: str(split) for row, split in enumerate(given or ()) if split in ours}
    first: dict[str, int] = {}
    people: dict[str, list[int]] = {}
    for row in sorted(set(range(len(image_ids))) - set(fixed), key=image_ids.__getitem__):
        label = labels[row]
        if first.setdefault(hashes[row], row) == row and label is not None:
            people.setdefault(label, []).append(row)
    split_of = _divided(image_ids, people, config)
    unlabelled = all(label is None for label in labels)

    def assign(row: int) -> Assignment:
        if row in fixed:
            return Assignment(split=fixed[row])
        if first[hashes[row]] != row:
            return Assignment(split="dropped", reason=DUPLICATE, duplicate_of=image_ids[first[hashes[row]]])
        if row in split_of:
            return Assignment(split=split_of[row])
        if config.keep_singles:
            drawn = 1.0 if unlabelled else _part(config.seed, "distractor", image_ids[row])
            trains = config.test_fraction < 1 and drawn >= config.test_fraction
            return Assignment(split="train" if trains else "gallery")
        if unlabelled:
            return Assignment(split="gallery")
        return Assignment(split="dropped", reason=UNLABELLED if labels[row] is None else SINGLE)

    return [assign(row) for row in range(len(image_ids))]


def _divided(image_ids: Sequence[str], people: Mapping[str, list[int]], config: SplitConfig) -> dict[int, str]:
    """Row -> split, for all photos of those who have two or more."""
    sides = _sides([label for label, rows in people.items() if len(rows) >= 2], config)
    split_of = {row: "gallery" if side == "test" else side for label, side in sides.items() for row in people[label]}
    asked = [label for label, side in sides.items() if side == "test"]
    return split_of | {_query(label, people[label], image_ids, config.seed): "query" for label in asked}


def _sides(labels: list[str], config: SplitConfig) -> dict[str, str]:
    """Label -> train, val or test. Labels are drawn by hash, so one more person hardly moves the others."""
    drawn = sorted(labels, key=lambda label: _draw(config.seed, "identity", label))
    num_test = _share(len(drawn), config.test_fraction)
    num_val = _share(len(drawn) - num_test, config.val_fraction)
    sides = ["test"] * num_test + ["val"] * num_val + ["train"] * (len(drawn) - num_test - num_val)
    return dict(zip(drawn, sides, strict=True))


def _share(count: int, fraction: float) -> int:
    """Rounded, but at least one where a part was asked for and there are two to divide."""
    return max(round(count * fraction), 1 if fraction > 0 and count >= 2 else 0)


def _query(label: str, rows: list[int], image_ids: Sequence[str], seed: int) -> int:
    return min(rows, key=lambda row: _draw(seed, "query", label, image_ids[row]))


def _draw(*parts: object) -> bytes:
    """A pseudo-random key that is the same on every machine and Python, unlike `hash` and `random.sample`."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()


def _part(*parts: object) -> float:
    """A pseudo-random number in [0, 1), as `_draw`."""
    return int.from_bytes(_draw(*parts)[:7]) / 256**7
