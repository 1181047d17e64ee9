"""Blocks of a network that are computed again in the backward sweep: a call's graph keeps their inputs alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from symguide.edits import carrying
from symguide.errors import ConfigError
from symguide.modules import named


@contextmanager
def checkpointed(network: nn.Module, *blocks: str) -> Iterator[None]:
    """What the named blocks of a network save for backward inside is their inputs; gradients are the same bit for bit.

        with sg.checkpointed(denoiser.network, "down.*.*", "middle.*", "up.*.*"):
            result = sg.sample(denoiser, loss=sg.SAG(objective, n=4))

    For a network of your own. Inside pipelines `guide(pipe, checkpoint=True)` does it with diffusers' own checkpoints.

    Args:
        network: the network that is called; copies made inside keep their blocks checkpointed.
        blocks: names of modules as `network.named_modules()` has them, * for any one part of a name. None of them may
            lie inside another.

    Raises:
        ConfigError: for a pattern that names no module with a forward pass, and for blocks inside one another.

    Cost: every block's forward pass once more in each backward call. Source: Chen et al., "Training Deep Nets with
    Sublinear Memory Cost", 1604.06174.

    >>> with checkpointed(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "[01]"):
    ...     pass
    Traceback (most recent call last):
    symguide.errors.ConfigError: '[01]' names no module of Sequential, which has '0', '1'
    """
    chosen = {name: part for pattern in blocks for name, part in named(network, pattern).items()}
    for name in chosen:
        outer = next((other for other in chosen if name.startswith(f"{other}.")), None)
        if outer is not None:
            raise ConfigError(f"block {name!r} lies inside {outer!r}: name one of the two")
    before = {part: vars(part)["forward"] for part in chosen.values() if "forward" in vars(part)}
    try:
        for part in chosen.values():
            vars(part)["forward"] = partial(again, part.forward)
        yield
    finally:
        for part in chosen.values():
            vars(part).pop("forward", None)
            vars(part).update({"forward": before[part]} if part in before else {})


def again(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """call(*args, **kwargs), made again in the backward sweep, under the edits that are in force now."""
    return checkpoint(carrying(call), *args, use_reentrant=False, **kwargs)
