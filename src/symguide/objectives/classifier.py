"""Steer toward a class."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError, unknown
from symguide.objectives.base import Follower, Objective, rows_for, to_device_of
from symguide.registry import register


@register("objective", "classifier")
class Classifier(Objective):
    """-log p(label | x_0) of a classifier trained on clean samples.

        loss = log sum_k exp(marginal * logit_k) - joint * logit_label

    Args:
        network: clean samples (B, ...) -> logits (B, K).
        label: the class, one for all samples or one for each.
        head: of a network with several, the one that the label belongs to: network.attribute(x, head) -> logits (B, K),
            where network.heads maps their names to K. Its classes must exclude each other, as those of a softmax do;
            "paints" and "pairs" of the scenes classifier do not.
        joint, marginal: weights (inverse temperatures) of the label's logit, log p(x_0, label), and in the sum over
            classes, log p(x_0); 1 and 1 is the cross-entropy. Less marginal, 0.5, keeps the gradient of a label that is
            nearly certain from vanishing (EluCD, 2310.11311).

    Raises:
        ConfigError: if a label is not a class of the network, or the network has no such head, or a weight is not
            positive.

    Cost: one evaluation of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        label: int | Sequence[int] | Tensor,
        head: str | None = None,
        joint: float = 1.0,
        marginal: float = 1.0,
    ) -> None:
        if not (joint > 0 and marginal > 0):
            raise ConfigError(f"joint and marginal must be positive, and are {joint} and {marginal}")
        self.joint, self.marginal = joint, marginal
        self.network = Follower(network, *(["attribute"] if head is not None else []))
        self.label = torch.as_tensor(label, device="cpu").long().reshape(-1)
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
        label = rows_for(to_device_of(self.label, x0, torch.long), x0, "label")
        if self.joint == self.marginal == 1:
            return F.cross_entropy(logits, label, reduction="none")
        of_label = logits.gather(1, label[:, None])[:, 0]
        return torch.logsumexp(self.marginal * logits, dim=1) - self.joint * of_label


def softened(network: nn.Module, beta: float = 3.0) -> nn.Module:
    """A copy of a network with softplus, log(1 + exp(beta x)) / beta, in place of every ReLU module.

    A ReLU's slope jumps, and with it the gradient that guides; 3 is EluCD's beta (2310.11311). The network given is
    not changed.

    Raises:
        ConfigError: for a beta that is not positive, and a network without ReLU modules (those called as functions
            cannot be found).

    >>> softened(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))[1]
    Softplus(beta=3.0, threshold=20.0)
    """
    if not beta > 0:
        raise ConfigError(f"beta must be positive, and is {beta}")
    network = nn.Sequential(copy.deepcopy(network))
    found = [
        (parent, name)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ReLU)
    ]
    if not found:
        raise ConfigError(f"{type(network[0]).__name__} has no ReLU modules to soften: use it as it is")
    for parent, name in found:
        setattr(parent, name, nn.Softplus(beta))
    whole: nn.Module = network[0]
    return whole
