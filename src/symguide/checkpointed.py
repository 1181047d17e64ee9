"""Blocks of a network that are computed again in the backward sweep: a call's graph keeps their inputs alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from symguide.errors import ConfigError


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
    symguide.errors.ConfigError: '[01]' names no block of Sequential, which has '0', '1'
    """
    parts = {name: part for name, part in network.named_modules() if name and not isinstance(part, CONTAINERS)}
    chosen: dict[str, nn.Module] = {}
    for pattern in blocks:
        rule = re.compile(re.escape(pattern).replace(r"\*", r"[^.]+"))
        found = {name: part for name, part in parts.items() if rule.fullmatch(name)}
        if not found:
            some = ", ".join(repr(name) for name in list(parts)[:8])
            raise ConfigError(f"{pattern!r} names no block of {type(network).__name__}, which has {some}")
        chosen |= found
    for name in chosen:
        outer = next((other for other in chosen if name.startswith(f"{other}.")), None)
        if outer is not None:
            raise ConfigError(f"block {name!r} lies inside {outer!r}: name one of the two")
    before = {part: vars(part)["forward"] for part in chosen.values() if "forward" in vars(part)}
    try:
        for part in chosen.values():
            vars(part)["forward"] = partial(checkpoint, part.forward, use_reentrant=False)
        yield
    finally:
        for part in chosen.values():
            vars(part).pop("forward", None)
            vars(part).update({"forward": before[part]} if part in before else {})


CONTAINERS = (nn.ModuleList, nn.ModuleDict)
"""Modules that hold others and are never called."""
