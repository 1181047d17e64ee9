"""Steer toward a class."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError, unknown
from symguide.objectives.base import Follower, Objective, rows_for


class Classifier(Objective):
    """-log p(label | x_0) of a classifier trained on clean samples.

    Args:
        network: clean samples (B, ...) -> logits (B, K).
        label: the class, one for all samples or one for each.
        head: of a network with several, the one that the label belongs to: network.attribute(x, head) -> logits (B, K),
            where network.heads maps their names to K. Its classes must exclude each other, as those of a softmax do;
            "paints" and "pairs" of the scenes classifier do not.

    Raises:
        ConfigError: if a label is not a class of the network, or the network has no such head.

    Cost: one evaluation of the network.
    """

    def __init__(self, network: nn.Module, label: int | Sequence[int] | Tensor, head: str | None = None) -> None:
        self.network = Follower(network, *(["attribute"] if head is not None else []))
        self.label = torch.as_tensor(label).long().reshape(-1)
        self.head = head
        if head is not None:
            heads = getattr(network, "heads", {})
            if not heads:
                raise ConfigError(f"this classifier has one head, and no {head!r}: leave head out")
            if head not in heads:
                raise unknown("head of the classifier", head, heads)

    def logits(self, x0: Tensor) -> Tensor:
        """What the network says of samples, (B, ...) -> (B, K)."""
        logits: Tensor = self.network(x0) if self.head is None else self.network(x0, "attribute", self.head)
        return logits

    def __call__(self, x0: Tensor) -> Tensor:
        logits = self.logits(x0)
        if int(self.label.min()) < 0 or int(self.label.max()) >= logits.shape[1]:
            raise ConfigError(f"labels must be classes 0 to {logits.shape[1] - 1}, not {self.label.tolist()[:8]}")
        return F.cross_entropy(logits, rows_for(self.label.to(x0.device), x0, "label"), reduction="none")
