"""Losses on embeddings. Distance, loss and reduction are apart, so that each can be replaced alone.

A loss of tuples is a function of (query, positive, negatives, margin) and a line in `LOSSES`; a loss of a batch of
labelled photos is a line in `LABEL_LOSSES`. By that name it is a setting. PyTorch, and the library that most of the
second kind come from (pytorch-metric-learning, MIT), are imported where they are used only, so that settings can name
the losses without loading them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def squared_l2(x: Tensor, y: Tensor) -> Tensor:
    """||x - y||_2^2 along the last axis: (..., D), (..., D) -> (...)."""
    return (x - y).square().sum(dim=-1)


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.2) -> Tensor:
    """Triplet loss: L = max(||a - p||^2 - ||a - n||^2 + margin, 0)   (FaceNet, arXiv:1503.03832, eq. 1-3).

    Squared distances with margin 0.2, FaceNet's convention; others use plain distances with 0.05.

    Args:
        anchor, positive, negative: (..., D) float, unit norm.
        margin: alpha > 0.

    Returns: (...) float, each >= 0, not reduced.

    Example:
        >>> import torch
        >>> a, p, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
        >>> triplet(a, p, n)  # 0.8 - 2.0 + 0.2 < 0
        tensor([0.])
    """
    return (squared_l2(anchor, positive) - squared_l2(anchor, negative) + margin).clamp(min=0)


def mean_of_active(loss: Tensor) -> Tensor:
    """Mean over the terms above zero: satisfied triplets give no gradient and must not dilute the others.

    Args:    loss: (B,) float >= 0.
    Returns: scalar; 0 if no term is active.
    """
    return loss.sum() / (loss > 0).sum().clamp(min=1)


def triplets_of_tuple(query: Tensor, positive: Tensor, negatives: Tensor, margin: float = 0.2) -> Tensor:
    """The triplets of a tuple, its positive with each of its negatives, summed.

    Args:
        query, positive: (B, D) float, unit norm. negatives: (B, K, D) float, unit norm.
        margin: as in `triplet`.

    Returns: (B,) float, each >= 0, not reduced: gradients of tuples are meant to add up.

    Example:
        >>> import torch
        >>> q, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.8, 0.6], [0.0, 1.0]]])
        >>> triplets_of_tuple(q, torch.tensor([[0.6, 0.8]]), n)  # (0.8 - 0.4 + 0.2) + 0
        tensor([0.6000])
    """
    return triplet(query[:, None], positive[:, None], negatives, margin).sum(dim=1)


def contrastive(query: Tensor, positive: Tensor, negatives: Tensor, margin: float = 0.7) -> Tensor:
    """Contrastive loss of a tuple, summed over its pairs   (Radenovic et al., arXiv:1711.02512, eq. 4).

    0.5 D^2 for the matching pair, 0.5 max(0, margin - D)^2 for another, D = ||q - x + 1e-6||_2 (1e-6 on each
    coordinate, which keeps the root's gradient finite at D = 0).

    Args:
        query, positive: (B, D) float, unit norm. negatives: (B, K, D) float, unit norm.
        margin: distance from which a negative is far enough.

    Returns: (B,) float, each >= 0, not reduced: gradients of tuples are meant to add up.

    Example:
        >>> import torch
        >>> q, p, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[[0.8, 0.6]]])
        >>> contrastive(q, p, n)  # 0.5 * 0.8 + 0.5 * (0.7 - 0.6325)^2
        tensor([0.4023])
    """
    import torch

    others = torch.cat([positive[:, None], negatives], dim=1)
    matching = torch.arange(others.shape[1], device=others.device) == 0
    distance = (query[:, None] - others + 1e-6).square().sum(dim=-1).sqrt()
    apart = (margin - distance).clamp(min=0).square()
    return 0.5 * distance.square().where(matching, apart).sum(dim=-1)


LOSSES: dict[str, Loss] = {"contrastive": contrastive, "triplet": triplets_of_tuple}
"""Losses of tuples by name: (query (B, D), positive (B, D), negatives (B, K, D), margin) -> (B,), not reduced."""


def smooth_ap(embeddings: Tensor, labels: Tensor, temperature: float = 0.01) -> Tensor:
    """1 - the average precision of each photo that asks all others of the batch, its ranks made smooth; their mean
    (Brown et al., Smooth-AP, arXiv:2007.12163, eq. 5). The library's wants as many photos of each label.

    Args:
        embeddings: (B, D) float, unit norm. labels: (B,) int64; a photo alone under its label does not ask.
        temperature: of the sigmoid that counts who is ranked before whom.

    Returns: scalar from 0 to 1; 0 if no two photos have one label.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> smooth_ap(x, torch.tensor([0, 1, 0]))  # each of the two finds the other one second
        tensor(0.5000)
    """
    import torch

    similar, same = embeddings @ embeddings.T, labels[:, None] == labels[None]
    same = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    query, positive = same.nonzero(as_tuple=True)
    if not len(query):
        return embeddings.sum() * 0
    before = ((similar[query] - similar[query, positive][:, None]) / temperature).sigmoid()
    others = torch.ones_like(before).scatter(1, torch.stack([query, positive], dim=1), 0)
    rank, among = 1 + (before * others).sum(dim=1), 1 + (before * others * same[query]).sum(dim=1)
    precision = torch.zeros(len(labels), dtype=rank.dtype, device=rank.device).index_add(0, query, among / rank)
    num = same.sum(dim=1)
    return 1 - (precision / num.clamp(min=1)).sum() / (num > 0).sum()


Criterion = Callable[["Tensor", "Tensor"], "Tensor"]
"""(embeddings (B, D), labels (B,) int64, from 0) -> scalar. A module, if it has parameters or remembers."""


def _of_library(name: str, miner: str = "", **settings: Any) -> Callable[[Tensor], Criterion]:
    def make(_centres: Tensor) -> Criterion:
        loss = _library("losses", name)(**settings)
        if not miner:
            return loss
        mine = _library("miners", miner)()
        return lambda embeddings, labels: loss(embeddings, labels, mine(embeddings, labels))

    return make


def _of_proxies(name: str, each: int = 1, **settings: Any) -> Callable[[Tensor], Criterion]:
    """Proxies of labels, which are trained too: they begin where the photos of their label are."""

    def make(centres: Tensor) -> nn.Module:
        import torch

        num, dim = centres.shape
        more = {"sub_centers": each} if each > 1 else {}
        loss = _library("losses", name)(num_classes=num, embedding_size=dim, **settings, **more)
        draw = torch.Generator().manual_seed(0)  # sub-centres that begin as one would stay one
        apart = 0.02 * torch.randn(num * each, dim, generator=draw) if each > 1 else 0.0
        start = centres.cpu().repeat_interleave(each, dim=0) + apart
        with torch.no_grad():
            loss.W.copy_(torch.nn.functional.normalize(start, dim=1).T)
        return loss

    return make


def _of_memory(size: int) -> Callable[[Tensor], Criterion]:
    def make(centres: Tensor) -> nn.Module:
        import torch

        class Memory(_library("losses", "CrossBatchMemory")):
            """The library's, which forgets where it was when a run goes on."""

            def get_extra_state(self) -> Tensor:
                return torch.tensor([self.queue_idx, int(self.has_been_filled)])

            def set_extra_state(self, state: Tensor) -> None:
                self.queue_idx, self.has_been_filled = int(state[0]), bool(state[1])

        return Memory(_library("losses", "MultiSimilarityLoss")(**_MULTI_SIMILARITY), centres.shape[1], size)

    return make


def _library(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"pytorch_metric_learning.{module}"), name)


_MULTI_SIMILARITY = {"alpha": 2, "beta": 50, "base": 0.5}
LABEL_LOSSES: dict[str, Callable[[Tensor], Criterion]] = {
    "arcface": _of_proxies("ArcFaceLoss", margin=17.2, scale=16),
    "circle": _of_library("CircleLoss", m=0.4, gamma=80),
    "contrastive": _of_library("ContrastiveLoss", pos_margin=0.0, neg_margin=0.7),
    "memory": _of_memory(1024),
    "multi-similarity": _of_library("MultiSimilarityLoss", miner="MultiSimilarityMiner", **_MULTI_SIMILARITY),
    "smooth-ap": lambda _centres: smooth_ap,
    "subcentre-arcface": _of_proxies("SubCenterArcFaceLoss", each=2, margin=17.2, scale=16),
    "supervised-contrastive": _of_library("SupConLoss", temperature=0.1),
}
"""Losses of a batch of labelled photos by name, made of the (L, D) centres of the labels trained on. Beside them stands
`triplet`, whose negatives are chosen by a strategy (`group_mining`).

arcface, subcentre-arcface: Deng et al., arXiv:1801.07698 and ECCV 2020; margins in degrees. circle: Sun et al.,
arXiv:2002.10857. memory: Wang et al., arXiv:1912.06798, of the last 1,024 embeddings, with multi-similarity: Wang et
al., arXiv:1904.06627. supervised-contrastive: Khosla et al., arXiv:2004.11362.
"""
