"""Quality of samples: how well a judge reads them, how far they left the data, and whether they are copies of it.

The Frechet distance is taken here in the features of a world's own judge. It is never FID, which is defined by the
features of one Inception network: values of different judges, or of different numbers of samples, do not compare.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.errors import ConfigError


class Verdict(NamedTuple):
    """What a judge says of samples and the labels they should have, (B,) each."""

    loss: Tensor
    right: Tensor

    @property
    def accuracy(self) -> float:
        """Share of the samples that the judge reads as their label."""
        return self.right.double().mean().item()


@torch.no_grad()
def judged(judge: Any, samples: Tensor, labels: Tensor) -> Verdict:
    """Cross-entropy -log p(label | sample) of every sample, and whether its label is the judge's first choice.

    Args:
        judge: a classifier, samples (B, ...) -> logits (B, K), which guidance has not seen.
        samples: clean samples, (B, ...).
        labels: what they should show, (B,) integers.

    >>> verdict = judged(lambda x: x, torch.tensor([[4.0, 0.0], [3.0, 1.0]]), torch.tensor([0, 1]))
    >>> verdict.right.tolist(), verdict.accuracy
    ([True, False], 0.5)
    """
    if labels.shape != (len(samples),):
        raise ConfigError(f"{len(samples)} samples need as many labels, and have {tuple(labels.shape)}")
    logits = judge(samples)
    labels = labels.to(logits.device)
    return Verdict(F.cross_entropy(logits, labels, reduction="none"), logits.argmax(dim=1) == labels)


def frechet(features_a: Tensor, features_b: Tensor) -> float:
    """Frechet distance of two feature sets, each taken as a Gaussian: the squared Wasserstein-2 distance of the two.

        |mean_a - mean_b|² + tr(C_a + C_b - 2 (C_a C_b)^(1/2)),   tr (C_a C_b)^(1/2) = sum of singular values of A B'
                                                                  for any A'A = C_a, B'B = C_b

    In float64. A and B are the rows less their mean where one set has no more of them than features, else the square
    roots of C_a and C_b. A Frechet distance in the judge's features, never FID.
    Few samples make it too large, so compare values for the same numbers of samples, and with what real data get.

    Args:
        features_a, features_b: (N, k) and (M, k), with at least 2 rows each.

    Raises:
        ConfigError: for other shapes, fewer rows, or values that are not finite.

    >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    >>> round(frechet(x, x + 3), 6), round(frechet(x, x), 6)
    (18.0, 0.0)
    """
    a, b = (_checked(features) for features in (features_a, features_b))
    if a.shape[1] != b.shape[1]:
        raise ConfigError(f"features of {a.shape[1]} and {b.shape[1]} numbers do not compare: use one judge for both")
    gap = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    root = _rows if min(len(a), len(b)) <= a.shape[1] else _root
    root_a, root_b = root(a), root(b)
    cross = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return max(float(gap + root_a.square().sum() + root_b.square().sum() - 2 * cross), 0.0)


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or len(features) < 2 or not features.shape[1]:
        raise ConfigError(f"quality is measured on (N, k) features with N >= 2, not {tuple(features.shape)}")
    if not bool(torch.isfinite(features).all()):
        raise ConfigError("quality is measured on finite features: look for samples that are NaN or infinite")
    wide = features.detach().double()
    return wide if wide.shape[1] > 1 else torch.cat([wide, torch.zeros_like(wide)], dim=1)  # cov wants a matrix


def _rows(features: Tensor) -> Tensor:
    """R (N, k) with R'R the covariance of features (N, k)."""
    rows: Tensor = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    return rows


def _root(features: Tensor) -> Tensor:
    """The same of no more rows than columns: the symmetric square root of the covariance, (k, k)."""
    values, vectors = torch.linalg.eigh(torch.cov(features.T))
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def precision_recall(samples: Tensor, data: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """How many samples look like data, and how much of the data the samples cover, each 0 to 1.

    Precision is the share of samples within a data point's ball, which reaches to its k-th nearest neighbour among the
    data; recall is the same with the two sets exchanged. Values for other numbers of rows do not compare.

    Args:
        samples, data: features of a judge, (N, k) and (M, k), with more than `neighbours` rows each.
        neighbours: k.

    Raises:
        ConfigError: for fewer rows, other shapes, or values that are not finite.

    Source: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 1904.06991.

    >>> data = torch.arange(8.0)[:, None]
    >>> precision_recall(data[:4] + 0.5, data)  # the left half alone, a little to the right
    (1.0, 0.875)
    """
    a, b = _checked(samples), _checked(data)
    if min(len(a), len(b)) <= neighbours:
        raise ConfigError(f"precision and recall need more than {neighbours} rows of each, not {len(a)} and {len(b)}")

    def covered(points: Tensor, by: Tensor) -> float:
        reach = torch.cdist(by, by).kthvalue(neighbours + 1, dim=1).values  # the nearest is the point itself
        return (torch.cdist(points, by) <= reach).any(dim=1).double().mean().item()

    return covered(a, b), covered(b, a)


def nearest(a: Tensor, b: Tensor, others: bool = False) -> Tensor:
    """Root mean square distance of every a to its nearest b, (N,); `others`: b is a, and none is its own neighbour.

    Samples that lie closer to the training data than held-out data do are copies.

    >>> nearest(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [3.0, 3.0]])).tolist()
    [1.0, 0.0]
    """
    distances = torch.cdist(a.flatten(1).double(), b.flatten(1).double()) / a[0].numel() ** 0.5
    if others:
        distances.fill_diagonal_(torch.inf)
    return distances.amin(dim=1)
