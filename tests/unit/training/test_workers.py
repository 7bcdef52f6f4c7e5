"""Three real processes share work out and put it together as one process would."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from retrieval.training.workers import Rank

WORLD = 3
ROWS = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LOOK = torch.randn(2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_of(rows: Tensor) -> Tensor:
    """Every row meets every other, as in a batch of triplets."""
    return (rows @ rows.T).square().sum() + rows.sum()


def as_rank(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=WORLD)
    rank = Rank(rank=number, world=WORLD)
    found: dict[str, Any] = {"gathered": rank.gather(ROWS[rank.mine], len(ROWS))}
    found["few"] = rank.gather(ROWS[:2][rank.mine], 2)  # the third has nothing

    look = LOOK.clone().requires_grad_()
    shared = rank.gather_with_own_gradient(ROWS[rank.mine] @ look, len(ROWS))
    loss_of(shared).backward()
    idle = torch.ones(3, dtype=torch.float64, requires_grad=True)  # of none but the second
    if number == 1:
        (2 * idle).sum().backward()
    never = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    found["shared"], found["own"] = shared.detach(), look.grad.clone()  # type: ignore[union-attr]
    rank.sum_gradients([idle, look, never])
    found |= {"summed": look.grad, "idle": idle.grad, "never": never.grad}

    start = [torch.full((2, 3), float(number)).T, torch.tensor(number)]  # one that is not contiguous, a whole number
    rank.agree(start)
    found["agreed"] = [value.tolist() for value in start]
    found["total"] = rank.total(torch.tensor([1.0, number])).tolist()
    found["all"] = [rank.all(value, torch.device("cpu")) for value in (True, number != 1, False)]
    rank.barrier()
    torch.save(found, f"{folder}/{number}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the three saw."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(as_rank, args=(str(folder),), nprocs=WORLD, start_method="spawn")  # type: ignore[arg-type]
    return [torch.load(folder / str(number), weights_only=True) for number in range(WORLD)]


def test_shares_are_disjoint_and_differ_by_one_at_most() -> None:
    shares = [list(range(7))[Rank(rank=number, world=3).mine] for number in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


def test_gathered_shares_are_the_whole_in_its_order(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert torch.equal(one["gathered"], ROWS)
        assert torch.equal(one["few"], ROWS[:2])
        assert torch.allclose(one["shared"], ROWS @ LOOK)


def test_gradients_of_own_rows_add_up_to_that_of_one_process(found: list[dict[str, Any]]) -> None:
    look = LOOK.clone().requires_grad_()
    loss_of(ROWS @ look).backward()
    assert look.grad is not None
    assert torch.allclose(sum(one["own"] for one in found), look.grad)  # type: ignore[arg-type]
    for one in found:
        assert torch.allclose(one["summed"], look.grad)
        assert not torch.allclose(one["own"], look.grad, rtol=0.1)
        assert one["idle"].tolist() == [2, 2, 2] and one["never"].tolist() == [[0, 0], [0, 0]]


def test_all_agree_on_what_the_first_has(found: list[dict[str, Any]]) -> None:
    assert [one["agreed"] for one in found] == [[[[0.0, 0.0]] * 3, 0]] * 3


def test_totals_are_over_the_ranks(found: list[dict[str, Any]]) -> None:
    assert [one["total"] for one in found] == [[3, 3]] * 3


def test_what_one_rank_lacks_not_all_have(found: list[dict[str, Any]]) -> None:
    assert [one["all"] for one in found] == [[True, False, False]] * 3
    assert [Rank().all(value, torch.device("cpu")) for value in (True, False)] == [True, False]


def test_alone_nothing_is_sent() -> None:
    rank, value = Rank(), torch.ones(2, requires_grad=True)
    assert rank.mine == slice(0, None, 1)
    for same in (rank.gather(value, 2), rank.gather_with_own_gradient(value, 2), rank.total(value)):
        assert same is value
    rank.sum_gradients([value])
    rank.agree([value])
    rank.barrier()
    assert value.grad is None
