"""What a diffusers scheduler means by its timesteps, in symguide's terms: a schedule, a prediction type, times."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symguide.errors import ConfigError
from symguide.schedule import VP, RectifiedFlow, Schedule

_SPACES = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
EXPLODED = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
)
"""Schedulers whose states are x_0 + (sigma / alpha) eps; their networks are given alpha times that."""
KNOWN = (
    *EXPLODED,
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "CogVideoXDDIMScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "PNDMScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
)
"""Schedulers whose noise levels and stored state are understood; classes made of them count too."""


@dataclass(frozen=True)
class Levels:
    """A scheduler's noise levels.

    Attributes:
        schedule: of what the network is given: VP by the scheduler's own table, or a rectified flow.
        predicts: what the network predicts.
        exploded: whether the pipeline's states are those of the schedule divided by alpha, as Euler's are.
    """

    schedule: Schedule
    predicts: str
    exploded: bool

    def ours(self, state: Tensor, t: float) -> Tensor:
        """The schedule's x_t of a pipeline's state."""
        return self.schedule.alpha(t) * state if self.exploded else state

    def state(self, x: Tensor, t: float) -> Tensor:
        """The pipeline's state of the schedule's x_t."""
        return x / self.schedule.alpha(t) if self.exploded else x

    def times(self, scheduler: Any) -> list[float]:
        """Times of all calls of `step` that are to come after set_timesteps, and 0 at the end."""
        sigmas = getattr(scheduler, "sigmas", None)
        if sigmas is None:
            count = len(scheduler.alphas_cumprod)
            return [*((step + 1) / count for step in numbers(scheduler.timesteps)), 0.0]
        values = numbers(sigmas)
        if isinstance(self.schedule, RectifiedFlow):
            values = [math.inf if sigma >= 1 else sigma / (1 - sigma) for sigma in values]
        times = [min(self.schedule.time(ratio), 1.0) if ratio > 0 else 0.0 for ratio in values]
        return [*times[: len(scheduler.timesteps)], 0.0]

    def clock(self, scheduler: Any) -> "Clock":
        """The timesteps that the networks are told between those of the scheduler's own calls."""
        ours, end = self.schedule.timestep, float(self.schedule.timestep(0.0))
        steps = zip(self.times(scheduler)[:-1], numbers(scheduler.timesteps), strict=True)
        pairs = {end: end} | {float(ours(t)): step for t, step in steps}
        return Clock(tuple(sorted(pairs)), tuple(pairs[ours] for ours in sorted(pairs)))


def numbers(values: Any) -> list[float]:
    """Timesteps or noise levels of a scheduler; a GPU is waited for once, and not for each."""
    return torch.as_tensor(values).double().flatten().tolist()


@dataclass(frozen=True)
class Clock:
    """The scheduler's timestep of a time, by that of our schedule: exact at its own times, straight in between.

    They differ where timesteps are not shifted as the noise levels are (CogView4), or are rounded (DPM-Solver's on
    Karras' levels).

    Attributes:
        ours, theirs: timesteps of both, rising.
    """

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    def __call__(self, timestep: float) -> float:
        place = min(range(len(self.ours)), key=lambda i: abs(self.ours[i] - timestep))
        if math.isclose(self.ours[place], timestep, rel_tol=1e-5, abs_tol=1e-4):
            return self.theirs[place]
        return float(np.interp(timestep, self.ours, self.theirs))


def levels(scheduler: Any) -> Levels:
    """The levels of a scheduler, by its table and its class.

    Raises:
        ConfigError: for schedulers of another kind (EDM's preconditioning, vector-quantised ones, consistency models).
    """
    name, config = type(scheduler).__name__, scheduler.config
    classes = {each.__name__ for each in type(scheduler).__mro__}
    if not classes & set(KNOWN):
        raise ConfigError(_instead(scheduler))
    if getattr(config, "skip_prk_steps", True) is False:
        raise ConfigError(f"{name} cannot be guided in its Runge-Kutta steps: make it with skip_prk_steps=True")
    if getattr(config, "invert_sigmas", False):
        raise ConfigError(f"{name} with invert_sigmas=True cannot be guided: guide takes noise levels that fall")
    predicts = _SPACES.get(getattr(config, "prediction_type", None) or "")
    matching = any("FlowMatch" in each for each in classes)
    if matching or getattr(config, "use_flow_sigmas", False):
        if predicts == "v":  # diffusers takes (1 - sigma) x - sigma v there, which is no velocity of this path
            raise ConfigError(
                f"{name} with use_flow_sigmas=True and prediction_type 'v_prediction' cannot be guided: "
                "flows are of prediction_type 'flow_prediction'"
            )
        told = "flow" if matching else predicts or "flow"
        return Levels(RectifiedFlow(float(config.num_train_timesteps)), told, exploded=False)
    table = getattr(scheduler, "alphas_cumprod", None)
    if predicts is None or predicts == "flow" or table is None:
        raise ConfigError(
            f"{name} with prediction_type {getattr(config, 'prediction_type', None)!r} cannot be guided: guide knows "
            f"{', '.join(_SPACES)}"
        )
    falling = torch.as_tensor(table).double().clamp_min(1e-12)  # zero terminal SNR has an exact 0 at its end
    return Levels(VP.discrete(falling), predicts, exploded=bool(classes & set(EXPLODED)))


def _instead(scheduler: Any) -> str:
    """What to say of a scheduler that is not known: which others can run its network, if any can."""
    name = type(scheduler).__name__
    able = {*getattr(scheduler, "_compatibles", ())}
    if "FlowMatch" in name:
        able = {"FlowMatchEulerDiscreteScheduler"}
    if name.startswith("CogVideoX"):
        able = {"CogVideoXDDIMScheduler"}
    others = [k.removesuffix("Scheduler") for k in KNOWN if k in able]
    if not others:
        return f"pipelines with {name} cannot be guided: no scheduler that guide knows runs such a network"
    return f"{name} cannot be guided: use one of {', '.join(others)}"
