"""Model cards: what every weight file says of itself."""

import argparse
import os

import torch
from pool import POOL
from torch import nn

CARD = """# {title}

{about}

- **Data:** {data}
- **Made by:** `{command}`
- **Seed:** {seed}; **steps:** {steps}; **wall-clock time:** {hours:.2f} hours on {machine}; torch {torch}.
- **Size:** {parameters:,} parameters, stored in {stored}.

## Measured

{measured}
"""


def card(network: nn.Module, device: str, *, stored: str = "float32", **words: object) -> str:
    """The text of a card; `words` are those of CARD that the network and the machine do not say."""
    return CARD.format(
        stored=stored,
        machine="one GPU" if device != "cpu" else f"{os.cpu_count()} CPU cores",
        torch=torch.__version__.split("+")[0],
        parameters=sum(p.numel() for p in network.parameters()),
        **words,
    )


def command(what: str, args: argparse.Namespace) -> str:
    """The command that makes a model of scenes again: with all options that its weights depend on."""
    pictures = None if args.pictures == POOL else args.pictures
    options = {"seed": args.seed, "steps": args.steps, "pictures": pictures}
    return f"python training/scenes.py {what}" + "".join(f" --{k} {v}" for k, v in options.items() if v is not None)
