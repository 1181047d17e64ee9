"""What counts as beautiful in scenes: a rule over the ground truth, from 0 to 10, that aesthetic networks learn to see.

    10 * (0.35 contrast + 0.25 calm + 0.20 harmony + 0.20 place)

- contrast: how far the objects' brightness is from the background's, 0 to 1.
- calm: 1 for a plain background, 0.9 for a gradient, 0.5 for stripes, 0.3 for checks, 0.1 for noise.
- harmony: 1 where the front object and the background have opposite hues, 0 where they have the same, 0.5 where one of
  them is white or black.
- place: 1 where the objects' mean centre is the picture's, falling to 0 at a quarter of the side away.

A rule of taste like any other; what matters is that it is stated, so that a judge can be held to it.
"""

import colorsys
import math

import torch
from torch import Tensor

from symguide.worlds.scenes.picture import PALETTE
from symguide.worlds.scenes.scene import Scenes

CALM = torch.tensor([1.0, 0.9, 0.5, 0.3, 0.1], dtype=torch.float32)
_BRIGHTNESS = PALETTE @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float32)
_HUE = torch.tensor([2 * math.pi * colorsys.rgb_to_hsv(*rgb)[0] for rgb in PALETTE.tolist()], dtype=torch.float32)
_GREY = PALETTE.amax(1) - PALETTE.amin(1) < 0.1


def beauty(scenes: Scenes) -> Tensor:
    """The rule's value, (B,) float32, 0 to 10."""
    there = torch.stack([torch.ones_like(scenes.count), scenes.count - 1], 1).float()
    seconds = torch.where(scenes.background == 0, scenes.paint[:, 0], scenes.paint[:, 1])
    ground = torch.stack([scenes.paint[:, 0], seconds], 1)

    def mean(values: Tensor) -> Tensor:
        return (values * there).sum(1) / there.sum(1)

    backdrop = _BRIGHTNESS[ground].mean(1, keepdim=True)
    contrast = mean((_BRIGHTNESS[scenes.colour] - backdrop).abs())
    front = scenes.colour[:, :1]
    opposite = 0.5 - 0.5 * torch.cos(_HUE[front] - _HUE[ground])
    harmony = torch.where(_GREY[front] | _GREY[ground], 0.5, opposite).mean(1)
    centre = (scenes.centre.float() * there[..., None]).sum(1) / there.sum(1, keepdim=True)
    place = (1 - (centre - 0.5).norm(dim=1) / 0.25).clamp_min(0)
    return 10 * (0.35 * contrast + 0.25 * CALM[scenes.background] + 0.20 * harmony + 0.20 * place)
