"""What draws the samples of a run: a model in our own loop, or a pipeline in its own."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from symguide.loop import Cost
from symguide.specs.kinds import Loss

Show = Callable[[int, int], None]
"""Told after each step: how many are done, and of how many."""


class Source(Protocol):
    """What draws.

    Attributes:
        name: of the model or pipeline: an embedded one's, a folder's full path, or a hub id.
        shape: of a picture; what draws latents decodes them before anything sees them.
        settings: its part of a config file.
        made_with: what tells it from its later self.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def made_with(self) -> Mapping[str, str]: ...

    def draw(
        self, indices: range, objective: Loss | None, loss: Callable[[Loss], Any] | None, show: Show
    ) -> tuple[Tensor, Cost]:
        """Samples (B, *shape), and what they cost.

        Args:
            indices: sample i is the same wherever it is drawn.
            objective: for pictures of these samples.
            loss: the gradient method for an objective; None where there is none.
            show: told of each step, where the source knows of them.
        """
