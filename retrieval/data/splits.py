"""Which photographs train, validate, ask and answer. Split by identity, seeded, so that nobody is on two sides.

20 % of the identities are test: one photograph of each is a query, its others are the gallery.
10 % of the rest are val, for choosing among models; the remainder is train.

With `keep_singles` the photographs that can be nobody's match, alone under their label or without one, are kept as
distractors: in the same shares, some in the gallery to be confused with, the others in train to be told apart from.
"""

from __future__ import annotations

import pyarrow as pa

from retrieval.artifacts.node.scratch import Scratch
from retrieval.data.settings import SplitConfig

DUPLICATE = "duplicate"

SINGLE = "single-image identity"

UNLABELLED = "unlabelled"


STORED = pa.schema(
    [
        ("image_id", pa.string()),  # unique
        ("label", pa.string()),  # identity, or null
        ("hash", pa.string()),  # of its content
        ("given", pa.string()),  # the source's own split, or null
    ]
)
"""What `assign_splits` must know of a photograph."""

ASSIGNED = "assigned"
"""The table that it makes: STORED with `split` (train, val, query, gallery or dropped), `reason` (why it is dropped,
else null) and `duplicate_of` (image_id of the same photo, which is kept instead; else null)."""


def assign_splits(tables: Scratch, config: SplitConfig, stored: str) -> None:
    """Divide a collection's stored photographs. The result does not depend on their order.

    If no photo has a label, all are gallery: there is nothing to train or test. If some have one, those without can be
    neither a match nor a sure non-match and are dropped. (Unless `keep_singles`: see there.) Of photos of equal hash
    only the first by image_id is used. With `honour_source`, photos that the source calls query or gallery are not
    divided, and a query may be the same photo as one of the gallery.

    Args: stored: name of a table that has STORED, and any other columns. They come to be in ASSIGNED too.

    Raises: ValueError if an image_id comes twice.
    """
    if twice := tables.rows(f"SELECT image_id FROM {stored} GROUP BY image_id HAVING count(*) > 1 LIMIT 1"):
        raise ValueError(f"Expected unique image_ids, and '{twice[0][0]}' comes twice.")
    fixed = "given IN ('query', 'gallery')" if config.honour_source else "false"
    tables.run(
        f"""
        CREATE TABLE _first AS
            SELECT hash, min(image_id) AS first FROM {stored} WHERE ({fixed}) IS NOT true
            GROUP BY hash HAVING count(*) > 1
        """
    )
    tables.run(
        f"""
        CREATE TABLE _divided AS
            SELECT {stored}.*, CASE WHEN {fixed} THEN given END AS fixed,
                CASE WHEN fixed IS NULL AND first <> image_id THEN first END AS duplicate_of,
                CASE WHEN fixed IS NULL AND duplicate_of IS NULL THEN label END AS person
            FROM {stored} LEFT JOIN _first USING (hash)
        """
    )
    num_test, num_val = _draw_sides(tables, config)
    unlabelled = not tables.rows(f"SELECT 1 FROM {stored} WHERE label IS NOT NULL LIMIT 1")
    if not config.keep_singles:
        alone = "'gallery'" if unlabelled else "'dropped'"
    elif unlabelled or config.test_fraction >= 1:
        alone = "'gallery'" if config.test_fraction >= 1 else "'train'"
    else:
        trains = f"{_part(config.seed, 'distractor', 'image_id')} >= {config.test_fraction!r}::DOUBLE"
        alone = f"CASE WHEN {trains} THEN 'train' ELSE 'gallery' END"
    tables.run(
        f"""
        CREATE TABLE {ASSIGNED} AS
            SELECT d.* EXCLUDE (fixed, duplicate_of, person), duplicate_of,
                CASE
                    WHEN fixed IS NOT NULL THEN fixed
                    WHEN duplicate_of IS NOT NULL THEN 'dropped'
                    WHEN place < {num_test} THEN CASE WHEN image_id = asks THEN 'query' ELSE 'gallery' END
                    WHEN place < {num_test + num_val} THEN 'val'
                    WHEN place IS NOT NULL THEN 'train'
                    ELSE {alone}
                END AS split,
                CASE
                    WHEN split <> 'dropped' THEN NULL
                    WHEN duplicate_of IS NOT NULL THEN '{DUPLICATE}'
                    WHEN label IS NULL THEN '{UNLABELLED}'
                    ELSE '{SINGLE}'
                END AS reason
            FROM _divided d LEFT JOIN _sides USING (person)
        """
    )
    for table in ("_first", "_divided", "_sides"):
        tables.run(f"DROP TABLE {table}")


def _draw_sides(tables: Scratch, config: SplitConfig) -> tuple[int, int]:
    """Makes a table of those who have two photos or more: person, place, asks. They are drawn by hash, so that one more
    hardly moves the others; asks: the photo that would be their query.

    Returns: how many, by place, are test, and how many after them val.
    """
    tables.run(
        f"""
        CREATE TABLE _sides AS
            SELECT person, asks, row_number() OVER (ORDER BY {_draw(config.seed, "identity", "person")}) - 1 AS place
            FROM (
                SELECT person, arg_min(image_id, {_draw(config.seed, "query", "person", "image_id")}) AS asks
                FROM _divided WHERE person IS NOT NULL GROUP BY person HAVING count(*) > 1
            )
        """
    )
    (num,) = tables.one("SELECT count(*) FROM _sides")
    num_test = _share(num, config.test_fraction)
    return num_test, _share(num - num_test, config.val_fraction)


def _share(count: int, fraction: float) -> int:
    """Rounded, but at least one where a part was asked for and there are two to divide."""
    return max(round(count * fraction), 1 if fraction > 0 and count >= 2 else 0)


def _draw(seed: int, kind: str, *columns: str) -> str:
    """SQL of a pseudo-random key that is the same on every machine: sha256 of all that it is drawn for, with a zero
    byte between each two."""
    return f"sha256(concat_ws(chr(0), '{seed}', '{kind}', {', '.join(columns)}))"


def _part(seed: int, kind: str, *columns: str) -> str:
    """SQL of a pseudo-random number in [0, 1): the first seven bytes of `_draw`."""
    return f"CAST(CAST('0x' || {_draw(seed, kind, *columns)}[:14] AS UBIGINT) AS DOUBLE) / {256**7}"
