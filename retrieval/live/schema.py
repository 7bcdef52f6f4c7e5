"""The tables of the store of changes."""

from __future__ import annotations

VERSION = 1

SCHEMA = (
    "CREATE TABLE counter (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL) STRICT",
    "INSERT INTO counter VALUES (1, 0)",
    # A photo that was added: a row for each image that it became. seq: of the change that added it.
    """CREATE TABLE images (
        image_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, added INTEGER NOT NULL, label TEXT, split TEXT NOT NULL,
        attributes TEXT, content_hash TEXT NOT NULL, photo TEXT NOT NULL, face INTEGER, box TEXT, points TEXT,
        quality TEXT, width INTEGER NOT NULL, height INTEGER NOT NULL, prepared TEXT NOT NULL, jpeg BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX images_seq ON images (seq)",
    "CREATE INDEX images_photo ON images (photo)",
    # All but the pixels.
    """CREATE VIEW image_rows AS SELECT image_id, seq, added, label, split, attributes, content_hash, photo, face, box,
        points, quality, width, height, prepared FROM images""",
    """CREATE TABLE embeddings (
        image_id TEXT NOT NULL REFERENCES images (image_id) ON DELETE CASCADE, model TEXT NOT NULL,
        vector BLOB NOT NULL, PRIMARY KEY (image_id, model)
    ) STRICT""",
    "CREATE TABLE originals (photo TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT",
    # What was deleted stays deleted, also from what is made of the same photos again.
    """CREATE TABLE deletions (
        image_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL, receipt_id TEXT
    ) STRICT""",
    "CREATE INDEX deletions_seq ON deletions (seq)",
    """CREATE TABLE receipts (
        receipt_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE people_edits (
        seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL
    ) STRICT""",
    # Which sealed collections hold changes, and up to which.
    "CREATE TABLE folds (collection TEXT PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL) STRICT",
)

TABLES = ("counter", "images", "embeddings", "originals", "deletions", "receipts", "people_edits", "folds")
"""In an order in which each may be filled."""

FOLLOWED = (
    # Of the tables of a host that follows a log: up to which object they hold it; -1: not even its base.
    "CREATE TABLE followed (one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL) STRICT",
    "INSERT INTO followed VALUES (1, -1)",
)

CHANGED_ROWS = """
    SELECT i.*, e.vector, EXISTS (SELECT 1 FROM originals o WHERE o.photo = i.photo)
    FROM image_rows i LEFT JOIN embeddings e ON e.image_id = i.image_id AND e.model = ?
    WHERE i.seq > ? ORDER BY i.seq, i.image_id"""
