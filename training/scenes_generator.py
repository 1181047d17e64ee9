"""The scenes world's generator: one call from 64 numbers to a picture."""

import argparse

import torch
from card import card, command
from fit import Run, fit
from pool import data_words, pool
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from symguide import networks
from symguide.files import write
from symguide.models import judge
from symguide.report import frechet, grid, png
from symguide.report.quality import precision_recall
from symguide.worlds import scenes

LATENT, BATCH, SAMPLES = 64, 32, 1000
PIXELS, KL, CRITIC = 8.0, 0.01, 0.3
"""Weights of the error of pixels (normalised features hardly see a colour), of KL(q, N(0, I)) and of the critic."""
ABOUT = """Draws one plain object on a plain ground in one call: 64 numbers z ~ N(0, I) to a picture, no captions.
The decoder of a variational autoencoder whose encoder and critic, thrown away after training, read the feature maps of
`scorers/classifier`; the critic sees pictures of random z."""


class Student(nn.Module):
    """The generator with what only its training needs: an encoder and a critic that read the scorer's feature maps.

    Features of a network that knows pictures already make both small and quick to learn.

    Source: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", 1512.09300 (the three of
    them); Sauer et al., "Projected GANs Converge Faster", 2111.01007 (a critic of fixed features).
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.generator = networks.Generator(LATENT)
        self.fine = nn.Conv2d(widths[-2], 32, 3, stride=2, padding=1)
        self.encoder = nn.Linear((widths[-1] + 32) * 16 + 3 * 8 * 8, 2 * LATENT)
        self.critics = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(width, 48, 3, padding=1)), nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(48, 1, 1))
            )
            for width in (12, *widths[1:])
        )

    def posterior(self, x: Tensor, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of z, (B, LATENT) each, of pictures and their maps."""
        seen = [F.avg_pool2d(x, 4), F.silu(self.fine(maps[-2])), maps[-1]]  # the maps hardly tell a colour
        mean, log = self.encoder(torch.cat([each.flatten(1) for each in seen], dim=1)).chunk(2, dim=1)
        return mean, log.clamp(-6, 2) - 1

    def criticise(self, x: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """High where the critics take x for real: (B, 1, h, w) of pixels in blocks, and of every map but the finest."""
        seen = [F.pixel_unshuffle(x, 2), *maps[1:]]
        return [critic(each) for critic, each in zip(self.critics, seen, strict=True)]


def loss(student: Student, scorer: nn.Module, x: Tensor) -> Tensor:
    """Mean loss of a batch of pictures: of generator and encoder, and of the critics, which do not see each other's.

        PIXELS |G(z) - x|_1 / d + sum_l mean |u_l(G(z)) - u_l(x)|² + KL * KL(q(z | x), N(0, I)) - CRITIC * mean D(G(z'))
        + mean max(0, 1 - D(x)) + mean max(0, 1 + D(G(z')))              (hinge; G(z') held fixed)

    with z ~ q(z | x), z' ~ N(0, I) and u_l the scorer's feature maps, of unit length at every place.
    """
    with torch.no_grad():
        real = scorer.maps(x)
    mean, log = student.posterior(x, real)
    z = torch.cat([mean + log.exp() * torch.randn_like(mean), torch.randn_like(mean)[: len(x) // 2]])
    made = student.generator(z)
    maps = scorer.maps(made)
    again, fresh = [m[: len(x)] for m in maps], [m[len(x) :] for m in maps]
    fake = made[len(x) :]
    total = PIXELS * (made[: len(x)] - x).abs().mean()
    for mine, other in zip(again, real, strict=True):
        total = total + (F.normalize(mine) - F.normalize(other)).square().sum(1).mean()
    total = total + KL * (0.5 * (mean.square() + (2 * log).exp() - 1) - log).sum(1).mean()
    student.critics.requires_grad_(False)
    total = total - CRITIC * sum(score.mean() for score in student.criticise(fake, fresh))
    student.critics.requires_grad_(True)
    total = total + sum(F.relu(1 - score).mean() for score in student.criticise(x, real))
    still = student.criticise(fake.detach(), [m.detach() for m in fresh])
    return total + sum(F.relu(1 + score).mean() for score in still)


def simple(truth: scenes.Scenes) -> Tensor:
    """Indices of the scenes of one plain object on a plain ground."""
    return ((truth.count == 1) & (truth.texture[:, 0] == 0) & (truth.background == 0)).nonzero().squeeze(1)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + 400)
    data = pool("train", args.pictures, 32, 0, args.checkpoints)
    rows = simple(scenes.draw("train", range(len(data))))
    scorer = networks.load(args.out / "scorers" / "classifier", args.device)[0]
    student = Student(scorer.arguments["channels"]).to(args.device, memory_format=torch.channels_last)
    checkpoint = args.checkpoints / "scenes-generator.safetensors"

    def batch(step: int) -> Tensor:
        return loss(student, scorer, data.pictures(rows[torch.randint(len(rows), (BATCH,))]).to(args.device))

    @torch.no_grad()
    def sheet(average: nn.Module) -> str:
        z = torch.randn(64, LATENT, generator=torch.Generator().manual_seed(0)).to(args.device)
        write(checkpoint.with_suffix(".png"), png(grid(average.generator(z), columns=16, cell=64)))
        return f"pictures in {checkpoint.with_suffix('.png').name}"

    steps = args.steps or 1200
    run = Run(steps, 2e-3, args.seed + 400, checkpoint, args.resume, decay=0.998, minutes=args.minutes, every=200)
    average, hours = fit(student, batch, run, sheet)
    generator = average.generator.half().float()  # as it is stored, so that what is measured is shipped
    text = card(
        generator,
        args.device,
        title="scenes: generator",
        about=ABOUT,
        data=f"{data_words(len(data))}\n  Of these {len(rows):,}: of one plain object on a plain ground. No captions.",
        command=command("generator", args),
        seed=args.seed,
        steps=steps,
        hours=hours,
        measured=measured(generator, args),
        stored="float16",
    )
    settings = {"prior": "normal", "shape": [LATENT]}
    networks.save(generator, args.out / "generator", card=text, dtype=torch.float16, denoiser=settings)
    print(text)


@torch.no_grad()
def measured(generator: nn.Module, args: argparse.Namespace) -> str:
    """What the judge says of pictures of random z, beside real pictures of one object."""
    count, reader = args.samples or SAMPLES, judge("scenes", "classifier", args.device)
    held = scenes.draw("held_out", range(40 * count))
    rows = simple(held)
    z = torch.randn(count, LATENT, generator=torch.Generator().manual_seed(args.seed)).to(args.device)
    shown = {
        "pictures of random z": torch.cat([generator(part) for part in z.split(256)]),
        "real pictures": scenes.render(held[rows[:count]], 32, torch.float32).to(args.device),
    }
    others = scenes.render(held[rows[count : 2 * count]], 32, torch.float32).to(args.device)
    target, lines = reader.features(others), []
    for what, x in shown.items():
        logits, features = reader.split(reader(x)), reader.features(x)
        sure = {k: (logits[k].softmax(1).amax(1) > 0.9).double().mean().item() for k in ("shape", "colour", "count")}
        precision, recall = precision_recall(features, target)
        figures = {f"sure of the {k}": v for k, v in sure.items()}
        figures |= {"Frechet": frechet(features, target), "precision": precision, "recall": recall}
        lines.append(f"- {what}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return (
        f"By the judge (`judges/classifier`), {count:,} pictures a line against as many other held-out pictures of "
        "such scenes:\nshares where its answer has a probability above 0.9, Frechet distance, precision and recall.\n\n"
        + "\n".join(lines)
    )
