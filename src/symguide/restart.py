"""Restart sampling: back up to a noisier time by adding noise, and down again."""

from collections.abc import Sequence
from dataclasses import dataclass

from symguide.errors import ConfigError, is_number, whole
from symguide.schedule import Schedule


@dataclass(frozen=True)
class Restart:
    """Go back from the noise level `low` to `high` and sample down again, `times` times: `sample(..., restart=...)`.

        x_high = (alpha_high / alpha_low) x_low + sqrt(sigma_high² - (alpha_high sigma_low / alpha_low)²) z

    One large draw of noise over a whole stretch of steps contracts the errors that were made above it, guidance's
    too, where time travel (`repeats` of a recipe) goes back one step at a time. The paper's steps down are
    deterministic, eta=0. Every pass is guided as the first one was, and a multistep solver begins each without
    history.

    Args:
        low, high: noise levels sigma / alpha, 0 <= low < high. The stretch is the steps of the run between them, from
            its first time at or below `high` to its last one at or above `low`.
        times: how often; 0 is off.

    Raises:
        ConfigError: for levels or times that are none of these, or where no step of the run lies between the levels.

    Use it with deterministic solvers of few steps, and in place of time travel.

    Cost: `times` times what the steps of the stretch cost.

    Source: Xu et al., "Restart Sampling for Improving Generative Processes", 2306.14878, algorithm 1, on the run's own
    grid (the paper gives the stretch a finer one).
    """

    low: float
    high: float
    times: int = 1

    def __post_init__(self) -> None:
        if not (is_number(self.low) and is_number(self.high)) or not 0 <= self.low < self.high:
            raise ConfigError(f"Restart needs noise levels 0 <= low < high, not {self.low} and {self.high}")
        object.__setattr__(self, "times", whole(self.times, "Restart's times", 0))

    def plan(self, schedule: Schedule, times: Sequence[float]) -> list[tuple[int, int]]:
        """(index, visit) of every step that a run over these times makes, in order.

        >>> from symguide import VE
        >>> Restart(1.0, 3.0).plan(VE(), [VE().time(sigma) for sigma in (4.0, 2.0, 1.0)] + [0.0])
        [(0, 0), (1, 0), (1, 1), (2, 0)]
        """
        ratios = [schedule.ratio(t) for t in times]
        begin = next(i for i, ratio in enumerate(ratios) if ratio <= self.high)  # the last one is 0
        end = max((i for i, ratio in enumerate(ratios) if ratio >= self.low), default=0)
        if begin >= end:
            raise ConfigError(
                f"no step of {len(times) - 1} lies between the noise levels {self.low} and {self.high} of Restart: "
                f"take them further apart, within 0 and {ratios[0]:.4g}, or use more steps"
            )
        down, again, rest = range(end), range(begin, end), range(end, len(times) - 1)
        visits = [(index, visit) for visit in range(1, self.times + 1) for index in again]
        return [*((index, 0) for index in down), *visits, *((index, 0) for index in rest)]
