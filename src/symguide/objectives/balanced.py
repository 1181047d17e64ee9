"""Several objectives with an equal say, whatever their units."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from symguide.errors import ConfigError, GuidanceError
from symguide.modules import vjp
from symguide.objectives.base import Draws, Objective, at_step
from symguide.per_sample import norm


class Balanced(Objective):
    """A sum of objectives with weights inverse to the lengths of their gradients at the clean estimate.

        loss = sum_k w_k loss_k,    w_k = share_k (mean_j |g_j|) / |g_k|,    g_k = d loss_k / d x_0

    Several encoders seldom speak in the same units, and the loudest decides alone. Here every part pulls as hard as
    its share says, at every step and for every sample, while the length of the whole keeps to what the parts have. The
    weights count as constants in the gradient. They come from the sample at hand alone, with no memory of other steps,
    so that samples depend on nothing else. A part without gradient at a sample counts nothing there.

    Args:
        objectives: at least two, any callables x_0 -> loss (B,).
        shares: how hard each one pulls, positive; equally where not given.

    Raises:
        ConfigError: for fewer than two objectives, black boxes, or shares that are not one positive number for each.
        GuidanceError: for an objective without gradient path to the sample.

    Cost: one evaluation and one more gradient of every part.

    Source: inverse-gradient weights as in Chen et al., "GradNorm", 1711.02257, without its training; here per sample.

    >>> parts = Balanced([lambda x: x[:, 0], lambda x: 100 * x[:, 1]])
    >>> x = torch.ones(1, 2, requires_grad=True)
    >>> torch.autograd.grad(parts(x).sum(), x)[0]
    tensor([[50.5000, 50.5000]])
    """

    def __init__(self, objectives: Sequence[Callable[[Tensor], Tensor]], shares: Sequence[float] | None = None) -> None:
        if len(objectives) < 2 or not all(map(callable, objectives)):
            raise ConfigError("Balanced takes at least two objectives, callables x0 -> loss (B,), in a list")
        if blind := [o for o in objectives if not getattr(o, "differentiable", True)]:
            raise ConfigError(f"Balanced weighs gradients, and {type(blind[0]).__name__} has none: use a sum")
        shares = [1.0] * len(objectives) if shares is None else [float(share) for share in shares]
        if len(shares) != len(objectives) or not all(share > 0 for share in shares):
            raise ConfigError(f"shares must be {len(objectives)} positive numbers, one for each objective")
        self.objectives, self.shares = list(objectives), shares

    def at_step(self, step: Draws) -> "Balanced":
        return Balanced([at_step(objective, step) for objective in self.objectives], self.shares)

    def __call__(self, x0: Tensor) -> Tensor:
        leaf = x0.detach().requires_grad_()
        lengths = []
        for objective in self.objectives:
            with torch.enable_grad():
                loss = objective(leaf).sum()
            if not loss.requires_grad:
                raise GuidanceError("an objective of Balanced has no gradient path to the sample: leave it out")
            lengths.append(norm(vjp(loss, leaf)[0]).flatten())
        length = torch.stack(lengths)
        weights = torch.where(length > 0, length.mean(dim=0) / length, 0)
        terms = zip(self.shares, weights, self.objectives, strict=True)
        return torch.stack([share * weight * objective(x0) for share, weight, objective in terms]).sum(dim=0)
