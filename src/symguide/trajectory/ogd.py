"""OGD: the optimal Gaussian to start from below pure noise."""

from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Tensor

from symguide.beginning import sample_indices
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError
from symguide.per_sample import Noise
from symguide.schedule import Schedule


class OptimalGaussian:
    """The Gaussian that is nearest to x_t, to start sampling from at a t where x_t is not yet pure noise.

        x_t ~ N(alpha m, alpha² S + sigma² I),   m, S = mean and covariance of the data

    Of all Gaussians it has the least KL divergence from the true x_t; of all with a diagonal covariance, the one with
    the diagonal of S has. For Gaussian data it is exact at every t. The steps from pure noise down to t are saved:

        near = OptimalGaussian.fit(data)
        sample(denoiser, start=near.draw(denoiser, t=0.4, batch=8), grid=starting_at(0.4), steps=10)

    Args:
        mean: m, in the shape of a sample.
        covariance: S: (d, d) over the flattened sample, or variances in the shape of a sample.

    Raises:
        ConfigError: for a covariance of another shape, or one that is not symmetric positive semi-definite.

    Use it with few steps and data that a Gaussian describes at the noise of t; the smaller t, the worse it is for
    others.

    Source: Wang et al., "Optimizing Diffusion Models for Joint Trajectory Prediction and Controllable Generation",
    2408.00766, which trains a network for it; here it is the start of a network that is already trained.

    >>> near = OptimalGaussian(torch.zeros(2), torch.tensor([1.0, 4.0]))
    >>> near.covariance
    tensor([[1., 0.],
            [0., 4.]], dtype=torch.float64)
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        d = mean.numel()
        self.mean, matrix = mean.detach().double(), covariance.detach().double()
        self.rest, self.basis = 0.0, None
        if matrix.shape == mean.shape:
            self.variances = matrix.flatten()
        elif matrix.shape == (d, d) and torch.allclose(matrix, matrix.T):
            self.variances, self.basis = torch.linalg.eigh(matrix)
        else:
            raise ConfigError(
                f"the covariance must be symmetric, ({d}, {d}), or variances of shape {tuple(mean.shape)}, "
                f"not {tuple(matrix.shape)}"
            )
        if bool(self.variances.min() < -1e-8 * self.variances.abs().max()):
            raise ConfigError("the covariance must be positive semi-definite")
        self.variances = self.variances.clamp_min(0)

    @classmethod
    def fit(cls, data: Tensor, covariance: str | int = "diagonal") -> "OptimalGaussian":
        """From data, or from samples of the model itself, (N, ...).

        Args:
            data: clean samples.
            covariance: "diagonal", "full", or a rank k: the k largest principal components, and what they leave of the
                variance spread evenly over all other directions.
        """
        if len(data) < 2:
            raise ConfigError(f"a covariance needs two samples or more, not {len(data)}")
        flat = data.detach().double().flatten(1)
        mean, d = flat.mean(dim=0), flat.shape[1]
        if covariance == "diagonal":
            return cls(mean.reshape(data.shape[1:]), flat.var(dim=0).reshape(data.shape[1:]))
        if covariance == "full":
            return cls(mean.reshape(data.shape[1:]), flat.T.cov().reshape(d, d))
        if isinstance(covariance, bool) or not isinstance(covariance, int | Integral) or not 0 < covariance < d:
            raise ConfigError(f"covariance is 'diagonal', 'full' or a rank below {d}, not {covariance!r}")
        fitted = cls(mean.reshape(data.shape[1:]), flat.var(dim=0).reshape(data.shape[1:]))
        _, lengths, basis = torch.linalg.svd(flat - mean, full_matrices=False)
        variances = (lengths**2 / (len(data) - 1))[:covariance]
        fitted.rest = max((fitted.variances.sum() - variances.sum()).item(), 0.0) / (d - len(variances))
        fitted.variances, fitted.basis = variances, basis[: len(variances)].T
        return fitted

    @property
    def covariance(self) -> Tensor:
        """S, (d, d)."""
        if self.basis is None:
            return torch.diag(self.variances)
        within = (self.basis * (self.variances - self.rest)) @ self.basis.T
        return within + self.rest * torch.eye(len(self.basis), dtype=within.dtype, device=within.device)

    def carry(self, z: Tensor, schedule: Schedule, t: float) -> Tensor:
        """x_t of standard normal z (B, ...): alpha m + (alpha² S + sigma² I)^(1/2) z."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        spread = (alpha**2 * self.variances + sigma**2).sqrt().to(z)
        flat = z.flatten(1)
        if self.basis is None:
            moved = spread * flat
        else:
            outside, basis = (alpha**2 * self.rest + sigma**2) ** 0.5, self.basis.to(z)
            moved = outside * flat + ((flat @ basis) * (spread - outside)) @ basis.T
        return alpha * self.mean.to(z) + moved.reshape(z.shape)

    def draw(
        self,
        denoiser: Denoiser,
        t: float,
        batch: int | None = None,
        seed: int = 0,
        indices: Iterable[int] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """`start` (B, ...) for a run that begins at t; sample i depends on (seed, i) only, as in `sample`."""
        if not 0 < t <= 1:
            raise ConfigError(f"t must be in (0, 1], not {t}")
        numbers = sample_indices(batch, indices, None)
        z = Noise(seed, numbers, self.mean.shape, dtype, denoiser.device).draw("start")
        return self.carry(z, denoiser.schedule, t)
