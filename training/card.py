"""Model cards: what every weight file says of itself."""

import os

import torch
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
