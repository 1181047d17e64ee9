"""The scenes world's text-to-image models: how each is trained and measured."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from card import card, command
from diffusion import LOSSES, times
from fit import Run, begin, in_rounds
from pool import data_words, pool
from scenes_autoencoder import latents
from torch import Tensor, nn

from symguide import Denoiser, networks
from symguide.evaluation.quality import Evaluation, plain
from symguide.files import write
from symguide.report import grid, png
from symguide.schedule import VP, RectifiedFlow, Schedule, to_spec
from symguide.worlds import scenes
from symguide.worlds.load import judge

DROP = 0.12  # of the captions in training
BATCH = 32
SAMPLES = 1000  # that a card's measurements are taken over
NULL = {"caption": [[0] * scenes.LENGTH]}
CONDITIONS = {"caption": "16 tokens; symguide.worlds.scenes.tokens makes them of text; zeros for none"}


@dataclass(frozen=True)
class Kind:
    """How one model differs from the others."""

    about: str
    schedule: Schedule
    predicts: str
    channels: tuple[int, ...]
    rounds: tuple[tuple[int, float], ...]  # steps and learning rate: each goes on from the average of the one before
    start: str | None = None  # the model folder whose weights it starts from, where they fit
    shape: tuple[int, int, int] = (3, 32, 32)
    patch: int = 2
    autoencoder: str | None = None  # the folder of the autoencoder whose latents it draws
    shipped: bool = True  # else it is for a study alone, and its folder lies beside the checkpoints


KINDS = {
    "denoiser": Kind(
        "Draws scenes from captions. Predicts v on the cosine schedule, with min-SNR-5 weights.",
        VP.cosine(),
        "v",
        (48, 96, 144),
        ((13_000, 1.5e-3), (13_000, 1e-3)),
    ),
    "flow": Kind(
        "Draws scenes from captions along straight lines: a rectified flow.",
        RectifiedFlow(),
        "flow",
        (48, 96, 144),
        ((5_000, 1e-3),),
        start="denoiser",
    ),
    "latent": Kind(
        "Draws scenes of 64x64 pixels from captions, as latents of the `autoencoder`; v on the cosine schedule.",
        VP.cosine(),
        "v",
        (48, 96, 144),
        ((5_000, 1e-3),),
        start="denoiser",
        shape=(4, 16, 16),
        patch=1,
        autoencoder="autoencoder",
    ),
    "weak": Kind(
        "A smaller and less trained relative of the `denoiser`, with its faults and more of them: for autoguidance.",
        VP.cosine(),
        "v",
        (32, 48, 64),
        ((3_000, 2e-3),),
    ),
    "eps": Kind(
        "The network of the `denoiser` as Stable Diffusion's was trained: predicts the noise, on linear betas.",
        VP.linear(),
        "eps",
        (48, 96, 144),
        ((3_500, 1.5e-3),),
        shipped=False,
    ),
}


def caption_unet(**arguments: object) -> networks.CaptionUNet:
    return networks.CaptionUNet(words=len(scenes.VOCABULARY), length=scenes.LENGTH, **arguments)


def settings(kind: Kind) -> dict[str, object]:
    """What config.json says of sampling."""
    decoder = {"decoder": kind.autoencoder} if kind.autoencoder else {}
    return decoder | {
        "schedule": to_spec(kind.schedule),
        "predicts": kind.predicts,
        "shape": list(kind.shape),
        "null": NULL,
        "conditions": CONDITIONS,
    }


def denoiser(network: nn.Module, kind: Kind, out: Path) -> Denoiser:
    """The model of these weights; `out` is where its autoencoder lies, if it has one."""
    decoder = networks.load(out / kind.autoencoder)[0].decode if kind.autoencoder else None
    return Denoiser(network, kind.schedule, kind.predicts, shape=kind.shape, null=NULL, decoder=decoder)


def train(name: str, args: argparse.Namespace) -> None:
    kind = KINDS[name]
    torch.manual_seed(args.seed)
    data = latents(args) if kind.autoencoder else pool("train", args.pictures, 32, 0, args.checkpoints)
    network: nn.Module = caption_unet(in_channels=kind.shape[0], patch=kind.patch, channels=kind.channels)
    if kind.start is not None:
        begin(network, networks.load(args.out / kind.start)[0])
    lossy = LOSSES[kind.predicts]

    def batch(network: nn.Module) -> Tensor:
        rows = torch.randint(len(data), (BATCH,))
        caption = data.caption[rows] * (torch.rand(BATCH, 1) > DROP)
        noise, t = torch.randn(BATCH, *kind.shape), times(BATCH, kind.schedule)
        x0, t, noise, caption = (z.to(args.device) for z in (data.pictures(rows), t, noise, caption))
        return lossy(network, kind.schedule, x0, t, noise, caption).mean()

    rounds = ((args.steps, kind.rounds[0][1]),) if args.steps else kind.rounds
    total, runs = sum(steps for steps, _ in rounds), []
    for number, (steps, rate) in enumerate(rounds):
        checkpoint, before = args.checkpoints / f"scenes-{name}-{number + 1}.safetensors", sum(r.steps for r in runs)
        run = Run(steps, rate, args.seed + number, checkpoint, args.resume, decay=0.9995, minutes=args.minutes)
        run.keep = [round(part * total) - before for part in args.keep]
        runs.append(run)

    def kept(average: nn.Module, step: int) -> None:
        folder = args.checkpoints / f"scenes-{name}-at-{step:05d}"
        networks.save(average, folder, dtype=torch.float16, denoiser=settings(kind))

    network, hours = in_rounds(
        network,
        runs,
        lambda network: lambda step: batch(network),
        lambda mean: held_out_loss(mean, kind, lossy, args),
        kept,
        args.device,
    )
    finish(network, name, rounds, hours, data_words(len(data), data.side), args)


@torch.no_grad()
def held_out_loss(network: nn.Module, kind: Kind, lossy: Callable[..., Tensor], args: argparse.Namespace) -> str:
    """The loss over the first held-out pictures, always with the same noise."""
    scene = scenes.draw("held_out", range(256))
    torch.manual_seed(0)
    t, noise = times(256, kind.schedule), torch.randn(256, *kind.shape)
    x0, caption = scenes.render(scene, 64 if kind.autoencoder else 32, torch.float32), scenes.captions(scene)
    if kind.autoencoder:
        x0 = networks.load(args.out / kind.autoencoder)[0].encode(x0)
    x0, t, noise, caption = (z.to(args.device) for z in (x0, t, noise, scenes.tokens(caption)))
    return f"loss {lossy(network, kind.schedule, x0, t, noise, caption).mean():.5f} on held-out pictures"


def finish(
    network: nn.Module,
    name: str,
    rounds: tuple[tuple[int, float], ...],
    hours: float,
    data: str,
    args: argparse.Namespace,
) -> None:
    """Save the model folder with its card, and a sheet of samples beside the checkpoint."""
    kind = KINDS[name]
    evaluation = Evaluation(
        denoiser(network, kind, args.out),
        *(judge("scenes", which, args.device) for which in ("classifier", "segmenter")),
        progress=True,
    )
    sheet = evaluation.samples(plain(min(64, args.samples or 64)).texts, "sheet", first=4_000_000)
    write(args.checkpoints / f"scenes-{name}.png", png(grid(sheet, columns=16, cell=64)))
    history = [f"Captions were replaced by none in {DROP:.0%} of the training, for classifier-free guidance."]
    if kind.start is not None:
        history.append(f"Started from the weights of `{kind.start}`, where they fit.")
    if len(rounds) > 1:
        parts = ", then ".join(f"{steps:,} steps at a learning rate of {rate:g}" for steps, rate in rounds)
        history.append(f"Trained in {len(rounds)} rounds, each from the average of the one before: {parts}.")
    text = card(
        network,
        args.device,
        title=f"scenes: {name}",
        about="\n".join([kind.about, *history]),
        data=data,
        command=command(name, args),
        seed=args.seed,
        steps=sum(steps for steps, _ in rounds),
        hours=hours,
        measured=measured(evaluation, args.samples or SAMPLES),
        stored="float16",
    )
    folder = args.out / name if kind.shipped else args.checkpoints / f"scenes-{name}"
    networks.save(network, folder, card=text, dtype=torch.float16, denoiser=settings(kind))
    print(text)


def measured(evaluation: Evaluation, count: int) -> str:
    head = [
        f"By the judges (`judges/classifier`; two objects also `judges/segmenter`), {count:,} samples for each line,",
        f"{evaluation.steps} steps of dpmpp_2m, classifier-free guidance of weight {evaluation.weight:g}; 1 is best,",
        "and 0 for the Frechet distance.",
        "",
    ]
    return "\n".join([*head, lines(evaluation.figures(count))])


def lines(figures: dict[str, dict[str, float]]) -> str:
    """A card's list of what was measured."""
    return "\n".join(f"- {what}: " + ", ".join(f"{k} {v:.3f}" for k, v in row.items()) for what, row in figures.items())
