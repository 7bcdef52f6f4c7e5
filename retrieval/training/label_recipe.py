"""Triplets of labelled photos, with negatives re-mined every epoch, for the trainer.

The frozen part of the trunk runs once per image (see `feature_cache`); an epoch touches only the unfrozen tail: embed
the pool, share the embeddings, mine, take steps, validate. Nothing is rebuilt between epochs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.artifacts.collection import LocalCollection
from retrieval.evaluation.metrics import leave_one_out
from retrieval.images.augment import augment
from retrieval.images.batches import images_at_once, prefetch
from retrieval.images.pixels import decode_stored
from retrieval.models import trunks
from retrieval.models.pooling import l2n
from retrieval.models.whitening import learn_whitening, start_head_from_whitening
from retrieval.training import group_mining, losses
from retrieval.training.feature_cache import FeatureCache, Tail
from retrieval.training.recipe import Mined, Past, Worker, one_cycle, spread
from retrieval.training.settings import Strategy, TrainConfig

_PROXIES_FASTER = 10  # than the network: they are met a few times an epoch each
_VALIDATED = 20_000  # photos at most, of whole identities drawn: more of them tell epochs apart no better
_WHITENING_SAMPLE = 4096  # images; bounds the N x N eigenproblem, whatever the collection's size


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups(Mined):
    """An epoch's groups of photos; `strategy` chooses the negatives in them."""

    strategy: Strategy


@dataclass(frozen=True, slots=True)
class _Batch:
    """All rows of a step (B,), this rank's maps of its share of them (b, C, h, w), and how they become triplets."""

    rows: np.ndarray
    maps: Tensor
    strategy: Strategy
    step: int


class LabelRecipe:
    """One rank's caches and draws. See `recipe.Recipe` for what each method is to the trainer."""

    def __init__(self, local: LocalCollection, config: TrainConfig, *, scratch: Path) -> None:
        """Args:
        local: crops of the splits train and val.
        scratch: folder on this node's disk, shared by its ranks, private to this attempt.

        Raises: ValueError if there are fewer than two identities to train on.
        """
        self.local, self.config = local, config
        train = local.rows_of("train")
        self.pool = group_mining.pool_of(train, local.labels[train], size=config.pool_size, seed=config.seed)
        self.val = local.rows_of("val")
        if len(self.val) > _VALIDATED:
            some = group_mining.pool_of(self.val, local.labels[self.val], size=_VALIDATED, seed=config.seed)
            self.val = np.sort(some)
        self.labels = group_mining.label_numbers(local.labels)
        self._scratch = scratch

    def prepare(self, worker: Worker) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Freeze, fill the cache, start the head."""
        config, net = self.config, worker.net
        self.worker, self.net = worker, net
        unfreeze = None if config.unfreeze_layers < 0 else config.unfreeze_layers
        self.unfrozen = trunks.freeze_all_but_last(net.trunk, unfreeze)
        frozen, tail = trunks.split_frozen(net.trunk)
        # A copy: the bundle keeps the frozen weights as they came, not rounded to the precision they run in.
        self._frozen = copy.deepcopy(frozen)
        self._trained = Tail(tail, net).to(worker.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._frozen.to(worker.device, dtype=worker.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._fill_cache()
        if config.whiten_head and isinstance(net.head, nn.Sequential):
            self._whiten_head()
        trained = [p for p in self._trained.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained}]
        if config.loss != "triplet":
            groups += self._begin_loss()
        return self._trained, torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)

    # -- what an epoch does ------------------------------------------------------------------------------------------

    def mine(self, epoch: int, past: Past) -> Groups:
        """The epoch's groups: (G, M) rows into `local`, padded with -1."""
        config = self.config
        labels = group_mining.label_numbers(self.local.labels[self.pool])
        draw = {"per_identity": config.images_per_identity, "seed": config.seed, "epoch": epoch}
        # A few photos say whom somebody is near to as well as many would.
        some = group_mining.draw_images(labels, np.unique(labels)[:, None], **draw)
        some = np.sort(some[some >= 0])
        embeddings = self._embed_shared(self.pool[some])
        # A start that lies close together already (random weights, no whitening) is no collapse.
        floor = min(group_mining.SPREAD_FLOOR, past.history[1]["train/spread"] / 2) if epoch > 1 else 0.0
        collapsed = spread(embeddings) < floor
        if collapsed:
            past.go_back(epoch)
            embeddings = self._embed_shared(self.pool[some])
        apart = spread(embeddings)
        strategy = group_mining.choose_strategy(
            config.negatives, epoch=epoch, warmup_epochs=config.warmup_epochs, spread_now=apart
        )
        centres = group_mining.class_centres(embeddings, torch.from_numpy(labels[some]).to(self.worker.device))
        identities = group_mining.mine_groups(
            centres, strategy, companions=config.companions, seed=config.seed, epoch=epoch
        )
        places = group_mining.draw_images(labels, identities, **draw)
        return Groups(
            epoch=epoch,
            rows=np.where(places >= 0, self.pool[places], -1),
            steps=math.ceil(len(places) / config.groups_per_batch),
            strategy=strategy,
            report={
                "groups": len(places),
                "train/went_back": int(collapsed),
                "train/spread": apart,
                "train/negatives": strategy,
            },
        )

    def batches(self, mined: Groups) -> Iterator[_Batch]:
        """The groups of each step, the next one's maps read in the background."""
        worker = self.worker
        batches = self._rows_of_steps(mined)
        ready = prefetch(
            worker.decoders.ahead, lambda rows: self._training_input(rows[worker.rank.mine], mined.epoch), batches
        )
        for step, (rows, found) in enumerate(ready):
            maps = self._run_frozen(found) if found.dtype == torch.uint8 else found
            yield _Batch(rows, maps.to(worker.device), mined.strategy, step)

    def loss(self, batch: _Batch) -> tuple[Tensor, tuple[Tensor, Tensor, int]]:
        """The loss of a step, alike on every rank, with this rank's gradient; and what `summary` is to know: the sum of
        the losses of its triplets, or its one loss, how many are above zero, and how many there are."""
        rank, rows = self.worker.rank, batch.rows
        with self.worker.autocast():
            share = self._trained(batch.maps)
        embeddings = rank.gather_with_own_gradient(share, len(rows))
        labels = torch.from_numpy(self.labels[rows]).to(self.worker.device)
        if self.config.loss != "triplet":
            whole = self._criterion(embeddings.float(), torch.searchsorted(self._known, labels))
            return whole, (whole.detach(), (whole.detach() > 0).long(), 1)
        anchor, positive, negative = group_mining.triplets_in_batch(
            embeddings, labels, batch.strategy, seed=batch.step
        ).T
        loss = losses.triplet(embeddings[anchor], embeddings[positive], embeddings[negative], self.config.margin)
        return losses.mean_of_active(loss), (loss.detach().sum(), (loss.detach() > 0).sum(), len(loss))

    def summary(self, mined: Groups, seen: Sequence[tuple[Tensor, Tensor, int]]) -> dict[str, Any]:
        num, total, active = (sum(num for _, _, num in seen), 0.0, 0)
        for loss, above, _ in seen:
            total, active = total + float(loss), active + int(above)
        report: dict[str, Any] = {"train/images": sum(len(rows) for rows in self._rows_of_steps(mined))}
        if self.config.loss == "triplet":
            report |= {"train/triplets": num, "train/active": active / max(1, num)}
        return report | {"train/loss": total / max(1, num)}

    def _rows_of_steps(self, mined: Groups) -> list[np.ndarray]:
        return [np.unique(part[part >= 0]) for part in np.array_split(mined.rows, mined.steps)]

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """One cycle over all epochs."""
        return one_cycle(((epoch - 1) * steps + step + 1) / (self.config.epochs * steps))

    def validate(self) -> dict[str, Any]:
        """Leave-one-out recall and mAP on identities that are not trained on; empty without any."""
        if not len(self.val):
            return {}
        embeddings = self._embed_shared(self.val, base_views=True)
        scores = leave_one_out(embeddings.cpu().numpy(), self.local.labels[self.val], ks=(1, 10))
        if scores.num_without_positive == scores.num_queries:
            return {}
        return {f"val/{name}": value for name, value in scores.values.items()}

    def sample(self, epoch: int, num: int = 8) -> None:
        """Groups are many photos each, and are not shown."""

    def _begin_loss(self) -> list[dict[str, Any]]:
        """Make a loss of the table, and what of it trains: proxies begin at the centres of the pool's labels."""
        device, labels = self.worker.device, torch.from_numpy(self.labels[self.pool])
        self._known, own = (each.to(device) for each in labels.unique(return_inverse=True))
        centres = group_mining.class_centres(self._embed_shared(self.pool), own)
        self._criterion = losses.LABEL_LOSSES[self.config.loss](centres)
        if not isinstance(self._criterion, nn.Module):
            return []
        self._trained.criterion = self._criterion.to(device)
        proxies = list(self._criterion.parameters())
        for each in proxies:  # every rank has the whole gradient, and the ranks' are summed
            each.register_hook(lambda grad: grad / self.worker.rank.world)
        rate = _PROXIES_FASTER * self.config.learning_rate
        return [{"params": proxies, "lr": rate, "weight_decay": 0.0}] if proxies else []

    # -- features and embeddings -------------------------------------------------------------------------------------

    @property
    def _base_views(self) -> int:
        return 2 if self.net.spec.config.flip else 1

    def _fill_cache(self) -> None:
        worker, size = self.worker, self.net.spec.config.image_size
        rank = worker.rank
        shape = self._run_frozen(torch.zeros(1, size, size, 3, dtype=torch.uint8)).shape[1:]
        views = self._base_views + self.config.views
        self._cache = FeatureCache(self._scratch / "frozen.f16", len(self.local), views, shape)
        # Cached augmented views are needed by whoever trains on them: each node holds all. Else by whoever mines them.
        mine = np.concatenate([self.pool, self.val])[rank.local_rank :: rank.local_world]
        if not self.config.views:
            mine = np.concatenate([self.pool[rank.mine], self.val[rank.mine]])
        at_once = images_at_once(64, size * size, worker.device, rounded=worker.dtype != torch.float32)
        self._cache.fill(mine, self._pixels, self._run_frozen, at_once, worker.progress)
        rank.barrier()

    def _pixels(self, rows: Sequence[int], view: int, seeds: list[list[int]] | None = None) -> Tensor:
        size = self.net.spec.config.image_size
        decoded = self.worker.decoders.stack(self.local.jpegs(rows), lambda jpeg: decode_stored(jpeg, size))
        pixels = torch.from_numpy(decoded)
        if seeds is None and view < self._base_views:
            return pixels.flip(2) if view == 1 else pixels
        return augment(pixels, seeds or [[self.config.seed, view, row] for row in rows], self.config.augment)

    @torch.no_grad()
    def _run_frozen(self, pixels: Tensor) -> Tensor:
        return self._frozen(self.net.normalise(pixels.to(self.worker.device)).to(self.worker.dtype))

    def _training_input(self, rows: np.ndarray, epoch: int) -> Tensor:
        """Cached maps under a random view of each row, or, without cached views, freshly augmented pixels."""
        seeds = [[self.config.seed, 1000 + epoch, int(row)] for row in rows]
        if not self.config.views:
            return self._pixels(rows.tolist(), 0, seeds=seeds)
        # The plain image is a view as good as the augmented ones.
        views = [int(np.random.default_rng(seed).integers(self._cache.num_views)) for seed in seeds]
        return self._cache.read(rows, np.array(views, dtype=np.int64))

    def _embed_shared(self, rows: np.ndarray, *, base_views: bool = False) -> Tensor:
        """(n, D) float32, each rank embedding its share."""
        rank = self.worker.rank
        return rank.gather(self._embed(rows[rank.mine], base_views=base_views), len(rows))

    @torch.inference_mode()
    def _embed(self, rows: np.ndarray, *, base_views: bool, batch_size: int = 128) -> Tensor:
        """(n, D) float32 on the device, of the plain image, or of all base views as the embedder does."""
        worker = self.worker
        out = torch.empty(len(rows), self.net.dim, device=worker.device)
        views = range(self._base_views if base_views else 1)
        starts = range(0, len(rows), batch_size)
        run = self._trained.as_it_is(worker.dtype)
        # The next batch is read from the disk's cache while the tail runs on this one.
        ready = prefetch(
            worker.decoders.ahead, lambda start: self._read_views(rows[start : start + batch_size], views), starts
        )
        for start, maps in ready:
            with worker.autocast():
                parts = [run(each.to(worker.device)) for each in maps]
            out[start : start + batch_size] = parts[0] if len(parts) == 1 else l2n(parts[0] + parts[1])
            worker.progress("embed", min(start + batch_size, len(rows)), len(rows))
        return out

    def _read_views(self, rows: np.ndarray, views: Iterable[int]) -> list[Tensor]:
        return [self._cache.read(rows, view) for view in views]

    def _whiten_head(self) -> None:
        """Whitening of a bounded sample's plain features, the same on every rank."""
        worker, sample = self.worker, self.pool[:_WHITENING_SAMPLE]
        share = sample[worker.rank.mine]
        features = torch.empty(len(share), self.net.num_features, device=worker.device)
        with torch.inference_mode(), worker.autocast():
            for start in range(0, len(share), 256):
                maps = self._cache.read(share[start : start + 256], 0).to(worker.device)
                features[start : start + 256] = self.net.features(self._trained.tail(maps))
        features = worker.rank.gather(features, len(sample)).cpu().double()
        labels = torch.from_numpy(self.labels[sample])
        projection, mean = learn_whitening(features, labels, self.net.dim)
        head = self.net.head
        assert isinstance(head, nn.Sequential)
        start_head_from_whitening(head.cpu(), projection, mean, features)
        head.to(worker.device)
