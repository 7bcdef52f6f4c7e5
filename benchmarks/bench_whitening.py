"""Learned whitening by the symmetric eigensolver and triangular solves, beside the general way it is published in.

    python benchmarks/bench_whitening.py
    python benchmarks/bench_whitening.py --dim 512

Both start from the same descriptors; the Gram matrices of what they give are compared.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.models import whitening
from retrieval.models.whitening import Moments


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How much."""

    dim: int = 2048
    """Length of a descriptor."""
    num: int = 8000
    """Descriptors; half as many pairs."""
    rounds: int = 1
    """Rounds; the middle one counts."""


def general_way(x: np.ndarray, query: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An inverse of the Cholesky factor, and an eigensolver for matrices of any kind."""
    mean = query.mean(axis=0)
    apart = query - positive
    inverse = np.linalg.inv(np.linalg.cholesky(apart.T @ apart / len(apart)))
    z = inverse @ (x - mean).T
    values, vectors = np.linalg.eig(z @ z.T)
    return np.real(vectors[:, np.real(values).argsort()[::-1]].T @ inverse), mean


def main(cfg: Config) -> float:
    """Run, print the table, return the ratio."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(cfg.num, cfg.dim)) * np.linspace(2, 0.1, cfg.dim)
    query, positive = x[::2], x[::2] + 0.3 * rng.normal(size=(len(x[::2]), cfg.dim))
    ratios, apart = [], 0.0
    for _ in range(cfg.rounds):
        started = time.perf_counter()
        slow, mean = general_way(x, query, positive)
        general = time.perf_counter() - started
        started = time.perf_counter()
        moments = (
            Moments(cfg.dim).add(torch.from_numpy(x)).add_pairs(torch.from_numpy(query), torch.from_numpy(positive))
        )
        projection, centre = whitening.learned(moments)
        ours = time.perf_counter() - started
        ratios.append(general / ours)
        some = x[:500]
        one, two = (some - mean) @ slow.T, (some - centre.numpy()) @ projection.numpy().T
        apart = float(np.abs(one @ one.T - two @ two.T).max() / np.abs(one @ one.T).max())
        print(f"{cfg.num} x {cfg.dim}: general {general:.2f} s, symmetric from sums {ours:.2f} s")
    ratio = statistics.median(ratios)
    print(f"  ratio {ratio:.2f}; Gram matrices differ by {apart:.1e} of the largest entry")
    return ratio


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
