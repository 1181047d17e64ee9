"""How a pipeline makes one prediction of several: known rules of guidance first, weights by least squares second.

A rule is taken only if it gives the prediction that the pipeline itself handed to its scheduler.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.errors import GuidanceError
from symguide.pipelines.guiders import guiders
from symguide.pipelines.running import running
from symguide.private.diffusers import pag_scale, scales

SWITCHES = {
    "guidance_rescale": 0.0,
    "enable_cfg_renorm": False,
    "cfg_normalization": False,
    "use_cfg_zero_star": False,
}
"""Arguments of pipelines that make more of their passes than a weighted sum, and what switches that off."""


@dataclass(frozen=True)
class Affine:
    """sum_k w_k y_k, with weights (K,), and whether they follow from what the pipeline says of its guidance."""

    weights: Tensor
    said: bool = True

    def __call__(self, predictions: Sequence[Tensor]) -> Tensor:
        weights = self.weights.to(predictions[0])
        return torch.stack([w * y for w, y in zip(weights, predictions, strict=True)]).sum(dim=0)


@dataclass(frozen=True)
class Rescaled:
    """y = sum_k w_k y_k, as by classifier-free guidance, then y (phi std(c) / std(y) + 1 - phi).

    Source: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2305.08891, section 3.4.
    """

    weights: Tensor
    phi: float
    conditional: int

    def __call__(self, predictions: Sequence[Tensor]) -> Tensor:
        c, y = predictions[self.conditional], Affine(self.weights)(predictions)
        axes = list(range(1, y.ndim))
        ratio = c.std(dim=axes, keepdim=True) / y.std(dim=axes, keepdim=True)
        return y * (self.phi * ratio + 1 - self.phi)


@dataclass(frozen=True)
class Framed:
    """Classifier-free guidance y = u + w (c - u) with a w for every frame, (1 or B, F, 1, 1, 1)."""

    scale: Tensor
    conditional: int

    def __call__(self, predictions: Sequence[Tensor]) -> Tensor:
        c, u = predictions[self.conditional], predictions[1 - self.conditional]
        return u + self.scale.to(c) * (c - u)


@dataclass(frozen=True)
class Normed:
    """Classifier-free guidance y = u + w (c - u), then y |c| / |y| with norms along the last axis, times sign.

    That is how QwenImage and, where told so, Lumina 2 combine their passes.
    """

    scale: float
    conditional: int
    sign: float

    def __call__(self, predictions: Sequence[Tensor]) -> Tensor:
        c, u = predictions[self.conditional], predictions[1 - self.conditional]
        y = u + self.scale * (c - u)
        return self.sign * y * (c.norm(dim=-1, keepdim=True) / y.norm(dim=-1, keepdim=True))


Combine = Callable[[Sequence[Tensor]], Tensor]
"""Passes of the network -> the prediction."""


def conditional(rule: Any, pipeline: Any) -> int:
    """Which of a pipeline's two passes has the condition: the one that its own guidance weighs more.

    Raises:
        GuidanceError: if there are not two.
    """
    if isinstance(rule, Normed | Framed):
        return rule.conditional
    two_passes(rule.weights, pipeline)
    return rule.conditional if isinstance(rule, Rescaled) else int((rule.weights * sign(rule)).argmax())


def sign(rule: Any) -> float:
    """-1 where a pipeline takes its network's outputs for the negative of a prediction, as Lumina 2 does, else 1."""
    if isinstance(rule, Normed):
        return rule.sign
    return -1.0 if isinstance(rule, Affine) and float(rule.weights.sum()) < 0 else 1.0


def two_passes(passes: Sequence[Tensor] | Tensor, pipeline: Any) -> None:
    """GuidanceError if a pipeline did not make two passes."""
    wanted = "give it a guidance_scale above 1 (its value does not count)"
    if len(passes) != 2:
        raise GuidanceError(
            f"{type(pipeline).__name__} made {len(passes)} passes, and a rule of two branches needs one with the "
            f"condition and one without: {'switch its other guidance off' if len(passes) > 2 else wanted}"
        )


def combination(predictions: Sequence[Tensor], made: Tensor, pipeline: Any) -> Combine:
    """The rule by which `made` was made of the predictions.

    Raises:
        GuidanceError: if there is none: the pipeline's guidance is of a kind that cannot be made again.
    """
    if not all(bool(y.isfinite().all()) for y in (*predictions, made)):
        raise GuidanceError(
            f"the networks of {type(pipeline).__name__} predict values that are not finite, with or without guidance: "
            "use another dtype"
        )
    rounding = max(torch.finfo(y.dtype).eps for y in (*predictions, made))
    tolerance = max(64 * torch.finfo(torch.float32).eps, 4 * rounding)
    wide, target = [y.double() for y in predictions], made.double()
    size = target.flatten(1).norm(dim=1).clamp_min(1e-12)

    def gap(rule: Combine) -> float:
        return float(((rule(wide) - target).flatten(1).norm(dim=1) / size).max())

    phis = [phi for phi, _ in _told(pipeline)]
    for rules in (_known(len(wide), pipeline), _solved(wide, target, 2 * rounding, phis), _normed(wide, target)):
        found = [(gap(rule), place, rule) for place, rule in enumerate(rules)]
        if found and min(found)[0] <= tolerance:
            return min(found)[2]
    raise switch_off(len(predictions), pipeline)


def switch_off(count: int, pipeline: Any) -> GuidanceError:
    """What to say of a combination of so many passes that cannot be made again."""
    said = running(pipeline)
    names = [f"{name}={off}" for name, off in SWITCHES.items() if said.get(name)]
    instead = ", or give guide a rule for its two passes, such as prediction=CFG(5.0)" if count == 2 else ""
    return GuidanceError(
        f"{type(pipeline).__name__} made its prediction of its network's outputs in a way that is no fixed weighted "
        "sum of them (APG, CFG-norm and CFG-Zero* are such): call it "
        f"{'with ' + ' and '.join(names) if names else 'without guidance (guidance_scale=1)'}{instead}"
    )


def _known(count: int, pipeline: Any) -> Iterator[Combine]:
    if count == 1:
        yield Affine(torch.ones(1, dtype=torch.float64))
        yield Affine(-torch.ones(1, dtype=torch.float64))
    yield from _of_sound_and_sight(count, pipeline)
    if count != 2:
        return
    if isinstance(framed := getattr(pipeline, "guidance_scale", None), Tensor):  # Stable Video Diffusion's
        yield from (Framed(framed, conditional) for conditional in (1, 0))
    for phi, scale in _told(pipeline):
        for conditional in (1, 0):
            weights = torch.full((2,), 1.0 - scale, dtype=torch.float64)
            weights[conditional] = scale
            if phi > 0:
                yield Rescaled(weights, phi, conditional)
            yield Affine(weights)
            yield Affine(-weights)


def _of_sound_and_sight(count: int, pipeline: Any) -> Iterator[Combine]:
    """LTX-2's sums of its passes: without the condition, with it, without some blocks, and without the sound."""
    if not hasattr(pipeline, "do_modality_isolation_guidance"):
        return
    scale, skipped, alone = pipeline.guidance_scale, pipeline.stg_scale, pipeline.modality_scale
    u = [1.0 - scale] if pipeline.do_classifier_free_guidance else []
    others = [-skipped] if pipeline.do_spatio_temporal_guidance else []
    others += [1.0 - alone] if pipeline.do_modality_isolation_guidance else []
    weights = torch.tensor([*u, 1.0 - sum(u) - sum(others), *others], dtype=torch.float64)
    if len(weights) == count:
        yield Affine(weights)
        yield Rescaled(weights, pipeline.guidance_rescale, len(u))


def _told(pipeline: Any) -> Iterator[tuple[float, float]]:
    """(phi, scale) as a pipeline, or its guiders, have them."""
    for holder in (pipeline, *guiders(pipeline)):
        phi = float(getattr(holder, "guidance_rescale", 0.0) or 0.0)
        for scale in scales(holder):
            if isinstance(scale, int | float):
                yield phi, scale
                yield phi, scale + 1.0  # c + w (c - u), as Z-Image and guiders with use_original_formulation have it
        if isinstance(extra := pag_scale(holder), int | float):
            yield phi, extra + 1.0  # perturbed attention alone


def _solved(
    predictions: Sequence[Tensor], made: Tensor, rounding: float, phis: Sequence[float]
) -> Iterator[Affine | Rescaled]:
    """Weights by least squares, where they are those of a fixed rule: the same for all samples, and 1 or -1 in sum.

    Any vector in the span of the predictions has weights at this point. Those of a projection or of a division by a
    norm depend on the predictions, and would be others elsewhere; but they add up to another number than 1, or are
    others in the next step (`Earlier.steady`). Where the pipeline says that it rescales, the sum is that of its scale.
    """
    columns = torch.stack([y.flatten(1) for y in predictions], dim=2)
    found = torch.linalg.lstsq(columns, made.flatten(1)[..., None]).solution[..., 0]
    for phi in {phi for phi in phis if phi > 0}:
        whole = (found / found.sum(dim=1, keepdim=True)).mean(dim=0)
        for conditional in range(len(predictions)):
            yield Rescaled(whole, phi, conditional)
    weights, size = found.mean(dim=0), found.abs().max().clamp_min(1.0)
    tolerance = max(1e-3, rounding)
    if (found - weights).abs().max() <= tolerance * size and abs(abs(weights.sum()) - 1) <= tolerance:
        yield Affine(weights, said=False)


def _normed(predictions: Sequence[Tensor], made: Tensor) -> Iterator[Normed]:
    """The scale w of a prediction whose every vector along the last axis is a multiple of u + w (c - u)."""
    if len(predictions) != 2:
        return
    for place in (1, 0):
        u, d = predictions[1 - place], predictions[place] - predictions[1 - place]
        uu, ud, dd, um, dm = ((p * q).sum(dim=-1) for p, q in ((u, u), (u, d), (d, d), (u, made), (d, made)))
        first, second = um * dd - dm * ud, dm * uu - um * ud  # of made = (first u + second d) / (uu dd - ud^2)
        scale = (second / first).nanmedian()
        sign = (um + scale * dm).sum().sign()
        yield Normed(float(scale), place, float(sign))
