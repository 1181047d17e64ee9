"""Steer toward a class."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.objectives.base import Follower, Objective, rows_for


class Classifier(Objective):
    """-log p(label | x_0) of a classifier trained on clean samples.

    Args:
        network: clean samples (B, ...) -> logits (B, K).
        label: the class, one for all samples or one for each.

    Raises:
        ConfigError: if a label is not a class of the network.
    """

    def __init__(self, network: nn.Module, label: int | Sequence[int] | Tensor) -> None:
        self.network = Follower(network)
        self.label = torch.as_tensor(label).long().reshape(-1)

    def __call__(self, x0: Tensor) -> Tensor:
        logits = self.network(x0)
        if int(self.label.min()) < 0 or int(self.label.max()) >= logits.shape[1]:
            raise ConfigError(f"labels must be classes 0 to {logits.shape[1] - 1}, not {self.label.tolist()[:8]}")
        return F.cross_entropy(logits, rows_for(self.label.to(x0.device), x0, "label"), reduction="none")
