"""This process among the workers of a training run: sharing out work and putting results together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """Number `rank` of `world` processes, and `local_rank` of the `local_world` on this node. Alone by default."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def mine(self) -> slice:
        """This rank's share of any sequence: every world-th item, so that shares differ by at most one."""
        return slice(self.rank, None, self.world)

    def gather(self, share: Tensor, total: int) -> Tensor:
        """All ranks' shares of a sequence of `total` rows, in its order. (n, ...) -> (total, ...), no gradient."""
        if self.world == 1:
            return share
        padded = torch.zeros(math.ceil(total / self.world), *share.shape[1:], dtype=share.dtype, device=share.device)
        padded[: len(share)] = share.detach()
        pieces = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(pieces, padded)
        return torch.stack(pieces, dim=1).flatten(0, 1)[:total]

    def gather_with_own_gradient(self, share: Tensor, total: int) -> Tensor:
        """`gather`, where this rank's rows keep their gradient.

        A loss of all rows, computed alike on every rank, then has on each rank the gradient of its own rows; their sum
        over the ranks is the gradient that one process would have.
        """
        if self.world == 1:
            return share
        rows = self.gather(share, total)
        own = torch.arange(total, device=share.device)[self.mine]
        return rows.index_copy(0, own, share)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over the ranks: the gradient of one process that did all their work.

        A rank without work in this step takes part with zeros. One transfer for all parameters.
        """
        if self.world == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for parameter, piece in zip(parameters, flat.split([grad.numel() for grad in grads]), strict=True):
            parameter.grad = piece.view_as(parameter).clone()

    def agree(self, values: Sequence[Tensor]) -> None:
        """Replace each tensor by rank 0's: the last bit of a start that each rank computed is its processor's own."""
        if self.world == 1:
            return
        for value in values:
            whole = value.detach().contiguous()
            dist.broadcast(whole, 0)
            value.detach().copy_(whole)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the ranks."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def all(self, value: bool, device: torch.device) -> bool:
        """Whether it is so on every rank. Args: device: this rank's, which the ranks talk by."""
        return int(self.total(torch.tensor(int(value), device=device))) == self.world

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()
