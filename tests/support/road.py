"""The road of places that nobody labelled, small enough for a test."""

from __future__ import annotations

from dataclasses import replace

from ray_jobs.presets import DEMO_LANDMARKS
from retrieval.data.demo.settings import SceneConfig
from retrieval.geometry.settings import ReconstructConfig

SCENES = SceneConfig(num_places=5, images_per_place=6, num_distractors=5, size=360, seed=5)
"""The photos of it."""

SMALL_LANDMARKS = replace(
    DEMO_LANDMARKS,
    layout="folder",  # the manifest that lies beside drawn photos would label them
    reconstruct=ReconstructConfig(num_words=512, num_candidates=8, max_features=1536, min_shared=10),
    siamese=replace(DEMO_LANDMARKS.siamese, epochs=1, num_negatives=2, image_size=128),
    model=replace(DEMO_LANDMARKS.model, image_size=128, embedding_dim=16),
    scales=(1.0,),
    rerank=0,
    num_workers=0,
)
