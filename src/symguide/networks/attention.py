"""Attention over tokens, with the attention map as the output of a module of its own."""

import math

from torch import Tensor, nn

from symguide.errors import ConfigError


class _Attention(nn.Module):
    """softmax(q k^T / sqrt(width / heads)) v over heads, then a linear layer.

    The map (B, heads, N, M) is what the submodule `softmax` returns, so a hook there reads, blurs or replaces it.
    Written out instead of fused, so that every kind of derivative exists.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"{heads} heads do not divide a width of {width}: choose a divisor")
        self.heads = heads
        self.softmax = nn.Softmax(dim=-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Heads (B, heads, N, c), (B, heads, M, c) twice -> (B, N, heads * c)."""
        weights = self.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]))
        return (weights @ v).transpose(1, 2).flatten(2)


class SelfAttention(_Attention):
    """Multi-head self-attention of (B, N, width) tokens.

    Raises:
        ConfigError: where heads do not divide the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.out(self.attend(q, k, v))


class CrossSoftmax(nn.Softmax):
    """The softmax of a map between tokens and those of a context: as broad as long at most by chance."""


class CrossAttention(_Attention):
    """Multi-head attention of (B, N, width) tokens to a context of (B, M, context) tokens.

    Raises:
        ConfigError: where heads do not divide the width.
    """

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__(width, heads)
        self.softmax = CrossSoftmax(dim=-1)
        self.q, self.kv = nn.Linear(width, width), nn.Linear(context, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(context).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(self.attend(q, k, v))


class TokenBlock(nn.Module):
    """A transformer's block: x + attention(norm(x)), then x + mlp(norm(x)), on (B, N, width) tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))
