"""A scheduler's own state: kept and put back, and moved along with a guided sample."""

import copy
from typing import Any

from torch import Tensor

from symguide.private.diffusers import check_state
from symguide.schedule import Schedule


def kept(scheduler: Any) -> dict[str, Any]:
    """A copy of all that a step may change."""
    return {name: _copied(value) for name, value in vars(scheduler).items() if name not in ("step", "set_timesteps")}


def put_back(scheduler: Any, state: dict[str, Any]) -> None:
    """The state that `kept` copied; the copy stays good for another time."""
    vars(scheduler).update({name: _copied(value) for name, value in state.items()})


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return [_copied(v) for v in value] if isinstance(value, list) else copy.copy(value)


def unfinished(scheduler: Any) -> bool:
    """Whether a call of `step` left the step half done, so that the next call corrects it."""
    check_state(scheduler)
    if hasattr(scheduler, "state_in_first_order"):  # Heun and DPM-Solver-2; the last step, to sigma = 0, is whole
        last = scheduler.step_index is not None and scheduler.step_index >= len(scheduler.timesteps)
        return not scheduler.state_in_first_order and not last
    return hasattr(scheduler, "plms_timesteps") and scheduler.counter == 1  # PNDM


def move_stored(scheduler: Any, change: Tensor, schedule: Schedule, t: float, s: float, start: float) -> None:
    """Move what the scheduler has stored of the path along with a change of its sample at s.

    UniPC and SA-Solver correct the next sample from the last one that they stored, and single-step DPM-Solver takes its
    second and third order steps from the sample at the start of the group: a change that they do not know of would be
    lost. Along the solver's linear part a change at s is one of (sigma_r / sigma_s) at r (alpha, where it predicts
    noise).

    Args:
        change: of the sample at s, in the pipeline's units.
        t: the time of the step that led to s.
        start: the time at which a single-step group began.
    """
    if s == 0:
        return
    level = schedule.sigma if _predicts_data(scheduler) else schedule.alpha
    if hasattr(scheduler, "last_noise"):
        scheduler.last_sample = scheduler.last_sample + change / _kept_by_sa(scheduler, schedule, t, s)
    elif isinstance(getattr(scheduler, "last_sample", None), Tensor):
        scheduler.last_sample = scheduler.last_sample + level(t) / level(s) * change
    elif hasattr(scheduler, "order_list") and isinstance(getattr(scheduler, "sample", None), Tensor):
        scheduler.sample = scheduler.sample + level(start) / level(s) * change


def _kept_by_sa(scheduler: Any, schedule: Schedule, t: float, s: float) -> float:
    """The part of x_t in x_s by SA-Solver's stochastic Adams steps: (sigma_s / sigma_t) exp(-tau^2 h).

    h is the growth of log(alpha / sigma). It predicts data; where it predicts noise, the part is alpha_s / alpha_t.

    Source: Xue et al., "SA-Solver", 2309.05019, equations 11 and 14.
    """
    if not scheduler.predict_x0:
        return schedule.alpha(s) / schedule.alpha(t)
    tau, kept = float(scheduler.tau_func(scheduler.timestep_list[-1])), schedule.sigma(s) / schedule.sigma(t)
    return kept * (schedule.ratio(s) / schedule.ratio(t)) ** tau**2


def _predicts_data(scheduler: Any) -> bool:
    config = scheduler.config
    return bool(getattr(config, "predict_x0", "++" in str(getattr(config, "algorithm_type", "++"))))
