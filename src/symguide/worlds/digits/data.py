"""The 1,797 handwritten digits that scikit-learn ships, with a fixed split.

Within every class, in the data's order, each fifth image is held out: 1,442 to train on, 355 held out. The digits are
the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,
doi 10.24432/C50P49, CC BY 4.0): bitmaps of 32x32, where every pixel of the 8x8 image counts (0..16) the ink of a
4x4 field. All digits of a writer stand together in that order, so both parts hold the same 13 writers.
"""

from functools import lru_cache

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from symguide.errors import WeightsError, unknown
from symguide.worlds import WEIGHTS, installed

DATA = WEIGHTS / "digits" / "data.safetensors"
SPLITS = ("train", "held_out", "all")


@lru_cache(maxsize=1)
def _read() -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(installed(DATA).read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"cannot read {DATA} ({error}): reinstall symguide-worlds, or run training/digits.py data"
        ) from error


def _chosen(split: str) -> Tensor:
    """Indices of the split's images, in the data's order."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    labels = _read()["labels"].long()
    if split == "all":
        return torch.arange(len(labels))
    rank = torch.nn.functional.one_hot(labels).cumsum(0).gather(1, labels[:, None]).squeeze(1) - 1
    held_out = rank % 5 == 4
    return torch.nonzero(held_out if split == "held_out" else ~held_out).squeeze(1)


def images(split: str = "train") -> Tensor:
    """The images in [-1, 1], (N, 1, 8, 8), in torch's default dtype: -1 is paper and 1 is ink.

    Raises:
        ConfigError: if split is not "train", "held_out" or "all".

    >>> images("held_out").shape
    torch.Size([355, 1, 8, 8])
    """
    return _read()["images"][_chosen(split)].to(torch.get_default_dtype()).unsqueeze(1) / 8 - 1


def labels(split: str = "train") -> Tensor:
    """The digit that each image shows, (N,) integers 0..9, in the order of `images`."""
    return _read()["labels"][_chosen(split)].long()
