"""The sketches of the emoji world's models: every drawing that training saw, learnt by heart before the models."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import emoji_data
import torch
import torch.nn.functional as F
from fit import Run, in_rounds
from torch import Tensor, nn

from symguide.networks.sketch import SIDE, Sketch, crisp
from symguide.worlds.emoji import STYLES

BATCH = 64
ROUNDS = ((16_000, 2e-3, None), (5_000, 1e-3, 0.1))
"""Steps, learning rate, and the leak with which `crisp` is trained through; without one the decoder alone is."""
NAMING = 0.01
"""Weight of the sentences' loss: it shares no weights with the drawings' loss, but the limit of the gradient's norm."""


@dataclass(frozen=True)
class Entries:
    """What a sketch remembers: the characters that training saw, in order.

    Attributes:
        layers: of their drawings, (N, styles, 4, 32, 32) in 0..1; zeros for those that training did not see.
        known: which it saw, (N, styles).
        of: the entry of every character of the world, -1 for none.
    """

    layers: Tensor
    known: Tensor
    of: Tensor


class Learner(nn.Module):
    """A sketch, and the scale of its cosines as scores of whose a sentence is."""

    def __init__(self, sketch: Sketch) -> None:
        super().__init__()
        self.sketch, self.scale = sketch, nn.Parameter(torch.tensor(20.0).log())


def entries(data: emoji_data.Drawings) -> Entries:
    """Those of the drawings that training sees."""
    characters, place = data.character.unique(return_inverse=True)
    block = data.layers.shape[-1] // SIDE
    drawn = torch.cat([F.avg_pool2d(part.float() / 255, block) for part in data.layers.split(256)])
    known = torch.zeros(len(characters), len(STYLES))
    layers = torch.zeros(*known.shape, 4, SIDE, SIDE)
    layers[place, data.style], known[place, data.style] = drawn, 1.0
    of = torch.full((len(data.sentences),), -1)
    of[characters] = torch.arange(len(characters))
    return Entries(layers, known, of)


@dataclass(frozen=True)
class Trained:
    """A sketch, and what a card says of it."""

    network: Sketch
    about: str


def make(args: argparse.Namespace) -> None:
    """Train the sketch alone; anew, unless it is to be resumed."""
    data = emoji_data.load(args.checkpoints)
    print(trained(args, data, entries(data), resume=args.resume).about)


def trained(args: argparse.Namespace, data: emoji_data.Drawings, kept: Entries, resume: bool = True) -> Trained:
    """The sketch, trained where its checkpoint is not finished.

    For the mean square and a little of the mean absolute error of the layers, last as `crisp` has them; and for the
    cross-entropy of whose the sentences are, which makes queries and keys.
    """
    torch.manual_seed(args.seed)
    sketch = Sketch(styles=len(STYLES), entries=len(kept.known))
    sketch.known.copy_(kept.known)

    parts = ROUNDS if args.steps is None else [(args.steps, rate, leak) for _, rate, leak in ROUNDS]
    leaks = iter(leak for _, _, leak in parts)

    def begin(learner: nn.Module) -> Callable[[int], Tensor]:
        """The loss of the next round."""
        leak = next(leaks)
        decode = torch.compile(learner.sketch.decode) if args.compile else learner.sketch.decode

        def loss(step: int) -> Tensor:
            some = torch.randint(len(kept.known), (BATCH,))
            made = decode(learner.sketch.codes[some])
            made = made if leak is None else crisp(made, leak)
            gap = (made - kept.layers[some]) * kept.known[some][:, :, None, None, None]
            rows = torch.randint(len(data), (BATCH,))
            scores = learner.scale.exp() * learner.sketch.near(data.say(rows))
            naming = F.cross_entropy(scores, kept.of[data.character[rows]])
            return gap.square().mean() + 0.05 * gap.abs().mean() + NAMING * naming

        return loss

    @torch.no_grad()
    def note(average: nn.Module) -> str:
        torch.manual_seed(0)
        rows = torch.randint(len(data), (500,))
        entry, style = kept.of[data.character[rows]], data.style[rows]
        named = average.sketch.near(data.say(rows)).argmax(dim=1) == entry
        made = average.sketch(data.sentences[data.character[rows], 0].float())[0][torch.arange(500), style]
        error = (made - kept.layers[entry, style]).square().mean().sqrt()
        return (
            f"root mean square error {error:.4f} of trained drawings, whose values are 0 to 1; "
            f"{named.float().mean():.3f} of sentences named"
        )

    runs = [
        Run(
            steps,
            rate,
            args.seed + number,
            args.checkpoints / f"emoji-sketch-{number + 1}-{steps}-{args.seed}.safetensors",
            resume,
            decay=0.998,
            every=1000,
            minutes=args.minutes,
        )
        for number, (steps, rate, _) in enumerate(parts)
    ]
    average, hours = in_rounds(Learner(sketch), runs, begin, note)
    said = ", then ".join(f"{steps:,} steps at a rate of {rate:g}" for steps, rate, _ in parts)
    about = (
        f"Its sketch, which remembers the drawings that training saw, was trained before: {said}, in "
        f"{hours:.2f} hours;\n{note(average)}."
    )
    return Trained(average.sketch.requires_grad_(False), about)
