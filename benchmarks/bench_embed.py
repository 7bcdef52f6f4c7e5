"""Images a second of the Embedder, beside an eager float32 NCHW loop over the same JPEGs with as many threads.

    python benchmarks/bench_embed.py
    python benchmarks/bench_embed.py --weights mobilenet_v2.pth      # ImageNet's; random weights otherwise

Both in one process, in alternate rounds; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.data.demo.faces import IMAGE_FOLDER, draw_collection
from retrieval.evaluation.metrics import leave_one_out
from retrieval.images.pixels import decode, decode_stored, encode_jpeg, resize
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.network import EmbeddingNet
from retrieval.models.settings import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to embed, and with which network."""

    weights: str = "none"
    """Weights file. none: random ones, whose recall means little and which may run in bf16 where ImageNet's do not."""
    backbone: str = "mobilenet_v2"
    """The whole trunk of this network, average pooling, no head."""
    size: int = 218
    """Side of the images, pixels."""
    num_identities: int = 12
    """People drawn."""
    images_per_identity: int = 8
    """Photos of each."""
    batch_size: int = 32
    """Images in one forward pass, of both."""
    rounds: int = 3
    """How often each is timed."""
    device: str = "auto"
    """auto: the GPU if there is one."""


def main(cfg: Config) -> float:
    """Run, print the table, return the ratio."""
    jpegs, labels = draw(cfg)
    net = bundle.build(ModelConfig(backbone=cfg.backbone, head="none", image_size=cfg.size), weights=cfg.weights)
    threads = torch.get_num_threads()
    embedder = Embedder(net, device=cfg.device, batch_size=cfg.batch_size, num_threads=threads)
    net = net.to(embedder.device)
    ours, theirs = embedder.embed_jpegs, lambda photos: eager(net, photos, cfg)
    for work in (ours, theirs):
        work(jpegs[: cfg.batch_size])  # warm
    rounds = [(timed(ours, jpegs), timed(theirs, jpegs)) for _ in range(cfg.rounds)]
    seconds = [(fast, slow) for (fast, _), (slow, _) in rounds]
    vectors, expected = (found for _, found in rounds[-1])
    ratios = [slow / fast for fast, slow in seconds]
    cosine = (vectors * expected).sum(axis=1)
    recalls = [leave_one_out(found, labels, ks=(10,)).values["recall@10"] for found in (vectors, expected)]
    what = "random weights" if cfg.weights == "none" else Path(cfg.weights).name
    print(f"{len(jpegs)} drawn faces of {cfg.size} px, {cfg.backbone}, {what}, {embedder.device}, {threads} threads")
    print(f"{'':44}{'images/s':>10}{'recall@10':>11}")
    for name, column, recall in (
        (f"Embedder, {embedder.format}", 0, recalls[0]),
        ("eager float32 NCHW loop", 1, recalls[1]),
    ):
        rate = len(jpegs) / statistics.median(pair[column] for pair in seconds)
        print(f"{name:44}{rate:>10.1f}{recall:>11.4f}")
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"embedder / loop (aim >= 3)  {statistics.median(ratios):.2f}   (each round: {shown})")
    print(f"cosine (aim >= 0.999)       least {cosine.min():.5f}, mean {cosine.mean():.5f}")
    return statistics.median(ratios)


@torch.no_grad()
def eager(net: EmbeddingNet, jpegs: list[bytes], cfg: Config) -> np.ndarray:
    """The plain loop: decode, normalise, forward, one after another."""
    device, out = next(net.parameters()).device, []
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (net.spec.mean, net.spec.std))
    for start in range(0, len(jpegs), cfg.batch_size):
        pixels = [torch.from_numpy(decode_stored(jpeg, cfg.size)) for jpeg in jpegs[start : start + cfg.batch_size]]
        batch = torch.stack([(image.permute(2, 0, 1).float() / 255 - mean) / std for image in pixels])
        out.append(net(batch.contiguous().to(device)).cpu().numpy())
    return np.concatenate(out)


def timed(work: Callable[[list[bytes]], np.ndarray], jpegs: list[bytes]) -> tuple[float, np.ndarray]:
    """Seconds, and what came out."""
    started = time.perf_counter()
    found = work(jpegs)
    return time.perf_counter() - started, found


def draw(cfg: Config) -> tuple[list[bytes], np.ndarray]:
    """JPEGs as a collection stores them, and who is on each."""
    with tempfile.TemporaryDirectory() as temp:
        draw_collection(Path(temp), num_identities=cfg.num_identities, images_per_identity=cfg.images_per_identity)
        lines = (Path(temp) / "identity_CelebA.txt").read_text().split()
        names, labels = lines[::2], np.array(lines[1::2])
        photos = [decode((Path(temp) / IMAGE_FOLDER / name).read_bytes())[0] for name in names]
    return [encode_jpeg(resize(photo, cfg.size, cfg.size)) for photo in photos], labels


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
