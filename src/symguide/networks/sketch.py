"""What a network remembers of the drawings that a sentence asks for: layers that it sees beside its noisy samples."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 32
GRID = SIDE // 8
"""Sides of a code, which the decoder makes twice and then four times as large."""
FAST = 10.0
"""Codes are kept at a tenth of what they are, so that Adam moves them ten times as fast as the other weights."""
EDGE = 0.1
"""Opacities below are 0 and those above 1 - EDGE are 1, as nearly all of a drawing's are."""


class Sketch(nn.Module):
    """A sentence's vector to the drawings of its character in every style: colours times the opacity, then the opacity.

    A memory of one code (channels[0], 4, 4) for each character, which one decoder makes the drawings in all styles of:

        i = argmax_j cos(W text, key_j),    drawings = crisp(decode(code_i)),

    so a name gives the drawings of its character, and any other sentence those of the nearest one. A drawing that was
    never shown to it is left empty: what is known of it is in the other styles' drawings. It costs a fifth of a call
    of the emoji model that it stands in. Training can show it every drawing several hundred times, and a denoiser that
    is shown what it makes need not learn by heart which name is which picture.

    Args:
        text: numbers of a sentence's vector; zeros mean "no text", for which all is empty.
        styles: number of styles.
        entries: number of characters.
        keys: numbers of a key.
        channels: of a code, and of the decoder at sides of 4 and of 8.
        blocks: residual blocks of the decoder at each.
    """

    def __init__(
        self,
        text: int = 384,
        styles: int = 3,
        entries: int = 1444,
        keys: int = 128,
        channels: Sequence[int] = (64, 128, 64),
        blocks: int = 2,
    ) -> None:
        super().__init__()
        (depth, coarse, fine), self.styles = channels, styles
        self.query, self.keys = nn.Linear(text, keys, bias=False), nn.Parameter(torch.randn(entries, keys))
        self.codes = nn.Parameter(0.5 / FAST * torch.randn(entries, depth, GRID, GRID))
        self.coarse = nn.Sequential(nn.Conv2d(depth, coarse, 3, padding=1), *(_Block(coarse) for _ in range(blocks)))
        self.fine = nn.Sequential(
            nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2), *(_Block(fine) for _ in range(blocks)), nn.SiLU()
        )
        self.output = nn.Sequential(nn.Conv2d(fine, 4 * styles * 4**2, 3, padding=1), nn.PixelShuffle(4))
        self.register_buffer("known", torch.ones(entries, styles))
        self.known: Tensor

    def forward(self, text: Tensor, without: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What is remembered, and how sure it is.

        Args:
            text: (B, text).
            without: an entry for each sentence that is taken to be unknown, (B,); -1 for none.

        Returns:
            Layers (B, styles, 4, 32, 32), 0 to 1; which of them are known, (B, styles), 0 or 1; and the cosine of the
            sentence's nearest key, (B,). All three are 0 without a text.
        """
        told = text.ne(0).any(dim=1).to(text.dtype)
        near = self.near(text)
        if without is not None:
            near = near.masked_fill(torch.arange(len(self.keys), device=text.device) == without[:, None], -2.0)
        sure, entry = near.max(dim=1)
        known = told[:, None] * self.known[entry]
        layers = crisp(self.decode(self.codes[entry])) * known[:, :, None, None, None]
        return layers, known, told * sure.to(text.dtype)

    def near(self, text: Tensor) -> Tensor:
        """Cosines of sentences to all keys, (B, entries); at least in float32, as the nearest is taken."""
        wide = torch.promote_types(text.dtype, torch.float32)
        asked = F.linear(text.to(wide), self.query.weight.to(wide))
        return F.normalize(asked, dim=1) @ F.normalize(self.keys.to(wide), dim=1).T

    def decode(self, codes: Tensor) -> Tensor:
        """(B, channels[0], 4, 4) -> (B, styles, 4, 32, 32), about 0 to 1."""
        layers: Tensor = self.output(self.fine(self.coarse(FAST * codes)))
        return layers.reshape(len(layers), self.styles, 4, SIDE, SIDE)


def crisp(layers: Tensor, leak: float = 0.0) -> Tensor:
    """Layers (B, S, 4, H, W) with opacities stretched from EDGE..1 - EDGE to 0..1, and colours in 0..opacity.

    What is outside stays there by a part `leak` of how far it was, for a gradient.
    """
    opacity = _within((layers[:, :, 3:] - EDGE) / (1 - 2 * EDGE), torch.ones_like(layers[:, :, 3:]), leak)
    return torch.cat([_within(layers[:, :, :3], opacity, leak), opacity], dim=2)


def _within(x: Tensor, most: Tensor, leak: float) -> Tensor:
    inside = x.clamp_min(0).minimum(most)
    return inside + leak * (x - inside)


class _Block(nn.Module):
    """x + conv(silu(conv(silu(norm(x)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.first = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.last(F.silu(self.first(F.silu(self.norm(x)))))
        return out
