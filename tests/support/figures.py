"""Figures of two systems as reports show them, and looking at the pictures that come of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from retrieval.reports import tables


def metrics(**data: Any) -> dict[str, Any]:
    """Two systems with attributes, as `tables.read_metrics` gives them. Args: data: other values for its `data`."""
    ks, systems = [10, 37], {}
    for name, base in (("before", 0.2), ("after", 0.4)):
        figures: dict[str, Any] = {key: base + 0.1 * i for i, key in enumerate(tables.RETRIEVAL_METRICS)}
        for k in ks:
            figures |= {f"attribute_accuracy@{k}": 0.8 + base / 10, f"attribute_distance@{k}": 0.4 - base / 5}
            figures |= {f"attribute_pairs@{k}": 7 * k, f"query_seconds@{k}": 0.25}
        figures |= {"index_recall@10": 1.0, "index_type": "Flat", "embed_images": 1234}
        systems[name] = figures | {"embed_seconds": 12.34, "embed_seconds_in_model": None}
    baselines = {"random_pair": 0.728, "majority_vector": 0.806, "same_identity_pair": None}
    known = {
        "protocol": "query/gallery",
        "subject": "person",
        "asks_itself": False,
        "num_queries": 7,
        "num_gallery": 37,
        "num_identities": 7,
        "num_without_positive": 0,
        "num_queries_without_attributes": 2,
        "ks_asked": [10, 1000],
        "ks": ks,
    }
    return {
        "data": known | data,
        "systems": systems,
        "floors": baselines | {"oracle@10": 0.952, "oracle@37": 0.878},
    }


def pixels(data: bytes) -> np.ndarray:
    """(H, W, 3) int of a picture's bytes."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def close_to(picture: np.ndarray, color: str, tolerance: int = 40) -> int:
    """Number of pixels of about this colour."""
    return int(mask_of(picture, color, tolerance).sum())


def mask_of(picture: np.ndarray, color: str, tolerance: int = 40) -> np.ndarray:
    """(H, W) bool: where a picture has about this colour."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(picture - wanted).max(axis=2) <= tolerance
