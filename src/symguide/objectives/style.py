"""Steer toward the style of a picture."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.objectives.base import Fixed, Follower, Objective, pictures, required, rows_for
from symguide.registry import register


@register("objective", "style")
class Style(Objective):
    """Which features go together, wherever they are: Gram matrices of a network's feature maps, as in a reference.

        G_l(x) = F_l F_l' / (C_l H_l W_l),    F_l = the map of layer l as (C_l, H_l W_l)
        loss   = sum over l of |G_l(x_0) - G_l(reference)|² / |G_l(reference)|²

    The squared norm, because the norm itself has no gradient where the styles agree. Relative to the reference, because
    the Gram matrices of layers differ by orders of magnitude, and one layer would decide alone. 0 is the reference's
    style, and one layer without any features counts 1.

    Args:
        reference: what has the style, (C, H, W) or (1, C, H, W) for all samples, (B, C, H, W) with one for each; its
            size may differ from theirs where the network takes it.
        network: has maps(x) -> list of feature maps (B, C_l, H_l, W_l), such as encoders.CLIP or encoders.Features.
        layers: which of the maps count, from 0; all where not given.
        preprocess: applied before the network, to samples and reference.

    Raises:
        ConfigError: without a network, for one without maps, layers that it has not, or a reference that is no picture
            or leaves a layer without features.

    Cost: one evaluation of the network's body.

    Source: Gatys et al., "A Neural Algorithm of Artistic Style", 1508.06576; as guidance in FreeDoM (2303.09833) and
    SAG (2312.12030), there with one layer of CLIP and the norm.
    """

    def __init__(
        self,
        reference: Tensor,
        network: nn.Module | None = None,
        layers: Sequence[int] | None = None,
        preprocess: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.reference = pictures(reference)
        self.network = Follower(required(network, self, "style", "reference"), "maps", preprocess=preprocess)
        self.layers = None if layers is None else tuple(layers)
        if self.layers == ():
            raise ConfigError("a style needs at least one layer: leave layers out for all of them")
        self._wanted = Fixed(self._of_reference)

    def __call__(self, x0: Tensor) -> Tensor:
        losses = []
        for made, wanted in zip(self._grams(x0), self._wanted(x0), strict=True):
            gap = made - rows_for(wanted, x0, "the reference")
            losses.append(_square(gap) / rows_for(_square(wanted), x0, "the reference"))
        return torch.stack(losses).sum(dim=0)

    def _grams(self, x: Tensor) -> list[Tensor]:
        """The Gram matrices of the layers that count, (B, C_l, C_l) each."""
        maps = self.network(x, "maps")
        layers = range(len(maps)) if self.layers is None else self.layers
        if min(layers) < 0 or max(layers) >= len(maps):
            raise ConfigError(f"layers must be among 0 to {len(maps) - 1}, not {list(layers)}")
        flat = [maps[layer].flatten(2) for layer in layers]
        return [f @ f.mT / f[0].numel() for f in flat]

    def _of_reference(self, like: Tensor) -> list[Tensor]:
        grams = self._grams(self.reference.to(like))
        if not all(bool((_square(gram) > 0).all()) for gram in grams):
            raise ConfigError("the reference leaves a layer of the network without features: choose other layers")
        return grams


def _square(gram: Tensor) -> Tensor:
    """Squared Frobenius norms, (B,)."""
    return gram.square().flatten(1).sum(dim=1)
