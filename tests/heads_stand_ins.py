"""A package with random weights of Lite0's shape, in place of those that pip would bring."""

import hashlib

import torch

from symguide.encoders.efficientnet import PACKAGES, Package

LITE0 = (
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
    (5, 2, 6, 112, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (3, 1, 6, 192, 320),
)
"""Kernel, stride, expansion, channels in and out of every block of Lite0."""


def lite0_state(seed=0):
    """Random weights under the names and in the order of the package's file."""
    draw = torch.Generator().manual_seed(seed)
    state = {}

    def layer(convolution, norm, out, taken, kernel):
        scale = (taken * kernel * kernel) ** -0.5
        state[f"{convolution}.weight"] = scale * torch.randn(out, taken, kernel, kernel, generator=draw)
        state[f"{norm}.weight"] = 1 + torch.rand(out, generator=draw)
        state[f"{norm}.bias"] = torch.randn(out, generator=draw)
        state[f"{norm}.running_mean"] = 0.1 * torch.randn(out, generator=draw)
        state[f"{norm}.running_var"] = 0.5 + torch.rand(out, generator=draw)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(0)

    layer("_conv_stem", "_bn0", 32, 3, 3)
    for number, (kernel, _, expansion, taken, given) in enumerate(LITE0):
        name, wide = f"_blocks.{number}.", taken * expansion
        if expansion > 1:
            layer(f"{name}_expand_conv", f"{name}_bn0", wide, taken, 1)
        layer(f"{name}_depthwise_conv", f"{name}_bn1", wide, 1, kernel)
        layer(f"{name}_project_conv", f"{name}_bn2", given, wide, 1)
    layer("_conv_head", "_bn1", 1280, 320, 1)
    state["_fc.weight"] = torch.randn(1000, 1280, generator=draw) / 1280**0.5
    state["_fc.bias"] = torch.randn(1000, generator=draw)
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def stand_in(monkeypatch, folder, state=None):
    """Puts an installed package with such weights in place of all pretrained networks, and gives it."""
    module = folder / "packages" / "stand_in"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("raise RuntimeError('this package is found and never imported')")
    torch.save(lite0_state() if state is None else state, module / "weights.pth")
    monkeypatch.syspath_prepend(module.parent)
    digest = hashlib.sha256((module / "weights.pth").read_bytes()).hexdigest()
    package = Package("stand-in", "1.0", "weights.pth", digest, 1.0, 1.0)
    for name in PACKAGES:
        monkeypatch.setitem(PACKAGES, name, package)
    return package
