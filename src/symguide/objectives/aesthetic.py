"""Steer toward what people, or a model of their taste, like."""

from collections.abc import Callable

from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.objectives.base import Follower, Objective, required
from symguide.registry import register


@register("objective", "aesthetic")
class Aesthetic(Objective):
    """-score(x_0): as much as possible of what the network scores.

    It has no least value, so unlike the others it goes on pulling once the samples are good: use it with a small factor
    or a window, and look at the samples.

    Args:
        network: clean samples (B, ...) -> (B, 1) or (B,), higher is better, such as
            encoders.AestheticPredictor.
        preprocess: applied to samples before the network.

    Raises:
        ConfigError: without a network, and for one that gives anything else than one number for each sample.

    Cost: one evaluation of the network.

    Source: Schuhmann et al., "LAION-5B", 2210.08402 (the predictor); as guidance in SAG (2312.12030).

    >>> Aesthetic(nn.Flatten())(Tensor([[0.5], [2.0]]))
    tensor([-0.5000, -2.0000])
    """

    def __init__(self, network: nn.Module | None = None, preprocess: Callable[[Tensor], Tensor] | None = None) -> None:
        self.network = Follower(required(network, self, "aesthetic"), preprocess=preprocess)

    def __call__(self, x0: Tensor) -> Tensor:
        score: Tensor = self.network(x0)
        if score.shape not in ((len(x0),), (len(x0), 1)):
            raise ConfigError(f"an aesthetic network gives one score for each sample, (B, 1), not {tuple(score.shape)}")
        return -score.reshape(-1)
