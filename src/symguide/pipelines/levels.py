"""What a diffusers scheduler means by its timesteps, in symguide's terms: a schedule, a prediction type, times."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symguide.denoiser import Prediction
from symguide.errors import ConfigError
from symguide.pipelines.schedulers import EDM, Tau, Upward
from symguide.schedule import VE, VP, RectifiedFlow, Schedule

_SPACES = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
EXPLODED = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
"""Schedulers whose states are x_0 + (sigma / alpha) eps; their networks are given alpha times that."""
PRECONDITIONED = {
    "EDMEulerScheduler": "log",
    "EDMDPMSolverMultistepScheduler": "log",
    "CosineDPMSolverMultistepScheduler": "atan",
}
"""Schedulers of EDM's preconditioned networks, and how those are told the noise level."""
KNOWN = (
    *EXPLODED,
    *PRECONDITIONED,
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "PNDMScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "SCMScheduler",
)
"""Schedulers whose noise levels and stored state are understood; classes made of them count too."""


@dataclass(frozen=True)
class Levels:
    """A scheduler's noise levels.

    Attributes:
        schedule: of what the network is given: VP by the scheduler's own table, or a rectified flow.
        predicts: what the network predicts.
        exploded: whether the pipeline's states are those of the schedule divided by alpha, as Euler's are.
        data: what the pipeline's clean latents are of the schedule's: EDM's deviation of the data.
    """

    schedule: Schedule
    predicts: str
    exploded: bool
    data: float = 1.0

    def unit(self, t: float) -> float:
        """The pipeline's state at t over the schedule's x_t."""
        return self.data / self.schedule.alpha(t) if self.exploded else self.data

    def ours(self, state: Tensor, t: float) -> Tensor:
        """The schedule's x_t of a pipeline's state."""
        return state / self.unit(t)

    def state(self, x: Tensor, t: float) -> Tensor:
        """The pipeline's state of the schedule's x_t."""
        return x * self.unit(t)

    def said(self, x: Tensor, t: float, handed: Tensor) -> Tensor:
        """What networks say at the schedule's x_t where the scheduler is handed this."""
        return handed

    def handed(self, prediction: Prediction, t: float) -> Tensor:
        """What the scheduler is handed of a prediction at t."""
        value: Tensor = getattr(prediction, self.predicts)
        return value

    def told(self, timestep: float) -> float:
        """What networks may be told at a scheduler's timestep."""
        return timestep

    @property
    def kind(self) -> str:
        """Of the noise that networks know: those of one kind can be run by each other's schedulers."""
        if isinstance(self.schedule, EDM):
            return f"EDM ({self.schedule.noise} of the level, data of deviation {self.data:g})"
        if isinstance(self.schedule, Upward):
            return "flows whose time rises"
        return "flows" if isinstance(self.schedule, RectifiedFlow) else "diffusion"

    @property
    def exact(self) -> bool:
        """Whether networks are told just that, and no multiple of it."""
        return isinstance(self.schedule, EDM | Upward)

    def time(self, sigma: float) -> float:
        """The time of one of the scheduler's sigmas."""
        if isinstance(self.schedule, Upward):
            sigma = 1 - sigma
        if isinstance(self.schedule, RectifiedFlow) and not self.exploded:
            ratio = math.inf if sigma >= 1 else sigma / (1 - sigma)
        else:
            ratio = sigma / self.data
        if ratio > 1.001 * self.schedule.ratio(1.0):
            raise ConfigError(
                f"this scheduler's sigma {sigma:g} is above all that its betas have, so what networks say there is not "
                "known: leave sigma_max out"
            )
        return min(self.schedule.time(ratio), 1.0) if ratio > 0 else 0.0

    def times(self, scheduler: Any) -> list[float]:
        """Times of all calls of `step` that are to come after set_timesteps, and 0 at the end."""
        sigmas = getattr(scheduler, "sigmas", None)
        if sigmas is None:
            count = len(scheduler.alphas_cumprod)
            return [*((step + 1) / count for step in numbers(scheduler.timesteps)), 0.0]
        return [*map(self.time, numbers(sigmas)[: len(scheduler.timesteps)]), 0.0]

    def clock(self, scheduler: Any) -> "Clock":
        """The timesteps that the networks are told between those of the scheduler's own calls."""
        ours, last = self.schedule.timestep, float(self.schedule.timestep(0.0))
        end = scheduler.config.num_train_timesteps if isinstance(self.schedule, Upward) else last
        steps = zip(self.times(scheduler)[:-1], numbers(scheduler.timesteps), strict=False)
        pairs = {last: float(end)} | {float(ours(t)): self.told(step) for t, step in steps}
        return Clock(tuple(sorted(pairs)), tuple(pairs[ours] for ours in sorted(pairs)))


class TrigFlow(Levels):
    """Sana Sprint's: states cos(s) x_0 + sin(s) eps, times `data`, and networks that say the flow of tau.

    With tau = sin(s) / (sin(s) + cos(s)) they are told tau and given (1 - tau) x_0 + tau eps, the state over `unit`.
    The scheduler is handed the velocity cos(s) eps - sin(s) x_0, times `data`.

    Source: Chen et al., "SANA-Sprint", 2503.09641, section 3.1.
    """

    exact, kind = True, "TrigFlow"

    def unit(self, t: float) -> float:
        return self.data / math.hypot(self.schedule.alpha(t), self.schedule.sigma(t))

    def said(self, x: Tensor, t: float, handed: Tensor) -> Tensor:
        signal, noise = self.schedule.alpha(t), self.schedule.sigma(t)
        length = math.hypot(signal, noise)
        return (handed / self.data - (signal - noise) / length * x) / length

    def handed(self, prediction: Prediction, t: float) -> Tensor:
        signal, noise = self.schedule.alpha(t), self.schedule.sigma(t)
        length = math.hypot(signal, noise)
        return self.data * (length * prediction.flow + (signal - noise) / length * prediction.x)

    def told(self, timestep: float) -> float:
        return tau(timestep)

    def times(self, scheduler: Any) -> list[float]:
        highest = float(self.schedule.timestep(1.0))
        return [*(min(tau(angle) / highest, 1.0) for angle in numbers(scheduler.timesteps)[:-1]), 0.0]


class Stretched(Levels):
    """Cosmos Predict 2's: states x_0 + s eps, and networks that say the flow of tau = s / (1 + s).

    They are told tau and given (1 - tau) times the state. The scheduler is one of flows, with levels above 1, and is
    handed eps.
    """

    exact, kind = True, "Cosmos's flows"

    def said(self, x: Tensor, t: float, handed: Tensor) -> Tensor:
        schedule = self.schedule
        return Prediction(x, handed, "eps", schedule.alpha(t), schedule.sigma(t), schedule.v_weights(t)).flow

    def handed(self, prediction: Prediction, t: float) -> Tensor:
        return prediction.eps

    def told(self, timestep: float) -> float:
        level = timestep / 1000
        return level / (1 + level)


def tau(angle: float) -> float:
    """The noise level of Sana Sprint's network at an angle of its scheduler."""
    return math.sin(angle) / (math.sin(angle) + math.cos(angle))


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
    if getattr(scheduler, "_scale_factors", None):
        raise ConfigError(f"{name} with scale_factors cannot be guided: samples that grow on the way have no one size")
    predicts = _SPACES.get(getattr(config, "prediction_type", None) or "")
    if name == "SCMScheduler":
        highest = max(1.0, tau(1.5708))  # runs begin there, which is beyond pi / 2
        return TrigFlow(Tau(highest=highest), "flow", exploded=False, data=float(config.sigma_data))
    if (preconditioned := _preconditioned(scheduler)) is not None:
        return preconditioned
    if "FlowMatch" in name and getattr(config, "sigma_data", None):  # which its pipeline has written there
        return Stretched(RectifiedFlow(1.0), "flow", exploded=True, data=float(config.sigma_data))
    if "FlowMatch" in name and getattr(config, "invert_sigmas", False):
        return Levels(Upward(float(config.num_train_timesteps)), "v", exploded=False)
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


def _preconditioned(scheduler: Any) -> Levels | None:
    """The levels of EDM's schedulers, and of Euler's where it tells networks the logarithm of the level as they do."""
    name, config = type(scheduler).__name__, scheduler.config
    classes = [kind.__name__ for kind in type(scheduler).__mro__]
    noise = next((PRECONDITIONED[kind] for kind in classes if kind in PRECONDITIONED), None)
    continuous = getattr(config, "timestep_type", None) == "continuous" and config.prediction_type == "v_prediction"
    if noise is None and not continuous:
        return None
    if noise is not None and config.prediction_type not in ("epsilon", "v_prediction"):
        raise ConfigError(f"{name} with prediction_type {config.prediction_type!r} cannot be guided")
    highest, lowest = (float(getattr(config, name, None) or 0.0) for name in ("sigma_max", "sigma_min"))
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is not None:  # Euler's: sigma_max and sigma_min are of Karras' levels, which are an option
        highest = max(highest, float(((1 - table) / table).sqrt().max()))
    data = float(getattr(config, "sigma_data", 1.0))
    sign = 1.0 if config.prediction_type == "v_prediction" else -1.0
    return Levels(EDM(VE(highest, lowest or 0.002), data, noise or "log", sign), "v", exploded=True, data=data)
