"""Images a second of the Embedder on whole photos in their own shapes, beside an eager float32 loop, one at a time.

    python benchmarks/bench_extract.py
    python benchmarks/bench_extract.py --photos FOLDER --weights mobilenet_v2.pth     # real photos, ImageNet's weights

Both describe the same JPEGs at the same scales with as many threads, in one process, in alternate rounds; the ratio is
the median of the rounds' ratios. The loop is what is usually published: decode, normalise, and for each scale resize,
trunk, GeM; photo after photo, in PyTorch's own memory layout. Beside them stands the limit: what this machine's own
float32 matrix product would take for the trunk's multiplications. Where that is less than three times the loop, only
bfloat16 can reach the aim, on hardware that multiplies it.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.images.pixels import decode, decode_fit, encode_jpeg, fit, fitted, resize, stored_size
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.engines.choice import EXPORT_PAYS
from retrieval.models.network import EmbeddingNet
from retrieval.models.pooling import gem, l2n
from retrieval.models.settings import Engine, ModelConfig, Precision

SHAPES = ((3, 4), (4, 3), (2, 3), (9, 16), (1, 1))
"""Height : width of the drawn photos, the first most often: cameras give few shapes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to embed, and with which network."""

    photos: str = ""
    """Folder of photos, searched through; empty: drawn ones."""
    weights: str = "none"
    """Weights file of the backbone. none: random ones, which auto may run in another precision."""
    backbone: str = "mobilenet_v2"
    """The whole trunk of this network, GeM, no head."""
    size: int = 256
    """Longer side of the photos, pixels."""
    scales: tuple[float, ...] = (1.0, 2**-0.5, 0.5)
    """Sizes at which each photo is described."""
    num_photos: int = 96
    """Photos embedded."""
    batch_size: int = 32
    """As the Embedder takes it: so many 224 x 224 pixels in one forward pass."""
    rounds: int = 3
    """How often each is timed."""
    device: str = "auto"
    """auto: the GPU if there is one."""
    precision: Precision = "auto"
    """Of the Embedder. fp32: as on a machine without bfloat16. auto: bf16 where the hardware has it, without harm."""
    engine: Engine = "auto"
    """What runs the network: auto is what a job over many photos takes here."""


def main(cfg: Config) -> float:
    """Run, print the table, return the ratio."""
    jpegs = read(cfg) if cfg.photos else draw(cfg)
    config = ModelConfig(
        backbone=cfg.backbone, pooling="gem", head="none", image_size=cfg.size, keep_aspect=True, scales=cfg.scales
    )
    net = bundle.build(config, weights=cfg.weights)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as temp:
        bundle.save_bundle(net, temp)
        settings = {"device": cfg.device, "precision": cfg.precision, "engine": cfg.engine, "num_threads": threads}
        embedder = Embedder(temp, batch_size=cfg.batch_size, num_photos=EXPORT_PAYS, **settings)  # type: ignore[arg-type]
    net = net.to(embedder.device)
    ours, theirs = embedder.embed_jpegs, lambda photos: eager(net, photos)
    for work in (ours, theirs):
        work(jpegs[:8])  # warm
    rounds = [(timed(ours, jpegs), timed(theirs, jpegs)) for _ in range(cfg.rounds)]
    seconds = [(fast, slow) for (fast, _), (slow, _) in rounds]
    vectors, expected = (found for _, found in rounds[-1])
    ratios = [slow / fast for fast, slow in seconds]
    cosine = (vectors * expected).sum(axis=1)
    shapes = Counter(stored_size(jpeg) for jpeg in jpegs)
    what = "random weights" if cfg.weights == "none" else Path(cfg.weights).name
    kind = "real" if cfg.photos else "drawn"
    print(f"{len(jpegs)} {kind} photos of {cfg.size} px in {len(shapes)} shapes, {len(cfg.scales)} scales, ", end="")
    print(f"{cfg.backbone}, {what}, {embedder.device}, {threads} threads")
    for name, column in (
        (f"Embedder, {embedder.engine}, {embedder.format}, by shape", 0),
        ("eager float32, one by one", 1),
    ):
        rate = len(jpegs) / statistics.median(pair[column] for pair in seconds)
        print(f"{name:52}{rate:>10.1f} images/s")
    needed, per_second = flops(net, shapes, cfg.size) / len(jpegs), matmul_flops(torch.device(embedder.device))
    words = f"float32 matmul, {per_second / 1e9:.0f} GFLOP/s, {needed / 1e9:.2f} GFLOP a photo"
    print(f"{words:52}{per_second / needed:>10.1f} images/s")
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"embedder / loop (aim >= 3)  {statistics.median(ratios):.2f}   (each round: {shown})")
    print(f"cosine (aim >= 0.999)       least {cosine.min():.5f}, mean {cosine.mean():.5f}")
    return statistics.median(ratios)


@torch.no_grad()
def eager(net: EmbeddingNet, jpegs: list[bytes]) -> np.ndarray:
    """The plain loop: photo after photo, scale after scale."""
    device, config, out = next(net.parameters()).device, net.spec.config, []
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (net.spec.mean, net.spec.std))
    power = net.power
    for jpeg in jpegs:
        pixels = torch.from_numpy(decode_fit(jpeg, config.image_size))
        x = ((pixels.permute(2, 0, 1).float() / 255 - mean) / std)[None].contiguous().to(device)
        total = torch.zeros(1, net.dim, device=device)
        for scale in config.scales:
            size = [int(side * scale) for side in x.shape[2:]]
            small = x if scale == 1 else torch.nn.functional.interpolate(x, size=size, mode="bilinear")
            total += l2n(gem(net.trunk(small), power)).pow(power)
        out.append(l2n((total / len(config.scales)).pow(1 / power)).cpu().numpy())
    return np.concatenate(out)


def flops(net: EmbeddingNet, shapes: Counter[tuple[int, int]], size: int) -> int:
    """Floating-point operations of the trunk for all photos, at all scales; counted on shapes alone."""
    trunk, total = copy.deepcopy(net.trunk).to("meta"), 0
    for shape, count in shapes.items():
        for scale in net.spec.config.scales:
            sides = [int(side * scale) for side in fitted(*shape, size)]
            with FlopCounterMode(display=False) as counter:
                trunk(torch.empty(1, 3, *sides, device="meta"))
            total += count * counter.get_total_flops()
    return total


def matmul_flops(device: torch.device, side: int = 2048, rounds: int = 5) -> float:
    """Floating-point operations a second of a float32 matrix product, the quickest of some."""
    matrix, seconds = torch.ones(side, side, device=device), []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # .item() waits for a GPU
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds[1:])


def timed(work: Callable[[list[bytes]], np.ndarray], jpegs: list[bytes]) -> tuple[float, np.ndarray]:
    """Seconds, and what came out."""
    started = time.perf_counter()
    found = work(jpegs)
    return time.perf_counter() - started, found


def read(cfg: Config) -> list[bytes]:
    """Photos of a folder as ingest would store them, spread over all its sub-folders."""
    files = [path for path in sorted(Path(cfg.photos).rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not files:
        raise ValueError(f"{cfg.photos} holds no .jpg, .jpeg or .png photo. Name a folder of photos with --photos.")
    picked = np.linspace(0, len(files) - 1, min(cfg.num_photos, len(files))).astype(int)
    return [encode_jpeg(fit(decode(files[at].read_bytes())[0], cfg.size)) for at in np.unique(picked)]


def draw(cfg: Config) -> list[bytes]:
    """Noise at several grains, in mixed shapes: as hard to decode as photos."""
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(cfg.num_photos):
        height, width = SHAPES[min(rng.geometric(0.5) - 1, len(SHAPES) - 1)]
        height, width = (cfg.size * side // max(height, width) for side in (height, width))
        total = np.zeros((height, width, 3))
        for grain in (64, 16, 4):
            coarse = rng.integers(0, 256, (height // grain + 1, width // grain + 1, 3), dtype=np.uint8)
            total += resize(coarse, width, height) / 3
        jpegs.append(encode_jpeg(total.astype(np.uint8)))
    return jpegs


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
