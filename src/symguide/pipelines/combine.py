"""How a pipeline makes one prediction of several: known rules of guidance first, weights by least squares second.

A rule is taken only if it gives the prediction that the pipeline itself handed to its scheduler.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.errors import GuidanceError
from symguide.per_sample import expand

SCALES = ("guidance_scale", "true_cfg_scale", "guidance_scale_2", "_guidance_scale")
"""Attributes of pipelines that hold the weight of classifier-free guidance."""


@dataclass(frozen=True)
class Affine:
    """sum_k w_k y_k, with weights (K,) for all samples or (B, K)."""

    weights: Tensor

    def __call__(self, predictions: Sequence[Tensor]) -> Tensor:
        weights = self.weights.to(predictions[0])
        parts = [
            expand(weights[:, k], y) * y if weights.ndim == 2 else weights[k] * y for k, y in enumerate(predictions)
        ]
        return torch.stack(parts).sum(dim=0)


@dataclass(frozen=True)
class Rescaled:
    """Classifier-free guidance y = u + w (c - u), then y (phi std(c) / std(y) + 1 - phi).

    Source: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2305.08891, section 3.4.
    """

    scale: float
    phi: float
    conditional: int

    def __call__(self, predictions: Sequence[Tensor]) -> Tensor:
        c, u = predictions[self.conditional], predictions[1 - self.conditional]
        y = u + self.scale * (c - u)
        axes = list(range(1, y.ndim))
        ratio = c.std(dim=axes, keepdim=True) / y.std(dim=axes, keepdim=True)
        return y * (self.phi * ratio + 1 - self.phi)


Combine = Callable[[Sequence[Tensor]], Tensor]


def conditional(rule: Any, pipeline: Any) -> int:
    """Which of a pipeline's two passes has the condition: the one that its own guidance weighs more.

    Raises:
        GuidanceError: if there are not two.
    """
    if isinstance(rule, Rescaled):
        return rule.conditional
    if rule.weights.shape[-1] != 2:
        raise GuidanceError(
            f"{type(pipeline).__name__} made {rule.weights.shape[-1]} passes, and a rule of two branches needs one "
            "with the condition and one without: give it a guidance_scale above 1 (its value does not count)"
        )
    return int(rule.weights.reshape(-1, 2)[0].argmax())


def combination(predictions: Sequence[Tensor], made: Tensor, pipeline: Any) -> Combine:
    """The rule by which `made` was made of the predictions.

    Raises:
        GuidanceError: if there is none: the pipeline's guidance is of a kind that cannot be made again.
    """
    single = torch.finfo(torch.float32).eps
    tolerance = 64 * max(single, *(torch.finfo(y.dtype).eps for y in (*predictions, made)))

    def fits(rule: Combine) -> bool:
        gap = (rule([y.double() for y in predictions]) - made.double()).flatten(1).norm(dim=1)
        return bool((gap <= tolerance * made.double().flatten(1).norm(dim=1).clamp_min(1e-12)).all())

    rules: list[Combine] = [*_known(len(predictions), pipeline), _solved(predictions, made)]
    for rule in rules:
        if fits(rule):
            return rule
    raise GuidanceError(
        f"{type(pipeline).__name__} made its prediction of {len(predictions)} network outputs in a way that is no "
        "weighted sum of them (APG, CFG-norm and caches are such): switch that off, or use symguide's own guidance"
    )


def _known(count: int, pipeline: Any) -> Iterator[Combine]:
    if count == 1:
        yield Affine(torch.ones(1, dtype=torch.float64))
        yield Affine(-torch.ones(1, dtype=torch.float64))
    if count != 2:
        return
    phi = float(getattr(pipeline, "guidance_rescale", 0.0) or 0.0)
    for name in SCALES:
        scale = getattr(pipeline, name, None)
        if not isinstance(scale, int | float):
            continue
        for conditional in (1, 0):
            if phi > 0:
                yield Rescaled(float(scale), phi, conditional)
            weights = torch.full((2,), 1.0 - scale, dtype=torch.float64)
            weights[conditional] = scale
            yield Affine(weights)
            yield Affine(-weights)


def _solved(predictions: Sequence[Tensor], made: Tensor) -> Affine:
    """Weights of every sample by least squares."""
    columns = torch.stack([y.double().flatten(1) for y in predictions], dim=2)
    target = made.double().flatten(1)[..., None]
    return Affine(torch.linalg.lstsq(columns, target).solution[..., 0])
