"""JPEG crops -> embeddings, as fast as the device goes. Shared by the embed job, evaluation and the query service."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.artifacts.embeddings import KIND, write_part
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.hashing import hash_file
from retrieval.artifacts.manifest import Books, Manifest, begin, read_manifest, seal
from retrieval.artifacts.progress import Progress, silent
from retrieval.images.batches import by_shape, images_at_once, prefetch
from retrieval.images.pixels import decode_fit, decode_stored, fitted, stored_size
from retrieval.models.bundle import load_network
from retrieval.models.engines.frozen import FrozenNet
from retrieval.models.network import EmbeddingNet, Network
from retrieval.models.number_format import inference_trunk
from retrieval.models.pooling import l2n
from retrieval.models.settings import Precision


def pick_device(device: str = "auto") -> torch.device:
    """ "auto" is the GPU if there is one, else the CPU. Raises: ValueError for a device that is not here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"Device '{device}' was asked for, but PyTorch finds no GPU here. Use --device auto or cpu.")
    return torch.device(device)


class Embedder:
    """A bundle ready for inference: BatchNorm folded into convolutions, channels_last, bfloat16 where it does no harm.

    `fingerprint` and `spec` are the bundle's, `dim` the embedding's length, `format` what the trunk runs in.
    """

    def __init__(
        self,
        model: str | Folder | Network,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 64,
        num_threads: int | None = None,
    ) -> None:
        """Args:
        model: folder of a bundle, or a network (left as it is).
        batch_size: images in one forward pass, at most.
        num_threads: PyTorch threads of this process; None leaves PyTorch's own choice.
        """
        if num_threads:
            torch.set_num_threads(num_threads)
        self.device = pick_device(device)
        self.batch_size = batch_size
        net = model if isinstance(model, Network) else load_network(model)
        self.fingerprint, self.spec, self.dim = net.fingerprint, net.spec, net.dim
        self._net: Network = copy.deepcopy(net).to(self.device).eval()
        if isinstance(self._net, FrozenNet):
            self.format = _open_frozen(self._net, precision, num_threads)
        elif isinstance(self._net, EmbeddingNet):
            self._net.trunk, self.format = inference_trunk(self._net, precision)
        # One thread decodes the next batch while the trunk runs on this one.
        self._decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")

    def embed_jpegs(self, jpegs: Sequence[bytes], progress: Progress = silent) -> np.ndarray:
        """Embeddings of stored crops.

        Args:    jpegs: N JPEG files as ingest stores them (any size; resized to the spec's if it differs, or with
                 keep_aspect where the long side is greater).
        Returns: (N, D) float32, unit norm.
        """
        out, done = np.empty((len(jpegs), self.dim), dtype=np.float32), 0
        for rows, pixels in prefetch(self._decoder, lambda rows: self._decode(jpegs, rows), self._batches(jpegs)):
            out[rows] = self.embed_pixels(pixels).float().cpu().numpy()
            done += len(rows)
            progress("photos", done, len(jpegs))
        return out

    @torch.inference_mode()
    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, D) float32 on the device, unit norm; with `flip`, of the image and its mirror."""
        x = self._net.normalise(pixels.to(self.device, non_blocking=True))
        if not self.spec.config.flip:
            return self._net(x)
        return l2n(self._net(x) + self._net(x.flip(3).contiguous(memory_format=torch.channels_last)))

    def _batches(self, jpegs: Sequence[bytes]) -> list[np.ndarray]:
        """Rows that go through the network together: in order, or, where the aspect is kept, of one shape.

        A batch of large photos is smaller, so that it has no more pixels than `batch_size` images of 224 x 224; on a
        CPU it is smaller still, see `images_at_once`.
        """
        size, rounded = self.spec.config.image_size, self.format.startswith("bfloat16")
        if not self.spec.config.keep_aspect:
            step = images_at_once(self.batch_size, size * size, self.device, rounded=rounded)
            return [np.arange(len(jpegs))[start : start + step] for start in range(0, len(jpegs), step)]
        shapes = np.array([fitted(*stored_size(jpeg), size) for jpeg in jpegs]).reshape(-1, 2)

        def at_once(pixels: int) -> int:
            return images_at_once(self.batch_size * 224 * 224 // pixels, pixels, self.device, rounded=rounded)

        return by_shape(shapes, at_once)

    def _decode(self, jpegs: Sequence[bytes], rows: np.ndarray) -> Tensor:
        config = self.spec.config
        decode = decode_fit if config.keep_aspect else decode_stored
        return torch.from_numpy(np.stack([decode(jpegs[row], config.image_size) for row in rows]))


def _open_frozen(net: FrozenNet, precision: Precision, threads: int | None) -> str:
    if precision == "bf16":
        raise ValueError(
            f"precision bf16 was asked for, and {net.network.name} runs in the number format of its file. Use auto."
        )
    return net.open(threads)


def embed_part(
    embedder: Embedder, collection: Folder, out: Folder, part: int, progress: Progress = silent
) -> dict[str, Any]:
    """Embed one part of a collection into out/part-<part>.parquet, unless it is there.

    Returns: part, taken, kept, dim, format (of the network), seconds (in the model), resumed (1 if it was there),
        sha256 of the file.
    """
    name, started = part_name(part), time.monotonic()
    resumed = int(out.exists(name))
    images_of = collection.read_table(f"images/{name}", columns=["image_id"] if resumed else ["image_id", "jpeg"])
    if not resumed:
        vectors = embedder.embed_jpegs(images_of.column("jpeg").to_pylist(), progress)
        write_part(out, part, images_of.column("image_id"), vectors)
    kept = out.read_table(name, columns=["image_id"])
    if kept.column("image_id") != images_of.column("image_id"):
        raise ValueError(f"{out}/{name} does not match images/{name} of {collection}. Remove {out} and embed again.")
    seconds = time.monotonic() - started
    counts: dict[str, Any] = {"part": part, "taken": len(images_of), "kept": len(kept), "dim": embedder.dim}
    counts["format"] = embedder.format
    return {**counts, "seconds": seconds, "resumed": resumed, "sha256": hash_file(out, name)}


def begin_embeddings(collection: Folder, model: Folder, out: Folder, precision: Precision) -> Manifest | None:
    """Claim the folder, or find the very same embeddings sealed there; see `manifest.begin`."""
    return begin(out, **_work(collection, model, precision))


def seal_embeddings(
    collection: Folder,
    model: Folder,
    out: Folder,
    precision: Precision,
    parts: Sequence[Mapping[str, Any]],
    seconds: float,
) -> Manifest:
    """Write the manifest.

    Args: parts: what every `embed_part` returned. seconds: from begin to end.

    Raises: ValueError if not every stored photo was embedded and written.
    """
    stored = read_manifest(collection, "collection").counts["stored"]
    taken, kept = sum(part["taken"] for part in parts), sum(part["kept"] for part in parts)
    run = {
        "seconds": seconds,
        "seconds_in_model": sum(part["seconds"] for part in parts),
        "resumed_parts": sum(part["resumed"] for part in parts),
        "parts_by_format": dict(Counter(part["format"] for part in parts if not part["resumed"])),  # what auto came to
    }
    return seal(
        out,
        run=run,
        counts={"num": kept, "dim": read_manifest(model).counts["embedding_dim"]},
        books=[Books(stage="embed", taken=stored, kept=taken), Books(stage="write", taken=taken, kept=kept)],
        files={part_name(part["part"]): part["sha256"] for part in parts},
        **_work(collection, model, precision),
    )


def _work(collection: Folder, model: Folder, precision: Precision) -> dict[str, Any]:
    folders = {"collection": collection, "model": model}
    inputs = {kind: read_manifest(folder, kind).fingerprint for kind, folder in folders.items()}
    return {"kind": KIND, "config": {"precision": precision}, "inputs": inputs}
