"""Faces, for a recogniser of your own: the crop, size and units that it was trained with."""

from collections.abc import Sequence

from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.objectives.preprocess import Preprocess

Box = tuple[float, float, float, float]

ALL: Box = (0.0, 0.0, 1.0, 1.0)
FFHQ: Box = (35 / 256, 32 / 256, 223 / 256, 220 / 256)
"""The face in pictures aligned as those of FFHQ and CelebA-HQ, for recognisers trained on tight crops: where
pixel2style2pixel and the guidance codes that follow it cut."""


class FaceEmbedder(nn.Module):
    """A face recogniser with its own crop, size and normalisation, for `Identity`: network(((x + 1) / 2 - mean) / std).

    Faces are not looked for: samples must be aligned, as those of a model of faces are, and crop says where in them the
    face is. No weights come with it.

        arcface = FaceEmbedder(network, size=112, mean=0.5, std=0.5, crop=FFHQ)
        Identity(reference, arcface)

    Args:
        network: faces (B, 3, size, size) -> embeddings (B, w), such as an ArcFace network.
        size: of its pictures, a side or (height, width).
        mean, std: of its training pictures in [0, 1], one number or one for each channel; 0.5 and 0.5 mean [-1, 1].
        crop: (top, left, bottom, right) as shares of a picture, `FFHQ` or your own.

    Raises:
        ConfigError: for a crop that is no part of the picture, or a network that is no module.

    Cost: a bilinear, antialiased resize and one evaluation of the network.

    Source: Deng et al., "ArcFace", 1801.07698; the crop from Richardson et al., "Encoding in Style", 2008.00951.
    """

    def __init__(
        self,
        network: nn.Module,
        size: int | tuple[int, int],
        mean: float | Sequence[float],
        std: float | Sequence[float],
        crop: Box = ALL,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ConfigError(f"a face recogniser is a torch.nn.Module, not {type(network).__name__}")
        top, left, bottom, right = crop
        if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
            raise ConfigError(f"a crop is (top, left, bottom, right) as shares from 0 to 1, not {crop}")
        sides = (size, size) if isinstance(size, int) else size
        means, stds = ((value,) * 3 if isinstance(value, int | float) else value for value in (mean, std))
        self.network, self.crop = network, crop
        self.preprocess = Preprocess(means, stds, sides, "bilinear")

    def forward(self, x: Tensor) -> Tensor:
        """Samples (B, 3, H, W) in [-1, 1] -> embeddings (B, w)."""
        height, width = x.shape[-2:]
        top, left, bottom, right = self.crop
        rows, columns = (round(top * height), round(bottom * height)), (round(left * width), round(right * width))
        embedding: Tensor = self.network(self.preprocess(x[..., slice(*rows), slice(*columns)]))
        return embedding
