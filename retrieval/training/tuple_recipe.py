"""Siamese training of an `EmbeddingNet` on tuples (query, positive, negatives), negatives re-mined every epoch.

The published code feeds one image at a time, since photos differ in shape. Here the images of a step are grouped by
their exact shape and each group runs as one batch: nothing is padded, so the gradients are the same. So they are where
BatchNorm runs as part of the convolution before it, and where a negative beyond the margin, which pulls at nothing, is
described without what a gradient would need.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.artifacts.collection import LocalCollection
from retrieval.artifacts.tuples import TupleSet
from retrieval.evaluation.metrics import retrieval_metrics
from retrieval.images.batches import by_shape, prefetch
from retrieval.images.pixels import decode_fit, fitted, image_size
from retrieval.models import backbones, folding, trunks
from retrieval.models.network import EmbeddingNet
from retrieval.models.number_format import pick_dtype
from retrieval.models.pooling import GeMPool
from retrieval.training import losses, trainer, tuple_mining
from retrieval.training.settings import TupleTrainConfig
from retrieval.training.trainer import Resumable
from retrieval.training.tuple_mining import choose_positives
from retrieval.training.workers import Rank

# Pixels in one forward pass, at most (or one image). On a CPU batches of more than a few photos cost more a photo: maps
# above 32 MB are given back to the system and fetched anew, page by page, at each use.
_CHUNK_PIXELS = {"cuda": 32 * 362 * 362, "cpu": 3 * 362 * 272}

_TUPLES_AT_ONCE = 256  # whose negatives' distances are taken together


@dataclass(frozen=True, slots=True)
class _Batch:
    """Images of one shape: rows (B,), pixels (B, h, w, 3) uint8, and whether they are believed to pull at nothing."""

    rows: np.ndarray
    pixels: Tensor
    idle: bool


class TupleTrainer(Resumable):
    """One rank's state through a run: network, optimiser, history. All ranks call the same methods in step."""

    def __init__(
        self,
        net: EmbeddingNet,
        local: LocalCollection,
        known: TupleSet,
        config: TupleTrainConfig,
        *,
        rank: Rank | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Args:
        local: the collection's photos, at least those of `known`.

        Raises: ValueError if a photo of the tuples is missing, or none has a positive.
        """
        super().__init__()
        self.net, self.local, self.known, self.config = net, local, known, config
        self.rank, self.device = rank or Rank(), device or torch.device("cpu")
        self._row = _local_rows(local, known)
        self._mined: np.ndarray | None = None
        self._shapes = np.zeros((len(known.image_ids), 2), dtype=np.int64)
        self._decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")
        self._trained = net
        net.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.dtype = pick_dtype(net, config.precision)
        unfreeze = None if config.unfreeze_layers < 0 else config.unfreeze_layers
        self.unfrozen = trunks.freeze_all_but_last(net.trunk, unfreeze)
        self._frozen, self._tail = (
            folding.rewrite(part) if backbones.is_convolutional(net.spec.config.backbone) else part
            for part in trunks.split_frozen(net.trunk)
        )
        self._optimiser = torch.optim.Adam(
            parameter_groups(net, config.learning_rate, config.weight_decay), lr=config.learning_rate
        )
        self._rates = [float(group["lr"]) for group in self._optimiser.param_groups]
        self.pool = np.flatnonzero(known.usable & (known.splits == "train"))
        self.positives = self._choose_positives()
        self.queries = np.flatnonzero((self.positives >= 0) & (known.splits[known.queries] == "train"))
        self._val_queries = known.queries[known.splits[known.queries] == "val"]
        self.val = self._val_gallery()
        if not len(self.queries):
            raise ValueError(
                "No training query has a positive that fits. Relax --siamese.max-scale-change or --siamese.min-shared, "
                "or take --siamese.positives m2."
            )

    def _choose_positives(self) -> np.ndarray:
        config, descriptors = self.config, None
        if config.positives == "m1":
            everyone = np.arange(len(self.known.image_ids))
            descriptors = self._embed_shared(everyone).cpu().numpy()
        return choose_positives(
            self.known,
            config.positives,
            descriptors=descriptors,
            min_shared=config.min_shared,
            max_scale_change=config.max_scale_change,
            seed=config.seed,
        )

    def _val_gallery(self) -> np.ndarray:
        """Rows ranked when validating: val's images that a tuple knows, and some of train, which match none of them."""
        if not len(self._val_queries):
            return self._val_queries
        of_val = [at for at, query in enumerate(self.known.queries) if self.known.splits[query] == "val"]
        own = np.unique(np.concatenate([self._val_queries, *(self.known.candidates[at] for at in of_val)]))
        draw = np.random.default_rng([self.config.seed, 0x7B]).permutation(self.pool)[: self.config.val_distractors]
        return np.union1d(own, draw)

    # -- what an epoch does ------------------------------------------------------------------------------------------

    def run(self) -> Iterator[dict[str, Any]]:
        """Yield the metrics of each epoch still to do, 1 to `epochs`; on a fresh run the starting point, 0, first."""
        if not self.history:
            self._close_epoch({"epoch": 0, **self._power(), **self.validate()})
            yield self.history[-1]
        for epoch in range(len(self.history), self.config.epochs + 1):
            self._close_epoch({"epoch": epoch, **self._epoch(epoch)})
            yield self.history[-1]

    def _epoch(self, epoch: int) -> dict[str, Any]:
        started = time.monotonic()
        rows, idle, metrics = self.mine(epoch)
        mined = time.monotonic()
        metrics |= self.train_on(rows, epoch, idle)
        trained = time.monotonic()
        metrics |= self._power() | self.validate()
        seconds = {"mine": mined - started, "train": trained - mined, "validate": time.monotonic() - trained}
        return metrics | {f"seconds/{name}": value for name, value in seconds.items()}

    def mine(self, epoch: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """The epoch's tuples, (T, 2 + negatives) int64 rows: query, positive, negatives; equal on all ranks.

        Also (T, 2 + negatives) bool: the negatives that lie beyond the margin by now, which will hardly matter.
        """
        config, clusters = self.config, self.known.clusters
        draw = tuple_mining.draw_epoch(
            self.queries,
            self.pool,
            num_queries=config.queries_per_epoch,
            pool_size=config.pool_size,
            seed=config.seed,
            epoch=epoch,
        )
        queries = self.known.queries[draw.queries]
        needed = np.union1d(queries, draw.pool)
        vectors = self._embed_shared(needed)
        pool, asking = (vectors[torch.from_numpy(np.searchsorted(needed, rows))] for rows in (draw.pool, queries))
        negatives = tuple_mining.mine_negatives(
            asking, clusters[queries], pool, clusters[draw.pool], num=config.num_negatives, strategy=config.negatives
        )
        rows = np.column_stack([queries, self.positives[draw.queries], draw.pool[negatives]])
        self._mined = rows
        idle = np.zeros(rows.shape, dtype=bool)
        if config.loss == "contrastive":
            for at in range(0, len(rows), _TUPLES_AT_ONCE):
                some = slice(at, at + _TUPLES_AT_ONCE)
                apart = torch.linalg.vector_norm(asking[some, None] - pool[torch.from_numpy(negatives[some])], dim=-1)
                idle[some, 2:] = (apart >= config.margin).cpu().numpy()
        found = {
            "tuples": len(rows),
            "tuples_sha256": trainer.tuples_digest(rows),
            "train/spread": trainer.spread(pool),
        }
        return rows, idle, found | {"train/negatives_within_margin": float(1 - idle[:, 2:].mean())}

    def train_on(self, rows: np.ndarray, epoch: int, idle: np.ndarray | None = None) -> dict[str, Any]:
        """One step for every `tuples_per_step` tuples; each rank runs its share of them. See `loss` for `idle`."""
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * math.exp(-self.config.decay * (epoch - 1))
        idle = np.zeros(rows.shape, dtype=bool) if idle is None else idle
        steps = [slice(at, at + self.config.tuples_per_step) for at in range(0, len(rows), self.config.tuples_per_step)]
        shares = [(rows[step][self.rank.mine], idle[step][self.rank.mine]) for step in steps]
        total = torch.zeros(1, device=self.device)
        for (share, idle_), batches in prefetch(self._decoder, self._decoded_share, shares):
            self._optimiser.zero_grad(set_to_none=True)
            if len(share):
                loss = self.loss(share, idle_, batches)
                loss.sum().backward()
                total += loss.detach().sum()
            self.rank.sum_gradients([p for group in self._optimiser.param_groups for p in group["params"]])
            self._optimiser.step()
        mean = float(self.rank.total(total)) / max(1, len(rows))
        return {"train/loss": mean, "train/images": int(rows.size), "train/steps": len(steps)}

    def loss(
        self, share: np.ndarray, idle: np.ndarray | None = None, batches: Sequence[_Batch] | None = None
    ) -> Tensor:
        """(T,) loss of each tuple; (T, 2 + negatives) rows. An image that comes twice runs once.

        Args:
            idle: (T, 2 + negatives) bool, images that are believed to pull at nothing. They are described without a
                gradient, a third of the cost; any that proves to pull is described again. So the gradient is the same.
            batches: the distinct images of `share`, decoded; None decodes them here.
        """
        distinct = np.unique(share)
        found = torch.empty(len(distinct), self.net.base_dim, device=self.device)
        sure = np.zeros(len(distinct), dtype=bool)
        place = torch.from_numpy(np.searchsorted(distinct, share)).to(self.device)
        with folding.products_held(self._frozen, self._tail):
            for batch in batches if batches is not None else self._decoded_share((share, idle)):
                at = np.searchsorted(distinct, batch.rows)
                with torch.set_grad_enabled(not batch.idle):
                    described = self._describe(batch.pixels)
                found = found.index_copy(0, torch.from_numpy(at).to(self.device), described)
                sure[at] = not batch.idle
            if not sure.all():
                leaf = found.detach().requires_grad_()
                (pull,) = torch.autograd.grad(self._losses(leaf[place]).sum(), leaf)
                wrong = np.flatnonzero(pull.abs().amax(dim=1).cpu().numpy() * ~sure)
                for batch in self._decoded(distinct[wrong]):
                    at = torch.from_numpy(np.searchsorted(distinct, batch.rows)).to(self.device)
                    found = found.index_copy(0, at, self._describe(batch.pixels))
        return self._losses(found[place])

    def _losses(self, embeddings: Tensor) -> Tensor:
        """(T, 2 + negatives, D) -> (T,)."""
        query, others = embeddings[:, 0], embeddings[:, 1:]
        if self.config.loss == "triplet":
            apart = losses.triplet(query[:, None], others[:, :1], others[:, 1:], self.config.margin)
            return apart.sum(dim=1)
        matching = torch.arange(others.shape[1], device=others.device) == 0
        return losses.contrastive(query, others, matching, self.config.margin)

    def _describe(self, pixels: Tensor) -> Tensor:
        """(B, h, w, 3) uint8 -> (B, D) float32 with its gradient, through the parts that train only."""
        x = self.net.normalise(pixels.to(self.device))
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            with torch.no_grad():
                maps = self._frozen(x)
            return self.net.from_maps(self._tail(maps))

    def sample(self, num: int = 8) -> tuple[np.ndarray, np.ndarray]:
        """Some of the last epoch's tuples to look at: (T, 2 + negatives) int64 rows of `local`, and their scores.

        The scores, (T, 1 + negatives) float32, are those of positive and negatives with the query by the network as it
        is now.
        """
        rows = self._mined if self._mined is not None else self.mine(max(1, len(self.history) - 1))[0]
        drawn = rows[np.sort(np.random.default_rng(self.config.seed).permutation(len(rows))[:num])]
        distinct = np.unique(drawn)
        vectors = self._embed(distinct).cpu().numpy()[np.searchsorted(distinct, drawn)]
        return self._row[drawn], np.einsum("tnd,td->tn", vectors[:, 1:], vectors[:, 0])

    def validate(self) -> dict[str, Any]:
        """How well val's queries find the images of their places, among images of train; empty without any."""
        if not len(self._val_queries):
            return {}
        vectors = self._embed_shared(self.val).cpu().numpy()
        at = np.searchsorted(self.val, self._val_queries)
        labels = np.array([str(cluster) for cluster in self.known.clusters[self.val]], dtype=object)
        scores = retrieval_metrics(
            vectors[at], labels[at], vectors, labels, ks=(1, 10), exclude_rows=at.astype(np.int64)
        )
        return {f"val/{name}": value for name, value in scores.values.items() if not math.isnan(value)}

    def _power(self) -> dict[str, float]:
        pool = self.net.pool
        return {"train/p": float(pool.p.detach().float().mean())} if isinstance(pool, GeMPool) else {}

    # -- photos and embeddings ---------------------------------------------------------------------------------------

    def _batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """Distinct rows, grouped by shape, each group no larger than a forward pass may be."""
        for row in rows[self._shapes[rows, 0] == 0]:
            size = image_size(self.local.jpegs([int(self._row[row])])[0])
            self._shapes[row] = fitted(*size, self.config.image_size)
        most = _CHUNK_PIXELS.get(self.device.type, _CHUNK_PIXELS["cuda"])
        return [rows[some] for some in by_shape(self._shapes[rows], lambda pixels: most // pixels)]

    def _pixels(self, rows: np.ndarray) -> Tensor:
        jpegs = self.local.jpegs(self._row[rows])
        return torch.from_numpy(np.stack([decode_fit(jpeg, self.config.image_size) for jpeg in jpegs]))

    def _decoded_share(self, share: tuple[np.ndarray, np.ndarray | None]) -> list[_Batch]:
        """The distinct images of a step's tuples; idle are those that are so in every tuple they come in."""
        rows, idle = share
        busy = np.unique(rows if idle is None else rows[~idle])
        return self._decoded(busy) + self._decoded(np.setdiff1d(rows, busy), idle=True)

    def _decoded(self, rows: np.ndarray, *, idle: bool = False) -> list[_Batch]:
        """Distinct images in batches of one shape."""
        return [_Batch(some, self._pixels(some), idle) for some in self._batches(rows)] if rows.size else []

    def _embed_shared(self, rows: np.ndarray) -> Tensor:
        """(n, D) float32 single-scale descriptors of distinct rows, each rank embedding its share."""
        return self.rank.gather(self._embed(rows[self.rank.mine]), len(rows))

    @torch.no_grad()
    def _embed(self, rows: np.ndarray) -> Tensor:
        out = torch.empty(len(rows), self.net.base_dim, device=self.device)
        place = np.argsort(rows)
        with folding.products_held(self._frozen, self._tail):
            for some, pixels in prefetch(self._decoder, self._pixels, self._batches(rows)):
                at = place[np.searchsorted(rows, some, sorter=place)]
                out[torch.from_numpy(at)] = self._describe(pixels)
        return out


def parameter_groups(net: EmbeddingNet, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """What an optimiser is given: GeM's p learns faster and does not decay   (arXiv:1711.02512, sec. 5.1).

    One shared p: 10 times the rate; a p for each channel: 100 times. Parameters that do not train are left out.
    """
    power = net.pool.p if isinstance(net.pool, GeMPool) else None
    others = [value for value in net.parameters() if value.requires_grad and value is not power]
    groups: list[dict[str, Any]] = [{"params": others, "lr": learning_rate, "weight_decay": weight_decay}]
    if power is not None and power.requires_grad:
        faster = 10 if power.ndim == 0 else 100
        groups.append({"params": [power], "lr": learning_rate * faster, "weight_decay": 0.0})
    return groups


def _local_rows(local: LocalCollection, known: TupleSet) -> np.ndarray:
    """(N,) int64, where each image of the tuples lies in `local`."""
    row_of = {image_id: row for row, image_id in enumerate(local.image_ids)}
    missing = [image_id for image_id in known.image_ids if image_id not in row_of]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(known.image_ids)} photos of the tuples are not in the collection's train and "
            f"val splits, for example {missing[0]}. Reconstruct this collection again."
        )
    return np.array([row_of[image_id] for image_id in known.image_ids], dtype=np.int64)
