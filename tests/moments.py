"""Exact mean and covariance of samplers that are affine in their noise, by unit vectors of noise."""

import torch

from symguide import beginning
from symguide.per_sample import Noise


class UnitNoise(Noise):
    """No noise in the first row, and in row 1 + k d + j of the k-th draw the unit vector j; counts the draws."""

    draws = 0

    def draw(self, stream, step=0, repeat=0, times=None, shape=None):
        assert times is None and shape is None
        d, out = self.shape[0], torch.zeros(len(self.indices), *self.shape)
        rows = out[1 + UnitNoise.draws * d :][:d]
        rows += torch.eye(d)[: len(rows)]
        UnitNoise.draws += 1
        return out


def moments(draw):
    """Mean (d,) and covariance (d, d) of the samples that draw(batch) makes by `sample`, in one run of many rows.

    With x = c + sum_k M_k z_k the mean is c and the covariance sum_k M_k M_k^T. Raises where the sampler is not affine.
    """
    beginning.Noise, own = UnitNoise, beginning.Noise
    try:
        UnitNoise.draws = 0
        d = draw(1).shape[1]
        count, UnitNoise.draws = UnitNoise.draws, 0
        x = draw(1 + count * d)
    finally:
        beginning.Noise = own
    mean, columns = x[0], x[1:] - x[0]
    assert UnitNoise.draws == count
    return mean, columns.T @ columns
