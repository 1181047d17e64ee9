"""Pictures and captions to train on, drawn once and kept as bytes."""

from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from symguide.files import write
from symguide.worlds import scenes

CHUNK = 2048
POOL = 131_072


@dataclass(frozen=True)
class Pool:
    """Pictures as bytes (N, 3, side, side), and their captions' tokens (N, LENGTH)."""

    pixels: Tensor
    caption: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def side(self) -> int:
        return self.pixels.shape[-1]

    def pictures(self, rows: Tensor) -> Tensor:
        """Float pictures in [-1, 1] of these rows."""
        return self.pixels[rows].float() / 127.5 - 1


def data_words(count: int, side: int = 32) -> str:
    """What model cards say of the training pictures."""
    return (
        f'pictures 0 to {count - 1:,} of the split "train" of `symguide.worlds.scenes`, drawn with seed 0 and\n'
        f"  {side} pixels to a side, in 8 bits a channel, and their captions."
    )


def pool(split: str, count: int, side: int, seed: int, folder: Path) -> Pool:
    """The first `count` pictures of a split, read from the folder where they have been drawn before."""
    path = folder / f"scenes-{split}-{count}-{side}-{seed}.safetensors"
    if not path.exists():
        pixels, caption = [], []
        for first in tqdm(range(0, count, CHUNK), desc=f"draw {split}", mininterval=5.0):
            drawn = scenes.draw(split, range(first, min(first + CHUNK, count)), seed)
            pixels.append(((scenes.render(drawn, side, torch.float32) + 1) * 127.5).round().to(torch.uint8))
            caption.append(scenes.tokens(scenes.captions(drawn)))
        folder.mkdir(parents=True, exist_ok=True)
        write(path, safetensors.torch.save({"pixels": torch.cat(pixels), "caption": torch.cat(caption)}))
    tensors = safetensors.torch.load_file(path)
    return Pool(tensors["pixels"], tensors["caption"])
