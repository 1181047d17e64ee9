"""The scenes world's generator: one call from numbers to a picture."""

import argparse
import math

import torch
from card import card, command
from fit import Run, fit
from pool import data_words, pool
from torch import Tensor, nn

from symguide import networks
from symguide.files import write
from symguide.report import frechet, grid, png
from symguide.report.quality import precision_recall
from symguide.worlds import scenes
from symguide.worlds.load import judge
from symguide.worlds.scenes.scene import COLOURS, SHAPES

CHOICES = (len(SHAPES), len(COLOURS), len(COLOURS))
LATENT = sum(CHOICES) + 4
BATCH, PLACES, SAMPLES = 128, 128, 1000
ROUNDS = (5000, 6000)  # steps
ABOUT = f"""Draws one plain object on a plain ground in one call, of z ~ N(0, I), {LATENT} numbers; no captions.
The decoder of an autoencoder whose encoder is known and not learned: which z a picture has follows from its truth, at
random where several have it, so that z of all pictures together are N(0, I). Of the first {CHOICES[0]} numbers the
largest is the shape, of {CHOICES[1]} the colour, of {CHOICES[2]} more the ground's; four are radius, turn and place.
Trained in {len(ROUNDS)} rounds for the errors of {PLACES} places of every picture at a time."""


def simple(truth: scenes.Scenes) -> Tensor:
    """Indices of the scenes of one plain object on a plain ground."""
    return ((truth.count == 1) & (truth.texture[:, 0] == 0) & (truth.background == 0)).nonzero().squeeze(1)


def encode(truth: scenes.Scenes) -> Tensor:
    """z of simple scenes, (B, LATENT): drawn from those that the scene's picture belongs to."""
    shape, colour, paint = truth.shape[:, 0], truth.colour[:, 0], truth.paint[:, 0]
    allowed = torch.ones(len(truth), len(COLOURS), dtype=torch.bool).scatter(1, colour[:, None], False)
    size, radius, turn = truth.size[:, 0], truth.radius[:, 0], truth.turn[:, 0]
    room = (1.02 * radius)[:, None]
    shares = torch.cat(
        [
            ((size + (radius - 0.21 - 0.08 * size) / 0.04) / 2)[:, None],
            (turn[:, None] + 0.4) / 0.8,
            (truth.centre[:, 0] - room) / (1 - 2 * room),
        ],
        dim=1,
    )
    normal = math.sqrt(2) * torch.erfinv((2 * shares - 1).clamp(-0.9999, 0.9999))
    largest = [_largest(shape, len(SHAPES)), _largest(colour, len(COLOURS)), _largest(paint, len(COLOURS), allowed)]
    return torch.cat([*largest, normal.float()], dim=1)


def _largest(label: Tensor, count: int, allowed: Tensor | None = None) -> Tensor:
    """Normal numbers (B, count), of which, among those allowed, the labelled one is the largest."""
    z = torch.randn(len(label), count)
    among = z if allowed is None else z.masked_fill(~allowed, -math.inf)
    top = among.argmax(1, keepdim=True)
    mine = label[:, None]
    return z.scatter(1, top, z.gather(1, mine)).scatter(1, mine, z.gather(1, top))


def loss(generator: networks.Generator, z: Tensor, x: Tensor) -> Tensor:
    """Mean of |error| + error² over some random places, the same for all pictures of the batch."""
    picked = torch.randperm(generator.size**2, device=x.device)[:PLACES]
    error = generator.at(z, generator.places(z)[picked]) - x.flatten(2)[:, :, picked]
    return error.abs().mean() + error.square().mean()


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + 400)
    data = pool("train", args.pictures, 32, 0, args.checkpoints)
    truth = scenes.draw("train", range(len(data)))
    rows = simple(truth)
    truth = truth[rows]
    network = networks.Generator(LATENT, CHOICES).to(args.device)

    def batch(network: networks.Generator) -> Tensor:
        picked = torch.randint(len(rows), (BATCH,))
        z, x = encode(truth[picked]), data.pictures(rows[picked])
        return loss(network, z.to(args.device), x.to(args.device))

    @torch.no_grad()
    def sheet(average: nn.Module) -> str:
        path = args.checkpoints / "scenes-generator.png"
        z = torch.randn(64, LATENT, generator=torch.Generator().manual_seed(0)).to(args.device)
        write(path, png(grid(average(z), columns=16, cell=64)))
        return f"pictures in {path.name}"

    hours = 0.0
    rounds = (args.steps,) if args.steps else ROUNDS
    for number, steps in enumerate(rounds):  # each goes on from the average of the one before
        checkpoint, seed = args.checkpoints / f"scenes-generator-{number + 1}.safetensors", args.seed + 400 + number
        run = Run(steps, 2e-3, seed, checkpoint, args.resume, decay=0.998, minutes=args.minutes)
        network = network.requires_grad_()
        average, spent = fit(network, lambda step, network=network: batch(network), run, sheet)
        network, hours = average.half().float(), hours + spent  # as it is stored, so that what is measured is shipped
    text = card(
        network,
        args.device,
        title="scenes: generator",
        about=ABOUT,
        data=f"{data_words(len(data))}\n  Of these {len(rows):,}: of one plain object on a plain ground. No captions.",
        command=command("generator", args),
        seed=args.seed,
        steps=sum(rounds),
        hours=hours,
        measured=measured(network, args),
        stored="float16",
    )
    settings = {"prior": "normal", "shape": [LATENT]}
    networks.save(network, args.out / "generator", card=text, dtype=torch.float16, denoiser=settings)
    print(text)


@torch.no_grad()
def measured(generator: nn.Module, args: argparse.Namespace) -> str:
    """What the judge says of pictures of random z, and of held-out pictures made again from their z."""
    held, _ = unseen(args)
    torch.manual_seed(args.seed)
    again = generator(encode(held).to(args.device))
    z = torch.randn(len(held), LATENT).to(args.device)
    shape = judge("scenes", "classifier", args.device).attribute(again, "shape").argmax(1).cpu() == held.shape[:, 0]
    return (
        compared(generator(z), args)
        + f"\n\nHeld-out pictures made again from their z: the shape is read in {shape.double().mean():.3f}."
    )


def unseen(args: argparse.Namespace) -> tuple[scenes.Scenes, scenes.Scenes]:
    """Two parts of the held-out simple scenes, of as many as are measured by."""
    count = args.samples or SAMPLES
    held = scenes.draw("held_out", range(40 * count))
    held = held[simple(held)]
    return held[:count], held[count : 2 * count]


@torch.no_grad()
def compared(made: Tensor, args: argparse.Namespace) -> str:
    """What the judge says of pictures of random z, beside real ones."""
    real, others = (scenes.render(part, 32, torch.float32).to(args.device) for part in unseen(args))
    reader = judge("scenes", "classifier", args.device)
    target, lines = reader.features(others), []
    for what, x in {"pictures of random z": made, "real pictures": real}.items():
        logits, features = reader.split(reader(x)), reader.features(x)
        sure = {k: (logits[k].softmax(1).amax(1) > 0.9).double().mean().item() for k in ("shape", "colour", "count")}
        precision, recall = precision_recall(features, target)
        figures = {f"sure of the {k}": v for k, v in sure.items()}
        figures |= {"Frechet": frechet(features, target), "precision": precision, "recall": recall}
        lines.append(f"- {what}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return (
        f"By the judge (`judges/classifier`), {len(made):,} pictures a line against as many other held-out pictures of "
        "such scenes:\nshares where its answer has a probability above 0.9, Frechet distance, precision and recall.\n\n"
        + "\n".join(lines)
    )
