"""The scenes world's autoencoder, and its latents to train on."""

import argparse
from dataclasses import dataclass

import torch
from card import card, command
from fit import Run, fit
from pool import Pool, data_words, pool
from torch import Tensor, nn
from tqdm import tqdm

from symguide import networks
from symguide.files import write
from symguide.report import grid, png
from symguide.worlds import scenes
from symguide.worlds.load import judge

SIDE, BATCH = 64, 16
ABOUT = """Pictures of 64x64 pixels to latents of 4x16x16 and back; latents have unit variance. Trained for the mean
absolute error of pixels and of their differences to the right and down, which keeps edges sharp without a critic."""


def loss(network: networks.Autoencoder, x: Tensor) -> Tensor:
    """Errors of pixels and edges, and what keeps latents small, as batch statistics are only taken afterwards."""
    latents = network.encoder(x)
    made = network.decoder(latents)
    edges = sum((made.diff(dim=axis) - x.diff(dim=axis)).abs().mean() for axis in (2, 3))
    return (made - x).abs().mean() + edges + 1e-3 * latents.square().mean()


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + 200)
    data = pool("train", args.pictures // 4, SIDE, 0, args.checkpoints)
    network = networks.Autoencoder().to(args.device, memory_format=torch.channels_last)
    truth = scenes.draw("held_out", range(1024))
    unseen = scenes.render(truth, SIDE, torch.float32).to(args.device)

    def step_loss(step: int) -> Tensor:
        return loss(network, data.pictures(torch.randint(len(data), (BATCH,))).to(args.device))

    @torch.no_grad()
    def note(average: nn.Module) -> str:
        made = torch.cat([average(part) for part in unseen[:256].split(64)])
        return f"root mean square error {(made - unseen[:256]).square().mean().sqrt():.4f} on held-out pictures"

    steps = args.steps or 5000
    checkpoint = args.checkpoints / "scenes-autoencoder.safetensors"
    run = Run(steps, 2e-3, args.seed + 200, checkpoint, args.resume, decay=0.998, minutes=args.minutes)
    average, hours = fit(network, step_loss, run, note)
    with torch.no_grad():
        parts = torch.arange(min(len(data), 4096)).split(256)
        latents = torch.cat([average.encoder(data.pictures(rows).to(args.device)) for rows in parts])
        average.mean.copy_(latents.mean(dim=(0, 2, 3), keepdim=True))
        average.deviation.copy_(latents.std(dim=(0, 2, 3), keepdim=True))
        made = torch.cat([average(part) for part in unseen.split(64)])
    sheet = torch.stack([unseen[:32], made[:32]], 1).flatten(0, 1)
    write(checkpoint.with_suffix(".png"), png(grid(sheet, columns=16, cell=64)))
    text = card(
        average,
        args.device,
        title="scenes: autoencoder",
        about=ABOUT,
        data=data_words(len(data), data.side),
        command=command("autoencoder", args),
        seed=args.seed,
        steps=steps,
        hours=hours,
        measured=measured(made, unseen, truth, args.device),
    )
    networks.save(average, args.out / "autoencoder", card=text)
    print(text)


@torch.no_grad()
def measured(made: Tensor, pictures: Tensor, truth: scenes.Scenes, device: str) -> str:
    error = (made - pictures).square().mean().sqrt().item()
    reader = judge("scenes", "classifier", device)

    def right(x: Tensor) -> float:
        one = truth.count == 1
        shape = reader.attribute(x, "shape").argmax(1)
        return (shape == truth.shape[:, 0])[one].double().mean().item()

    return (
        f"On {len(pictures):,} held-out pictures: root mean square error {error:.4f} (pixels are -1 to 1); the judge "
        f"reads the shape\nof {right(made):.4f} of the reconstructions and of {right(pictures):.4f} of the pictures."
    )


@dataclass(frozen=True)
class Latents:
    """A pool whose pictures are latents."""

    values: Tensor
    caption: Tensor
    side: int = SIDE  # of the pictures

    def __len__(self) -> int:
        return len(self.values)

    def pictures(self, rows: Tensor) -> Tensor:
        return self.values[rows].float()


@torch.no_grad()
def latents(args: argparse.Namespace) -> Latents:
    """The training pictures of 64 pixels to a side, encoded."""
    data: Pool = pool("train", args.pictures // 4, SIDE, 0, args.checkpoints)
    network, _ = networks.load(args.out / "autoencoder", args.device)
    parts = [
        network.encode(data.pictures(rows).to(args.device)).half().cpu()
        for rows in tqdm(torch.arange(len(data)).split(256), desc="encode", mininterval=5.0)
    ]
    return Latents(torch.cat(parts), data.caption)
