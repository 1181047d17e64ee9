"""What draws the samples of a run: a model in our own loop, or a pipeline in its own."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from symguide.loop import Cost
from symguide.specs.kinds import Loss

Show = Callable[[int, int], None]
"""Told after each step: how many are done, and of how many."""


class Source(Protocol):
    """What draws: its name, the shape of a picture, its part of a config, and what tells it from its later self.

    What draws latents decodes them before anything sees them.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def made_with(self) -> Mapping[str, Any]: ...

    def draw(
        self, indices: range, objective: Loss | None, loss: Callable[[Loss], Any] | None, show: Show
    ) -> tuple[Tensor, Cost]:
        """Samples (B, *shape), each a function of its index, and their cost; `loss` makes a recipe of `objective`."""
