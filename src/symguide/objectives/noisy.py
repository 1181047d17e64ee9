"""Steer by a classifier that was trained on noisy samples, at the noise level of every step."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.objectives.base import Follower, Objective, rows_for, to_device_of
from symguide.registry import register
from symguide.schedule import Schedule


@register("objective", "noisy")
class NoisyClassifier(Objective):
    """-log p(label | x_t, t) of a classifier trained on samples at every noise level.

    For `ClassifierGuidance`, which asks it at x_t. Other methods ask objectives about clean samples, and get its answer
    at timestep 0.

    Args:
        network: (x_t (B, ...), timestep (B,)) -> logits (B, K), with the timesteps of the model that it guides.
        label: the class, one for all samples or one for each.

    Raises:
        ConfigError: if a label is not a class of the network, or the network gives no logits (B, K).

    Cost: one evaluation of the network.

    Source: Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2105.05233, section 4.

    >>> class Side(nn.Module):
    ...     def forward(self, x, timestep):
    ...         return torch.cat([-x, x], dim=1) / (1 + timestep[:, None])
    >>> NoisyClassifier(Side(), 1)(torch.tensor([[1.0], [-9.0]])).round(decimals=3)
    tensor([ 0.1270, 18.0000])
    """

    def __init__(self, network: nn.Module, label: int | Sequence[int] | Tensor) -> None:
        self.network = Follower(network)
        self.label = torch.as_tensor(label, device="cpu").long().reshape(-1)

    def __call__(self, x0: Tensor) -> Tensor:
        return self._loss(x0, 0.0)

    def noisy(self, x: Tensor, t: float, schedule: Schedule) -> Tensor:
        """The loss of samples x_t at time t of a schedule, (B,)."""
        return self._loss(x, schedule.timestep(t))

    def _loss(self, x: Tensor, timestep: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        logits: Tensor = self.network(x, None, torch.full((len(x),), timestep, dtype=wide, device=x.device))
        if logits.ndim != 2 or len(logits) != len(x):
            raise ConfigError(f"a classifier gives logits (B, K) for each sample, not {tuple(logits.shape)}")
        if int(self.label.min()) < 0 or int(self.label.max()) >= logits.shape[1]:
            raise ConfigError(f"labels must be classes 0 to {logits.shape[1] - 1}, not {self.label.tolist()[:8]}")
        return F.cross_entropy(logits, rows_for(to_device_of(self.label, x, torch.long), x, "label"), reduction="none")
