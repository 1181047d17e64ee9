"""The scenes world's one-call model: the consistency function of the `denoiser`, distilled."""

import argparse
from dataclasses import dataclass

import safetensors.torch
import torch
from card import card, command
from fit import Run, begin, fit
from scenes_denoisers import KINDS, caption_unet, denoiser, lines, settings
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import symguide as sg
from symguide import networks
from symguide.evaluation.quality import Evaluation, plain
from symguide.files import write
from symguide.per_sample import expand
from symguide.report import grid, png
from symguide.schedule import Schedule
from symguide.worlds import scenes
from symguide.worlds.load import judge

KIND = KINDS["denoiser"]
WAYS, CHUNK = 3072, 64
STEPS, WEIGHT = 6, 3.0
"""Of the teacher: steps of dpmpp_2m, and its classifier-free guidance where there is a caption."""
PLAIN = 5  # one chunk in so many has no captions
BATCH = 32
HARD = 0.5  # the share of the batch that starts from noise alone
CALLS = (1, 2, 4)  # that the card measures by
SAMPLES = 1000
ABOUT = f"""Draws scenes from captions in one call: the consistency function of `denoiser` under classifier-free
guidance of weight {WEIGHT:g}, unguided where there is no caption. f(x_t, t), the clean estimate of a v prediction
on the cosine schedule, is where the probability-flow ODE through x_t ends. To be used without guidance (weight 1).
Distilled directly: the targets are the ends of the teacher's own ways ({STEPS} steps of dpmpp_2m), not what the model
says at a neighbouring level. Distances are taken in pixels and in the feature maps of `scorers/classifier`.
Started from the weights of `denoiser`."""


@dataclass(frozen=True)
class Ways:
    """The teacher's ways from noise to a picture.

    Attributes:
        states: x at every time, the picture last, (N, STEPS + 1, 3, 32, 32), float16.
        caption: (N, LENGTH).
        times: of the states but the last, (STEPS,).
    """

    states: Tensor
    caption: Tensor
    times: Tensor

    def __len__(self) -> int:
        return len(self.states)


def ways(args: argparse.Namespace) -> Ways:
    """As many ways as asked for, in chunks that are read where they have been made before."""
    teacher = sg.load(args.out / "denoiser", args.device)
    teacher.network.to(memory_format=torch.channels_last)
    parts = []
    for number in tqdm(range(-(-min(args.pictures, WAYS) // CHUNK)), desc="ways", mininterval=5.0):
        path = args.checkpoints / f"scenes-ways-{number}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, safetensors.torch.save(chunk(teacher, number)))
        parts.append(safetensors.torch.load_file(path))
    return Ways(*(torch.cat([part[k] for part in parts]) for k in ("states", "caption")), parts[0]["times"])


def chunk(teacher: sg.Denoiser, number: int) -> dict[str, Tensor]:
    """Some ways along the teacher's probability-flow ODE, from noises and captions of their own."""
    indices = range(number * CHUNK, (number + 1) * CHUNK)
    told = number % PLAIN != 0
    caption = scenes.tokens(scenes.captions(scenes.draw("train", indices)) if told else [""] * CHUNK)
    drawn = sg.sample(
        teacher,
        indices=indices,
        steps=STEPS,
        condition={"caption": caption},
        solver="dpmpp_2m",
        grid="flow",
        eta=0.0,
        prediction=sg.CFG(WEIGHT) if told else None,
        return_trajectory=True,
    )
    assert drawn.trajectory is not None
    states = drawn.trajectory.transpose(0, 1).half().cpu().contiguous()
    return {"states": states, "caption": caption, "times": torch.tensor([line.t for line in drawn.trace])}


def consistency_loss(
    network: nn.Module, scorer: nn.Module, schedule: Schedule, x: Tensor, t: Tensor, caption: Tensor, end: Tensor
) -> Tensor:
    """Distance of the clean estimate f(x_t, t) = alpha x_t - sigma v(x_t, t) to where the way through x_t ends, (B,).

        2 (sqrt(|f - x_0|² / d + c²) - c) + sum over levels l of mean |u_l(f) - u_l(x_0)|²,    c = 0.00054

    with u_l the scorer's feature maps, of unit length over the channels at every place. f is x itself at t = 0, as a
    consistency function must be: c_skip = alpha and c_out = -sigma.

    Source: Song et al., "Consistency Models", 2303.01469 (what f is); Song & Dhariwal, "Improved Techniques for
    Training Consistency Models", 2310.14189, section 3.3 (pseudo-Huber metric); Zhang et al., "The Unreasonable
    Effectiveness of Deep Features as a Perceptual Metric", 1801.03924 (distances of unit features).
    """
    alpha, sigma = expand(schedule.alpha(t), x), expand(schedule.sigma(t), x)
    made = alpha * x - sigma * network(x, schedule.timestep(t), caption)
    loss = 2 * (((made - end).square().flatten(1).mean(1) + 0.00054**2).sqrt() - 0.00054)
    with torch.no_grad():
        wanted = scorer.maps(end)
    for mine, other in zip(scorer.maps(made), wanted, strict=True):
        loss = loss + (F.normalize(mine) - F.normalize(other)).square().sum(1).mean(dim=(1, 2))
    return loss


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + 300)
    data = ways(args)
    network: nn.Module = caption_unet(in_channels=KIND.shape[0], patch=KIND.patch, channels=KIND.channels)
    begin(network, networks.load(args.out / "denoiser")[0])
    network = network.to(args.device, memory_format=torch.channels_last)
    scorer = networks.load(args.out / "scorers" / "classifier", args.device)[0]
    checkpoint = args.checkpoints / "scenes-consistency.safetensors"

    def loss(step: int) -> Tensor:
        rows = torch.randint(len(data), (BATCH,))
        level = torch.randint(1, STEPS, (BATCH,)) * (torch.rand(BATCH) > HARD)
        picked = (
            data.states[rows, level].float(),
            data.times[level],
            data.caption[rows],
            data.states[rows, -1].float(),
        )
        x, t, caption, end = (z.to(args.device) for z in picked)
        return consistency_loss(network, scorer, KIND.schedule, x, t, caption, end).mean()

    def sheet(average: nn.Module) -> str:
        told = {"caption": scenes.tokens(plain(64).texts)}
        made = sg.sample(denoiser(average, KIND, args.out), batch=64, steps=1, condition=told).samples
        write(checkpoint.with_suffix(".png"), png(grid(made, columns=16, cell=64)))
        return f"one-call pictures in {checkpoint.with_suffix('.png').name}"

    steps = args.steps or 1400
    run = Run(steps, 1e-3, args.seed + 300, checkpoint, args.resume, decay=0.998, minutes=args.minutes, every=250)
    average, hours = fit(network, loss, run, sheet)
    average = average.half().float()  # as it is stored, so that what is measured is shipped
    text = card(
        average,
        args.device,
        title="scenes: consistency",
        about=ABOUT,
        data=f'{len(data):,} ways of the teacher with captions of the split "train" of `symguide.worlds.scenes` '
        f"\n  (seed 0), one in {PLAIN} without; no pictures.",
        command=command("consistency", args),
        seed=args.seed,
        steps=steps,
        hours=hours,
        measured=measured(average, args),
        stored="float16",
    )
    networks.save(average, args.out / "consistency", card=text, dtype=torch.float16, denoiser=settings(KIND))
    print(text)


def measured(network: nn.Module, args: argparse.Namespace) -> str:
    """What the judges say of samples in each number of calls."""
    judges, parts = [judge("scenes", which, args.device) for which in ("classifier", "segmenter")], []
    for calls in CALLS:
        evaluation = Evaluation(
            denoiser(network, KIND, args.out), *judges, weight=1.0, steps=calls, solver="ddim", eta=1.0, progress=True
        )
        rows = lines(evaluation.figures(args.samples or SAMPLES))
        parts.append(f"{calls} call{'s' * (calls > 1)}:\n\n{rows}")
    return (
        "By the judges (`judges/classifier`; two objects also `judges/segmenter`), "
        f"{args.samples or SAMPLES:,} samples for each line,\nancestral steps of ddim, no classifier-free guidance; "
        "1 is best, and 0 for the Frechet distance.\n\n" + "\n\n".join(parts)
    )
