"""Triplet training of an `EmbeddingNet` with negatives re-mined every epoch, on one process or as one rank of many.

The frozen part of the trunk runs once per image (see `feature_cache`); an epoch touches only the unfrozen tail: embed
the pool, share the embeddings, mine, take steps, validate. Nothing is rebuilt between epochs.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retrieval.artifacts.collection import LocalCollection
from retrieval.evaluation.metrics import leave_one_out
from retrieval.images.augment import augment
from retrieval.images.batches import images_at_once, prefetch
from retrieval.images.pixels import decode_stored
from retrieval.models import trunks
from retrieval.models.network import EmbeddingNet
from retrieval.models.number_format import pick_dtype
from retrieval.models.pooling import l2n
from retrieval.models.whitening import learn_whitening, start_head_from_whitening
from retrieval.training import group_mining, losses, settings, trainer
from retrieval.training.feature_cache import FeatureCache
from retrieval.training.settings import TrainConfig
from retrieval.training.trainer import Resumable
from retrieval.training.workers import Rank

logger = logging.getLogger(__name__)

_WHITENING_SAMPLE = 4096  # images; bounds the N x N eigenproblem, whatever the collection's size


class _Tail(nn.Module):
    """What trains: maps of the frozen part -> embeddings."""

    def __init__(self, tail: nn.Module, net: EmbeddingNet) -> None:
        super().__init__()
        self.tail, self.pool, self.head = tail, net.pool, net.head
        self._from_maps = net.from_maps  # bound method, no parameters of its own

    def forward(self, maps: Tensor) -> Tensor:
        return self._from_maps(self.tail(maps))


class TripletTrainer(Resumable):
    """One rank's state through a run: network, optimiser, caches, history. All ranks call the same methods in step."""

    def __init__(
        self,
        net: EmbeddingNet,
        local: LocalCollection,
        config: TrainConfig,
        *,
        scratch: Path,
        rank: Rank | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Args:
        local: crops of the splits train and val.
        scratch: folder on this node's disk, shared by its ranks, private to this attempt.
        """
        super().__init__()
        self.net, self.local, self.config = net, local, config
        self.rank, self.device = rank or Rank(), device or torch.device("cpu")
        self.pool, self.val = _pool(local, config), local.rows_of("val")
        self.labels = group_mining.label_numbers(local.labels)
        self._rate_scale = 1.0
        net.to(self.device).eval()
        self.dtype = pick_dtype(net, config.precision)
        # Running statistics stay as they are: only weights change, so no rank and no batch size matters.
        unfreeze = None if config.unfreeze_layers < 0 else config.unfreeze_layers
        self.unfrozen = trunks.freeze_all_but_last(net.trunk, unfreeze)
        frozen, tail = trunks.split_frozen(net.trunk)
        # A copy: the bundle keeps the frozen weights as they came, not rounded to the precision they run in.
        self._frozen = copy.deepcopy(frozen)
        self._trained = _Tail(tail, net).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._frozen.to(self.device, dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")
        self._fill_cache(scratch)
        if config.whiten_head and isinstance(net.head, nn.Sequential):
            self._whiten_head()
        self._model: nn.Module = self._trained
        if self.rank.world > 1:
            self._model = DistributedDataParallel(self._trained)
        trained = [p for p in self._trained.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)

    # -- what an epoch does ------------------------------------------------------------------------------------------

    def run(self) -> Iterator[dict[str, Any]]:
        """Yield the metrics of each epoch still to do, 1 to `epochs`; on a fresh run the starting point, 0, first."""
        if not self.history:
            self._close_epoch({"epoch": 0, **self.validate()})
            yield self.history[-1]
        for epoch in range(len(self.history), self.config.epochs + 1):
            self._close_epoch({"epoch": epoch, **self._epoch(epoch)})
            yield self.history[-1]

    def _epoch(self, epoch: int) -> dict[str, Any]:
        started = time.monotonic()
        groups, metrics = self.mine(epoch)
        mined = time.monotonic()
        metrics |= self.train_on(groups, epoch, metrics["train/negatives"])
        trained = time.monotonic()
        metrics |= self.validate()
        seconds = {"mine": mined - started, "train": trained - mined, "validate": time.monotonic() - trained}
        return metrics | {f"seconds/{name}": value for name, value in seconds.items()}

    def mine(self, epoch: int) -> tuple[np.ndarray, dict[str, Any]]:
        """The epoch's groups, (G, M) int64 rows into `local` padded with -1, equal on all ranks, and what was seen."""
        config = self.config
        labels = group_mining.label_numbers(self.local.labels[self.pool])
        embeddings = self._embed_pool()
        # A start that lies close together already (random weights, no whitening) is no collapse.
        floor = min(group_mining.SPREAD_FLOOR, self.history[1]["train/spread"] / 2) if epoch > 1 else 0.0
        collapsed = trainer.spread(embeddings) < floor
        if collapsed:
            self._go_back(epoch)
            embeddings = self._embed_pool()
        spread = trainer.spread(embeddings)
        strategy = group_mining.choose_strategy(
            config.negatives, epoch=epoch, warmup_epochs=config.warmup_epochs, spread_now=spread
        )
        centres = group_mining.class_centres(embeddings, torch.from_numpy(labels).to(self.device))
        identities = group_mining.mine_groups(
            centres, strategy, companions=config.companions, seed=config.seed, epoch=epoch
        )
        places = group_mining.draw_images(
            labels, identities, per_identity=config.images_per_identity, seed=config.seed, epoch=epoch
        )
        groups = np.where(places >= 0, self.pool[places], -1)
        report = {
            "groups": len(groups),
            "tuples_sha256": trainer.tuples_digest(groups),
            "train/went_back": int(collapsed),
        }
        return groups, {**report, "train/spread": spread, "train/negatives": strategy}

    def _embed_pool(self) -> Tensor:
        return self.rank.gather(self._embed(self.pool[self.rank.mine]), len(self.pool))

    def _go_back(self, epoch: int) -> None:
        """Collapsed embeddings do not come apart again: return to the best weights, at a quarter of the rate."""
        self._rate_scale /= 4
        self._trained.load_state_dict(self.best["state"])
        self._optimiser.state.clear()
        logger.warning(
            "Epoch %d: the embeddings collapsed to a point; going back to epoch %d with %.3g times the learning rate",
            epoch,
            self.best["epoch"],
            self._rate_scale,
        )

    def train_on(self, groups: np.ndarray, epoch: int, strategy: settings.Strategy) -> dict[str, Any]:
        """One step per batch of groups; each rank runs its share of the batch's images through the network."""
        steps = math.ceil(len(groups) / self.config.groups_per_batch)
        batches = [np.unique(part[part >= 0]) for part in np.array_split(groups, steps)]
        total, active, num_triplets = 0.0, 0, 0
        for step, (rows, maps) in enumerate(self._maps_of(batches, epoch)):
            self._set_rate(((epoch - 1) * steps + step + 1) / (self.config.epochs * steps))
            with self._autocast():
                share = self._model(maps)
            embeddings = self.rank.gather_with_own_gradient(share, len(rows))
            labels = torch.from_numpy(self.labels[rows]).to(self.device)
            anchor, positive, negative = group_mining.triplets_in_batch(embeddings, labels, strategy, seed=step).T
            loss = losses.triplet(embeddings[anchor], embeddings[positive], embeddings[negative], self.config.margin)
            self._optimiser.zero_grad()
            # DDP averages gradients over ranks; times world it is their sum, the gradient one process would have.
            (losses.mean_of_active(loss) * self.rank.world).backward()
            self._optimiser.step()
            total, num_triplets = total + float(loss.detach().sum()), num_triplets + len(loss)
            active += int((loss > 0).sum())
        report = {"train/triplets": num_triplets, "train/images": sum(len(rows) for rows in batches)}
        return {**report, "train/loss": total / max(1, num_triplets), "train/active": active / max(1, num_triplets)}

    def validate(self) -> dict[str, Any]:
        """Leave-one-out recall and mAP on identities that are not trained on; empty without any."""
        if not len(self.val):
            return {}
        embeddings = self.rank.gather(self._embed(self.val[self.rank.mine], base_views=True), len(self.val))
        scores = leave_one_out(embeddings.cpu().numpy(), self.local.labels[self.val], ks=(1, 10))
        if scores.num_without_positive == scores.num_queries:
            return {}
        return {f"val/{name}": value for name, value in scores.values.items()}

    # -- resuming ----------------------------------------------------------------------------------------------------

    def state(self, **more: Any) -> bytes:
        return super().state(rate_scale=self._rate_scale, **more)

    def load_state(self, data: bytes) -> dict[str, Any]:
        state = super().load_state(data)
        self._rate_scale = state["rate_scale"]
        return state

    # -- features and embeddings -------------------------------------------------------------------------------------

    @property
    def _base_views(self) -> int:
        return 2 if self.net.spec.config.flip else 1

    def _fill_cache(self, scratch: Path) -> None:
        rows = np.concatenate([self.pool, self.val])
        size = self.net.spec.config.image_size
        shape = self._run_frozen(torch.zeros(1, size, size, 3, dtype=torch.uint8)).shape[1:]
        views = self._base_views + self.config.views
        self._cache = FeatureCache(scratch / "frozen.f16", len(self.local), views, shape)
        # Cached augmented views are needed by whoever trains on them: each node holds all. Else by whoever mines them.
        mine = rows[self.rank.local_rank :: self.rank.local_world]
        if not self.config.views:
            mine = np.concatenate(
                [self.pool[self.rank.rank :: self.rank.world], self.val[self.rank.rank :: self.rank.world]]
            )
        size, rounded = self.net.spec.config.image_size, self.dtype != torch.float32
        at_once = images_at_once(64, size * size, self.device, rounded=rounded)
        self._cache.fill(mine, self._pixels, self._run_frozen, at_once)
        self.rank.barrier()

    def _pixels(self, rows: Sequence[int], view: int, seeds: list[list[int]] | None = None) -> Tensor:
        size = self.net.spec.config.image_size
        pixels = torch.from_numpy(np.stack([decode_stored(jpeg, size) for jpeg in self.local.jpegs(rows)]))
        if seeds is None and view < self._base_views:
            return pixels.flip(2) if view == 1 else pixels
        return augment(pixels, seeds or [[self.config.seed, view, row] for row in rows], self.config.augment)

    @torch.no_grad()
    def _run_frozen(self, pixels: Tensor) -> Tensor:
        return self._frozen(self.net.normalise(pixels.to(self.device)).to(self.dtype))

    def _maps_of(self, batches: list[np.ndarray], epoch: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(all rows of the batch, the frozen part's output for this rank's share), the next read in the background."""
        ready = prefetch(self._decoder, lambda rows: self._training_input(rows[self.rank.mine], epoch), batches)
        for rows, found in ready:
            yield rows, (self._run_frozen(found) if found.dtype == torch.uint8 else found).to(self.device)

    def _training_input(self, rows: np.ndarray, epoch: int) -> Tensor:
        """Cached maps under a random view of each row, or, without cached views, freshly augmented pixels."""
        seeds = [[self.config.seed, 1000 + epoch, int(row)] for row in rows]
        if not self.config.views:
            return self._pixels(rows.tolist(), 0, seeds=seeds)
        # The plain image is a view as good as the augmented ones.
        return self._cache.read(rows, np.array([_draw(seed, self._cache.num_views) for seed in seeds], dtype=np.int64))

    @torch.inference_mode()
    def _embed(self, rows: np.ndarray, *, base_views: bool = False, batch_size: int = 128) -> Tensor:
        """(n, D) float32 on the device, of the plain image, or of all base views as the embedder does."""
        out = torch.empty(len(rows), self.net.dim, device=self.device)
        views = range(self._base_views if base_views else 1)
        starts = range(0, len(rows), batch_size)
        # The next batch is read from the disk's cache while the tail runs on this one.
        ready = prefetch(self._decoder, lambda start: self._read_views(rows[start : start + batch_size], views), starts)
        for start, maps in ready:
            with self._autocast():
                parts = [self._trained(each.to(self.device)) for each in maps]
            out[start : start + batch_size] = parts[0] if len(parts) == 1 else l2n(parts[0] + parts[1])
        return out

    def _read_views(self, rows: np.ndarray, views: Iterable[int]) -> list[Tensor]:
        return [self._cache.read(rows, view) for view in views]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def _whiten_head(self) -> None:
        """Whitening of a bounded sample's plain features, the same on every rank."""
        sample = self.pool[:_WHITENING_SAMPLE]
        share = sample[self.rank.mine]
        features = torch.empty(len(share), self.net.num_features, device=self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32),
        ):
            for start in range(0, len(share), 256):
                maps = self._cache.read(share[start : start + 256], 0).to(self.device)
                features[start : start + 256] = self.net.features(self._trained.tail(maps))
        features = self.rank.gather(features, len(sample)).cpu().double()
        labels = torch.from_numpy(self.labels[sample])
        projection, mean = learn_whitening(features, labels, self.net.dim)
        head = self.net.head
        assert isinstance(head, nn.Sequential)
        start_head_from_whitening(head.cpu(), projection, mean, features)
        head.to(self.device)

    def _set_rate(self, progress: float) -> None:
        """One cycle: linear rise over 15 %, then a cosine to zero. A function of progress alone: resuming is exact."""
        rise = 0.15
        part = progress / rise if progress < rise else 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * part * self._rate_scale


def _pool(local: LocalCollection, config: TrainConfig) -> np.ndarray:
    """Rows mined from: all of `train`, or whole identities drawn up to `pool_size` images. Identities adjoin."""
    rows = local.rows_of("train")
    numbers = group_mining.label_numbers(local.labels[rows])
    if not len(rows) or numbers.max() < 1:
        raise ValueError("Training needs at least two identities with two images each in the train split. Add photos.")
    order = np.random.default_rng(config.seed).permutation(numbers.max() + 1)
    ranked = np.argsort(np.argsort(order)[numbers], kind="stable")  # whole identities, in drawn order
    rows = rows[ranked]
    if config.pool_size and config.pool_size < len(rows):
        names = numbers[ranked]
        whole = np.flatnonzero(names[: config.pool_size] != names[config.pool_size])
        rows = rows[: whole[-1] + 1] if len(whole) else rows[:0]
        if len(np.unique(names[: len(rows)])) < 2:
            raise ValueError(
                f"pool_size {config.pool_size} holds fewer than two whole identities. Raise it, or 0 for all."
            )
    return rows


def _draw(seed: list[int], num: int) -> int:
    return int(np.random.default_rng(seed).integers(num))
