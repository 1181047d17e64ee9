"""Schedulers that are unlike the others: EDM's levels, turned flows, steps through a midpoint."""

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.errors import ConfigError, GuidanceError
from symguide.pipelines.calls import plain
from symguide.pipelines.state import unfinished
from symguide.schedule import VE, VP, RectifiedFlow, T


class Stock:
    """A scheduler's own step of (model_output, sample), with all else as the pipeline gave it, or as it is named.

    Args:
        scheduler: whose step it is.
        call: as the pipeline made it.
        step: what is called.

    Attributes:
        own: the pipeline's own model output.
        handed: what stands for it in usual terms.
        sample: the pipeline's own.
    """

    def __init__(self, scheduler: Any, step: Callable[..., Any], call: inspect.BoundArguments) -> None:
        self.scheduler, self.step, self.call = scheduler, step, call
        self.own, self.sample = plain(self.given["model_output"]), plain(self.given["sample"])
        self.upward = self.given.get("per_token_timesteps") is not None
        self.clean = self.given.get("pred_original_sample")
        self.handed = -self.own if self.upward else self.own
        if self.clean is not None:
            self.level = scheduler.sigmas[scheduler.step_index]
            nothing = torch.zeros_like(self.sample)
            share = scheduler.precondition_outputs(nothing, torch.ones_like(self.sample), self.level)
            skipped = scheduler.precondition_outputs(self.sample, nothing, self.level)
            self.handed = (plain(self.clean) - skipped) / share

    @property
    def given(self) -> Mapping[str, Any]:
        """What the pipeline gave, by name."""
        return self.call.arguments

    def __call__(self, model_output: Tensor, sample: Tensor, **others: Any) -> Any:
        own = model_output is self.handed
        made = self.own if own else -model_output if self.upward else model_output
        if self.clean is not None:
            estimate = self.own if own else self.scheduler.precondition_outputs(sample, model_output, self.level)
            others["pred_original_sample"] = estimate
        call = copy.copy(self.call)
        call.arguments = {**self.given, "model_output": made, "sample": sample, **others}
        return self.step(*call.args, **call.kwargs)


@dataclass(frozen=True)
class EDM(VP):
    """EDM's noise levels s, of data of deviation d: alpha = d / sqrt(s^2 + d^2), sigma = s / sqrt(s^2 + d^2).

    x_t = alpha x_0 + sigma eps, with x_0 the data over d, is what networks are given: c_in (d x_0 + s eps). With
    c_skip and c_out they say the velocity v = alpha eps - sigma x_0 of this, or -v where `sign` is -1.

    Args:
        levels: s(t), 0 at t = 0.
        data: d.
        noise: c_noise(s), what networks are told.
        sign: of the velocity.

    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2206.00364, table 1.
    """

    levels: VE
    data: float
    noise: str
    sign: float = 1.0

    def _log_alpha(self, t: T) -> T:
        ratio = self.levels.sigma(t) / self.data
        return -0.5 * (torch.log1p(ratio * ratio) if isinstance(ratio, Tensor) else math.log1p(ratio * ratio))

    def timestep(self, t: T) -> T:
        s = self.levels.sigma(t)
        if isinstance(s, Tensor):
            return s.atan() * (2 / math.pi) if self.noise == "atan" else 0.25 * s.clamp_min(1e-12).log()
        return math.atan(s) * (2 / math.pi) if self.noise == "atan" else 0.25 * math.log(max(s, 1e-12))

    def time(self, ratio: float) -> float:
        return self.levels.time(ratio * self.data)

    def at_timestep(self, timestep: float) -> float:
        return self.levels.time(math.tan(timestep * math.pi / 2) if self.noise == "atan" else math.exp(4 * timestep))

    def v_weights(self, t: T) -> tuple[T, T]:
        return -self.sign * self.sigma(t), self.sign * self.alpha(t)


@dataclass(frozen=True)
class Upward(RectifiedFlow):
    """A rectified flow whose networks say the way to the data, v = x_0 - eps, as Mochi's do."""

    def v_weights(self, t: T) -> tuple[T, T]:
        return 1.0 + 0 * t, -1.0 + 0 * t


@dataclass(frozen=True)
class Tau(RectifiedFlow):
    """A rectified flow of tau = `highest` t, which may end a little beyond 1, where the data has no share."""

    highest: float = 1.0

    def alpha(self, t: T) -> T:
        return 1.0 - self.highest * t

    def sigma(self, t: T) -> T:
        return self.highest * t

    def timestep(self, t: T) -> T:
        return self.highest * t

    def time(self, ratio: float) -> float:
        return min(super().time(ratio) / self.highest, 1.0)


ASKS = ("CosmosTextToWorldPipeline",)
"""Pipelines that ask their scheduler for clean estimates, and then have it step with what they make of those."""


def only_asks(pipe: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of `step` asks for the clean estimate alone, and what it gives is not where the pipeline goes."""
    return type(pipe).__name__ in ASKS and kwargs.get("pred_original_sample") is None


def in_usual_terms(scheduler: Any, step: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Stock:
    """A call of `step` as a function of model output and sample.

    Steps that take them in another order (CogVideoX's DPM-Solver) are called by names. Steps with a timestep for every
    token (LTX with given frames) take time to run upwards, and are handed the prediction with the other sign. Steps
    that are handed a clean estimate (Cosmos 1's) are made of what networks say in its place.
    """
    return Stock(scheduler, step, inspect.signature(step).bind(*args, **kwargs))


def midpoint(scheduler: Any) -> float | None:
    """The noise level of the call in the middle of the step that a scheduler has begun, None if there is none.

    DPM-Solver-2 (KDPM2 and DPMSolverSDE) calls the network halfway in log sigma, Heun's method where the step ends.
    """
    if not unfinished(scheduler):
        return None
    if (level := getattr(scheduler, "mid_point_sigma", None)) is not None:
        return float(level)
    levels, index = getattr(scheduler, "sigmas_interpol", None), getattr(scheduler, "step_index", None)
    if levels is None or index is None:
        return None
    return float(levels[index - 1 if hasattr(scheduler, "sigmas_up") else index])


def draws_later(scheduler: Any) -> bool:
    """Whether noise of a step is drawn after its second call of the network, as KDPM2Ancestral and DPMSolverSDE do."""
    return bool({"sigmas_up", "mid_point_sigma"} & set(vars(scheduler)))


def refuse_two_noises(scheduler: Any) -> None:
    """GuidanceError for schedulers that call the network again before the noise of a step is known."""
    name = type(scheduler).__name__
    if draws_later(scheduler):
        raise GuidanceError(
            f"{name} draws the noise of a step after its second call of the network, and recipes on a sphere need it "
            "at the first: use EulerAncestralDiscreteScheduler, or DPMSolverMultistepScheduler with "
            "algorithm_type='sde-dpmsolver++'"
        )


def refuse_to_repeat(scheduler: Any) -> None:
    """ConfigError where a step that was made cannot be made again: half of it is to come, or its noise is fixed."""
    name = type(scheduler).__name__
    if unfinished(scheduler):
        raise ConfigError(f"{name} makes steps in two halves: repeats must be 1")
    if hasattr(scheduler, "noise_sampler"):
        raise ConfigError(f"{name} has the same noise in a step that is made again: repeats must be 1")
