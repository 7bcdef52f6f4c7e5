"""Siamese training on tuples (query, positive, negatives), negatives re-mined every epoch, for the trainer.

The published code feeds one image at a time, since photos differ in shape. Here the images of a step are grouped by
their exact shape and each group runs as one batch: nothing is padded, so the gradients are the same. So they are where
BatchNorm runs as part of the convolution before it, and where a negative that pulls at nothing has no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.artifacts.collection import LocalCollection
from retrieval.artifacts.tuples import TupleSet
from retrieval.evaluation.metrics import retrieval_metrics
from retrieval.images.batches import by_shape, prefetch
from retrieval.images.pixels import decode_fit, fitted, image_size
from retrieval.models import backbones, folding, trunks
from retrieval.models.network import EmbeddingNet
from retrieval.models.pooling import GeMPool
from retrieval.training import tuple_mining
from retrieval.training.losses import LOSSES
from retrieval.training.recipe import Mined, Past, Worker, spread
from retrieval.training.settings import TupleTrainConfig
from retrieval.training.tuple_mining import choose_positives

# Pixels in one forward pass, at most (or one image). On a CPU batches of more than a few photos cost more a photo: maps
# above 32 MB are given back to the system and fetched anew, page by page, at each use.
_CHUNK_PIXELS = {"cuda": 32 * 362 * 362, "cpu": 3 * 362 * 272}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuples(Mined):
    """An epoch's tuples: rows are (T, 2 + negatives), query, positive, negatives.

    idle: (T, 2 + negatives) bool: the negatives that lie beyond the margin by now, which will hardly matter.
    """

    idle: np.ndarray


@dataclass(frozen=True, slots=True)
class _Batch:
    """Images of one shape: rows (B,), pixels (B, h, w, 3) uint8, and whether they are believed to pull at nothing."""

    rows: np.ndarray
    pixels: Tensor
    idle: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """This rank's tuples of a step, (t, 2 + negatives) rows and idle, and their images."""

    rows: np.ndarray
    idle: np.ndarray
    images: Sequence[_Batch]


class TupleRecipe:
    """One rank's photos and draws. See `recipe.Recipe` for what each method is to the trainer."""

    def __init__(self, local: LocalCollection, known: TupleSet, config: TupleTrainConfig) -> None:
        """Args:
        local: the collection's photos, at least those of `known`.

        Raises: ValueError if a photo of the tuples is missing.
        """
        self.local, self.known, self.config = local, known, config
        self._row = tuple_mining.rows_among(known, local.image_ids)
        self._mined: np.ndarray | None = None
        self._shapes = np.zeros((len(known.image_ids), 2), dtype=np.int64)
        self.pool = np.flatnonzero(known.usable & (known.splits == "train"))
        self._val_queries = known.queries[known.splits[known.queries] == "val"]
        self.val = tuple_mining.validated_rows(
            known, self.pool, num_distractors=config.val_distractors, seed=config.seed
        )

    def prepare(self, worker: Worker) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Freeze, fold, choose the positives.

        Raises: ValueError if no training query has a positive.
        """
        config, net = self.config, worker.net
        self.worker, self.net = worker, net
        unfreeze = None if config.unfreeze_layers < 0 else config.unfreeze_layers
        self.unfrozen = trunks.freeze_all_but_last(net.trunk, unfreeze)
        self._frozen, self._tail = (
            folding.rewrite(part) if backbones.is_convolutional(net.spec.config.backbone) else part
            for part in trunks.split_frozen(net.trunk)
        )
        everyone = np.arange(len(self.known.image_ids))
        self.positives = choose_positives(
            self.known,
            config.positives,
            descriptors=self._embed_shared(everyone).cpu().numpy() if config.positives == "m1" else None,
            min_shared=config.min_shared,
            max_scale_change=config.max_scale_change,
            seed=config.seed,
        )
        self.queries = np.flatnonzero((self.positives >= 0) & (self.known.splits[self.known.queries] == "train"))
        if not len(self.queries):
            raise ValueError(
                "No training query has a positive that fits. Relax --siamese.max-scale-change or --siamese.min-shared, "
                "or take --siamese.positives m2."
            )
        groups = parameter_groups(net, config.learning_rate, config.weight_decay)
        return net, torch.optim.Adam(groups, lr=config.learning_rate)

    # -- what an epoch does ------------------------------------------------------------------------------------------

    def mine(self, epoch: int, past: Past | None = None) -> Tuples:
        """The epoch's tuples, whatever came before."""
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
        self._mined = rows = np.column_stack([queries, self.positives[draw.queries], draw.pool[negatives]])
        idle = np.zeros(rows.shape, dtype=bool)
        if config.loss == "contrastive":  # a negative beyond its margin pulls at nothing
            idle[:, 2:] = tuple_mining.beyond_margin(asking, pool, negatives, config.margin)
        return Tuples(
            epoch=epoch,
            rows=rows,
            steps=math.ceil(len(rows) / config.tuples_per_step),
            idle=idle,
            report={
                "tuples": len(rows),
                "train/spread": spread(pool),
                "train/negatives_within_margin": float(1 - idle[:, 2:].mean()),
            },
        )

    def batches(self, mined: Tuples) -> Iterator[_Step]:
        """`tuples_per_step` tuples a step, the photos of the next decoded in the background."""
        size, mine = self.config.tuples_per_step, self.worker.rank.mine
        steps = [slice(at, at + size) for at in range(0, len(mined.rows), size)]
        shares = [(mined.rows[step][mine], mined.idle[step][mine]) for step in steps]
        for (rows, idle), images in prefetch(self.worker.decoders.ahead, self._decoded_share, shares):
            yield _Step(rows, idle, images)

    def loss(self, batch: _Step) -> tuple[Tensor, Tensor]:
        """The sum over this rank's tuples, whose gradients are meant to add up; and without its gradient."""
        total = torch.zeros((), device=self.worker.device)
        if len(batch.rows):
            total = self.losses(batch.rows, batch.idle, batch.images).sum()
        return total, total.detach()

    def summary(self, mined: Tuples, seen: Sequence[Tensor]) -> dict[str, Any]:
        total = torch.zeros(1, device=self.worker.device)
        for loss in seen:
            total += loss
        mean = float(self.worker.rank.total(total)) / max(1, len(mined.rows))
        return {"train/loss": mean, "train/images": int(mined.rows.size), "train/steps": mined.steps}

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Falls by the same factor after each epoch."""
        return math.exp(-self.config.decay * (epoch - 1))

    def losses(
        self, share: np.ndarray, idle: np.ndarray | None = None, images: Sequence[_Batch] | None = None
    ) -> Tensor:
        """(T,) loss of each tuple; (T, 2 + negatives) rows. An image that comes twice runs once.

        Args:
            idle: (T, 2 + negatives) bool, images that are believed to pull at nothing. They are described without a
                gradient, a third of the cost; any that proves to pull is described again. So the gradient is the same.
            images: the distinct images of `share`, decoded; None decodes them here.
        """
        distinct, device = np.unique(share), self.worker.device
        found = torch.empty(len(distinct), self.net.base_dim, device=device)
        sure = np.zeros(len(distinct), dtype=bool)
        place = torch.from_numpy(np.searchsorted(distinct, share)).to(device)
        with folding.products_held(self._frozen, self._tail):
            for batch in images if images is not None else self._decoded_share((share, idle)):
                at = np.searchsorted(distinct, batch.rows)
                with torch.set_grad_enabled(not batch.idle):
                    described = self._describe(batch.pixels)
                found = found.index_copy(0, torch.from_numpy(at).to(device), described)
                sure[at] = not batch.idle
            if not sure.all():
                leaf = found.detach().requires_grad_()
                (pull,) = torch.autograd.grad(self._losses(leaf[place]).sum(), leaf)
                wrong = np.flatnonzero(pull.abs().amax(dim=1).cpu().numpy() * ~sure)
                for batch in self._decoded(distinct[wrong]):
                    at = torch.from_numpy(np.searchsorted(distinct, batch.rows)).to(device)
                    found = found.index_copy(0, at, self._describe(batch.pixels))
        return self._losses(found[place])

    def _losses(self, embeddings: Tensor) -> Tensor:
        """(T, 2 + negatives, D) -> (T,)."""
        query, positive, negatives = embeddings[:, 0], embeddings[:, 1], embeddings[:, 2:]
        return LOSSES[self.config.loss](query, positive, negatives, self.config.margin)

    def _describe(self, pixels: Tensor) -> Tensor:
        """(B, h, w, 3) uint8 -> (B, D) float32 with its gradient, through the parts that train only."""
        x = self.net.normalise(pixels.to(self.worker.device))
        with self.worker.autocast():
            with torch.no_grad():
                maps = self._frozen(x)
            return self.net.from_maps(self._tail(maps))

    def sample(self, epoch: int, num: int = 8) -> tuple[np.ndarray, np.ndarray]:
        """Some of the last epoch's tuples to look at: (T, 2 + negatives) int64 rows of `local`, and their scores.

        The scores, (T, 1 + negatives) float32, are those of positive and negatives with the query by the network as it
        is now.
        """
        rows = self._mined if self._mined is not None else self.mine(epoch).rows
        drawn = rows[np.sort(np.random.default_rng(self.config.seed).permutation(len(rows))[:num])]
        distinct = np.unique(drawn)
        vectors = self._embed(distinct).cpu().numpy()[np.searchsorted(distinct, drawn)]
        return self._row[drawn], np.einsum("tnd,td->tn", vectors[:, 1:], vectors[:, 0])

    def validate(self) -> dict[str, Any]:
        """GeM's power, and how well val's queries find the images of their places, among images of train."""
        power = self.net.pool.p.detach() if isinstance(self.net.pool, GeMPool) else None
        found = {} if power is None else {"train/p": float(power.float().mean())}
        if not len(self._val_queries):
            return found
        vectors = self._embed_shared(self.val).cpu().numpy()
        at = np.searchsorted(self.val, self._val_queries)
        labels = np.array([str(cluster) for cluster in self.known.clusters[self.val]], dtype=object)
        scores = retrieval_metrics(
            vectors[at], labels[at], vectors, labels, ks=(1, 10), exclude_rows=at.astype(np.int64)
        )
        return found | {f"val/{name}": value for name, value in scores.values.items() if not math.isnan(value)}

    # -- photos and embeddings ---------------------------------------------------------------------------------------

    def _batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """Distinct rows, grouped by shape, each group no larger than a forward pass may be."""
        for row in rows[self._shapes[rows, 0] == 0]:
            size = image_size(self.local.jpegs([int(self._row[row])])[0])
            self._shapes[row] = fitted(*size, self.config.image_size)
        most = _CHUNK_PIXELS.get(self.worker.device.type, _CHUNK_PIXELS["cuda"])
        return [rows[some] for some in by_shape(self._shapes[rows], lambda pixels: most // pixels)]

    def _pixels(self, rows: np.ndarray) -> Tensor:
        jpegs, size = self.local.jpegs(self._row[rows]), self.config.image_size
        return torch.from_numpy(self.worker.decoders.stack(jpegs, lambda jpeg: decode_fit(jpeg, size)))

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
        rank = self.worker.rank
        return rank.gather(self._embed(rows[rank.mine]), len(rows))

    @torch.no_grad()
    def _embed(self, rows: np.ndarray) -> Tensor:
        out = torch.empty(len(rows), self.net.base_dim, device=self.worker.device)
        place, done = np.argsort(rows), 0
        with folding.products_held(self._frozen, self._tail):
            for some, pixels in prefetch(self.worker.decoders.ahead, self._pixels, self._batches(rows)):
                at = place[np.searchsorted(rows, some, sorter=place)]
                out[torch.from_numpy(at)] = self._describe(pixels)
                done += len(some)
                self.worker.progress("embed", done, len(rows))
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
