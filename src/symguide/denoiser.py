"""Denoisers: a network, what it predicts, and the schedule it was trained on; and closed-form ones to test against.

A `Prediction` holds one network output y and converts it. With x = alpha x_0 + sigma eps and y = p x_0 + q eps,

    x_0 = (q x - sigma y) / (alpha q - sigma p),    eps = (alpha y - p x) / (alpha q - sigma p)

so every space is linear in (x, y), and whatever is affine in y with weights that sum to 1 gives the same step in all.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from symguide.errors import ConfigError, GuidanceError, unknown
from symguide.per_sample import expand
from symguide.schedule import VP, Schedule

SPACES = ("eps", "x0", "v", "flow")
Level = float | Tensor  # a float, or (B,) where every sample has its own


def _times(level: Level, x: Tensor) -> Tensor:
    return x * (expand(level, x).to(x) if isinstance(level, Tensor) and level.ndim else level)


@dataclass(frozen=True)
class Prediction:
    """One output `value` of a network at x, in `space` ("eps", "x0", "v" or "flow"), converting to all others.

    `v` is the schedule's own velocity (VP: alpha eps - sigma x_0, VE: eps, rectified flow: eps - x_0); `flow` is
    eps - x_0 everywhere; score = -eps / sigma. `shift` is what a prediction guidance added, in eps, where it did.

    >>> p = Prediction(torch.tensor([[1.0]]), torch.tensor([[0.5]]), "eps", alpha=0.8, sigma=0.6, v_weights=(-0.6, 0.8))
    >>> round(p.x0.item(), 3), round(p.score.item(), 3)
    (0.875, -0.833)
    """

    x: Tensor
    value: Tensor
    space: str
    alpha: Level
    sigma: Level
    v_weights: tuple[Level, Level]
    shift: Tensor | None = None

    @cached_property
    def x0(self) -> Tensor:
        """The clean estimate, E[x_0 | x_t] for a perfect network."""
        if self.space == "x0":
            return self.value
        if self.space == "eps":
            if not isinstance(self.alpha, Tensor) and self.alpha == 0:
                raise ConfigError(
                    "where alpha = 0 an eps prediction says nothing of x_0: start later, at a t_max below 1"
                )
            return _times(1 / self.alpha, self.x - _times(self.sigma, self.value))
        p, q = self._weights
        det = self.alpha * q - self.sigma * p
        return _times(q / det, self.x) - _times(self.sigma / det, self.value)

    @cached_property
    def eps(self) -> Tensor:
        """The noise estimate, E[eps | x_t]."""
        if self.space == "eps":
            return self.value
        if self.space == "x0":
            return _times(1 / self.sigma, self.x - _times(self.alpha, self.value))
        p, q = self._weights
        det = self.alpha * q - self.sigma * p
        return _times(self.alpha / det, self.value) - _times(p / det, self.x)

    @property
    def v(self) -> Tensor:
        """The schedule's velocity."""
        p, q = self.v_weights
        return self.value if self.space == "v" else _times(p, self.x0) + _times(q, self.eps)

    @property
    def flow(self) -> Tensor:
        """eps - x_0, the rectified-flow velocity."""
        return self.value if self.space == "flow" else self.eps - self.x0

    @property
    def score(self) -> Tensor:
        """Gradient of log p_t at x, -eps / sigma."""
        return _times(-1 / self.sigma, self.eps)

    @property
    def _weights(self) -> tuple[Level, Level]:
        return self.v_weights if self.space == "v" else (-1.0, 1.0)

    def with_value(self, value: Tensor, shift: Tensor | None = None) -> "Prediction":
        """The same point with another value in the same space."""
        return replace(self, value=value, shift=shift)

    def with_x0(self, x0: Tensor) -> "Prediction":
        """The same point with another clean estimate (and the eps that goes with it)."""
        return replace(self, value=x0, space="x0")

    def detach(self) -> "Prediction":
        """The prediction without its graph."""
        return replace(self, x=self.x.detach(), value=self.value.detach())

    def chunk(self, parts: int) -> list["Prediction"]:
        """The prediction of a batch made of `parts` batches, taken apart again."""

        def split(level: Level) -> Sequence[Level]:
            return level.chunk(parts) if isinstance(level, Tensor) and level.ndim else [level] * parts

        columns = (self.x.chunk(parts), self.value.chunk(parts), split(self.alpha), split(self.sigma))
        weights = zip(split(self.v_weights[0]), split(self.v_weights[1]), strict=True)
        return [Prediction(x, y, self.space, a, s, w) for x, y, a, s, w in zip(*columns, weights, strict=True)]


@dataclass
class Counter:
    """Network evaluations, counted in rows (samples x passes) where they happen."""

    forward: int = 0
    backward: int = 0


class Denoiser:
    """A network with its schedule and prediction type: denoiser(x, t, **condition) -> Prediction.

    Args:
        network: any callable (x, timestep, **condition) -> tensor like x, with x (B, ...) and timestep (B,).
            x and floating conditions are cast to the network's own floating type, and the output back to x's.
        schedule: the schedule that it was trained on.
        predicts: "eps", "x0", "v" (the schedule's velocity) or "flow" (eps - x_0).
        shape: shape of one sample, where the model knows it.
        null: the condition that stands for "no condition", e.g. {"label": 10}, for classifier-free guidance.
        decoder: where samples are latents, what makes pictures of them: a callable, latents (B, ...) -> pictures.

    Raises:
        ConfigError: for an unknown prediction type, or an output that is not a tensor of x's shape.

    >>> denoiser = Denoiser(lambda x, timestep: 0 * x, schedule=VP.linear(), predicts="eps")
    >>> denoiser(torch.ones(2, 3), 0.5).x0.shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: Schedule | None = None,
        predicts: str = "eps",
        *,
        shape: Sequence[int] | None = None,
        null: Mapping[str, Any] | None = None,
        decoder: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if predicts not in SPACES:
            raise unknown("prediction type", predicts, SPACES)
        if not callable(network):
            raise ConfigError(
                f"network must be a callable (x, timestep, **condition) -> tensor, not {type(network).__name__}"
            )
        self.network, self.schedule, self.predicts = network, schedule or VP.linear(), predicts
        self.shape = None if shape is None else tuple(shape)
        self.null, self.decoder = dict(null or {}), decoder
        self.counter = Counter()

    def __call__(self, x: Tensor, t: Level, **condition: Any) -> Prediction:
        """The prediction at (x, t), t in (0, 1], a float or (B,). Cost: one forward call."""
        schedule = self.schedule
        self.counter.forward += len(x)
        value = self._evaluate(x, t, condition)
        return Prediction(x, value, self.predicts, schedule.alpha(t), schedule.sigma(t), schedule.v_weights(t))

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures of clean samples: the decoder's where samples are latents, x0 itself where they are pictures.

        Differentiable. A decoder that is a module is called in its own floating type, and the result cast back.
        """
        if self.decoder is None:
            return x0
        own = _dtype(self.decoder) or x0.dtype
        return self.decoder(x0.to(own)).to(x0.dtype)

    def _evaluate(self, x: Tensor, t: Level, condition: Mapping[str, Any]) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)  # a timestep of 999 does not fit bfloat16
        timestep = torch.as_tensor(self.schedule.timestep(t), dtype=wide, device=x.device).expand(len(x))
        own = self.dtype or x.dtype
        out = self.network(
            x.to(own), timestep, **{name: _as_floats_of(value, own) for name, value in condition.items()}
        )
        if not isinstance(out, Tensor):
            raise ConfigError(
                f"the network returned {type(out).__name__}, not a tensor: "
                "wrap it, e.g. lambda x, t, **c: unet(x, t, **c).sample"
            )
        if out.shape != x.shape:
            raise ConfigError(
                f"the network returned shape {tuple(out.shape)} for x of shape {tuple(x.shape)}: "
                "wrap it so that it returns the prediction alone (cut off learned variances)"
            )
        return out.to(x.dtype)

    @property
    def dtype(self) -> torch.dtype | None:
        """Floating type of the network's parameters; None where it has none."""
        return _dtype(self.network)

    @property
    def device(self) -> torch.device | None:
        """Device of the network's parameters; None where it has none."""
        return next((p.device for p in self._parameters()), None)

    def _parameters(self) -> Iterator[nn.Parameter]:
        return self.network.parameters() if isinstance(self.network, nn.Module) else iter(())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Denoiser":
        """This denoiser with its network on another device or in another floating type; self where nothing changes.

        The network is copied, never converted in place, so that nobody else's precision changes.
        """
        same_device = device is None or self.device is None or torch.device(device) == self.device
        if same_device and (dtype is None or self.dtype in (None, dtype)):
            return self
        other = copy.copy(self)
        other.network = copy.deepcopy(self.network).to(device=device, dtype=dtype)  # type: ignore[attr-defined]
        if isinstance(self.decoder, nn.Module):
            other.decoder = copy.deepcopy(self.decoder).to(device=device, dtype=dtype)
        return other

    def counted(self, counter: Counter) -> "Denoiser":
        """The same denoiser, adding its calls to `counter`."""
        other = copy.copy(self)
        other.counter = counter
        return other

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Weights without requires_grad inside, as before outside: else autograd saves activations for their sake."""
        trained = [p for p in self._parameters() if p.requires_grad]
        try:
            for p in trained:
                p.requires_grad_(False)
            yield
        finally:
            for p in trained:
                p.requires_grad_(True)


def _dtype(network: Any) -> torch.dtype | None:
    """Floating type of a module's parameters; None where there are none."""
    parameters = network.parameters() if isinstance(network, nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), None)


def expand_condition(
    condition: Mapping[str, Any] | None, batch: int, device: torch.device, particles: int = 1
) -> dict[str, Any]:
    """Conditions with one row for every row of the batch: a number counts for all samples, a list is one for each."""
    out = {}
    for name, value in (condition or {}).items():
        rows = (
            torch.as_tensor(value, device=device)
            if isinstance(value, int | float | list | tuple | range | np.ndarray)
            else value
        )
        if isinstance(rows, Tensor):
            rows = rows.to(device)
            if rows.ndim == 0:
                rows = rows.expand(batch)
            if len(rows) not in (1, batch):
                raise ConfigError(
                    f"condition {name!r} has {len(rows)} rows for a batch of {batch}: give one for each sample"
                )
            rows = rows.expand(batch, *rows.shape[1:]).repeat_interleave(particles, dim=0)
        out[name] = rows
    return out


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

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures of clean samples: the decoder's where samples are latents, x0 itself where they are pictures.

        Differentiable. A decoder that is a module is called in its own floating type, and the result cast back.
        """
        if self.decoder is None:
            return x0
        own = _dtype(self.decoder) or x0.dtype
        return self.decoder(x0.to(own)).to(x0.dtype)

    def _evaluate(self, x: Tensor, t: Level, condition: Mapping[str, Any]) -> Tensor:
        alpha, sigma = (_column(v, x) for v in (self.schedule.alpha(t), self.schedule.sigma(t)))
        gain = alpha * self.variances.to(x) / (alpha**2 * self.variances.to(x) + sigma**2)
        return self._along(x, alpha, gain) + self.mean.to(x)

    def _along(self, x: Tensor, alpha: Level, gain: Tensor) -> Tensor:
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
        if covariances.ndim == 2:
            covariances = covariances.expand(count, -1, -1)
        if len(covariances) != count or (weights is not None and weights.shape != (count,)):
            raise ConfigError(f"a mixture of {count} means needs {count} covariances and weights of shape ({count},)")
        share = torch.full((count,), 1 / count) if weights is None else weights
        if not bool((share > 0).all()):
            raise ConfigError("the weights of a mixture must be positive")
        self.log_weights = (share.double() / share.double().sum()).log()
        self.components = [GaussianDenoiser(m, c, schedule) for m, c in zip(means, covariances, strict=True)]

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures of clean samples: the decoder's where samples are latents, x0 itself where they are pictures.

        Differentiable. A decoder that is a module is called in its own floating type, and the result cast back.
        """
        if self.decoder is None:
            return x0
        own = _dtype(self.decoder) or x0.dtype
        return self.decoder(x0.to(own)).to(x0.dtype)

    def _evaluate(self, x: Tensor, t: Level, condition: Mapping[str, Any]) -> Tensor:
        log_r = self.log_weights.to(x) + self._log_likelihood(x, t)
        label = condition.get("label")
        if label is not None:
            chosen = torch.as_tensor(label, device=x.device).expand(len(x))[:, None]
            other = torch.arange(len(self.components), device=x.device) != chosen
            log_r = log_r.masked_fill(other & (chosen < len(self.components)), -math.inf)
        means = torch.stack([c._evaluate(x, t, {}) for c in self.components], dim=1)
        return torch.einsum("bk,bk...->b...", log_r.softmax(dim=1), means)

    def _log_likelihood(self, x: Tensor, t: Level) -> Tensor:
        """log N(x; alpha mean_k, alpha² S_k + sigma² I) up to a shared constant, (B, K)."""
        alpha, sigma = (_column(v, x) for v in (self.schedule.alpha(t), self.schedule.sigma(t)))
        rows = []
        for c in self.components:
            spread = alpha**2 * c.variances.to(x) + sigma**2
            z = (x.flatten(1) - alpha * c.mean.to(x).flatten()) @ c.basis.to(x)
            rows.append(-0.5 * (z**2 / spread + torch.as_tensor(spread).log()).sum(dim=1))
        return torch.stack(rows, dim=1)


def _as_floats_of(value: Any, dtype: torch.dtype) -> Any:
    """Conditions such as text embeddings, in the network's own floating type; labels and others as they are."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _closed_form(*_: Any, **__: Any) -> Tensor:
    raise GuidanceError("a closed-form denoiser has no network to call")


def _column(level: Level, x: Tensor) -> Level:
    """(B,) as (B, 1), to multiply flattened samples with."""
    return level.to(x)[:, None] if isinstance(level, Tensor) and level.ndim else level


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
