"""Self-attention over tokens, with the attention map as the output of a module of its own."""

import math

from torch import Tensor, nn

from symguide.errors import ConfigError


class SelfAttention(nn.Module):
    """Multi-head self-attention of (B, N, width) tokens: softmax(q k^T / sqrt(width / heads)) v, then a linear layer.

    The map (B, heads, N, N) is what the submodule `softmax` returns, so a hook there reads, blurs or replaces it.
    Written out instead of fused, so that every kind of derivative exists.

    Raises:
        ConfigError: where heads do not divide the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"{heads} heads do not divide a width of {width}: choose a divisor")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.softmax = nn.Softmax(dim=-1)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = self.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]))
        return self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, width))
