"""Remake the `digits` world: its data, classifiers and denoiser, each with a model card of what was measured.

    python training/digits.py [all|data|scorer|judge|noisy|denoiser] [--seed 0] [--steps N] [--device cpu] [--resume]

Checkpoints go to training/checkpoints/; --resume continues from them, or measures and saves again what is finished.
The denoiser's samples are measured with the judge of the same --out folder, so `all` trains that first.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from card import card
from diffusion import times, v_loss
from fit import Run, fit
from torch import Tensor, nn
from torch.nn import functional as F

from symguide import CFG, Denoiser, networks, sample
from symguide.errors import SymguideError
from symguide.files import write
from symguide.per_sample import expand
from symguide.report import frechet, grid, nearest, png
from symguide.schedule import VP
from symguide.worlds import digits

SCHEDULE = VP.cosine()
NULL = 10
STEPS = {"scorer": 3000, "judge": 4000, "noisy": 2500, "denoiser": 7000}
SEEDS = {"denoiser": 0, "scorer": 1, "judge": 2, "noisy": 3}  # added to --seed, so that no two share randomness

DATA = """{count:,} training images of the 1,797 handwritten digits that scikit-learn ships (the split is in
  `symguide.worlds.digits.data`): the test set of "Optical Recognition of Handwritten Digits", E. Alpaydin and
  C. Kaynak, UCI Machine Learning Repository, doi 10.24432/C50P49, licensed CC BY 4.0. Both parts hold the same writers.
"""


def make_data(args: argparse.Namespace) -> None:
    """Copy scikit-learn's digits into the world's own file: images (N, 8, 8) of 0..16 and labels (N,), both uint8."""
    from sklearn.datasets import load_digits

    source = load_digits()
    arrays = {"images": source.images, "labels": source.target}
    tensors = {name: torch.from_numpy(array.astype(np.uint8)) for name, array in arrays.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "data.safetensors", safetensors.torch.save(tensors))


def run(what: str, args: argparse.Namespace, rate: float, decay: float) -> Run:
    steps = args.steps or STEPS[what]
    checkpoint = args.checkpoints / f"digits-{what}.safetensors"
    return Run(steps, rate, args.seed + SEEDS[what], checkpoint, args.resume, decay=decay)


def finish(network: nn.Module, what: str, settings: Run, hours: float, args: argparse.Namespace, **words: str) -> None:
    """Save the model folder with its card."""
    text = card(
        network,
        args.device,
        data=DATA.format(count=len(digits.labels("train"))).strip(),
        command=f"python training/digits.py {what} --seed {args.seed} --steps {settings.steps}",
        seed=args.seed,
        steps=settings.steps,
        hours=hours,
        **words,
    )
    extra = {"denoiser": DENOISER} if what == "denoiser" else {}
    networks.save(network, args.out / what, card=text, **extra)
    print(text)


# Classifiers


def warp(x: Tensor, shift: float, turn: float, zoom: float, shear: float) -> Tensor:
    """Every image under a random affine map of its own: shifts in pixels, turns in radians (standard deviations)."""
    count, size = len(x), x.shape[-1]
    angle, slant = turn * torch.randn(count), shear * torch.randn(count)
    scale = torch.exp(zoom * torch.randn(count))
    rows = [angle.cos(), slant - angle.sin(), angle.sin(), angle.cos()]
    matrix = scale[:, None, None] * torch.stack(rows, 1).reshape(count, 2, 2)
    theta = torch.cat([matrix, shift * 2 / size * torch.randn(count, 2, 1)], dim=2).to(x)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def scorer_view(x: Tensor) -> Tensor:
    """Shifted, turned, resized; then Gaussian noise."""
    return warp(x, shift=0.4, turn=0.12, zoom=0.06, shear=0.0) + 0.15 * torch.randn(x.shape).to(x)


def judge_view(x: Tensor) -> Tensor:
    """Shifted, turned, sheared; then paler ink, single pixels lost, and a little noise."""
    x = warp(x, shift=0.5, turn=0.08, zoom=0.04, shear=0.12)
    paler = expand(0.7 + 0.3 * torch.rand(len(x)), x).to(x)
    kept = (torch.rand(x.shape) > 0.05).to(x)
    return (x + 1) * paler * kept - 1 + 0.05 * torch.randn(x.shape).to(x)


def train_classifier(
    what: str,
    network: nn.Module,
    view: Callable[[Tensor], Tensor],
    about: str,
    args: argparse.Namespace,
    batch: int = 128,
) -> None:
    """Train on augmented views of the training images (one in four as it is) and measure on the held-out ones."""
    images, labels = digits.images("train").to(args.device), digits.labels("train").to(args.device)
    unseen, truth = digits.images("held_out").to(args.device), digits.labels("held_out").to(args.device)
    network = network.to(args.device)

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(images), (batch,)).to(args.device)
        plain = expand((torch.rand(batch) < 0.25).to(args.device), images)
        x = images[chosen]
        return F.cross_entropy(network(torch.where(plain, x, view(x))), labels[chosen])

    @torch.no_grad()
    def note(average: nn.Module) -> str:
        torch.manual_seed(0)
        wrong = (average(unseen).argmax(1) != truth).sum().item()
        noisy = (average(unseen + 0.3 * torch.randn(unseen.shape).to(unseen)).argmax(1) == truth).double().mean().item()
        return (
            f"Accuracy on the {len(truth)} held-out images: {1 - wrong / len(truth):.4f} ({wrong} wrong); "
            f"with Gaussian noise of standard deviation 0.3 added: {noisy:.4f}."
        )

    settings = run(what, args, rate=2e-3, decay=0.995)
    average, hours = fit(network, loss, settings, note)
    measured = note(average) + " The held-out images chose neither settings nor the moment to stop."
    finish(average, what, settings, hours, args, title=f"digits: {what}", about=about, measured=measured)


def train_scorer(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + SEEDS["scorer"])
    network = networks.ConvClassifier(1, 8, (32, 48), width=64, dropout=0.2)
    about = (
        "A small convolutional classifier of clean 8x8 digits, to guide with. Smooth activations, no batch statistics."
    )
    train_classifier("scorer", network, scorer_view, about, args)


def train_judge(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + SEEDS["judge"])
    network = networks.TokenClassifier(1, 8, patch=2, width=64, depth=3, dropout=0.2)
    about = (
        "A small transformer classifier of clean 8x8 digits, to measure with: guidance never sees it. Built, seeded\n"
        "and augmented differently from the scorer; trained on the same images, so the two may share some mistakes.\n"
        "Its 64 features are what Frechet distances are taken in."
    )
    train_classifier("judge", network, judge_view, about, args)


def train_noisy(args: argparse.Namespace, batch: int = 128) -> None:
    """Train on moved training images at every noise level of the denoiser's schedule; measure level by level."""
    torch.manual_seed(args.seed + SEEDS["noisy"])
    images, labels = digits.images("train").to(args.device), digits.labels("train").to(args.device)
    unseen, truth = digits.images("held_out").to(args.device), digits.labels("held_out").to(args.device)
    network = networks.TimedClassifier(1, (24, 48), dropout=0.1).to(args.device)

    def noised(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (expand(level(t), x).to(x) for level in (SCHEDULE.alpha, SCHEDULE.sigma))
        return alpha * x + sigma * torch.randn(x.shape).to(x)

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(images), (batch,)).to(args.device)
        x, t = warp(images[chosen], shift=0.4, turn=0.12, zoom=0.06, shear=0.0), times(batch, SCHEDULE)
        return F.cross_entropy(network(noised(x, t), SCHEDULE.timestep(t).to(args.device)), labels[chosen])

    @torch.no_grad()
    def said(average: nn.Module, t: float) -> tuple[float, float]:
        """Accuracy on the held-out images at time t, and -log p of the truth, each over 20 draws of the noise."""
        torch.manual_seed(0)
        x, truths = unseen.repeat(20, 1, 1, 1), truth.repeat(20)
        level = torch.full((len(x),), t)
        logits = average(noised(x, level), SCHEDULE.timestep(level).to(args.device))
        return (logits.argmax(1) == truths).double().mean().item(), F.cross_entropy(logits, truths).item()

    def note(average: nn.Module) -> str:
        return "held-out accuracy {:.4f}, loss {:.4f} at t = 0.5".format(*said(average, 0.5))

    settings = run("noisy", args, rate=2e-3, decay=0.998)
    average, hours = fit(network, loss, settings, note)
    lines = [
        f"On the {len(truth)} held-out images, each with 20 draws of the noise; log 10 = 2.303 is what knowing nothing",
        "costs. The held-out images chose neither settings nor the moment to stop.",
        "",
        "| t | sigma / alpha | accuracy | -log p of the truth |",
        "| --- | --- | --- | --- |",
    ]
    levels = (0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.995)
    lines += ["| {:g} | {:.2f} | {:.4f} | {:.3f} |".format(t, SCHEDULE.ratio(t), *said(average, t)) for t in levels]
    about = (
        "A small classifier of 8x8 digits at every noise level of the denoiser's schedule, which it is told: for\n"
        "classifier guidance, which asks at x_t itself. Logits of (x_t, timestep); where noise hides the digit, it\n"
        "should say how surely, so the loss matters as much as the accuracy."
    )
    words = {"title": "digits: noisy classifier", "about": about, "measured": "\n".join(lines)}
    finish(average, "noisy", settings, hours, args, **words)


# Denoiser

DENOISER = {
    "schedule": {"name": "vp-cosine"},
    "predicts": "v",
    "shape": [1, 8, 8],
    "null": {"label": NULL},
    "conditions": {"label": "digit 0-9; 10 is none"},
}


def draw(network: nn.Module, label: Tensor, weight: float, noise: Tensor) -> Tensor:
    """Samples from this noise by 50 DDIM steps (eta = 0), with classifier-free guidance of this weight."""
    denoiser = Denoiser(network, SCHEDULE, "v", shape=noise.shape[1:], null=DENOISER["null"])
    condition, guidance = {"label": label}, CFG(weight)
    return sample(denoiser, start=noise, steps=50, eta=0.0, condition=condition, prediction=guidance).samples


@torch.no_grad()
def measure(network: nn.Module, args: argparse.Namespace) -> str:
    """Quality of samples with the training set's own labels, beside what the training images themselves would get."""
    judge = networks.load(args.out / "judge", args.device)[0]
    train, labels = digits.images("train").to(args.device), digits.labels("train").to(args.device)
    held_out = digits.images("held_out").to(args.device)
    truth = digits.labels("held_out").to(args.device)
    target = judge.features(held_out)

    def row(name: str, x: Tensor, label: Tensor, distances: Tensor) -> str:
        accuracy = f"{(judge(x).argmax(1) == label).double().mean().item():.4f}" if (label != NULL).all() else "-"
        least, low, middle = torch.quantile(distances, torch.tensor([0.0, 0.05, 0.5]).to(distances)).tolist()
        distance = frechet(judge.features(x), target)
        return f"| {name} | {accuracy} | {distance:.3f} | {middle:.3f} | {low:.3f} | {least:.3f} |"

    lines = [
        f"{len(train):,} samples with the labels of the training images; 50 DDIM steps (eta = 0), averaged weights.",
        "Accuracy is the judge's, and the Frechet distance is to the held-out images in its 64 features. The last",
        "three columns are the root mean square distance to the nearest training image (other than itself), in units",
        "where ink is 1 and paper -1: the nearer these are to the held-out images' own, the less was memorised; a copy",
        "has 0.",
        "",
        "| | accuracy | Frechet distance | nearest, median | nearest, 5 % | nearest, least |",
        "| --- | --- | --- | --- | --- | --- |",
        row("training images (the floor)", train, labels, nearest(train, train, others=True)),
        row("held-out images", held_out, truth, nearest(held_out, train)),
    ]
    noise = torch.randn(train.shape, generator=torch.Generator().manual_seed(args.seed)).to(train)
    null = torch.full_like(labels, NULL)
    for name, label, weight in (("no label", null, 1.0), *((f"CFG weight {w:g}", labels, w) for w in (1.0, 2.0, 4.0))):
        x = torch.cat([draw(network, c, weight, z) for c, z in zip(label.split(256), noise.split(256), strict=True)])
        lines.append(row(f"samples, {name}", x, label, nearest(x, train)))
        if args.picture is not None:
            shown = torch.cat([torch.nonzero(labels == digit)[:20, 0] for digit in range(10)])
            sheet = grid(x[shown], columns=20, cell=32, ink=True)
            write(args.picture.with_stem(f"{args.picture.stem} {name}"), png(sheet))
    return "\n".join(lines)


def train_denoiser(args: argparse.Namespace, batch: int = 128, drop: float = 0.15) -> None:
    torch.manual_seed(args.seed)
    images, labels = digits.images("train").to(args.device), digits.labels("train").to(args.device)
    unseen = digits.images("held_out").to(args.device), digits.labels("held_out").to(args.device)
    network = networks.UNet(1, (48, 64), blocks=1, classes=10, attention=(False, True), dropout=0.1).to(args.device)

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(images), (batch,)).to(args.device)
        label = torch.where(torch.rand(batch).to(args.device) < drop, NULL, labels[chosen])
        noise = torch.randn(batch, *images.shape[1:]).to(args.device)
        return v_loss(network, SCHEDULE, images[chosen], times(batch, SCHEDULE).to(args.device), noise, label).mean()

    @torch.no_grad()
    def note(average: nn.Module) -> str:
        values = []
        for x0, label in ((images, labels), unseen):
            torch.manual_seed(0)
            t, noise = times(len(x0), SCHEDULE).to(args.device), torch.randn(x0.shape).to(args.device)
            values.append(v_loss(average, SCHEDULE, x0, t, noise, label).mean().item())
        return "Weighted loss {:.4f} on training images, {:.4f} on held-out ones.".format(*values)

    settings = run("denoiser", args, rate=1e-3, decay=0.999)
    average, hours = fit(network, loss, settings, note)
    finish(
        average,
        "denoiser",
        settings,
        hours,
        args,
        title="digits: denoiser",
        about=(
            "A small U-Net that draws 8x8 handwritten digits by class. Predicts v on the cosine schedule.\n"
            f"Labels 0-9, and {NULL} for none, which replaced {drop:.0%} of the labels in training; min-SNR-5 weights."
        ),
        measured=measure(average, args) + "\n\n" + note(average),
    )


MAKERS = {
    "data": make_data,
    "scorer": train_scorer,
    "judge": train_judge,
    "noisy": train_noisy,
    "denoiser": train_denoiser,
}


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=["all", *MAKERS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="training steps, instead of each model's own number")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=digits.WEIGHTS, help="where the data and model folders go")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoints")
    parser.add_argument("--checkpoints", type=Path, default=here / "checkpoints")
    parser.add_argument("--picture", type=Path, help="PNG to draw samples to, one for each CFG weight")
    args = parser.parse_args()
    for what in MAKERS if args.what == "all" else [args.what]:
        MAKERS[what](args)


if __name__ == "__main__":
    try:
        main()
    except SymguideError as error:
        sys.exit(f"error: {error}")
