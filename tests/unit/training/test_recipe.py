"""What recipes share: a digest of what was mined, how far embeddings keep apart, and how the rate goes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from retrieval.artifacts.progress import silent
from retrieval.images.batches import Decoders
from retrieval.models.pooling import l2n
from retrieval.training.recipe import Mined, Worker, one_cycle, spread
from retrieval.training.workers import Rank


def mined(rows: np.ndarray) -> Mined:
    return Mined(epoch=1, rows=rows, steps=1, report={})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_worker_multiplies_in_its_own_format(dtype: torch.dtype) -> None:
    cpu, net = torch.device("cpu"), torch.nn.Linear(2, 2)
    worker = Worker(net=net, rank=Rank(), device=cpu, dtype=dtype, decoders=Decoders(cpu), progress=silent)  # type: ignore[arg-type]
    with worker.autocast():
        assert net(torch.ones(1, 2)).dtype == dtype
    assert net(torch.ones(1, 2)).dtype == torch.float32


def test_digest_tells_order_and_values_apart() -> None:
    groups = np.array([[1, 2], [3, -1]])
    assert mined(groups).digest == mined(groups.astype(np.int32)).digest
    assert len({mined(rows).digest for rows in (groups, groups[::-1], groups[:, ::-1], groups + 1)}) == 4


def test_digest_is_of_the_rows_as_little_endian_int64() -> None:
    known = hashlib.sha256(bytes([1, *[0] * 7, 2, *[0] * 7, *[255] * 8])).hexdigest()
    assert mined(np.array([[1, 2, -1]])).digest == known
    wide = np.array([[1, 9, 2, 9, -1, 9]], dtype=">i4")
    assert mined(wide[:, ::2]).digest == known  # whatever the processor's order, whatever lies between


def test_spread_is_the_mean_squared_distance_of_two() -> None:
    x = l2n(torch.randn(12, 6, generator=torch.Generator().manual_seed(0))).double()
    pairs = [float((a - b).square().sum()) for a in x for b in x]
    assert spread(x) == pytest.approx(sum(pairs) / len(pairs), abs=1e-4)
    assert spread(x[:1].expand(5, -1)) == pytest.approx(0, abs=1e-4)


def test_the_rate_rises_and_falls_once() -> None:
    rates = [one_cycle(done / 100) for done in range(1, 101)]
    top = int(np.argmax(rates))
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()
    assert max(rates) == pytest.approx(1, abs=1e-3) and rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[6] == pytest.approx(7 / 15)
