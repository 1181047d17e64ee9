"""The emoji world's autoencoder: pictures of 64x64 pixels to latents of 8x16x16 and back."""

import argparse

import emoji_data
import torch
from card import card
from fit import Run, fit
from scenes_autoencoder import loss
from torch import Tensor, nn

from symguide import networks
from symguide.files import write
from symguide.report import grid, png
from symguide.worlds.emoji import picture
from symguide.worlds.emoji.drawings import drawings
from symguide.worlds.emoji.names import STYLES, codes, emojis

SIDE, BATCH = 64, 16
SETS = (*STYLES, "openmoji")
ABOUT = """Pictures of 64x64 pixels to latents of 8x16x16 and back; latents have unit variance. Trained for the mean
absolute error of pixels and of their differences to the right and down, which keeps edges sharp without a critic."""


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + 200)
    data = emoji_data.load(args.checkpoints)
    network = networks.Autoencoder(latent=8, blocks=2).to(args.device, memory_format=torch.channels_last)
    held_out = [row for row, one in enumerate(emojis()) if one.unseen == STYLES]
    unseen = {style: picture(drawings(style, codes())[held_out], side=SIDE).to(args.device) for style in SETS}

    def batch(step: int) -> Tensor:
        return loss(network, data.batch(BATCH, SIDE)[0].to(args.device))

    @torch.no_grad()
    def note(average: nn.Module) -> str:
        return f"root mean square error {error(average, unseen['noto']):.4f} on held-out pictures of noto"

    steps = args.steps or 6000
    checkpoint = args.checkpoints / "emoji-autoencoder.safetensors"
    run = Run(steps, 2e-3, args.seed + 200, checkpoint, args.resume, decay=0.998, minutes=args.minutes)
    average, hours = fit(network, batch, run, note)
    with torch.no_grad():
        torch.manual_seed(0)
        latents = torch.cat([average.encoder(data.batch(256, SIDE)[0].to(args.device)) for _ in range(16)])
        average.mean.copy_(latents.mean(dim=(0, 2, 3), keepdim=True))
        average.deviation.copy_(latents.std(dim=(0, 2, 3), keepdim=True))
        made = {style: torch.cat([average(part) for part in x[:16].split(8)]) for style, x in unseen.items()}
    write(
        checkpoint.with_suffix(".png"),
        png(grid(torch.cat([torch.cat([unseen[style][:16], made[style]]) for style in made]), columns=16, cell=64)),
    )
    errors = "\n".join(f"- {style}: {error(average, x):.4f}" for style, x in unseen.items())
    text = card(
        average,
        args.device,
        title="emoji: autoencoder",
        about=ABOUT,
        data=emoji_data.words(len(data), told=False),
        command=f"python training/emoji.py autoencoder --seed {args.seed} --steps {steps}",
        seed=args.seed,
        steps=steps,
        hours=hours,
        measured=f"Root mean square error (pixels are -1 to 1) of the {len(held_out)} held-out characters, by set; the "
        f"last was\nnever trained on:\n\n{errors}",
    )
    networks.save(average, args.out / "autoencoder", card=text)
    print(text)


@torch.no_grad()
def error(network: nn.Module, x: Tensor) -> float:
    """Root mean square error of pictures and what comes back of them."""
    return torch.cat([network(part) - part for part in x.split(32)]).square().mean().sqrt().item()
