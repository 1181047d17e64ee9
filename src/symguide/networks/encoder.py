"""Image-text encoders: a picture and a caption as vectors that point the same way where they belong together."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import unknown
from symguide.networks.attention import TokenBlock
from symguide.networks.classifier import ConvClassifier, ResidualClassifier
from symguide.networks.saveable import saveable


class Reader(nn.Module):
    """A small transformer over the words of a caption: (B, length) tokens -> (B, length, width).

    Args:
        words: size of the vocabulary; token 0 is "no word".
        length: tokens of a caption.
        width: of the tokens that come out.
        depth: transformer blocks.
        heads: attention heads.
    """

    def __init__(self, words: int = 32, length: int = 16, width: int = 96, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.word = nn.Embedding(words, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(TokenBlock(width, heads) for _ in range(depth)), nn.LayerNorm(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.blocks(self.word(tokens) + self.place)


class RecurrentReader(nn.Module):
    """A gated recurrent network over the words of a caption, in both directions: (B, length) -> (B, length, width).

    Args:
        words: size of the vocabulary; token 0 is "no word".
        width: of the tokens that come out; even.
    """

    def __init__(self, words: int = 32, width: int = 96) -> None:
        super().__init__()
        self.word = nn.Embedding(words, width)
        self.recurrent = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.recurrent(self.word(tokens))[0]


IMAGES: dict[str, type[nn.Module]] = {c.__name__: c for c in (ConvClassifier, ResidualClassifier)}
TEXTS: dict[str, type[nn.Module]] = {c.__name__: c for c in (Reader, RecurrentReader)}


@saveable
class TwinEncoder(nn.Module):
    """A small CLIP: pictures and captions to vectors of one space, compared by their cosine.

    Args:
        image: a network of IMAGES, whose logits are the picture's vector.
        image_arguments: of that network; its `classes` is the width of the space.
        text: a network of TEXTS; the mean of its tokens, through a linear layer, is the caption's vector.
        text_arguments: of that network; must name `width`.

    Raises:
        ConfigError: for an unknown network.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2103.00020.
    """

    def __init__(
        self, image: str, image_arguments: Mapping[str, Any], text: str, text_arguments: Mapping[str, Any]
    ) -> None:
        super().__init__()
        if image not in IMAGES:
            raise unknown("image network", image, IMAGES)
        if text not in TEXTS:
            raise unknown("text network", text, TEXTS)
        self.picture, self.reader = IMAGES[image](**image_arguments), TEXTS[text](**text_arguments)
        self.project = nn.Linear(text_arguments["width"], image_arguments["classes"])
        self.temperature = nn.Parameter(torch.tensor(2.5))
        """Logarithm of the factor on cosines in training."""

    def image(self, x: Tensor) -> Tensor:
        """Pictures' vectors, (B, C, H, W) -> (B, classes), of any length."""
        return self.picture(x)

    def text(self, tokens: Tensor) -> Tensor:
        """Captions' vectors, (M, length) integers -> (M, classes), of any length."""
        return self.project(self.reader(tokens).mean(dim=1))

    def compare(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Cosine of every picture's vector (B, classes) with every caption, times exp(temperature), (B, M)."""
        image, text = (nn.functional.normalize(v, dim=1) for v in (images, self.text(tokens)))
        return self.temperature.exp() * image @ text.T

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """As `compare`, of pictures (B, C, H, W)."""
        return self.compare(self.image(x), tokens)
