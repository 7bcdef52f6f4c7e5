"""This process among those that Ray Train started."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads PyTorch
    from retrieval.training.workers import Rank


def rank_of_ray_train() -> Rank:
    """To be called on a worker of Ray Train."""
    import ray.train

    from retrieval.training.workers import Rank

    context = ray.train.get_context()
    return Rank(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_world=context.get_local_world_size(),
    )
