"""The sketches of the emoji world's models: what a name and a style say, learnt before the models and by regression."""

import argparse

import emoji_data
import torch
import torch.nn.functional as F
from fit import Run, fit
from torch import Tensor, nn

from symguide.networks.sketch import SIDE, Sketch
from symguide.worlds.emoji import STYLES

BATCH, STEPS = 128, 10_000
FOLDS = 2
"""Further sketches, each of which has not seen half of the characters: a model has to learn from them, too, or it
would trust its sketch of what training never showed as it may trust that of what it did."""


def fold(character: Tensor) -> Tensor:
    """Which of the folds has not seen a character."""
    return character % FOLDS


def pictures(data: emoji_data.Drawings) -> Tensor:
    """What sketches are to show of the drawings: (N, 4 * 32 * 32) layers in 0..1."""
    block = data.layers.shape[-1] // SIDE
    return torch.cat([F.avg_pool2d(part.float() / 255, block).flatten(1) for part in data.layers.split(256)])


def trained(args: argparse.Namespace) -> list[nn.Module]:
    """The sketch, then those of the folds; each is trained where its checkpoint is not finished."""
    data = emoji_data.load(args.checkpoints)
    target = pictures(data)
    return [_trained(data, target, number, args) for number in (None, *range(FOLDS))]


def _trained(data: emoji_data.Drawings, target: Tensor, number: int | None, args: argparse.Namespace) -> nn.Module:
    """For the mean square error of the layers, on their principal components, which stay as they are."""
    rows = torch.arange(len(data))
    rows = rows if number is None else rows[fold(data.character) != number]
    torch.manual_seed(args.seed)
    network = Sketch(styles=len(STYLES))
    mean = target[rows].mean(dim=0)
    *_, basis = torch.pca_lowrank(target[rows] - mean, q=network.basis.in_features, center=False, niter=3)
    numbers = (target - mean) @ basis
    with torch.no_grad():
        network.basis.weight.copy_(basis)
        network.basis.bias.copy_(mean)
        deviation = numbers[rows].std(dim=0)
        network.numbers[-1].weight.mul_(deviation[:, None])
    network.basis.requires_grad_(False)

    def loss(step: int) -> Tensor:
        some = rows[torch.randint(len(rows), (BATCH,))]
        text, style = emoji_data.told(data.say(some), data.style[some])
        return (network.coefficients(text, style) - numbers[some]).square().sum(dim=1).mean() / target.shape[1]

    @torch.no_grad()
    def note(average: nn.Module) -> str:
        some = rows[:: max(len(rows) // 500, 1)]
        made = average(data.sentences[data.character[some], 0].float(), data.style[some]).flatten(1)
        return f"root mean square error {(made - target[some]).square().mean().sqrt():.4f} on trained drawings"

    name = "whole" if number is None else f"without-{number}"
    steps = max((args.steps or STEPS) // (1 if number is None else 2), 1)
    checkpoint = args.checkpoints / f"emoji-sketch-{name}-{steps}-{args.seed}.safetensors"
    run = Run(steps, 1.5e-3, args.seed, checkpoint, True, decay=0.995, every=1000, minutes=args.minutes)
    average, _ = fit(network, loss, run, note)
    return average.requires_grad_(False)
