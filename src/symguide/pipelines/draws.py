"""The noise that a scheduler's step draws: whether it draws any, and the mean and standard deviation of the step.

Both are found by making the step with noise of our own. What puts that in place is a torch mode for functions, which is
of one thread: nobody else's noise changes, and no generator moves on.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from symguide.errors import GuidanceError
from symguide.pipelines import state

INSTEAD: dict[Any, Callable[..., Tensor]] = {
    torch.randn: lambda value, *args, **kwargs: torch.zeros(*args, **kwargs).fill_(value),
    torch.randn_like: lambda value, *args, **kwargs: torch.zeros_like(*args, **kwargs).fill_(value),
    torch.Tensor.normal_: lambda value, tensor, mean=0.0, std=1.0: tensor.fill_(mean + std * value),
}
"""What draws normal noise, and what makes its tensor where all of that noise is one value."""
OTHERS = {
    *("randn", "randn_like", "normal", "normal_", "rand", "rand_like", "randint", "randint_like", "randperm"),
    *("random_", "uniform_", "bernoulli", "bernoulli_", "multinomial", "poisson", "exponential_", "cauchy_"),
    *("log_normal_", "geometric_", "dropout"),
}
"""Names of functions that draw, in these ways and in others."""


Drawn = tuple[Any, Any]
"""The function that drew, and what it gave."""


class Draws(TorchFunctionMode):
    """Counts the random numbers that are drawn inside, in this thread, and may put others in their place.

    Args:
        instead: the value of all noise whose first number is the k-th, by k; the noise itself where not given.
        sources: the generators that may be drawn from, beside torch's own.

    Attributes:
        count: of numbers drawn so far.
        made: what was drawn, and by which function.

    Raises:
        GuidanceError: inside, where the noise to be replaced is not normal, or is from another source.
    """

    def __init__(self, instead: Callable[[int], float] | None = None, sources: Sequence[Any] = ()) -> None:
        super().__init__()
        self.instead, self.sources, self.count = instead, tuple(sources), 0
        self.made: list[Drawn] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in INSTEAD and getattr(func, "__name__", "") not in OTHERS:
            return func(*args, **kwargs)
        if self.instead is None:
            made = func(*args, **kwargs)
            self.made.append((func, made))
        else:
            source = kwargs.pop("generator", None)
            if func not in INSTEAD or not (source is None or any(source is known for known in self.sources)):
                raise GuidanceError(
                    f"the scheduler draws noise of its own kind or source (by torch's {func.__name__}), so the mean of "
                    "its step is not known: use another scheduler, or a recipe that does not need it, such as SAG"
                )
            made = INSTEAD[func](self.instead(self.count), *args, **kwargs)
        self.count += made.numel() if isinstance(made, Tensor) else 1
        return made


class Instead(TorchFunctionMode):
    """Gives these tensors, in their order and whatever their shapes, in the place of all that is drawn inside."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.unused = list(tensors)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in INSTEAD and getattr(func, "__name__", "") not in OTHERS:
            return func(*args, **(kwargs or {}))
        return self.unused.pop(0)


def same_draw(one: Drawn, other: Drawn) -> bool:
    """Whether the same was drawn."""
    return one[0] is other[0] and torch.equal(torch.as_tensor(one[1]), torch.as_tensor(other[1]))


def whole(drawn: Sequence[Drawn], like: Tensor) -> list[Tensor] | None:
    """What a step has drawn, as white noise in the shape of `like`; None where it is none.

    With a generator for each sample it is drawn row by row.
    """
    noises, rows = list[Tensor](), list[Tensor]()
    for func, made in drawn:
        if func not in (torch.randn, torch.randn_like) or made.shape[1:] != like.shape[1:]:
            return None
        rows.append(made.to(like.device))
        if sum(map(len, rows)) == len(like):
            noises.append(torch.cat(rows))
            rows = []
    return None if rows else noises


def mean_and_std(
    scheduler: Any, before: dict[str, Any], step: Callable[[], Tensor], sample: Tensor, sources: Sequence[Any] = ()
) -> tuple[Tensor, float]:
    """Mean (B, ...) and standard deviation of what a scheduler's step gives.

    The step is made with noise 0 and with noise 1; with several noises of a step in turn, as their variances add up.
    The scheduler's state and all generators stay where they are.

    Args:
        scheduler: whose step it is.
        before: its state before the step, by `state.kept`.
        step: makes the step, and gives x_s, in single precision at least.
        sample: what the step is made of, (B, ...).
        sources: the generators that the step is handed.

    Raises:
        GuidanceError: for noise of a kind or a source that is not known, and where noise 1 does not move every number
            by the same: the step then draws in a way that torch does not see, or the noise is not white.
    """
    after = state.kept(scheduler)

    def ask(which: int | None) -> tuple[Tensor, int]:
        state.put_back(scheduler, before)
        with Draws(lambda k: float(k // sample.numel() == which), sources) as draws:
            if hasattr(scheduler, "noise_sampler"):  # a Brownian path, which would remember what it was told
                scheduler.noise_sampler = lambda *levels: torch.randn_like(sample)
            return step(), draws.count

    try:
        mean, count = ask(None)
        noises = max(1, math.ceil(count / sample.numel()))  # one at least: there may be some that torch does not see
        moved = [(ask(which)[0] - mean).double() for which in range(noises)]
    finally:
        state.put_back(scheduler, after)
    close = 64 * torch.finfo(mean.dtype).eps * float(mean.abs().max().clamp_min(1.0))
    if any(not bool((change - change.mean()).abs().max() <= close) for change in moved):
        raise GuidanceError(
            f"the noise that {type(scheduler).__name__} draws does not move its sample as white noise does, so the "
            "mean of its step is not known: use another scheduler, or a recipe that does not need it, such as SAG"
        )
    return mean, math.hypot(*(float(change.mean()) for change in moved))
