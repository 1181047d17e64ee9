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
"""The last two share their probability among the background's colours, and among every (shape, colour) shown."""


WIDTH = 64
"""Of embeddings."""


def shares(truth: Scenes) -> list[tuple[str, Tensor]]:
    """What the heads of several labels should say, 0 or 1 for each."""
    return [("paints", truth.colours), ("pairs", truth.pairs)]


def among(logits: Tensor, shown: Tensor) -> Tensor:
    """The labels of highest logits, as many as are shown: 0 or 1 for each."""
    rank = logits.argsort(1, descending=True).argsort(1)
    return (rank < shown.sum(1, keepdim=True)).to(shown.dtype)


def classifier_loss(student: "Student", out: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    logits = student.network.split(out)
    one = truth.count == 1
    loss = F.cross_entropy(logits["count"], truth.count - 1)
    loss = loss + F.cross_entropy(logits["background"], truth.background)
    for name in SINGLE:
        loss = loss + F.cross_entropy(logits[name][one], getattr(truth, name)[one, 0])
    for name, shown in shares(truth):
        loss = loss + F.cross_entropy(logits[name], shown / shown.sum(1, keepdim=True))
    return loss


def classifier_table(network: nn.Module, splits: dict[str, tuple[Tensor, Scenes]]) -> str:
    names = [*SINGLE, "count", "background", "background's colours", "all (shape, colour)"]
    lines = ["| accuracy | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for split, (x, truth) in splits.items():
        logits = network.split(torch.cat([network(part) for part in x.split(512)]))
        one = truth.count == 1
        right = [(logits[name].argmax(1) == getattr(truth, name)[:, 0])[one] for name in SINGLE]
        right += [logits["count"].argmax(1) == truth.count - 1, logits["background"].argmax(1) == truth.background]
        right += [(among(logits[k], shown) == shown).all(1) for k, shown in shares(truth)]
        lines.append(f"| {split} | " + " | ".join(f"{r.double().mean():.4f}" for r in right) + " |")
    return "\n".join(lines)


def clip_loss(student: "Student", out: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    """Symmetric cross-entropy over the batch; a fifth of the captions end before what they say of the background."""
    tokens, on = data.caption[rows], scenes.VOCABULARY.index("on")
    ends = ((tokens == on).cumsum(1) > 0) & (torch.rand(len(tokens), 1) < 0.2)
    logits = student.network.compare(out, tokens.masked_fill(ends, 0))
    pairs = torch.arange(len(out))
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


def identity_loss(student: "Student", out: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    """CosFace: cross-entropy over all objects of 16 (cos - 0.2 [the right one]) (Wang et al., 1801.09414)."""
    cosine = F.normalize(out, dim=1) @ F.normalize(student.objects, dim=1).T
    right = F.one_hot(truth.identity[:, 0], len(student.objects))
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


def aesthetic_loss(student: "Student", out: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    return (out[:, 0] - scenes.beauty(truth)).square().mean()


def aesthetic_table(network: nn.Module, splits: dict[str, tuple[Tensor, Scenes]]) -> str:
    lines = ["| | mean absolute error | explained variance | rule's own spread |", "| --- " * 4 + "|"]
    for split, (x, truth) in splits.items():
        score, rule = torch.cat([network(part)[:, 0] for part in x.split(512)]), scenes.beauty(truth)
        error = score - rule
        explained = 1 - (error.square().mean() / rule.var()).item()
        lines.append(f"| {split} | {error.abs().mean():.3f} | {explained:.4f} | {rule.std():.3f} |")
    return "\n".join(lines)


def segmenter_loss(student: "Student", out: Tensor, truth: Scenes, data: Pool, rows: Tensor) -> Tensor:
    return F.cross_entropy(out, scenes.masks(truth))


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


class Student(nn.Module):
    """A network with what only its training needs, and what is thrown away afterwards.

    Where the network has feature maps, layers that read the mask from the last two of them: without such dense
    supervision the shapes of objects are learned last and slowly. For identities, a vector for every object.
    """

    def __init__(self, network: nn.Module, objects: bool) -> None:
        super().__init__()
        self.network = network
        levels = self.body.arguments["channels"][-2:] if hasattr(self.body, "maps") else ()
        self.masks = nn.ModuleList(nn.Conv2d(width, len(SHAPES) + 1, 1) for width in levels)
        self.objects = nn.Parameter(torch.randn(len(SHAPES) * len(COLOURS) * len(TEXTURES), WIDTH)) if objects else None

    @property
    def body(self) -> nn.Module:
        """What sees pictures."""
        return getattr(self.network, "picture", self.network)

    def forward(self, x: Tensor, truth: Scenes) -> tuple[Tensor, Tensor]:
        """What the body says of x, and the loss of the masks: the cross-entropy of every cell's reading to the share
        that the classes have of it, summed over the maps.
        """
        if not len(self.masks):
            return self.body(x), x.new_zeros(())
        maps, loss = self.body.maps(x), x.new_zeros(())
        mask = F.one_hot(scenes.masks(truth), len(SHAPES) + 1).permute(0, 3, 1, 2).to(x)
        for layer, seen in zip(self.masks, maps[-2:], strict=True):
            share = F.adaptive_avg_pool2d(mask, seen.shape[-1])
            loss = loss - (share * F.log_softmax(layer(seen), dim=1)).sum(1).mean()
        return self.body.read(maps), loss


@dataclass(frozen=True)
class Kind:
    """A kind of scorer with its judge."""

    scorer: Callable[[], nn.Module]
    judge: Callable[[], nn.Module]
    loss: Callable[[Student, Tensor, Scenes, Pool, Tensor], Tensor]
    table: Callable[[nn.Module, dict[str, tuple[Tensor, Scenes]]], str]
    about: str
    steps: int
    judge_steps: int | None = None  # where its judge needs another number
    batch: int = 64
    objects: bool = False  # whether its training needs a vector for every object
    start: str | None = None  # the kind whose network of the same role gives the body to start from
    side: int = 32


SCORER: dict[str, object] = {"in_channels": 3, "size": 32, "channels": (16, 32, 64, 96), "width": 96, "dropout": 0.1}
JUDGE: dict[str, object] = {"in_channels": 3, "channels": (32, 64, 96), "width": 64, "dropout": 0.1}
READER = {"words": WORDS, "length": scenes.LENGTH, "width": WIDTH}
RECURRENT = {"words": WORDS, "width": WIDTH}

KINDS = {
    "classifier": Kind(
        lambda: networks.ConvClassifier(**SCORER, heads=HEADS),
        lambda: networks.ResidualClassifier(**JUDGE, heads=HEADS),
        classifier_loss,
        classifier_table,
        "Reads every attribute of a scene. Its feature maps are what styles are compared by.",
        4000,
    ),
    "clip": Kind(
        lambda: networks.TwinEncoder("ConvClassifier", SCORER | {"classes": WIDTH}, "Reader", READER),
        lambda: networks.TwinEncoder("ResidualClassifier", JUDGE | {"classes": WIDTH}, "RecurrentReader", RECURRENT),
        clip_loss,
        clip_table,
        "A small CLIP: pictures and captions in one space.",
        700,
        batch=128,
        start="classifier",
    ),
    "identity": Kind(
        lambda: networks.ConvClassifier(**SCORER, classes=WIDTH),
        lambda: networks.ResidualClassifier(**JUDGE, classes=WIDTH),
        identity_loss,
        identity_table,
        "The same object (shape, colour, texture) has the same direction, however it stands and whatever is behind it.",
        700,
        objects=True,
        start="classifier",
    ),
    "aesthetic": Kind(
        lambda: networks.ConvClassifier(**SCORER, classes=1),
        lambda: networks.ResidualClassifier(**JUDGE, classes=1),
        aesthetic_loss,
        aesthetic_table,
        "Sees the rule of `symguide.worlds.scenes.beauty`, 0 to 10, in the picture alone.",
        500,
        start="classifier",
    ),
    "segmenter": Kind(
        lambda: networks.PyramidSegmenter(channels=(16, 32, 64)),
        lambda: networks.DilatedSegmenter(width=40),
        segmenter_loss,
        segmenter_table,
        "What every pixel shows: 0 the background, else 1 + index of the shape.",
        800,
        judge_steps=4000,
    ),
}
VIEWS = {"scorer": scorer_view, "judge": judge_view}


def start(network: nn.Module, classifier: nn.Module) -> None:
    """Give a network the body of the classifier that was trained for the same role, where it has such a body."""
    body, given = getattr(network, "picture", network), classifier.state_dict()
    body.load_state_dict({k: v for k, v in given.items() if not k.startswith("head.")}, strict=False)
