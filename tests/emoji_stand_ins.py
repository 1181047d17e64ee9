"""A small emoji world that needs no packages: drawings of one colour each, and networks that see the mean colour."""

import torch
from torch import nn

import symguide as sg
from symguide.evaluation.emoji import Judges
from symguide.evaluation.emoji_album import SETS, Album
from symguide.networks import VectorUNet
from symguide.schedule import VP
from symguide.worlds.emoji.names import STYLES, Emoji

COUNT = 12
UNSEEN = {1: STYLES, 6: STYLES, 3: ("twemoji",), 8: ("fluent",), 9: ("noto",)}
"""Characters 1 and 6 were never trained, and one drawing each of 3, 8 and 9."""


def album(count=COUNT, noise=0.0):
    """Characters of two groups; character c in style s has a colour of its own, emojione draws the first half.

    With noise, each drawing has a pattern on its colour.
    """
    characters = tuple(Emoji(f"{c:x}", f"thing {c}", (), c % 2, UNSEEN.get(c, ())) for c in range(count))
    generator = torch.Generator().manual_seed(0)
    vectors = nn.functional.normalize(torch.randn(count, 384, generator=generator, dtype=torch.float32), dim=1)
    layers = {}
    for s, style in enumerate(SETS):
        colours = torch.stack([colour(c, s) for c in range(count)])[:, :, None, None].expand(-1, -1, 64, 64)
        pattern = torch.randn(count, 3, 32, 32, generator=generator, dtype=torch.float32)
        colours = colours + noise * pattern.repeat_interleave(2, 2).repeat_interleave(2, 3)
        opaque = torch.full((count, 1, 64, 64), 255.0)
        layers[style] = torch.cat([colours.clamp(0, 255).round(), opaque], dim=1).to(torch.uint8)
    layers["emojione"][count // 2 :] = 0
    return Album(characters, vectors, layers)


def colour(character, style):
    """Red says which character, green which style, in 0..255."""
    return torch.tensor([20.0 * character + 5, 50.0 * style + 10, 128.0])


class Seen(nn.Module):
    """What a network of the world answers, from the mean colour of a picture; a scorer sees it bent."""

    def __init__(self, kind, vectors, bent=False):
        super().__init__()
        self.kind, self.bent, self.stands_on, self.calls = kind, bent, "the mean colour", 0
        self.register_buffer("vectors", vectors)
        self.register_buffer("spread", torch.randn(6, 384, generator=torch.Generator().manual_seed(1 + bent)))

    @property
    def body(self):
        return self

    @body.setter
    def body(self, shared):
        assert shared.stands_on == self.stands_on

    def maps_and_last(self, x):
        self.calls += 1
        return self.maps(x), x

    def of(self, maps, last):
        return {"classifier": self.features, "clip": self.image}.get(self.kind, self)(last)

    def features(self, x):
        mean = x.mean(dim=(2, 3))
        return torch.cat([mean, mean.square() * (2 if self.bent else 1)], dim=1) + 1

    def maps(self, x):
        return [x + 2, (x[:, :2] + 1.5).square() * (2 if self.bent else 1)]

    def image(self, x):
        return nn.functional.normalize(self.features(x) @ self.spread.to(x.dtype), dim=1)

    def text(self, vectors):
        return vectors

    def forward(self, x):
        red, green, _ = ((x.mean(dim=(2, 3)) + 1) * 127.5).unbind(1)
        if self.kind == "name":
            return -(red[:, None] - 20 * torch.arange(len(self.vectors)) - 5).abs()
        return -(green[:, None] - 50 * torch.arange(len(SETS)) - 10).abs()


def network():
    """A tiny network of random weights: a new one's output is 0, whatever it is told."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        made = VectorUNet(channels=(16, 16), attention=(False, True)).eval()
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return made


def model():
    """A model of that network."""
    null = {"text": [[0.0] * 384], "style": 3}
    return sg.Denoiser(network(), VP.cosine(), "v", shape=(3, 32, 32), null=null)


def judges(book, kinds=("name", "style", "clip", "classifier"), missing=None):
    scorer = Seen("classifier", book.vectors, bent=True) if "classifier" in kinds else None
    return Judges({kind: Seen(kind, book.vectors) for kind in kinds}, scorer, missing or {})


def replace_world(monkeypatch, book, *modules):
    """In these modules the world's scorers, judges and album are stand-ins."""
    for module in modules:
        monkeypatch.setattr(module, "scorer", lambda model, kind, *_, **__: Seen(kind, book.vectors, bent=True))
        monkeypatch.setattr(module, "judge", lambda model, kind, *_, **__: Seen(kind, book.vectors))
        if hasattr(module, "album"):
            monkeypatch.setattr(module, "album", lambda: book)
