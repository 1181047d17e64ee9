"""Scorers and judges that stand on a pretrained network of the user's own install: a model folder holds the head alone.

The folder's config.json names the network, which is read from its package when the folder is loaded; see
`symguide.encoders.efficientnet`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.encoders.efficientnet import WIDTH, EfficientNetLite
from symguide.errors import ConfigError
from symguide.networks import saveable

SIDE = 96
"""That pictures of 32 or 64 pixels are enlarged to. On one core Lite0 and its gradient take 0.34 s for 32 pictures,
about as long as the emoji model and its gradient; with 128 they would take 0.62 s and with 160 1.02 s. Of 70 Noto
drawings that ImageNet has a class for it reads 21, 26 and 29 right among its first five."""


class Standing(nn.Module):
    """A network that stands on a pretrained one, which is no part of its state.

    Args:
        body: the pretrained network's name, of `symguide.encoders.efficientnet.PACKAGES`.
        side: that it enlarges pictures to, a multiple of 32.

    Raises:
        ConfigError: for another name. WeightsError: where its package is not installed.
    """

    def __init__(self, body: str, side: int) -> None:
        super().__init__()
        self.stands_on, self.body = (body, side), EfficientNetLite.installed(body, side)

    def of(self, maps: list[Tensor], last: Tensor) -> Tensor:
        """What it says of pictures that its pretrained network made these of: its maps and the last one."""
        raise NotImplementedError

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Of the head alone."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        for name in [name for name in state if name.startswith(f"{kwargs.get('prefix', '')}body.")]:
            del state[name]
        return state


@saveable
class PretrainedClassifier(Standing):
    """The pretrained network itself: its logits, its features, and the maps that styles are compared by."""

    def __init__(self, body: str = "efficientnet-lite0", side: int = SIDE) -> None:
        super().__init__(body, side)

    def maps(self, x: Tensor) -> list[Tensor]:
        """What stages end with, finest first: (B, C_l, h_l, h_l), h_l = side / 2, / 4, / 8 and / 16."""
        return self.body.maps(x)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1280)."""
        return self.body.features(x)

    def of(self, maps: list[Tensor], last: Tensor) -> Tensor:
        """The features."""
        return last.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ImageNet's classes, (B, 3, H, W) -> (B, 1000)."""
        return self.body(x)


class Embedder(Standing):
    """Pictures as vectors in a space that sentences have vectors in already."""

    def read(self, last: Tensor) -> Tensor:
        """The pretrained network's last map (B, 1280, h, h) -> (B, width), of any length."""
        raise NotImplementedError

    def of(self, maps: list[Tensor], last: Tensor) -> Tensor:
        """The vectors, of length 1."""
        return F.normalize(self.read(last), dim=1)

    def image(self, x: Tensor) -> Tensor:
        """Pictures' vectors of length 1, (B, 3, H, W) -> (B, width)."""
        return self.of([], self.body.last(x))

    def text(self, vectors: Tensor) -> Tensor:
        """Sentences' vectors (M, width), of length 1."""
        return F.normalize(vectors, dim=1)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Cosine of every picture with every sentence, (B, M)."""
        return self.image(x) @ self.text(vectors).T


@saveable
class MeanEmbedder(Embedder):
    """Reads the last map's mean over all places, through one hidden layer.

    Args:
        body, side: as of `Standing`.
        width: of the vectors.
        hidden: of the layer.
        dropout: rate before each linear layer while training.
    """

    def __init__(
        self,
        body: str = "efficientnet-lite0",
        side: int = SIDE,
        width: int = 384,
        hidden: int = 768,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(body, side)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(WIDTH, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )

    def read(self, last: Tensor) -> Tensor:
        return self.head(last.mean(dim=(2, 3)))


@saveable
class AttentiveEmbedder(Embedder):
    """Looks at places of the last map, each head at those it likes, and reads what the heads saw.

    Args:
        body, side: as of `Standing`.
        width: of the vectors.
        heads: each with a weight for every place, softmax over places of a linear score.
        hidden: what the heads see, side by side; a multiple of their number.
        dropout: rate before the last layer while training.

    Raises:
        ConfigError: where heads do not divide hidden.
    """

    def __init__(
        self,
        body: str = "efficientnet-lite2",
        side: int = SIDE,
        width: int = 384,
        heads: int = 8,
        hidden: int = 768,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(body, side)
        if hidden % heads:
            raise ConfigError(f"heads ({heads}) must divide hidden ({hidden})")
        self.score = nn.Linear(WIDTH, heads)
        self.value = nn.Parameter(torch.randn(heads, WIDTH, hidden // heads) / WIDTH**0.5)
        self.head = nn.Sequential(nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))

    def read(self, last: Tensor) -> Tensor:
        places = last.flatten(2).transpose(1, 2)
        weight = self.score(places).softmax(dim=1)
        seen = weight.transpose(1, 2) @ places  # (B, heads, 1280)
        return self.head(torch.einsum("bhw,hwc->bhc", seen, self.value).flatten(1))


@saveable
class NameReader(Standing):
    """A classifier on the last map's mean, through one hidden layer; its logits are cosines times a factor.

    Args:
        body, side: as of `Standing`.
        classes: number of logits.
        hidden: of the layer.
        factor: on cosines.
        dropout: rate before linear layers while training.
    """

    def __init__(
        self,
        body: str = "efficientnet-lite2",
        side: int = SIDE,
        classes: int = 1594,
        hidden: int = 512,
        factor: float = 20.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(body, side)
        self.factor = factor
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(WIDTH, hidden), nn.SiLU(), nn.Dropout(dropout))
        self.names = nn.Parameter(torch.randn(classes, hidden) / hidden**0.5)

    def read(self, last: Tensor) -> Tensor:
        """The pretrained network's last map (B, 1280, h, h) -> logits."""
        seen = self.head(last.mean(dim=(2, 3)))
        return self.factor * F.normalize(seen, dim=1) @ F.normalize(self.names, dim=1).T

    def of(self, maps: list[Tensor], last: Tensor) -> Tensor:
        """The logits."""
        return self.read(last)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, 3, H, W) -> (B, classes)."""
        return self.read(self.body.last(x))


@saveable
class StyleReader(Standing):
    """A classifier of how pictures are drawn: it reads means and deviations of early maps, and not what is where.

    Each of them counts in units of its own spread over training pictures: `centre` and `spread`, which training sets.

    Args:
        body, side: as of `Standing`.
        classes: number of logits.
        hidden: of the layer between.
        dropout: rate before linear layers while training.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        body: str = "efficientnet-lite2",
        side: int = SIDE,
        classes: int = 5,
        hidden: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(body, side)
        widths = sum(self.body.widths)
        self.register_buffer("centre", torch.zeros(2 * widths))
        self.register_buffer("spread", torch.ones(2 * widths))
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * widths, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def read(self, seen: Tensor) -> Tensor:
        """What `statistics` made of maps -> logits."""
        return self.head((seen - self.centre) / self.spread)

    def of(self, maps: list[Tensor], last: Tensor) -> Tensor:
        """The logits."""
        return self.read(statistics(maps))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, 3, H, W) -> (B, classes)."""
        return self.read(statistics(self.body.maps(x)))


def statistics(maps: list[Tensor]) -> Tensor:
    """Means over all places of every channel of all maps, then the logs of their deviations; (B, twice their sum)."""
    means = [each.mean(dim=(2, 3)) for each in maps]
    spreads = [each.var(dim=(2, 3), unbiased=False).add(1e-3).log() / 2 for each in maps]
    return torch.cat(means + spreads, dim=1)
