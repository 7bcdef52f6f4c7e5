"""Whitening: directions in which matching images agree and others differ, scaled so that each counts alike.

From labelled features held in memory (`learn_whitening`, for the faces' head), or from sums that are taken in a stream
and added up over machines (`Moments`, then `learned` or `pca`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn


def learn_whitening(
    features: Tensor, labels: Tensor, dim: int, *, num_components: int = 400, shrinkage: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Project so that within-identity scatter is white and the rest is sorted by variance.

    The within-class form of learned whitening (Radenovic et al., arXiv:1711.02512, sec. 3.3; Mikolajczyk & Matas):
    PCA to `num_components`; S = within-identity covariance + shrinkage * mean(diag) * I; S = L L^T; P1 = L^-1; V =
    eigenvectors of P1 C P1^T, C the total covariance, descending; P = V^T P1.

    Args:
        features: (N, F) float, L2-normalised. labels: (N,) int64. dim: rows wanted.
        num_components: principal components kept before, where within-identity scatter is still well measured.

    Returns: projection (dim, F) float64 and mean (F,) float64, for y = projection (x - mean). Where the features span
        fewer than `dim` directions the last rows are zero.

    Raises: ValueError if no identity has two features.
    """
    x = features.double()
    mean = x.mean(dim=0)
    x = x - mean
    # N x N or F x F, whichever is smaller: the symmetric eigensolver is far faster than an SVD of (N, F).
    basis = _principal(x, min(num_components, len(x) - 1, x.shape[1]))
    y = x @ basis.T
    names, inverse = labels.unique(return_inverse=True)
    if len(names) == len(labels):
        raise ValueError("Whitening needs at least one identity with two images; each has only one.")
    centres = torch.zeros(len(names), y.shape[1], dtype=y.dtype).index_add_(0, inverse, y)
    centres /= inverse.bincount().unsqueeze(1)
    residual = y - centres[inverse]
    within = residual.T @ residual / (len(y) - len(names))
    within += (shrinkage * within.diagonal().mean() + 1e-12) * torch.eye(len(within), dtype=y.dtype)
    chol = torch.linalg.cholesky(within)
    white = torch.linalg.solve_triangular(chol, y.T, upper=False)
    vectors = torch.linalg.eigh(white @ white.T / y.shape[0]).eigenvectors.flip(1)
    rotated = torch.linalg.solve_triangular(chol.T, vectors, upper=True).T @ basis
    projection = torch.zeros(dim, x.shape[1], dtype=x.dtype)
    projection[: min(dim, len(rotated))] = rotated[:dim]
    return projection, mean


def _principal(x: Tensor, num: int) -> Tensor:
    """(num, F) orthonormal principal directions of centred x (N, F), largest variance first."""
    if x.shape[1] <= x.shape[0]:
        return torch.linalg.eigh(x.T @ x).eigenvectors.flip(1)[:, :num].T
    values, vectors = torch.linalg.eigh(x @ x.T)
    values, vectors = values.flip(0)[:num], vectors.flip(1)[:, :num]
    keep = values > values[0] * 1e-12
    return (vectors[:, keep].T @ x) / values[keep].sqrt().unsqueeze(1)


@dataclass(slots=True)
class Moments:
    """Sums over descriptors and over matching pairs, from which whitening is solved. Their size depends on F alone.

    Attributes: dim F. num, total (F,), outer (F, F): number, sum and sum of x x^T of all descriptors. num_pairs,
    queries (F,), differences (F, F): number of pairs, sum of their queries q, sum of (q - p)(q - p)^T. float64.
    """

    dim: int
    num: int = 0
    num_pairs: int = 0
    total: Tensor = field(init=False)
    outer: Tensor = field(init=False)
    queries: Tensor = field(init=False)
    differences: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.total, self.queries = (torch.zeros(self.dim, dtype=torch.float64) for _ in range(2))
        self.outer, self.differences = (torch.zeros(self.dim, self.dim, dtype=torch.float64) for _ in range(2))

    def add(self, x: Tensor) -> Moments:
        """Count in descriptors (n, F)."""
        x = x.double()
        self.num += len(x)
        self.total += x.sum(dim=0)
        self.outer += _gram(x)
        return self

    def add_pairs(self, query: Tensor, positive: Tensor) -> Moments:
        """Count in matching pairs, (n, F) each."""
        query, apart = query.double(), query.double() - positive.double()
        self.num_pairs += len(query)
        self.queries += query.sum(dim=0)
        self.differences += _gram(apart)
        return self

    def merge(self, other: Moments) -> Moments:
        """Add another share's sums to these."""
        if other.dim != self.dim:
            raise ValueError(f"Sums of descriptors of length {self.dim} and {other.dim} do not add up.")
        self.num += other.num
        self.num_pairs += other.num_pairs
        for name in ("total", "outer", "queries", "differences"):
            getattr(self, name).add_(getattr(other, name))
        return self

    def scatter(self, centre: Tensor) -> Tensor:
        """sum (x - centre)(x - centre)^T over all descriptors, (F, F)."""
        cross = torch.outer(self.total, centre)
        return self.outer - cross - cross.T + self.num * torch.outer(centre, centre)


def learned(
    moments: Moments, *, dim: int | None = None, shrinkage: float = 0.0, power: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Whitening learned from matching pairs, Lw   (Radenovic et al., arXiv:1711.02512, sec. 3.3).

    m = mean of the pairs' queries; S = mean (q - p)(q - p)^T = L L^T; V the eigenvectors of L^-1 scatter(m) L^-T, by
    falling eigenvalue; P = V^T L^-1. So P S P^T = I, and projected descriptors are uncorrelated. It takes a Cholesky
    factor, a triangular solve and the symmetric eigensolver.

    Args:
        dim: rows kept; None keeps all F.
        shrinkage: S <- (1 - shrinkage) S + shrinkage mean(diag S) I. Pairs fewer than F leave S without full rank.
        power: rows are scaled by lambda^((power - 1) / 2) of their variance in units of S; 1 is Lw itself.

    Returns: P (dim, F) float64 and m (F,) float64. Each row's largest entry is positive.

    Raises: ValueError if no pair was counted in.
    """
    if not moments.num_pairs:
        raise ValueError("Learned whitening needs matching pairs, got none. Use pca, which needs only descriptors.")
    centre = moments.queries / moments.num_pairs
    within = moments.differences / moments.num_pairs
    eye = torch.eye(moments.dim, dtype=torch.float64)
    within = (1 - shrinkage) * within + shrinkage * within.diagonal().mean() * eye
    chol = _cholesky(within)
    half = torch.linalg.solve_triangular(chol, moments.scatter(centre), upper=False)
    white = torch.linalg.solve_triangular(chol, half.T, upper=False)
    values, vectors = _eigh((white + white.T) / 2)
    kept = vectors.flip(1)[:, : dim or moments.dim]
    projection = torch.linalg.solve_triangular(chol.T, kept, upper=True).T
    if power != 1:
        variance = values.flip(0)[: len(projection)].clamp(min=1e-12) / max(1, moments.num)
        projection = projection * variance.pow((power - 1) / 2)[:, None]
    return _signed(projection), centre


def pca(moments: Moments, *, dim: int | None = None, power: float = 1.0) -> tuple[Tensor, Tensor]:
    """PCA whitening: P = Lambda^(-power/2) V^T of the descriptors' covariance, largest variance first.

    Args:
        dim: rows kept; None keeps all that the descriptors span.
        power: 1 whitens wholly, 0.5 gives Lambda^-0.25.

    Returns: P (dim, F) float64 and the mean (F,) float64. Each row's largest entry is positive.

    Raises: ValueError for fewer than two descriptors, or more dimensions than they span.
    """
    if moments.num < 2:
        raise ValueError(f"PCA whitening needs two descriptors or more, got {moments.num}.")
    centre = moments.total / moments.num
    values, vectors = _eigh(moments.scatter(centre) / moments.num)
    values, vectors = values.flip(0), vectors.flip(1)
    spanned = int((values > values[0] * 1e-10).sum())
    if dim is not None and dim > spanned:
        raise ValueError(f"{moments.num} descriptors span {spanned} dimensions, fewer than the {dim} asked for.")
    kept = dim or spanned
    return _signed(vectors[:, :kept].T * values[:kept].pow(-power / 2)[:, None]), centre


def _gram(x: Tensor) -> Tensor:
    """x^T x. NumPy sees that it is symmetric and multiplies half of it."""
    rows = x.numpy(force=True)
    return torch.from_numpy(rows.T @ rows)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors, by NumPy: 1.4 s for 2048 x 2048, where PyTorch took 10.5 (CPU)."""
    values, vectors = np.linalg.eigh(matrix.numpy(force=True))
    return torch.from_numpy(values), torch.from_numpy(vectors)


def _cholesky(matrix: Tensor) -> Tensor:
    """The Cholesky factor, of a matrix lifted by 1e-10 I, ten times as much again, until it is positive definite."""
    lift, eye = 0.0, torch.eye(len(matrix), dtype=matrix.dtype)
    while True:
        factor, failed = torch.linalg.cholesky_ex(matrix + lift * eye)
        if not failed:
            return factor
        lift = 10 * lift if lift else 1e-10


def _signed(projection: Tensor) -> Tensor:
    """Eigenvectors have no sign of their own: make each row's largest entry positive, on every machine."""
    largest = projection.gather(1, projection.abs().argmax(dim=1, keepdim=True))
    return projection * torch.where(largest < 0, -1.0, 1.0)


@torch.no_grad()
def start_head_from_whitening(head: nn.Sequential, projection: Tensor, mean: Tensor, features: Tensor) -> None:
    """Set an mlp head so that it starts as the linear map y = projection (x - mean), ReLU and all.

    The first layer's bias lifts every activation above zero on (nearly) all of `features`, where ReLU is the identity;
    the second layer, the identity matrix, takes the lift away. Training starts from the whitening, not from noise.

    Args:
        head: `mlp_head(F, D)`.
        projection: (D, F) float64. mean: (F,) float64. features: (N, F) float64, those the lift is measured on.
    """
    first, second = head[0], head[2]
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    projected = (features - mean) @ projection.T
    scale = 1.0 / projected.square().sum(dim=1).mean().sqrt()
    lift = 4.0 * projected.std(dim=0)  # four standard deviations: one activation in 30,000 is clipped
    first.weight.copy_(projection * scale)
    first.bias.copy_((lift - projection @ mean) * scale)
    second.weight.copy_(torch.eye(len(lift)))
    second.bias.copy_(-lift * scale)
