"""Faces a second of a frozen network's Embedder, beside the bare engine's forward and OpenCV's own class for it.

    python benchmarks/bench_frozen.py                        # onnx:sface, where it is found
    python benchmarks/bench_frozen.py --backbone onnx:FOLDER

On one thread, in processor time, which other work on the machine hardly changes; in alternate rounds. The Embedder
decodes the stored JPEG, normalises, runs and scales to unit length; the bare engine is given tensors.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bench_embed import Config as Drawn
from benchmarks.bench_embed import draw
from retrieval.artifacts.folder import Folder
from retrieval.images.pixels import decode_stored, limit_threads
from retrieval.models import bundle, known_weights
from retrieval.models.embedder import Embedder
from retrieval.models.engines import frozen
from retrieval.models.settings import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which network, on how many drawn faces."""

    backbone: str = "onnx:sface"
    """onnx:NAME, onnx:FILE or onnx:FOLDER."""
    num_photos: int = 32
    """Drawn faces, each once a round."""
    rounds: int = 5
    """How often each is timed."""


def main(cfg: Config) -> float:
    """Run, print the table, return the Embedder's share of the bare engine's rate."""
    limit_threads(1)
    net = frozen.from_file(ModelConfig(backbone=cfg.backbone))
    size = net.spec.config.image_size
    jpegs, _ = draw(Drawn(size=size, num_identities=-(-cfg.num_photos // 8), images_per_identity=8))
    jpegs = jpegs[: cfg.num_photos]
    with tempfile.TemporaryDirectory() as folder:
        bundle.save_start(net, Folder.of(folder))
        embedder = Embedder(folder, device="cpu", num_threads=1)  # as a job and the service open it
    pixels = [decode_stored(jpeg, size) for jpeg in jpegs]
    works = {"bare engine": bare(net, pixels), "Embedder": lambda: embedder.embed_jpegs(jpegs)}
    if net.network.name == "sface":
        works["OpenCV"] = opencv(pixels)
    found = {name: np.asarray(work()) for name, work in works.items()}  # and warm
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(cfg.rounds):
        for name, work in works.items():
            started = time.process_time()
            work()
            seconds[name].append(time.process_time() - started)
    print(f"{len(jpegs)} drawn faces of {size} px, {cfg.backbone}, one thread, processor time")
    for name, taken in seconds.items():
        each = unit(found[name])
        cosine = float((each * unit(found["bare engine"])).sum(axis=1).min())
        print(f"{name:14}{1e3 * statistics.median(taken) / len(jpegs):>8.1f} ms a face   least cosine {cosine:.7f}")
    shares = [bare / ours for bare, ours in zip(seconds["bare engine"], seconds["Embedder"], strict=True)]
    shown = ", ".join(f"{share:.2f}" for share in shares)
    print(f"Embedder's rate / the bare engine's (aim >= 0.9)  {statistics.median(shares):.2f}   (each round: {shown})")
    return statistics.median(shares)


def bare(net: frozen.FrozenNet, pixels: list[np.ndarray]) -> Callable[[], Any]:
    """Forward alone, one photo a run, as fast as the engine takes it."""
    session = net.file.open(1)
    given = net.file.graph.inputs[0]
    x = [np.ascontiguousarray(net.normalise(torch.from_numpy(one[None])).numpy(), given.dtype) for one in pixels]
    return lambda: np.concatenate([session.run([net.file.output], {given.name: one})[0].reshape(1, -1) for one in x])


def opencv(pixels: list[np.ndarray]) -> Callable[[], Any]:
    theirs = cv2.FaceRecognizerSF.create(str(known_weights.find("sface")), "")
    images = [np.ascontiguousarray(one[..., ::-1]) for one in pixels]
    return lambda: np.concatenate([theirs.feature(image) for image in images])


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
