"""How far samples are from data: the Frechet distance between feature sets, and distances to the nearest neighbour."""

import torch
from torch import Tensor


def frechet(a: Tensor, b: Tensor) -> float:
    """|mean_a - mean_b|² + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two feature sets (N, k) and (M, k), in float64.

    The eigenvalues of C_a C_b are those of the symmetric C_a^(1/2) C_b C_a^(1/2), so no matrix square root of a
    non-symmetric matrix is taken. Biased upward for few samples: compare values of the same N and M only.
    """
    a, b = a.double(), b.double()
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp_min(0).sqrt().sum()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    return max(0.0, float(gap + covariance_a.trace() + covariance_b.trace() - 2 * cross))


def nearest(a: Tensor, b: Tensor, others: bool = False) -> Tensor:
    """Root mean square distance of every a to its nearest b, (N,); `others`: b is a, and none is its own neighbour."""
    distances = torch.cdist(a.flatten(1).double(), b.flatten(1).double()) / a[0].numel() ** 0.5
    if others:
        distances.fill_diagonal_(torch.inf)
    return distances.amin(1)
