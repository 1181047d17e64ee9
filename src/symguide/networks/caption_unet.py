"""The U-Net of the embedded text-to-image models: captions come in by cross-attention."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.networks.encoder import Reader
from symguide.networks.saveable import saveable
from symguide.networks.unet import Trunk


@saveable
class CaptionUNet(Trunk):
    """A U-Net that is told the noise level and a caption of tokens.

    A small transformer reads the caption. Its tokens are the context of cross-attention wherever the U-Net attends, and
    their mean joins the embedding of the noise level, as in Stable Diffusion XL. Pixels go in and out in blocks of
    `patch` x `patch`, so that the finest level works on sides smaller by that factor.

    Args:
        in_channels: channels of x.
        patch: sides of the blocks of pixels that become channels.
        channels: width of every level, finest first.
        blocks: residual blocks of a level on the way down, and on the way up.
        attention: for every level, whether its blocks attend over all positions and to the caption.
        heads: attention heads.
        groups: groups of every GroupNorm; divides all widths.
        dropout: rate inside the blocks while training.
        words: size of the vocabulary; token 0 is "no word".
        length: tokens of a caption.
        width: of the caption's tokens.
        depth: transformer blocks that read the caption.

    Raises:
        ConfigError: for arguments that do not fit together, and for inputs of the wrong shape.
    """

    def __init__(
        self,
        in_channels: int = 3,
        patch: int = 2,
        channels: Sequence[int] = (64, 96, 128),
        blocks: int = 1,
        attention: Sequence[bool] = (False, True, True),
        heads: int = 4,
        groups: int = 8,
        dropout: float = 0.0,
        words: int = 32,
        length: int = 16,
        width: int = 96,
        depth: int = 2,
    ) -> None:
        wide = in_channels * patch**2
        super().__init__(wide, channels, blocks, attention, heads, groups, dropout, context=width, lean=True)
        self.in_channels, self.patch, self.words, self.length = in_channels, patch, words, length
        self.reader = Reader(words, length, width, depth, heads)
        self.pooled = nn.Linear(width, 4 * channels[0])

    def forward(self, x: Tensor, timestep: Tensor, caption: Tensor | None = None) -> Tensor:
        """The network's output, shaped as x.

        Args:
            x: noisy samples, (B, in_channels, H, W), sides multiples of patch * 2^(levels - 1).
            timestep: noise level in 0..1000, (B,), or one number for all.
            caption: tokens, (B, length) integers; zeros, or None, mean "no caption".
        """
        self.check(x, timestep, self.in_channels, self.patch * self.factor)
        if caption is None:
            caption = torch.zeros(len(x), self.length, dtype=torch.int64, device=x.device)
        if caption.shape != (len(x), self.length) or caption.is_floating_point():
            raise ConfigError(
                f"caption must be {len(x)} rows of {self.length} integer tokens, not {caption.dtype} of shape"
                f" {tuple(caption.shape)}"
            )
        context = self.reader(caption)
        embedding = self.embed_time(timestep, len(x)) + self.pooled(context.mean(dim=1))
        blocks = nn.functional.pixel_unshuffle(x, self.patch)
        return nn.functional.pixel_shuffle(self.run(blocks, nn.functional.silu(embedding), context), self.patch)
