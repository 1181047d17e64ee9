"""Small networks after the structure of published ones, whose blocks are computed again by their own `checkpoint`.

ADM's U-Net and its classifier (Dhariwal & Nichol, 2105.05233): residual blocks whose timestep embedding scales and
shifts a group norm, and attention. Latent diffusion's (Rombach et al., 2112.10752): transformer blocks with a context.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Again(torch.autograd.Function):
    """run(*inputs) without a graph; the backward pass makes it, and asks for the gradients of the weights too."""

    @staticmethod
    def forward(ctx, run, count, *given):
        ctx.run, ctx.inputs, ctx.weights = run, list(given[:count]), list(given[count:])
        with torch.no_grad():
            return run(*ctx.inputs)

    @staticmethod
    def backward(ctx, *cotangents):
        inputs = [x.detach().requires_grad_() for x in ctx.inputs]
        with torch.enable_grad():
            made = ctx.run(*[x.view_as(x) for x in inputs])
        gradients = torch.autograd.grad(made, inputs + ctx.weights, cotangents, allow_unused=True)
        ctx.inputs = ctx.weights = None
        return (None, None, *gradients)


class Block(nn.Module):
    """A module whose `inner` is computed again where `again` says so."""

    again = False

    def forward(self, *inputs):
        if self.again:
            return Again.apply(self.inner, len(inputs), *inputs, *self.parameters())
        return self.inner(*inputs)


class Residual(Block):
    def __init__(self, channels, embedding):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(2, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))
        self.shift = nn.Linear(embedding, 2 * channels)
        self.norm, self.last = nn.GroupNorm(2, channels), nn.Conv2d(channels, channels, 3, padding=1)

    def inner(self, x, embedding):
        scale, shift = self.shift(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        return x + self.last(F.silu(self.norm(self.first(x)) * (1 + scale) + shift))


class Attention(Block):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(2, channels), nn.Conv1d(channels, 3 * channels, 1)
        self.out = nn.Conv1d(channels, channels, 1)

    def inner(self, x):
        q, k, v = self.qkv(self.norm(x).flatten(2)).chunk(3, dim=1)
        weight = torch.einsum("bct,bcs->bts", q, k).div(math.sqrt(x.shape[1])).softmax(dim=2)
        return x + self.out(torch.einsum("bts,bcs->bct", weight, v)).reshape(x.shape)


class Transformer(Block):
    """Self-attention, attention to a context, and a feed-forward layer, each with its norm and skip."""

    def __init__(self, width, context):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own = nn.MultiheadAttention(width, 2, batch_first=True)
        self.other = nn.MultiheadAttention(width, 2, kdim=context, vdim=context, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def inner(self, x, context):
        y = self.norms[0](x)
        x = x + self.own(y, y, y, need_weights=False)[0]
        x = x + self.other(self.norms[1](x), context, context, need_weights=False)[0]
        return x + self.feed(self.norms[2](x))


class Spatial(nn.Module):
    """A transformer block over the places of a map."""

    def __init__(self, channels, context):
        super().__init__()
        self.block = Transformer(channels, context)

    def forward(self, x, context):
        places = self.block(x.flatten(2).mT.contiguous(), context)
        return x + places.mT.reshape(x.shape)


class Timesteps(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep):
        angle = timestep[:, None] * timestep.new_tensor([1e-3, 1e-2])
        return self.layers(torch.cat([angle.cos(), angle.sin()], dim=1))


class ADM(nn.Module):
    """A U-Net of two levels with a skip, (B, 1, 4, 4); `context` adds latent diffusion's transformer in the middle."""

    def __init__(self, context=None, width=4):
        super().__init__()
        torch.manual_seed(0)
        self.time, self.enter = Timesteps(8), nn.Conv2d(1, width, 3, padding=1)
        self.down, self.smaller = Residual(width, 8), nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.middle, self.attention = Residual(width, 8), Attention(width)
        self.text = None if context is None else Spatial(width, context)
        self.up, self.leave = Residual(2 * width, 8), nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, x, timesteps, context=None):
        embedding = self.time(timesteps)
        skip = self.down(self.enter(x), embedding)
        x = self.attention(self.middle(self.smaller(skip), embedding))
        x = x if self.text is None else self.text(x, context)
        x = torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1)
        return self.leave(self.up(x, embedding))


class Encoder(nn.Module):
    """ADM's classifier: half a U-Net and a head, (B, 1, 4, 4) and timesteps -> logits (B, 3)."""

    def __init__(self, width=4):
        super().__init__()
        torch.manual_seed(1)
        self.time, self.enter, self.down = Timesteps(8), nn.Conv2d(1, width, 3, padding=1), Residual(width, 8)
        self.attention, self.head = Attention(width), nn.Linear(width, 3)

    def forward(self, x, timesteps=None):
        timesteps = x.new_zeros(len(x)) if timesteps is None else timesteps
        x = self.attention(self.down(self.enter(x), self.time(timesteps)))
        return self.head(x.mean(dim=(2, 3)))


def again(network, on=True):
    """The network, with its blocks computed again or not."""
    for part in network.modules():
        if isinstance(part, Block):
            part.again = on
    return network
