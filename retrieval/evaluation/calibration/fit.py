"""Calibrate one system: its embeddings of labelled photos in, what its scores mean out."""

from __future__ import annotations

import numpy as np

from retrieval.artifacts.calibration import FARS, MANY, Calibration
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.evaluation import tasks
from retrieval.evaluation.calibration.curve import fit_curve, reliability
from retrieval.evaluation.calibration.pairs import Pairs, different_pairs, same_pairs
from retrieval.evaluation.calibration.rates import rate_at
from retrieval.evaluation.settings import System
from retrieval.evaluation.tasks import Task

LEAST_PEOPLE = 20
"""People with two photos or more that a curve is fitted to."""


def calibrate_system(system: System, task: Task, collection: Folder, subject: str = "person") -> Calibration:
    """What the scores of a system mean on the labelled photos of a task, whose people it was not trained on."""
    photos = tasks.labelled_photos(task)
    embeddings = tasks.read_embeddings(system.embeddings, photos) if len(photos) else np.zeros((0, 1), np.float32)
    model, collected = (read_manifest(folder).fingerprint for folder in (system.model, collection))
    return calibrate(embeddings, photos.codes, model=model, collection=collected, subject=subject)


def figures_of(calibration: Calibration) -> dict[str, float]:
    """For metrics.json, of every rate that is promised: `threshold@0.001` and `true_accept@0.001`."""
    figures = {}
    for rate in calibration.rates:
        if rate.threshold is not None and rate.true_accept is not None:
            figures |= {f"threshold@{rate.far:g}": rate.threshold, f"true_accept@{rate.far:g}": rate.true_accept}
    return figures


def calibrate(
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    model: str,
    collection: str = "",
    subject: str = "person",
    most_pairs: int = 4_000_000,
    seed: int = 0,
) -> Calibration:
    """What the scores of these photos' embeddings mean.

    Args:
        embeddings: (N, D) float32, unit norm.
        labels: (N,) int, who each shows; -1: not known, and left out. Nobody whom the model was trained on.
        model, collection: fingerprints. subject: what a label names, person or place.
        most_pairs: of different people, that are looked at. 4 million take about 250 MB and 5 s.

    Returns: promises at the rates that there are people enough for, and says why at the others.

    Raises: ValueError if an embedding holds what is no number.
    """
    if not np.isfinite(embeddings).all():
        raise ValueError("An embedding holds a value that is no number: the model is broken. Embed again with another.")
    known = np.flatnonzero(labels >= 0)
    names, people = np.unique(labels[known], return_inverse=True)
    kept = embeddings[known]
    same = same_pairs(kept, people, seed=seed)
    different = different_pairs(kept, people, most=most_pairs, seed=seed)
    counts = {"people": len(names), "people_with_pairs": same.people, "photos": len(known)}
    counts |= {"same_pairs": len(same), "different_pairs": len(different)}
    few = _too_few(same, MANY[subject])
    return Calibration(
        model=model,
        collection=collection,
        subject=subject,
        **counts,
        curve=None if few else fit_curve(same, different),
        rates=tuple(rate_at(far, same, different, subject) for far in FARS),
        reliability=() if few else reliability(same, different, len(names), seed=seed),
        why=few,
    )


def _too_few(same: Pairs, many: str) -> str:
    if same.people >= LEAST_PEOPLE:
        return ""
    return (
        f"{same.people} labelled {many} have two photos or more, and a probability rests on {LEAST_PEOPLE} at least: "
        f"give more labelled photos"
    )
