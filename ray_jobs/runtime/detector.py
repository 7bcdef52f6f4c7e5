"""Which detector looks for faces: said once, by a job's driver, and then recorded with what it made."""

from __future__ import annotations

import logging

from retrieval.images.settings import PrepareConfig
from retrieval.models.known_weights import find

logger = logging.getLogger(__name__)


def with_detector(prepare: PrepareConfig) -> tuple[PrepareConfig, bytes | None]:
    """The preparation with the detector that is really used, and that detector's file where it has one.

    `auto` is YuNet where its file is found, else Haar, and a line says so.

    Raises: ValueError where YuNet is asked for and not found, or another file lies in its place.
    """
    if not prepare.queries_look or prepare.detector == "haar":
        return prepare.resolved(has_network=False), None
    place = find("yunet")
    resolved = prepare.resolved(has_network=place is not None)
    if place is None:
        logger.warning(
            "YuNet's file was not found: faces are looked for by Haar cascades, which miss more of them and give no "
            "points. `python -m ray_jobs.weights` says how to get it."
        )
        return resolved, None
    return resolved, place.read_bytes()
