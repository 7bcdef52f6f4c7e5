"""Whitening learned from labelled features: directions in which images of one identity agree and identities differ."""

from __future__ import annotations

import torch
from torch import Tensor


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
