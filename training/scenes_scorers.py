"""The scenes world's scorers and judges: what each is built of, its loss, and how it is measured."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pool import Pool
from torch import Tensor, nn
from views import judge_view, scorer_view

from symguide import networks
from symguide.worlds import scenes
from symguide.worlds.scenes import Scenes
from symguide.worlds.scenes.scene import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, TEXTURES

WORDS = len(scenes.VOCABULARY)
SINGLE = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "size": SIZES, "position": POSITIONS}
"""Heads that speak of the only object, and count where there is one."""
HEADS = {name: len(values) for name, values in SINGLE.items()} | {
    "count": 2,
    "background": len(BACKGROUNDS),
    "paints": len(COLOURS),
    "pairs": len(SHAPES) * len(COLOURS),
}
"""The last two are of several labels at once: the background's colours, and every (shape, colour) that is shown."""


def classifier_loss(network: nn.Module, x: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    logits = network.split(network(x))
    one = truth.count == 1
    loss = F.cross_entropy(logits["count"], truth.count - 1)
    loss = loss + F.cross_entropy(logits["background"], truth.background)
    for name in SINGLE:
        loss = loss + F.cross_entropy(logits[name][one], getattr(truth, name)[one, 0])
    loss = loss + 4 * F.binary_cross_entropy_with_logits(logits["paints"], truth.colours.float())
    return loss + 20 * F.binary_cross_entropy_with_logits(logits["pairs"], truth.pairs.float())


def classifier_table(network: nn.Module, splits: dict[str, tuple[Tensor, Scenes]]) -> str:
    names = [*SINGLE, "count", "background", "background's colours", "all (shape, colour)"]
    lines = ["| accuracy | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for split, (x, truth) in splits.items():
        logits = network.split(torch.cat([network(part) for part in x.split(512)]))
        one = truth.count == 1
        right = [(logits[name].argmax(1) == getattr(truth, name)[:, 0])[one] for name in SINGLE]
        right += [logits["count"].argmax(1) == truth.count - 1, logits["background"].argmax(1) == truth.background]
        right += [((logits["paints"] > 0) == truth.colours.bool()).all(1)]
        right += [((logits["pairs"] > 0) == truth.pairs.bool()).all(1)]
        lines.append(f"| {split} | " + " | ".join(f"{r.double().mean():.4f}" for r in right) + " |")
    return "\n".join(lines)


def clip_loss(network: nn.Module, x: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    """Symmetric cross-entropy over the batch; a fifth of the captions end before what they say of the background."""
    tokens, on = data.caption[rows], scenes.VOCABULARY.index("on")
    ends = ((tokens == on).cumsum(1) > 0) & (torch.rand(len(tokens), 1) < 0.2)
    logits = network(x, tokens.masked_fill(ends, 0))
    pairs = torch.arange(len(x))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def clip_table(network: nn.Module, splits: dict[str, tuple[Tensor, Scenes]]) -> str:
    lines = ["| right of 64 | picture to caption | caption to picture | plain caption to (shape, colour) |"]
    lines += ["| --- " * 4 + "|"]
    plain = scenes.tokens([f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS])
    for split, (x, truth) in splits.items():
        tokens = scenes.tokens(scenes.captions(truth))
        logits = [network(a, b) for a, b in zip(x.split(64), tokens.split(64), strict=True) if len(a) == 64]
        there, back = (torch.cat([m.argmax(d) == torch.arange(64) for m in logits]).double().mean() for d in (1, 0))
        one = truth.count == 1
        best = torch.cat([network(part, plain).argmax(1) for part in x[one].split(512)])
        named = (best == truth.shape[one, 0] * len(COLOURS) + truth.colour[one, 0]).double().mean()
        lines.append(f"| {split} | {there:.4f} | {back:.4f} | {named:.4f} |")
    return "\n".join(lines)


def identity_loss(network: nn.Module, x: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    """CosFace: cross-entropy over all objects of 16 (cos - 0.2 [the right one]) (Wang et al., 1801.09414)."""
    cosine = F.normalize(network(x), dim=1) @ F.normalize(network.objects, dim=1).T
    right = F.one_hot(truth.identity[:, 0], len(network.objects))
    loss = F.cross_entropy(16 * (cosine - 0.2 * right), truth.identity[:, 0], reduction="none")
    return loss[truth.count == 1].mean()


def identity_table(network: nn.Module, splits: dict[str, tuple[Tensor, Scenes]]) -> str:
    lines = ["| | nearest other picture shows the same object | cosine, same | cosine, other |", "| --- " * 4 + "|"]
    for split, (x, truth) in splits.items():
        one = truth.count == 1
        vectors = F.normalize(torch.cat([network(part) for part in x[one].split(512)]), dim=1)
        identity, cosine = truth.identity[one, 0], vectors @ vectors.T
        same = (identity[:, None] == identity).fill_diagonal_(False)
        near = identity[cosine.clone().fill_diagonal_(-2).argmax(1)] == identity
        other = ~(identity[:, None] == identity)
        lines.append(
            f"| {split} | {near.double().mean():.4f} | {cosine[same].mean():.3f} | {cosine[other].mean():.3f} |"
        )
    return "\n".join(lines)


def aesthetic_loss(network: nn.Module, x: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    return (network(x)[:, 0] - scenes.beauty(truth)).square().mean()


def aesthetic_table(network: nn.Module, splits: dict[str, tuple[Tensor, Scenes]]) -> str:
    lines = ["| | mean absolute error | explained variance | rule's own spread |", "| --- " * 4 + "|"]
    for split, (x, truth) in splits.items():
        score, rule = torch.cat([network(part)[:, 0] for part in x.split(512)]), scenes.beauty(truth)
        error = score - rule
        explained = 1 - (error.square().mean() / rule.var()).item()
        lines.append(f"| {split} | {error.abs().mean():.3f} | {explained:.4f} | {rule.std():.3f} |")
    return "\n".join(lines)


def segmenter_loss(network: nn.Module, x: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    return F.cross_entropy(network(x), scenes.masks(truth))


def segmenter_table(network: nn.Module, splits: dict[str, tuple[Tensor, Scenes]]) -> str:
    lines = ["| | right pixels | mean intersection over union of the shapes |", "| --- " * 3 + "|"]
    for split, (x, truth) in splits.items():
        found = torch.cat([network(part).argmax(1) for part in x.split(512)])
        mask, ratios = scenes.masks(truth), []
        for label in range(1, len(SHAPES) + 1):
            both = ((found == label) & (mask == label)).sum().item()
            ratios.append(both / max(((found == label) | (mask == label)).sum().item(), 1))
        right = (found == mask).double().mean()
        lines.append(f"| {split} | {right:.4f} | {sum(ratios) / len(ratios):.4f} |")
    return "\n".join(lines)


class Identity(nn.Module):
    """An encoder with a vector for every object beside it, which is thrown away after training."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.objects = nn.Parameter(torch.randn(len(SHAPES) * len(COLOURS) * len(TEXTURES), 64))

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


@dataclass(frozen=True)
class Kind:
    """A kind of scorer with its judge."""

    scorer: Callable[[], nn.Module]
    judge: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Tensor, Scenes, Pool, Tensor], Tensor]
    table: Callable[[nn.Module, dict[str, tuple[Tensor, Scenes]]], str]
    about: str
    steps: tuple[int, int]  # of scorer and judge
    batch: int = 64
    side: int = 32


def _conv(classes: int) -> dict[str, object]:
    return {"in_channels": 3, "size": 32, "channels": (16, 32, 64, 96), "classes": classes, "width": 64}


KINDS = {
    "classifier": Kind(
        lambda: networks.ConvClassifier(3, 32, (16, 48, 96, 128), width=128, dropout=0.1, heads=HEADS),
        lambda: networks.ResidualClassifier(3, (40, 80, 128), width=64, dropout=0.1, heads=HEADS),
        classifier_loss,
        classifier_table,
        "Reads every attribute of a scene. Its feature maps are what styles are compared by.",
        (2500, 2500),
    ),
    "clip": Kind(
        lambda: networks.TwinEncoder(
            "ConvClassifier", _conv(64), "Reader", {"words": WORDS, "length": scenes.LENGTH, "width": 64}
        ),
        lambda: networks.TwinEncoder(
            "ResidualClassifier", {"classes": 64, "width": 96}, "RecurrentReader", {"words": WORDS, "width": 64}
        ),
        clip_loss,
        clip_table,
        "A small CLIP: pictures and captions in one space.",
        (2500, 2500),
        batch=128,
    ),
    "identity": Kind(
        lambda: Identity(networks.ConvClassifier(**_conv(64))),
        lambda: Identity(networks.ResidualClassifier(classes=64, width=96)),
        identity_loss,
        identity_table,
        "The same object (shape, colour, texture) has the same direction, however it stands and whatever is behind it.",
        (2500, 2500),
    ),
    "aesthetic": Kind(
        lambda: networks.ConvClassifier(**_conv(1)),
        lambda: networks.ResidualClassifier(classes=1, width=64),
        aesthetic_loss,
        aesthetic_table,
        "Sees the rule of `symguide.worlds.scenes.beauty`, 0 to 10, in the picture alone.",
        (2000, 2000),
    ),
    "segmenter": Kind(
        lambda: networks.PyramidSegmenter(channels=(16, 32, 64)),
        lambda: networks.DilatedSegmenter(width=40),
        segmenter_loss,
        segmenter_table,
        "What every pixel shows: 0 the background, else 1 + index of the shape.",
        (1500, 1500),
    ),
}
VIEWS = {"scorer": scorer_view, "judge": judge_view}
