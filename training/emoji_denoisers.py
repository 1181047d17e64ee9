"""The emoji world's text-to-image models: how each is trained."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import emoji_data
import emoji_sketch
import torch
import torch.nn.functional as F
from card import card
from diffusion import floored_v_loss, times
from fit import Run, begin, in_rounds
from torch import Tensor, nn

from symguide import Denoiser, networks
from symguide.evaluation import emoji_sheets
from symguide.evaluation.emoji import Evaluation, measured
from symguide.evaluation.emoji_album import with_or_without
from symguide.files import write
from symguide.report import png
from symguide.schedule import VP, Schedule, to_spec
from symguide.worlds.emoji import STYLES

UNSURE = 0.15  # of the training shows what the sketch takes for nearest if it does not know the character
HIDDEN = 0.25  # of the training does not show what it remembers of the drawing itself, as of one that it never saw
BATCH = 32
MOST = 20.0  # weight of the loss, see `floored_v_loss`
NULL = {"text": [[0.0] * 384], "style": len(STYLES)}
CONDITIONS = {
    "text": "the 384 numbers of a sentence's MiniLM vector; symguide.worlds.emoji.text makes them; zeros for none",
    "style": f"0 to {len(STYLES) - 1} for {', '.join(STYLES)}; {len(STYLES)} for none",
    "view": "7 numbers: how the picture is moved and on what it stands, symguide.worlds.emoji.view; zeros for as it is",
    "look": "5 numbers: ink, pale, gray, hue, and 1 for any look; symguide.worlds.emoji.look; zeros for as drawn",
}


@dataclass(frozen=True)
class Kind:
    """How one model differs from the others."""

    about: str
    schedule: Schedule
    channels: tuple[int, ...]
    rounds: tuple[tuple[int, float], ...]  # steps and learning rate: each goes on from the average of the one before
    start: str | None = None  # the model folder whose weights it starts from, where they fit
    shape: tuple[int, int, int] = (3, 32, 32)
    patch: int = 2
    autoencoder: str | None = None  # the folder of the autoencoder whose latents it draws

    @property
    def side(self) -> int:
        """Of its pictures."""
        return self.shape[-1] * (4 if self.autoencoder else 1)


KINDS = {
    "denoiser": Kind(
        "Draws emoji from sentences, in three styles. Predicts v on the cosine schedule, by `floored_v_loss`.",
        VP.cosine(),
        (48, 96, 96),
        ((12_000, 1.5e-3),),
    ),
    "latent": Kind(
        "Draws emoji of 64x64 pixels from sentences, as latents of the `autoencoder`; v on the cosine schedule.",
        VP.cosine(),
        (48, 96, 96),
        ((16_000, 1e-3),),
        start="denoiser",
        shape=(8, 16, 16),
        patch=1,
        autoencoder="autoencoder",
    ),
}


def settings(kind: Kind) -> dict[str, object]:
    """What config.json says of sampling."""
    decoder = {"decoder": kind.autoencoder} if kind.autoencoder else {}
    return decoder | {
        "schedule": to_spec(kind.schedule),
        "predicts": "v",
        "shape": list(kind.shape),
        "null": NULL,
        "conditions": CONDITIONS,
    }


def train(name: str, args: argparse.Namespace) -> None:
    kind = KINDS[name]
    torch.manual_seed(args.seed)
    data, unseen = emoji_data.load(args.checkpoints), emoji_data.load(args.checkpoints, trained=False)
    remembered = emoji_sketch.entries(data)
    network: nn.Module = networks.VectorUNet(
        in_channels=kind.shape[0],
        patch=kind.patch,
        channels=kind.channels,
        styles=len(STYLES),
        entries=len(remembered.known),
    )
    if kind.start is None:
        sketch = emoji_sketch.trained(args, data, remembered)
        network.sketch.load_state_dict(sketch.network.state_dict())
        before = sketch.about
    else:
        begin(network, networks.load(args.out / kind.start)[0])
        with torch.no_grad():  # nothing says yet what the sketch's pictures are as latents: tau is 0.97
            network.spread.weight.zero_()
            network.spread.bias.fill_(3.5)
        before = f"Started from the weights of `{kind.start}` where they fit, and with its sketch."
    encoder = networks.load(args.out / kind.autoencoder, args.device)[0].encode if kind.autoencoder else None

    def losses(
        refine: Callable[..., Tensor], sketch: nn.Module, seen: emoji_data.Drawings, count: int, plain: bool = False
    ) -> Tensor:
        x0, told, rows = seen.batch(count, kind.side, plain)
        t, noise = times(count, kind.schedule), torch.randn(count, *kind.shape)
        chance = torch.ones(count) if plain else torch.rand(count)
        own, drawn = remembered.of[seen.character[rows]], seen.style[rows]
        x0, own, drawn, chance, t, noise = (z.to(args.device) for z in (x0, own, drawn, chance, t, noise))
        said = [told[name].to(args.device) for name in ("text", "style", "view", "look")]
        with torch.no_grad():
            remembers = shown(sketch, said[0], own, drawn, chance)
            x0 = x0 if encoder is None else encoder(x0)
        return floored_v_loss(refine, kind.schedule, x0, t, noise, *said, *remembers, most=MOST).mean()

    @torch.no_grad()
    def note(average: nn.Module) -> str:
        said = []
        for known in (data, unseen):
            torch.manual_seed(0)
            said.append(losses(average.refine, average.sketch, known, 256, plain=True).item())
        return "loss {:.5f} on trained drawings, {:.5f} on held-out ones of trained characters".format(*said)

    def start(network: nn.Module) -> Callable[[int], Tensor]:
        network.sketch.requires_grad_(False)
        called = [torch.compile(part) if args.compile else part for part in (network.refine, network.sketch)]
        return lambda step: losses(*called, data, BATCH)

    parts = ((args.steps, kind.rounds[0][1]),) if args.steps else kind.rounds
    runs = [
        Run(
            steps,
            rate,
            args.seed + number,
            args.checkpoints / f"emoji-{name}-{number + 1}.safetensors",
            args.resume,
            decay=0.9995,
            minutes=args.minutes,
        )
        for number, (steps, rate) in enumerate(parts)
    ]
    network, hours = in_rounds(network, runs, start, note, device=args.device)
    finish(network, name, parts, hours, len(data), before, args)


def shown(
    sketch: Callable[..., tuple[Tensor, Tensor, Tensor]], text: Tensor, own: Tensor, drawn: Tensor, chance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What a sketch remembers of sentences, less what a part of the training is not shown of it.

    Args:
        sketch: (text, without) -> layers, known, sure.
        text: (B, 384).
        own: the entry of every drawing's character, (B,).
        drawn: its style, (B,).
        chance: from 0 to 1, (B,): below UNSURE the sketch is asked as if it did not know the character, and in the next
            HIDDEN the drawing itself is kept back.
    """
    layers, known, sure = sketch(text, torch.where(chance < UNSURE, own, -1))
    hidden = (chance >= UNSURE) & (chance < UNSURE + HIDDEN)
    told = 1 - hidden[:, None] * F.one_hot(drawn, known.shape[1])
    return layers * told[:, :, None, None, None], known * told, sure


def finish(
    network: nn.Module,
    name: str,
    parts: tuple[tuple[int, float], ...],
    hours: float,
    count: int,
    before: str,
    args: argparse.Namespace,
) -> None:
    """Save the model folder with its card, and a sheet of samples beside the checkpoint."""
    kind = KINDS[name]
    decoder = networks.load(args.out / kind.autoencoder, args.device)[0].decode if kind.autoencoder else None
    model = Denoiser(network.eval(), kind.schedule, "v", shape=kind.shape, null=NULL, decoder=decoder)
    said = ", then ".join(f"{steps:,} steps at a learning rate of {rate:g}" for steps, rate in parts)
    both, mute, bare = emoji_data.DROP
    left = (
        f"Text and style were left out in {both:.0%} of the training, the text alone in {mute:.0%} and the style alone "
        f"in {bare:.0%}; half of those without a style were not\ntold the look either. {UNSURE:.0%} was shown what is "
        f"nearest to a name that the sketch does not know, and {HIDDEN:.0%} not what it remembers of the drawing\n"
        f"itself. Weights of the loss in units of a clean sample's error: 1 to {MOST:g}."
    )
    options = {"seed": args.seed, "steps": args.steps}
    command = "".join(f" --{key} {value}" for key, value in options.items() if value is not None)

    def save(measures: str) -> str:
        text = card(
            network,
            args.device,
            title=f"emoji: {name}",
            about="\n".join([kind.about, before, f"Trained for {said}. {left}"]),
            data=emoji_data.words(count),
            command=f"python training/emoji.py data {name}{command}{' --compile' * args.compile}",
            seed=args.seed,
            steps=sum(steps for steps, _ in parts),
            hours=hours,
            measured=measures,
            stored="float16",
        )
        networks.save(network, args.out / name, card=text, dtype=torch.float16, denoiser=settings(kind))
        return text

    save("Not yet.")  # what follows takes minutes
    sheet = emoji_sheets.trained(Evaluation(model, with_or_without()[0]))
    write(args.checkpoints / f"emoji-{name}.png", png(sheet))
    print(save(measured(model, args.samples or 1000, device=args.device)))
