"""The U-Net of the emoji models: a sentence comes in as one vector, a style as a number, a view as a few numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.networks.saveable import saveable
from symguide.networks.sketch import Sketch, placed
from symguide.networks.unet import Trunk, labels

VIEW = 7
"""Numbers that say how a picture was moved and what it stands on: see `sketch.placed`."""
BLOCK = 2
"""Sides of the blocks of the sketch's pixels that become channels."""


@saveable
class VectorUNet(Trunk):
    """A U-Net that is told the noise level, a sentence's vector, a style and how the picture was moved.

    All four become one embedding, their sum, which scales and shifts the channels of every block. Beside the noisy
    sample it is shown what its `Sketch` remembers of the sentence, in every style and once more in the style asked
    for, moved and on a ground as the view says. Pixels go in and out in blocks of `patch` x `patch`, so that the finest
    level works on sides smaller by that factor.

    Args:
        in_channels: channels of x.
        patch: sides of the blocks of pixels that become channels.
        channels: width of every level, finest first.
        blocks: residual blocks of a level on the way down, and on the way up.
        attention: for every level, whether its blocks attend over all positions.
        heads: attention heads.
        groups: groups of every GroupNorm; divides all widths.
        dropout: rate inside the blocks while training.
        text: numbers of a sentence's vector, which has length 1; zeros mean "no text".
        styles: number of styles; style == styles means "no style".
        entries: characters that the sketch remembers.

    Raises:
        ConfigError: for arguments that do not fit together, and for inputs of the wrong shape.
    """

    def __init__(
        self,
        in_channels: int = 3,
        patch: int = 2,
        channels: Sequence[int] = (48, 96, 96),
        blocks: int = 1,
        attention: Sequence[bool] = (False, True, True),
        heads: int = 4,
        groups: int = 8,
        dropout: float = 0.0,
        text: int = 384,
        styles: int = 3,
        entries: int = 1444,
    ) -> None:
        super().__init__(in_channels * patch**2, channels, blocks, attention, heads, groups, dropout, lean=True)
        self.in_channels, self.patch = in_channels, patch
        self.widths, self.styles = {"text": text, "view": VIEW}, styles
        wide = 4 * channels[0]
        self.text = nn.Sequential(nn.Linear(text, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.style = nn.Embedding(styles + 1, wide)
        self.view = nn.Linear(VIEW, wide, bias=False)
        self.sketch = Sketch(text, styles, entries)
        self.look = nn.Conv2d((styles + 1) * (3 * BLOCK**2 + 1) + 1, channels[0], 3, padding=1)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Tensor | None = None,
        style: Tensor | None = None,
        view: Tensor | None = None,
    ) -> Tensor:
        """The network's output, shaped as x.

        Args:
            x: noisy samples, (B, in_channels, H, W), sides multiples of patch * 2^(levels - 1).
            timestep: noise level in 0..1000, (B,), or one number for all.
            text: vectors of sentences, (B, text); zeros, or None, mean "no text".
            style: (B,) integers 0..styles; `styles`, or None, means "no style".
            view: (B, view); zeros, or None, mean "as it is".
        """
        self.check(x, timestep, self.in_channels, self.patch * self.factor)
        text, view = (self._rows(x, name, value) for name, value in (("text", text), ("view", view)))
        none = torch.full((len(x),), self.styles, device=x.device)
        style = none if style is None else labels(style, len(x), self.styles, "style")
        return self.refine(x, timestep, text, style, view, *self.sketch(text))

    def refine(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Tensor,
        style: Tensor,
        view: Tensor,
        layers: Tensor,
        known: Tensor,
        sure: Tensor,
    ) -> Tensor:
        """`forward` with all of its conditions, and with what is remembered in place of its own sketch's."""
        told = self.text(text * text.shape[1] ** 0.5) + self.style(style) + self.view(view)
        embedding = nn.functional.silu(self.embed_time(timestep, len(x)) + told)
        blocks = nn.functional.pixel_unshuffle(x, self.patch)
        hint = self._hint(style, view, layers, known, sure)
        if blocks.shape[2:] != hint.shape[2:]:
            hint = nn.functional.interpolate(hint, blocks.shape[2:], mode="bilinear")
        return nn.functional.pixel_shuffle(self.run(blocks, embedding, hint=self.look(hint)), self.patch)

    def _hint(self, style: Tensor, view: Tensor, layers: Tensor, known: Tensor, sure: Tensor) -> Tensor:
        """Channels at half of the sketch's sides: its pictures, the one in the style last, and which of them it knows.

        In no style that one is empty.
        """
        rows = torch.arange(len(style), device=style.device)
        layers, known = (torch.cat([z, z.new_zeros(z[:, :1].shape)], dim=1) for z in (layers, known))
        layers, known = (torch.cat([z[:, :-1], z[rows, style, None]], dim=1) for z in (layers, known))
        shown = nn.functional.pixel_unshuffle(placed(layers, view).flatten(1, 2), BLOCK)
        said = torch.cat([known, sure[:, None]], dim=1)[:, :, None, None]
        return torch.cat([shown, said.expand(-1, -1, *shown.shape[2:])], dim=1)

    def _rows(self, x: Tensor, name: str, value: Tensor | None) -> Tensor:
        shape = (len(x), self.widths[name])
        if value is None:
            return x.new_zeros(shape)
        if value.shape != shape or not value.is_floating_point():
            raise ConfigError(f"{name} must be {shape[0]} rows of {shape[1]} numbers, not {tuple(value.shape)}")
        return value.to(x.dtype)
