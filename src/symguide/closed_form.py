"""Denoisers in closed form, of Gaussians and of their mixtures: to test against, and to play with."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Denoiser, Level, Weight
from symguide.errors import ConfigError, GuidanceError
from symguide.schedule import Schedule


class GaussianDenoiser(Denoiser):
    """The exact denoiser of data ~ N(mean, covariance), a closed form to test against and to play with.

        E[x_0 | x_t] = mean + alpha S (alpha² S + sigma² I)^-1 (x_t - alpha mean)

    Args:
        mean: mean of the data, in the shape of a sample.
        covariance: S, (d, d) over the flattened sample.
        schedule: any schedule.

    Raises:
        ConfigError: if the covariance is not a symmetric positive semi-definite (d, d) matrix.

    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> denoiser(torch.ones(1, 2), 0.5).x0.allclose(torch.ones(1, 2) * denoiser.schedule.alpha(0.5))
    True
    """

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: Schedule | None = None) -> None:
        super().__init__(_closed_form, schedule, "x0", shape=mean.shape)
        self.mean = mean.detach().double()
        self.variances, self.basis = _eigen(covariance, mean.numel())

    def _evaluate(self, x: Tensor, t: Level, condition: Mapping[str, Any]) -> Tensor:
        alpha, sigma = _levels(self.schedule, t, x)
        gain = alpha * self.variances.to(x) / (alpha**2 * self.variances.to(x) + sigma**2)
        return self._along(x, alpha, gain) + self.mean.to(x)

    def _along(self, x: Tensor, alpha: Weight, gain: Tensor) -> Tensor:
        """U diag(gain) U' (x - alpha mean)."""
        basis = self.basis.to(x)
        centred = x.flatten(1) - alpha * self.mean.to(x).flatten()
        return ((centred @ basis) * gain @ basis.T).reshape(x.shape)

    def transport(self, x: Tensor, t: float, s: float = 0.0) -> Tensor:
        """Where the probability-flow ODE carries x from t to s, in closed form, (B, ...).

        x_s = alpha_s mean + U diag(sqrt((alpha_s² l + sigma_s²) / (alpha_t² l + sigma_t²))) U' (x_t - alpha_t mean)
        """
        schedule, variances = self.schedule, self.variances.to(x)
        spread = [schedule.alpha(r) ** 2 * variances + schedule.sigma(r) ** 2 for r in (t, s)]
        return self._along(x, schedule.alpha(t), (spread[1] / spread[0]).sqrt()) + schedule.alpha(s) * self.mean.to(x)


class MixtureDenoiser(Denoiser):
    """The exact denoiser of a mixture of Gaussians, with the component as its condition.

        E[x_0 | x_t] = sum_k r_k(x_t) E_k[x_0 | x_t],   r_k ~ weights_k N(x_t; alpha mean_k, alpha² S_k + sigma² I)

    Args:
        means: (K, ...) in the shape of samples.
        covariances: (K, d, d), or (d, d) for all.
        weights: (K,), equal where not given.
        schedule: any schedule.

    A call takes `label` (B,) in 0 ... K-1, which conditions on that component; K, or no label, is the whole mixture,
    so that classifier-free guidance has a closed form too.

    >>> denoiser = MixtureDenoiser(torch.tensor([[-2.0], [2.0]]), 0.01 * torch.eye(1))
    >>> denoiser(torch.tensor([[1.0]]), 0.3).x0.item() > 1
    True
    """

    def __init__(
        self, means: Tensor, covariances: Tensor, weights: Tensor | None = None, schedule: Schedule | None = None
    ) -> None:
        count = len(means)
        super().__init__(_closed_form, schedule, "x0", shape=means.shape[1:], null={"label": count})
        shared = covariances.ndim == 2
        each = covariances[None] if shared else covariances
        if not (shared or len(each) == count) or (weights is not None and weights.shape != (count,)):
            raise ConfigError(f"a mixture of {count} means needs {count} covariances and weights of shape ({count},)")
        share = torch.full((count,), 1 / count) if weights is None else weights
        if not bool((share > 0).all()):
            raise ConfigError("the weights of a mixture must be positive")
        self.log_weights = (share.double() / share.double().sum()).log()
        self.means = means.detach().double()
        flat = self.means.flatten(1)
        eigen = [_eigen(c, flat.shape[1]) for c in each]
        self.variances = torch.stack([variances for variances, _ in eigen])  # (K, d), or (1, d) for all
        self.bases = torch.stack([basis for _, basis in eigen])
        self.centres = torch.einsum("kd,kde->ke", flat, self.bases.expand(count, -1, -1))  # means along the bases

    def _evaluate(self, x: Tensor, t: Level, condition: Mapping[str, Any]) -> Tensor:
        log_r = self.log_weights.to(x) + self._log_likelihood(x, t)
        label = condition.get("label")
        if label is not None:
            chosen = torch.as_tensor(label, device=x.device).expand(len(x))[:, None]
            other = torch.arange(len(self.centres), device=x.device) != chosen
            log_r = log_r.masked_fill(other & (chosen < len(self.centres)), -math.inf)
        r = log_r.softmax(dim=1)
        if len(self.bases) == 1:  # E_k is affine in the mean with one matrix for all, so it is taken of the mean's mean
            weight, alpha, z = self._along_basis(x, t)
            gain = self.variances[0].to(x) * weight
            mixed = (r @ self.centres.to(x)) * (1 - alpha * gain) + gain * z
            return (mixed @ self.bases[0].to(x).T).reshape(x.shape)
        return torch.einsum("bk,bke,kde->bd", r, self._along_bases(x, t), self.bases.to(x)).reshape(x.shape)

    def log_posterior(self, x: Tensor, t: Level) -> Tensor:
        """log p(component | x_t), (B, K): the noise-aware classifier of this data, in closed form."""
        return (self.log_weights.to(x) + self._log_likelihood(x, t)).log_softmax(dim=1)

    def posterior(self, x: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """p(x_0 | x_t), which is a mixture, too: (log weights (B, K), means (B, K, d), roots (K, d, d)), flattened.

            x_0 = means_k + roots_k z,   z ~ N(0, I_d),   k by the weights;   roots_k does not depend on x_t

        So its draws are differentiable in x_t, and with them E[f(x_0) | x_t] of any f, component by component.
        """
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        bases, variances = self.bases.to(x), self.variances.to(x)
        means = torch.einsum("bke,kde->bkd", self._along_bases(x, t), bases.expand(len(self.centres), -1, -1))
        roots = bases * (sigma**2 * variances / (alpha**2 * variances + sigma**2)).sqrt()[:, None]
        return self.log_posterior(x, t), means, roots.expand(len(self.centres), -1, -1)

    def _along_basis(self, x: Tensor, t: Level) -> tuple[Tensor, Weight, Tensor]:
        """(alpha / (alpha² S + sigma²), alpha, x_t), along the one basis that all components have."""
        alpha, sigma = _levels(self.schedule, t, x)
        return alpha / (alpha**2 * self.variances[0].to(x) + sigma**2), alpha, x.flatten(1) @ self.bases[0].to(x)

    def _off(self, x: Tensor, t: Level) -> tuple[Tensor, Tensor, Weight]:
        """(x_t - alpha mean_k along the bases (B, K, d), its variances, alpha)."""
        alpha, sigma = (v[..., None] if isinstance(v, Tensor) and v.ndim else v for v in _levels(self.schedule, t, x))
        off = torch.einsum("bd,kde->bke", x.flatten(1), self.bases.to(x)) - alpha * self.centres.to(x)
        return off, alpha**2 * self.variances.to(x) + sigma**2, alpha

    def _along_bases(self, x: Tensor, t: Level) -> Tensor:
        """E_k[x_0 | x_t] along the bases, (B, K, d)."""
        off, spread, alpha = self._off(x, t)
        return self.centres.to(x) + alpha * self.variances.to(x) / spread * off

    def _log_likelihood(self, x: Tensor, t: Level) -> Tensor:
        """log N(x; alpha mean_k, alpha² S_k + sigma² I) up to a shared constant, (B, K)."""
        if len(self.bases) == 1:
            weight, alpha, z = self._along_basis(x, t)
            centres = self.centres.to(x)
            return (weight * z) @ centres.T - 0.5 * (alpha * weight) @ centres.square().T
        off, spread, _ = self._off(x, t)
        return -0.5 * (off**2 / spread + torch.as_tensor(spread).log()).sum(dim=-1)


def _closed_form(*_: Any, **__: Any) -> Tensor:
    raise GuidanceError("a closed-form denoiser has no network to call")


def _levels(schedule: Schedule, t: Level, x: Tensor) -> tuple[Weight, Weight]:
    """alpha and sigma at t, of (B,) as (B, 1), to multiply flattened samples with."""
    if isinstance(t, tuple):
        raise ConfigError("a closed-form denoiser has one level for all frames: give one t")
    alpha, sigma = (
        v.to(x)[:, None] if isinstance(v, Tensor) and v.ndim else v for v in (schedule.alpha(t), schedule.sigma(t))
    )
    return alpha, sigma


def _eigen(covariance: Tensor, d: int) -> tuple[Tensor, Tensor]:
    if covariance.shape != (d, d):
        raise ConfigError(f"the covariance must be ({d}, {d}) over the flattened sample, not {tuple(covariance.shape)}")
    matrix = covariance.detach().double()
    if not torch.allclose(matrix, matrix.T):
        raise ConfigError("the covariance must be symmetric")
    variances, basis = torch.linalg.eigh(matrix)
    if variances.min() < -1e-8 * variances.max().clamp_min(1e-300):
        raise ConfigError("the covariance must be positive semi-definite")
    return variances.clamp_min(0), basis
