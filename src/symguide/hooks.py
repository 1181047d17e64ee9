"""Step hooks: what is done to x before and after every step of a run, `sample(..., hooks=[...])`.

A hook of yours has `before(step, x)` and `after(step, x_s)`, which return what goes on in the place of x and of x_s: a
corrector, a projection, entries that are known. Before a step it acts in every repeat of it too. `sample(start=...)`
takes a tensor or a function (noise, t) of the run's own noise, and `sample(until=t)` ends at a noise level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from symguide.errors import ConfigError
from symguide.objectives.base import rows_for, to_device_of
from symguide.step import Step


@dataclass(frozen=True, eq=False)
class Keep:
    """Replacement conditioning: entries that are known are put in their place before every step and at the end.

        x_t = mask (alpha_t values + sigma_t z) + (1 - mask) x_t,    at the end x_0 = mask values + (1 - mask) x_0

    The network sees the known entries at the noise level of the others, and fits these to them. It is the plain way to
    fix the state and the goal of a plan, the first frames of a video or a part of a picture, and no exact conditioning:
    what the others were before is not drawn again given the known ones, but for repeats of a recipe and restarts.

    Args:
        mask: where values are known, of a sample's shape or (B, ...), booleans.
        values: clean values, of a sample's shape or (B, ...); what is outside of the mask does not count.
        noisy: False puts them there clean at every noise level, as planners trained so expect (Janner et al.).

    Raises:
        ConfigError: for shapes that do not fit.

    Cost: no network call.

    Source: Song et al., "Score-based Generative Modeling through SDEs", 2011.13456, appendix I.2; noisy=False: Janner
    et al., "Planning with Diffusion", 2205.09991.
    """

    mask: Tensor
    values: Tensor
    noisy: bool = True

    def before(self, step: Step, x: Tensor) -> Tensor:
        if not self.noisy:
            return self._put(step, x, 1.0, 0.0)
        return self._put(step, x, step.schedule.alpha(step.t), step.schedule.sigma(step.t))

    def after(self, step: Step, x_s: Tensor) -> Tensor:
        return x_s if step.s > 0 else self._put(step, x_s, 1.0, 0.0)

    def _put(self, step: Step, x: Tensor, alpha: float, sigma: float) -> Tensor:
        mask, values = _rows("mask", self.mask, x, torch.bool), _rows("values", self.values, x, x.dtype)
        known = alpha * values
        return torch.where(mask, known + sigma * step.draw("keep") if sigma > 0 else known, x)


def _rows(name: str, given: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """With a row for every row of x, on its device."""
    there = to_device_of(given, x, dtype)
    rows = there if given.ndim == x.ndim else there[None]
    if rows.shape[1:] != x.shape[1:]:
        shape = tuple(x.shape[1:])
        raise ConfigError(f"{name} of Keep must be of a sample's shape {shape} or (B, ...), not {tuple(given.shape)}")
    return rows_for(rows, x, f"{name} of Keep")
