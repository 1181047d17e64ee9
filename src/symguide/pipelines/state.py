"""A scheduler's own state: kept and put back, and moved along with a guided sample."""

import copy
from typing import Any

from torch import Tensor

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
    if hasattr(scheduler, "state_in_first_order"):  # Heun
        return not scheduler.state_in_first_order
    return hasattr(scheduler, "plms_timesteps") and scheduler.counter == 1  # PNDM


def move_stored(scheduler: Any, change: Tensor, schedule: Schedule, t: float, s: float, start: float) -> None:
    """Move what the scheduler has stored of the path along with a change of its sample at s.

    UniPC corrects the next sample from the last one that it stored, and single-step DPM-Solver takes its second and
    third order steps from the sample at the start of the group: a change that they do not know of would be lost. Along
    the solver's linear part a change at s is one of (sigma_r / sigma_s) at r (alpha, where it predicts noise).

    Args:
        change: of the sample at s, in the pipeline's units.
        t: the time of the step that led to s.
        start: the time at which a single-step group began.
    """
    if s == 0:
        return
    level = schedule.sigma if _predicts_data(scheduler) else schedule.alpha
    if isinstance(getattr(scheduler, "last_sample", None), Tensor):
        scheduler.last_sample = scheduler.last_sample + level(t) / level(s) * change
    elif hasattr(scheduler, "order_list") and isinstance(getattr(scheduler, "sample", None), Tensor):
        scheduler.sample = scheduler.sample + level(start) / level(s) * change


def _predicts_data(scheduler: Any) -> bool:
    config = scheduler.config
    return bool(getattr(config, "predict_x0", "++" in str(getattr(config, "algorithm_type", "++"))))
