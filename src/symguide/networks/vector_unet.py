"""The U-Net of the emoji models: a sentence comes in as one vector, a style as a number, view and look as a few."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.networks.layers import LOOK, VIEW, placed
from symguide.networks.saveable import saveable
from symguide.networks.sketch import Sketch
from symguide.networks.unet import Residual, Trunk, labels
from symguide.schedule import VP

BLOCK = 2
"""Sides of the blocks of the sketch's pixels that become channels."""
DETAIL = 24
"""Channels of what looks at single pixels."""
SCHEDULE = VP.cosine()
"""The only one that it fits, and v the only prediction."""


@saveable
class VectorUNet(Trunk):
    """A U-Net that is told the noise level, a sentence's vector, a style, a look and how the picture was moved.

    All five become one embedding, their sum, which scales and shifts the channels of every block. Beside the noisy
    sample x it is shown what its `Sketch` remembers of the sentence: pictures s_k in every style, coloured, moved and
    on a ground as told, and once more the one asked for, in a style that is said or else that x turns out to be in,

        s = sum_k w_k s_k + (1 - sum_k w_k) ground,      w = softmax_k(a <x, M s_k> - b |M s_k|^2 / 2),

    which is a posterior mean where M is the identity, a = alpha / sigma^2 and b = alpha a; all three are learnt, a and
    b of the noise level. Drawings that are not remembered have no weight. Its output is v on the cosine schedule, for
    samples that are normal about M s by a spread tau, plus what the U-Net F makes of it, in units of the error of that:

        v = sigma (alpha (1 - tau^2) x - M s) / (alpha^2 tau^2 + sigma^2) + tau / sqrt(alpha^2 tau^2 + sigma^2) F,

    with tau learnt for every pixel, of the noise level, of how much is remembered and of x (Karras et al., 2206.00364,
    section 5, about a mean): what is remembered well, such as the ground, is not drawn anew with every noise. Pixels go
    in and out in blocks of `patch` x `patch`, so that the finest level works on sides smaller by that factor; a last
    residual block looks at single pixels, for the detail and for tau.

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
        self.widths, self.styles = {"text": text, "view": VIEW, "look": LOOK}, styles
        wide = 4 * channels[0]
        self.text = nn.Sequential(nn.Linear(text, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.style = nn.Embedding(styles + 1, wide)
        self.view, self.look = nn.Linear(VIEW, wide, bias=False), nn.Linear(LOOK, wide, bias=False)
        self.sketch = Sketch(text, styles, entries)
        self.hint = nn.Conv2d((styles + 1) * (3 * BLOCK**2 + 1) + 1, channels[0], 3, padding=1)
        self.match = nn.Conv2d(3 * BLOCK**2, in_channels * patch**2, 1, bias=False)
        self.weigh = nn.Linear(wide, 2)
        nn.init.dirac_(self.match.weight)
        nn.init.zeros_(self.weigh.weight)
        nn.init.constant_(self.weigh.bias, -4.0)  # small: at 0 the softmax chooses even in noise
        self.spread = nn.Linear(wide + 4, 1)
        nn.init.zeros_(self.spread.weight)
        with torch.no_grad():  # tau: 0.97 where nothing is remembered, 0.15, 0.3 in any style, 0.6 in any look, too
            self.spread.bias.fill_(3.5)
            self.spread.weight[0, -4:] = torch.tensor([-5.2, 0.9, 1.3, 0.0])
        self.single = nn.Conv2d(3 * in_channels, DETAIL, 3, padding=1)
        self.detail = Residual(DETAIL, DETAIL, wide, math.gcd(groups, DETAIL), dropout, attention=0)
        self.finish = nn.Conv2d(DETAIL, in_channels + 1, 3, padding=1)
        nn.init.zeros_(self.finish.weight)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Tensor | None = None,
        style: Tensor | None = None,
        view: Tensor | None = None,
        look: Tensor | None = None,
    ) -> Tensor:
        """The network's output, shaped as x.

        Args:
            x: noisy samples, (B, in_channels, H, W), sides multiples of patch * 2^(levels - 1).
            timestep: noise level in 0..1000, (B,), or one number for all.
            text: vectors of sentences, (B, text); zeros, or None, mean "no text".
            style: (B,) integers 0..styles; `styles`, or None, means "no style".
            view: (B, 7); zeros, or None, mean "as it is".
            look: (B, 5); zeros, or None, mean "as it is drawn".
        """
        self.check(x, timestep, self.in_channels, self.patch * self.factor)
        told = [self._rows(x, name, value) for name, value in (("text", text), ("view", view), ("look", look))]
        none = torch.full((len(x),), self.styles, device=x.device)
        style = none if style is None else labels(style, len(x), self.styles, "style")
        text, view, look = told
        return self.refine(x, timestep, text, style, view, look, *self.sketch(text))

    def refine(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Tensor,
        style: Tensor,
        view: Tensor,
        look: Tensor,
        layers: Tensor,
        known: Tensor,
        sure: Tensor,
    ) -> Tensor:
        """`forward` with all of its conditions, and with what is remembered in place of its own sketch's."""
        time = self.embed_time(timestep, len(x))
        told = self.text(text * text.shape[1] ** 0.5) + self.style(style) + self.view(view) + self.look(look)
        time, embedding = nn.functional.silu(time), nn.functional.silu(time + told)
        blocks = nn.functional.pixel_unshuffle(x, self.patch)
        shown = self._shown(layers, view, look, blocks)
        asked, share = self._asked_for(blocks, time, style, shown, known, view)
        said = torch.cat([known, share, sure[:, None]], dim=1)[:, :, None, None].expand(-1, -1, *asked.shape[2:])
        hint = self.hint(torch.cat([shown.flatten(1, 2), asked, said], dim=1))
        mean = nn.functional.pixel_shuffle(self.match(asked), self.patch)
        rest = nn.functional.pixel_shuffle(self.run(blocks, embedding, hint=hint), self.patch)
        detail = self.finish(self.detail(self.single(torch.cat([x, mean, rest], dim=1)), embedding))
        none = (style == self.styles).to(sure.dtype)
        doubts = share * torch.stack([torch.ones_like(sure), none, look[:, -1], sure], dim=1)
        spread = self.spread(torch.cat([time, doubts], dim=1))[:, :, None, None] + detail[:, -1:]
        return _about(x, mean, rest + detail[:, :-1], timestep, spread)

    def _shown(self, layers: Tensor, view: Tensor, look: Tensor, blocks: Tensor) -> Tensor:
        """What is remembered as pictures in blocks that become channels, of the sides of x's: (B, styles, 12, h, w)."""
        pictures = placed(layers, view, look)
        count, sides = pictures.shape[:2], [BLOCK * side for side in blocks.shape[2:]]
        pictures = pictures.flatten(0, 1)
        if list(pictures.shape[2:]) != sides:
            pictures = nn.functional.interpolate(pictures, sides, mode="bilinear")
        shown = nn.functional.pixel_unshuffle(pictures, BLOCK)
        return shown.reshape(*count, *shown.shape[1:])

    def _asked_for(
        self, blocks: Tensor, time: Tensor, style: Tensor, shown: Tensor, known: Tensor, view: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of what is shown what is asked for, and ground for the rest, (B, 12, h, w); and how much is not rest, (B, 1).

        That is one picture, or in no style what x says, or none at all.
        """
        wide = torch.promote_types(blocks.dtype, torch.float32)
        matched = self.match(shown.flatten(0, 1)).reshape(*known.shape, -1).to(wide)
        a, b = self.weigh(time).to(wide).exp()[:, :, None].unbind(dim=1)
        scores = a * (matched @ blocks.flatten(1)[:, :, None].to(wide))[:, :, 0] - b * matched.square().sum(dim=2) / 2
        scores = scores.masked_fill(known == 0, torch.finfo(scores.dtype).min)
        one = nn.functional.one_hot(style, self.styles + 1)[:, :-1]
        none = (style == self.styles)[:, None]
        weights = torch.where(none, scores.softmax(dim=1).to(known.dtype), one.to(known.dtype)) * known
        share = weights.sum(dim=1, keepdim=True)
        ground = (1 - 2 * view[:, 4:]).repeat_interleave(BLOCK**2, dim=1)[:, :, None, None]
        return (weights[:, :, None, None, None] * shown).sum(dim=1) + (1 - share)[:, :, None, None] * ground, share

    def _rows(self, x: Tensor, name: str, value: Tensor | None) -> Tensor:
        shape = (len(x), self.widths[name])
        if value is None:
            return x.new_zeros(shape)
        if value.shape != shape or not value.is_floating_point():
            raise ConfigError(f"{name} must be {shape[0]} rows of {shape[1]} numbers, not {tuple(value.shape)}")
        return value.to(x.dtype)


def _about(x: Tensor, mean: Tensor, rest: Tensor, timestep: Tensor, spread: Tensor) -> Tensor:
    """v of samples that are normal about a mean, and the rest in units of its error; spread: the log-odds of tau."""
    level = timestep.to(torch.promote_types(x.dtype, torch.float32)).expand(len(x))[:, None, None, None]
    t = level / SCHEDULE.timestep(1.0)
    alpha, sigma, tau = SCHEDULE.alpha(t), SCHEDULE.sigma(t), spread.to(t.dtype).sigmoid().clamp_min(1e-3)
    variance = alpha**2 * tau**2 + sigma**2
    v = sigma / variance * (alpha * (1 - tau**2) * x - mean) + tau * variance.rsqrt() * rest
    return v.to(x.dtype)
