"""Remake the `scenes` world's weights, each with a model card of what was measured.

    python training/scenes.py WHAT... [--seed 0] [--steps N] [--device cpu] [--resume] [--minutes 9]

WHAT: scorers/KIND and judges/KIND, where KIND is classifier, clip, identity, aesthetic or segmenter; denoiser, flow,
autoencoder, latent, weak, consistency, generator and gan; and eps, which is no part of the world but of a study.
Checkpoints go to training/checkpoints/; --resume continues from them, or measures and saves again what is finished.
With --minutes a training ends after so many minutes with a checkpoint, so that it can be done in legs.
With --keep 0.03 0.25 the average after 3 % and after 25 % of a denoiser's steps is kept as a model folder beside them.
"""

import argparse

import options
import scenes_autoencoder
import scenes_consistency
import scenes_denoisers
import scenes_gan
import scenes_generator
import torch
from card import card, command
from fit import Run, fit
from pool import POOL, data_words, pool
from scenes_scorers import KINDS, VIEWS, Student, start
from torch import Tensor, nn

from symguide import networks
from symguide.worlds import scenes

HELD_OUT, COMBINATIONS = 4096, 2048


def train_network(role: str, kind: str, args: argparse.Namespace) -> None:
    """Train the scorer or the judge of a kind on augmented views of clean pictures; measure on unseen ones."""
    settings, place = KINDS[kind], list(KINDS).index(kind) * 2 + (role == "judge")
    torch.manual_seed(args.seed + 100 + place)
    network = (settings.judge if role == "judge" else settings.scorer)()
    if settings.start is not None:
        start(network, networks.load(args.out / f"{role}s" / settings.start)[0])
    student = Student(network, settings.objects).to(args.device, memory_format=torch.channels_last)
    data, view = pool("train", args.pictures, settings.side, 0, args.checkpoints), VIEWS[role]
    splits = {
        split: (scenes.render(truth, settings.side, torch.float32), truth)
        for split, truth in (
            ("held out", scenes.draw("held_out", range(args.samples or HELD_OUT))),
            ("held-out combinations", scenes.draw("combinations", range(args.samples or COMBINATIONS))),
        )
    }

    def loss(step: int) -> Tensor:
        rows = torch.randint(len(data), (settings.batch,))
        x, truth = view(data.pictures(rows)).to(args.device), scenes.draw("train", rows)
        out, mask_loss = student(x, truth)
        return settings.loss(student, out, truth, data, rows) + 4 * mask_loss

    @torch.no_grad()
    def note(average: nn.Module) -> str:
        return settings.table(average.network, {split: (x[:512], truth[:512]) for split, (x, truth) in splits.items()})

    steps = args.steps or (role == "judge" and settings.judge_steps) or settings.steps
    checkpoint = args.checkpoints / f"scenes-{role}-{kind}.safetensors"
    run = Run(steps, 2e-3, args.seed + 100 + place, checkpoint, args.resume, decay=0.998, minutes=args.minutes)
    whole, hours = fit(student, loss, run, note)
    average = whole.network
    with torch.no_grad():
        measured = settings.table(average, splits)
    started = f"\nStarted from the body of `{role}s/{settings.start}`." if settings.start else ""
    use = "guide with" if role == "scorer" else "measure with: guidance never sees it"
    text = card(
        average,
        args.device,
        title=f"scenes: {role}, {kind}",
        about=f"{settings.about} Trained on clean pictures only, to {use}." + started,
        data=f"{data_words(args.pictures, settings.side)} Augmented by `{view.__name__}` of training/views.py.",
        command=command(f"{role}s/{kind}", args),
        seed=args.seed,
        steps=steps,
        hours=hours,
        measured=f"{measured}\n\nOn {args.samples or HELD_OUT:,} held-out pictures, and on "
        f"{args.samples or COMBINATIONS:,} whose object has a shape "
        "and a colour that no\ntraining picture shows together; they chose neither settings nor the moment to stop.",
    )
    networks.save(average, args.out / f"{role}s" / kind, card=text)
    print(text)


MAKERS = {
    f"{role}s/{kind}": lambda args, role=role, kind=kind: train_network(role, kind, args)
    for kind in KINDS
    for role in ("scorer", "judge")
}
MAKERS["autoencoder"] = scenes_autoencoder.train
MAKERS |= {name: lambda args, name=name: scenes_denoisers.train(name, args) for name in scenes_denoisers.KINDS}
MAKERS |= {"consistency": scenes_consistency.train, "generator": scenes_generator.train, "gan": scenes_gan.train}


def main() -> None:
    parser = options.parser(__doc__, MAKERS, scenes.WEIGHTS)
    parser.add_argument("--pictures", type=int, default=POOL, help="training pictures; fewer to see that it runs")
    parser.add_argument("--keep", type=float, nargs="+", default=[], metavar="PART", help="keep a denoiser on its way")
    args = parser.parse_args()
    kinds = scenes_denoisers.KINDS
    if args.keep and set(args.what) - kinds.keys():
        parser.error(f"--keep is for {', '.join(kinds)}")
    if args.threads:
        torch.set_num_threads(args.threads)
    shipped = [what for what in MAKERS if what not in kinds or kinds[what].shipped]
    for what in shipped if "all" in args.what else args.what:
        MAKERS[what](args)


if __name__ == "__main__":
    options.run(main)
