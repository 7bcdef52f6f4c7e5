"""JPEG crops -> embeddings, as fast as the device goes. Shared by the embed job, evaluation and the query service."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retrieval.artifacts.collection import REJECTED_SCHEMA
from retrieval.artifacts.embeddings import KIND, REJECTED, write_part
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import Books, Manifest, begin, read_manifest, seal
from retrieval.artifacts.progress import Progress, silent
from retrieval.images.batches import Decoders, by_shape, images_at_once, prefetch
from retrieval.images.native import BadImage
from retrieval.images.pixels import decode_fit, decode_stored, fitted, stored_size
from retrieval.models.engines.choice import open_network
from retrieval.models.settings import Engine, Precision
from retrieval.models.spec import check_prepared, load_spec

if TYPE_CHECKING:
    from retrieval.models.network import Network


class Embedder:
    """A bundle ready for inference, in the engine that is the faster one here.

    `fingerprint` and `spec` are the bundle's, `dim` the embedding's length; `engine`, `format` (of numbers) and
    `device` say what runs it.
    """

    def __init__(
        self,
        model: str | Folder | Network,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 64,
        num_threads: int | None = None,
        engine: Engine = "auto",
        num_photos: int | None = 0,
        assume_bfloat16: bool = False,
    ) -> None:
        """Args:
        model: folder of a bundle, or a network (left as it is).
        batch_size: images in one forward pass, at most.
        num_threads: threads of the engine; None leaves its own choice.
        engine, num_photos, assume_bfloat16: see `engines.choice.open_network`.
        """
        opened = open_network(
            model,
            engine=engine,
            device=device,
            precision=precision,
            threads=num_threads,
            num_photos=num_photos,
            assume_bfloat16=assume_bfloat16,
        )
        self.batch_size = batch_size
        self.fingerprint, self.spec, self.dim = opened.fingerprint, opened.spec, opened.dim
        self.engine, self.format, self.device = opened.engine, opened.format, opened.device
        self._embed = opened.embed
        self._decoders = Decoders(self.device)

    def embed_jpegs(self, jpegs: Sequence[bytes], progress: Progress = silent) -> np.ndarray:
        """Embeddings of stored crops.

        Args:    jpegs: N JPEG files as ingest stores them (any size; resized to the spec's if it differs, or with
                 keep_aspect where the long side is greater).
        Returns: (N, D) float32, unit norm.
        """
        out, done = np.empty((len(jpegs), self.dim), dtype=np.float32), 0
        batches = self._batches(jpegs)
        if len(batches) == 1:  # a query: nothing could go on while it is decoded, and another thread has to be woken
            ready = iter([(batches[0], self._decode(jpegs, batches[0]))])
        else:
            ready = prefetch(self._decoders.ahead, lambda rows: self._decode(jpegs, rows), batches)
        for rows, pixels in ready:
            out[rows] = self.embed_pixels(pixels)
            done += len(rows)
            progress("photos", done, len(jpegs))
        return out

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 -> (B, D) float32, unit norm; with `flip`, of the image and its mirror."""
        return self._embed(pixels)

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

    def _decode(self, jpegs: Sequence[bytes], rows: np.ndarray) -> np.ndarray:
        config = self.spec.config
        decode = decode_fit if config.keep_aspect else decode_stored
        return self._decoders.stack([jpegs[row] for row in rows], lambda jpeg: decode(jpeg, config.image_size))


def embed_part(
    embedder: Embedder,
    collection: Folder,
    out: Folder,
    part: int,
    progress: Progress = silent,
    without: Mapping[int, BadImage] = MappingProxyType({}),
) -> dict[str, Any]:
    """Embed one part of a collection into out/part-<part>.parquet, unless it is there, by the same engine in the same
    number format.

    Args: without: rows to leave out, and why: they ended whoever looked at them. They have no embedding.

    Returns: part, taken, kept, broken, left (rows of REJECTED_SCHEMA, of those left out), dim, engine and format (of
        the network), seconds (in the model), resumed (1 if it was there), sha256 of the file.
    """
    name, started = part_name(part), time.monotonic()
    runs_in = {"engine": embedder.engine, "format": embedder.format}
    done = out.done(name)
    resumed = done is not None and runs_in.items() <= done.about.items()
    if done is None or not resumed:
        images_of = collection.read_table(f"images/{name}", columns=["image_id", "jpeg"])
        image_ids, jpegs = images_of.column("image_id"), images_of.column("jpeg").to_pylist()
        rows = [row for row in range(len(jpegs)) if row not in without]
        vectors = np.zeros((len(jpegs), embedder.dim), np.float32)
        vectors[rows] = embedder.embed_jpegs([jpegs[row] for row in rows], progress)
        left = [
            {"image_id": image_ids[row].as_py(), "stage": KIND, "reason": bad.reason, "detail": bad.detail}
            for row, bad in sorted(without.items())
        ]
        counts = {"taken": len(jpegs), "kept": len(rows), "broken": len(left), "left": left, "dim": embedder.dim}
        done = write_part(out, part, image_ids, vectors, about=counts | runs_in, without=without)
    took = {"seconds": time.monotonic() - started, "resumed": int(resumed)}
    return {"part": part, **done.about, **took, "sha256": done.sha256}


def begin_embeddings(collection: Folder, model: Folder, out: Folder, precision: Precision) -> Manifest | None:
    """Claim the folder, or find the very same embeddings sealed there; see `manifest.begin`.

    Raises: ValueError if the model wants photos cut otherwise than the collection's are.
    """
    spec, prepared = load_spec(model), read_manifest(collection, "collection").config.get("prepare")
    if spec.network is not None and prepared is not None:
        check_prepared(spec.network, prepared)
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

    Raises: ValueError if not every stored photo was embedded and written, or not all by one engine in one number
        format.
    """
    _must_be_of_one_kind(out, parts)
    stored = read_manifest(collection, "collection").counts["stored"]
    taken, kept = sum(part["taken"] for part in parts), sum(part["kept"] for part in parts)
    left = [row for part in sorted(parts, key=lambda part: part["part"]) for row in part.get("left", ())]
    reasons = dict(Counter(row["reason"] for row in left))
    files = {part_name(part["part"]): part["sha256"] for part in parts}
    if left:
        table = pa.Table.from_pylist(left, REJECTED_SCHEMA)
        files[REJECTED] = out.write_table(REJECTED, table, about={}).sha256
    run = {
        "seconds": seconds,
        "seconds_in_model": sum(part["seconds"] for part in parts),
        "resumed_parts": sum(part["resumed"] for part in parts),
        # What auto came to. Not in what is hashed: the embeddings are the same but for their last bits.
        "parts_by_format": dict(Counter(part["format"] for part in parts)),
        "parts_by_engine": dict(Counter(part["engine"] for part in parts)),
    }
    return seal(
        out,
        run=run,
        counts={"num": kept, "dim": read_manifest(model).counts["embedding_dim"]},
        books=[
            Books(stage="embed", taken=stored, kept=taken - len(left), rejected=reasons),
            Books(stage="write", taken=taken - len(left), kept=kept),
        ],
        files=files,
        **_work(collection, model, precision),
    )


def _must_be_of_one_kind(out: Folder, parts: Sequence[Mapping[str, Any]]) -> None:
    kinds = Counter(f"{part['engine']} in {part['format']}" for part in parts)
    if len(kinds) > 1:
        told = ", ".join(f"{num} by {kind}" for kind, num in kinds.most_common())
        raise ValueError(
            f"The machines of this job did not come to one format of numbers: of the parts of {out}, {told}. A gallery "
            f"of both is not sealed. Name another folder and --precision fp32; if that is not enough, --engine torch."
        )


def _work(collection: Folder, model: Folder, precision: Precision) -> dict[str, Any]:
    folders = {"collection": collection, "model": model}
    inputs = {kind: read_manifest(folder, kind).fingerprint for kind, folder in folders.items()}
    return {"kind": KIND, "config": {"precision": precision}, "inputs": inputs}
