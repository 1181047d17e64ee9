"""The scenes world's GAN: a generator that learns from a critic alone."""

import argparse
from typing import Any

import torch
from card import card, command
from fit import Run, fit
from pool import CHUNK
from scenes_generator import compared, simple
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from symguide import networks
from symguide.files import write
from symguide.report import grid, png
from symguide.worlds import scenes

BATCH, LATENT, MANY, STEPS = 32, 64, 4, 8000
"""MANY times as many scenes as the other models have are looked through for simple ones."""
GAMMA, LAZY = 0.5, 8
"""Weight of the penalties, and how many steps go by from one to the next."""
ABOUT = f"""Draws one plain object on a plain ground in one call, of z ~ N(0, I), {LATENT} numbers; no captions. Trained
against a critic alone, from its own random start: no encoder, no labels, and no scorer or judge had a part in it.
Relativistic pairs, softplus(D(fake) - D(real)) for the critic and its mirror for the generator, with zero-centred
gradient penalties on both real and drawn pictures (R1 and R2, every {LAZY} steps), as R3GAN has it (2501.05441);
both networks take their steps at once. The generator's picture is two plain layers and a mask (`LayeredGenerator`)."""


class Critic(nn.Module):
    """D: pictures (B, 3, 32, 32) -> (B,), higher for what looks real.

    It also sees how much a group of 4 pictures differs.
    """

    def __init__(self, channels: tuple[int, int, int] = (32, 64, 128)) -> None:
        super().__init__()
        first, second, third = channels
        self.body = nn.Sequential(
            *(nn.PixelUnshuffle(2), nn.Conv2d(12, first, 3, padding=1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(first, second, 3, stride=2, padding=1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(second, third, 3, stride=2, padding=1), nn.LeakyReLU(0.2)),
        )
        self.last = nn.Sequential(nn.Linear(16 * (third + 1), 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        spread = (h.unflatten(0, (4, -1)).var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
        plane = spread.repeat(4)[:, None, None, None].expand(-1, 1, *h.shape[2:])
        value: Tensor = self.last(torch.cat([h, plane], dim=1).flatten(1)).squeeze(1)
        return value


class Players(nn.Module):
    """Generator and critic as one network of the training loop."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = networks.LayeredGenerator(LATENT)
        self.critic = Critic().to(memory_format=torch.channels_last)
        self.apply(_start)
        with torch.no_grad():  # first pictures are of two near colours, with a smooth outline in the middle
            mask, layers = self.generator.mask, 3 * self.generator.mask.width
            mask.output.weight.mul_(0.3)
            mask.read[-1].weight[:layers].mul_(0.6)
            mask.read[-1].weight[layers:].mul_(0.3)
            self.generator.colours[-1].weight.mul_(0.4)

    def loss(self, real: Tensor, z: Tensor, penalised: bool) -> Tensor:
        """L_D + L_G, whose gradient is that of L_D at the critic's weights and that of L_G at the generator's.

        L_D = mean softplus(D(G(z)) - D(x)) + gamma / 2 (mean |dD/dx|² + mean |dD/dG(z)|²)
        L_G = mean softplus(D(x) - D(G(z)))
        """
        made = self.generator(z)
        real, fake = real.clone().requires_grad_(penalised), made.detach().requires_grad_(penalised)
        good, bad = self.critic(real), self.critic(fake)
        loss = nn.functional.softplus(bad - good).mean()
        if penalised:
            slopes = torch.autograd.grad(good.sum() + bad.sum(), (real, fake), create_graph=True)
            loss = loss + GAMMA / 2 * LAZY * sum(slope.square().sum((1, 2, 3)).mean() for slope in slopes)
        fixed: dict[str, Any] = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        return loss + nn.functional.softplus(good.detach() - functional_call(self.critic, fixed, (made,))).mean()


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=0.2)
        nn.init.zeros_(module.bias)


def pictures(count: int) -> Tensor:
    """The simple ones of the first training scenes, bytes (N, 3, 32, 32)."""
    drawn = []
    for first in tqdm(range(0, count, CHUNK), desc="draw simple scenes", mininterval=5.0):
        truth = scenes.draw("train", range(first, min(first + CHUNK, count)))
        x = scenes.render(truth[simple(truth)], 32, torch.float32)
        drawn.append(((x + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(drawn)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + 500)
    data = pictures(MANY * args.pictures)
    players = Players().to(args.device)

    def loss(step: int) -> Tensor:
        real = data[torch.randint(len(data), (BATCH,))].float() / 127.5 - 1
        return players.loss(real.to(args.device), torch.randn(BATCH, LATENT).to(args.device), step % LAZY == 0)

    @torch.no_grad()
    def sheet(average: nn.Module) -> str:
        path = args.checkpoints / "scenes-gan.png"
        z = torch.randn(64, LATENT, generator=torch.Generator().manual_seed(0)).to(args.device)
        write(path, png(grid(average.generator(z), columns=16, cell=64)))
        return f"pictures in {path.name}"

    steps = args.steps or STEPS
    run = Run(
        *(steps, 7e-4, args.seed + 500, args.checkpoints / "scenes-gan.safetensors", args.resume),
        **{"decay": 0.998, "weight_decay": 0.0, "momentum": 0.0, "clip": float("inf"), "minutes": args.minutes},
    )
    average, hours = fit(players, loss, run, sheet)
    generator = average.generator.half().float()  # as it is stored, so that what is measured is shipped
    with torch.no_grad():
        torch.manual_seed(args.seed)
        z = torch.randn(args.samples or 1000, LATENT)
        measured = compared(generator(z.to(args.device)), args)
    text = card(
        generator,
        args.device,
        title="scenes: GAN",
        about=ABOUT,
        data=f"{len(data):,} pictures of 32 pixels to a side: those of one plain object on a plain ground among scenes "
        f'0 to\n  {MANY * args.pictures - 1:,} of the split "train" of `symguide.worlds.scenes`, drawn with seed 0.',
        command=command("gan", args),
        seed=args.seed,
        steps=steps,
        hours=hours,
        measured=measured,
        stored="float16",
    )
    settings = {"prior": "normal", "shape": [LATENT]}
    networks.save(generator, args.out / "gan", card=text, dtype=torch.float16, denoiser=settings)
    print(text)
