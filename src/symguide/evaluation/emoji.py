"""How good a model of the emoji world is, by judges that neither training nor guidance has seen, and true drawings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, WeightsError
from symguide.evaluation.drawing import Drawing
from symguide.evaluation.emoji_album import DRAWINGS, GROUPS, SETS, TRAINED, Album, Pairs, with_or_without
from symguide.report.quality import frechet, nearest, precision_recall
from symguide.worlds import WORLDS
from symguide.worlds.emoji.names import STYLES
from symguide.worlds.load import judge, scorer

Figures = dict[str, dict[str, float]]
"""Figures under the name of what they are about."""

WEIGHT = WORLDS["emoji"].weight
"""Of classifier-free guidance."""
KINDS = ("name", "style", "clip", "classifier")
SCORER, JUDGE = "the scorer's features", "the judge's features"
NOVEL = 0.05
"""The share of new drawings that are as near to training drawings as what counts as a copy."""


@dataclass(frozen=True)
class Judges:
    """The networks that measure, as far as they are there.

    Attributes:
        networks: judges by kind, of `KINDS`.
        scorer: the classifier that guidance may see; copies are looked for in its features, too.
        missing: others, and why they are not there.
        device: where they are.
        batch: pictures that they see at a time.
        progress: show a bar where they see many.
    """

    networks: Mapping[str, Any]
    scorer: Any = None
    missing: Mapping[str, str] = field(default_factory=dict)
    device: torch.device | str | None = None
    batch: int = 100
    progress: bool = False

    def __post_init__(self) -> None:
        if len({network.stands_on for network in self.networks.values()}) > 1:
            raise ConfigError("judges that look together must stand on one pretrained network")

    def __contains__(self, kind: str) -> bool:
        return kind in self.networks

    def see(self, x: Tensor, what: str = "look") -> dict[str, Tensor]:
        """What every judge says of pictures, by kind, at one call of the network that all stand on; on the CPU."""
        if not self.networks:
            return {}
        body = next(iter(self.networks.values())).body

        def look(part: Tensor) -> dict[str, Tensor]:
            seen = body.maps_and_last(part)
            return {kind: network.of(*seen) for kind, network in self.networks.items()}

        return self._in_parts(look, x, what)

    def spaces(self, x: Tensor, seen: Mapping[str, Tensor] | None = None, what: str = "look") -> dict[str, Tensor]:
        """Pictures (B, 3, side, side) as vectors (B, k) that they are compared by, under the names of these spaces.

        Args:
            x: the pictures.
            seen: of them, where the judges have looked already.
            what: the bar says.
        """
        found = {"pixels": x.flatten(1).cpu()}
        if self.scorer is not None:
            found |= self._in_parts(lambda part: {SCORER: self.scorer.features(part)}, x, f"{what}, scorer")
        if "classifier" in self:
            found[JUDGE] = (self.see(x, what) if seen is None else seen)["classifier"]
        return found

    @torch.no_grad()
    def _in_parts(self, look: Callable[[Tensor], dict[str, Tensor]], x: Tensor, what: str) -> dict[str, Tensor]:
        """look(x), some pictures at a time."""
        parts = torch.split(x, self.batch)
        hidden = not self.progress or len(parts) < 10
        found = [look(part.to(self.device)) for part in tqdm(parts, desc=what, disable=hidden, unit="batch")]
        return {key: torch.cat([each[key].cpu() for each in found]) for key in found[0]}


def before(scores: Tensor, right: Tensor) -> Tensor:
    """How many of the scores (B, N) are higher than that of the right one (B,).

    >>> before(torch.tensor([[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]]), torch.tensor([1, 0])).tolist()
    [0, 2]
    """
    return (scores > scores.gather(1, right[:, None])).sum(dim=1)


def judges(model: str = "emoji", device: torch.device | str | None = None, progress: bool = False) -> Judges:
    """The judges of a model's world and its scorer; those that cannot be had are left out, and it is said why."""
    found: dict[str, Any] = {}
    why: dict[str, list[str]] = {}

    def load(kind: str, make: Callable[..., Any], whose: str) -> None:
        try:
            found[whose] = make(model, kind, device, torch.float32).eval()
        except WeightsError as error:
            why.setdefault(str(error), []).append("scorer" if whose == "scorer" else f"judge {kind}")

    load("classifier", scorer, "scorer")
    for kind in KINDS:
        load(kind, judge, kind)
    bodies = {network.stands_on: network.body for whose, network in found.items() if whose != "scorer"}
    for whose in found.keys() - {"scorer"}:  # one of each in memory
        found[whose].body = bodies[found[whose].stands_on]
    missing = {" and ".join(whose): error for error, whose in why.items()}
    return Judges(found, found.pop("scorer", None), missing, device, progress=progress)


@dataclass(frozen=True)
class Measures:
    """Measures pictures of one side against the judges and the true drawings.

    Attributes:
        album: with the drawings, or without any: what needs them is then left out.
        judges: what they cannot say is left out.
        side: of the pictures.
    """

    album: Album
    judges: Judges
    side: int = 32
    _known: dict[tuple[Any, ...], dict[str, Tensor]] = field(default_factory=dict, repr=False)

    def read(self, seen: Mapping[str, Tensor], asked: Pairs) -> dict[str, float]:
        """What the judges read in pictures of these characters and styles, which they saw, as shares of the pictures.

        name: the judge of names, of all names in the world, reads the right one first. among five: it is one of its
        first five. by clip: the picture's embedding is nearer to the right name's vector than to any other's. style:
        the style is read as the one that was asked for, of all sets.
        """
        found: dict[str, float] = {}
        if "name" in seen:
            places = before(seen["name"], asked.character)
            found |= {"name": _share(places < 1), "name among five": _share(places < 5)}
        if "clip" in seen:
            places = before(seen["clip"] @ self.album.vectors.T, asked.character)
            found |= {"name by clip": _share(places < 1), "by clip among five": _share(places < 5)}
        if "style" in seen:
            found["style"] = _share(seen["style"].argmax(dim=1) == asked.style)
        return found

    def halves(self, count: int) -> tuple[Pairs, Pairs]:
        """Two lists of drawings that training saw, as many in both and none in both."""
        asked = self.album.pairs(TRAINED)
        half = min(count, len(asked) // 2)
        return asked[:half], asked[half : 2 * half]

    def distance(self, features: Tensor) -> dict[str, float]:
        """Pictures of the first of two `halves` against the true drawings of the other, by the judge's features.

        A model that has its drawings by heart gets what the true drawings of the first half get, which is the floor.
        """
        _, other = self.halves(len(features))
        features = features[: len(other)]
        target = self.judges.see(self.album.pictures(other, self.side), "drawings")["classifier"]
        precision, recall = precision_recall(features, target)
        return {"Frechet distance": frechet(features, target), "precision": precision, "recall": recall}

    def copies(self, spaces: Mapping[str, Tensor], asked: Pairs) -> Figures:
        """Whether pictures of trained drawings are copies, in the spaces of `Judges.spaces`.

        Distances are root mean squares. The training drawings are taken as they are, neither moved nor on a ground.

        its own nearest: the share of the pictures whose nearest training drawing is that of the character and the
            style that were asked for.
        nearer than 19 of 20 new drawings: the share that is nearer to its nearest training drawing than all but 5 % of
            the `DRAWINGS` that training never saw are to theirs; 0.05 for pictures that are as new as those.
        to SET's: the median, over the pictures, of the distance to the nearest training drawing over that distance of
            how SET, which training never saw, draws the character; where it does.
        own nearer than SET's nearest: the share of the pictures that are nearer to their own training drawing than
            SET's drawing is to any.
        """
        training, new = self.album.training(), self.album.pairs(DRAWINGS)
        rows = {pair: row for row, pair in enumerate(_each(training))}
        mine = torch.tensor([rows[pair] for pair in _each(asked)])
        found: Figures = {}
        for space, x in spaces.items():
            known = self._drawn(training)[space]
            away = _distances(x, known)
            own, near = away.gather(1, mine[:, None])[:, 0], away.amin(dim=1)
            fresh = nearest(self._drawn(new)[space], known).quantile(NOVEL)
            figures = {
                "its own nearest": _share(away.argmin(dim=1) == mine),
                "nearer than 19 of 20 new drawings": _share(near < fresh),
            }
            for style in range(len(STYLES), len(SETS)):
                has = self.album.drawn[asked.character, style]
                if has.any():
                    theirs = Pairs(asked.character, torch.full_like(asked.style, style))[has]
                    least = nearest(self._drawn(theirs)[space], known)
                    figures[f"to {SETS[style]}'s"] = (near[has] / least).median().item()
                    figures[f"own nearer than {SETS[style]}'s nearest"] = _share(own[has] < least)
            found[f"copies, in {space}"] = figures
        return found

    def toward(self, spaces: Mapping[str, Tensor], asked: Pairs) -> Figures:
        """Whether pictures of `DRAWINGS` that training never saw are nearer to these than what training did see.

        nearer than another style: the share of the pictures that are nearer to the true drawing than any training
            drawing of the same character, which is one in another style, is.
        to another style's: the median of the distance to the true drawing over the least of those.
        """
        found: Figures = {}
        for space, x in spaces.items():
            truth = self._drawn(asked)[space]
            away = _rms(x - truth)
            least = torch.full_like(away, torch.inf)
            for style in range(len(STYLES)):
                pairs = Pairs(asked.character, torch.full_like(asked.style, style))
                theirs = _rms(self._drawn(pairs)[space] - truth)
                least = torch.where(self.album.seen[asked.character, style], torch.minimum(least, theirs), least)
            found[f"the true drawing, in {space}"] = {
                "nearer than another style": _share(away < least),
                "to another style's": (away / least).median().item(),
            }
        return found

    def drawings(self, count: int) -> Figures:
        """What the true drawings get where samples are measured: the best that can be expected."""
        if not self.album.layers:
            return {}
        asked = {group: self.album.pairs(group)[:count] for group in GROUPS}
        seen = {group: self.judges.see(self.album.pictures(each, self.side), group) for group, each in asked.items()}
        found: Figures = {group: self.read(seen[group], asked[group]) for group in GROUPS}
        if "classifier" in self.judges:
            found[DISTANCE] = self.distance(seen[TRAINED]["classifier"])
        return found

    def figures(self, draw: Callable[[Pairs, str], Tensor], count: int) -> Figures:
        """Every figure of a model.

        Args:
            draw: pictures of drawings that are asked for, and the name of what they are for.
            count: at most so many of each group; no drawing is asked for twice.
        """
        asked = {group: self.album.pairs(group)[:count] for group in GROUPS}
        x = {group: draw(asked[group], group) for group in GROUPS}
        seen = {group: self.judges.see(x[group], f"{group}, judges") for group in GROUPS}
        found: Figures = {group: self.read(seen[group], asked[group]) for group in GROUPS}
        if self.album.layers:
            if "classifier" in self.judges:
                found[DISTANCE] = self.distance(seen[TRAINED]["classifier"])
            for group, measure in ((DRAWINGS, self.toward), (TRAINED, self.copies)):
                found |= measure(self.judges.spaces(x[group], seen[group], group), asked[group])
        return {what: each for what, each in found.items() if each}

    def _drawn(self, asked: Pairs) -> dict[str, Tensor]:
        """True drawings in the spaces, kept for the next figure and the next model."""
        key = tuple(_each(asked))
        if key not in self._known:
            self._known[key] = self.judges.spaces(self.album.pictures(asked, self.side), what="drawings")
        return self._known[key]


DISTANCE = "trained characters, other drawings"


def _share(right: Tensor) -> float:
    return right.double().mean().item()


def _rms(gap: Tensor) -> Tensor:
    return gap.double().square().mean(dim=1).sqrt()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square distances of every a to every b, (N, M)."""
    return torch.cdist(a.double(), b.double()) / a.shape[1] ** 0.5


def _each(asked: Pairs) -> list[tuple[int, int]]:
    return list(zip(asked.character.tolist(), asked.style.tolist(), strict=True))


class Evaluation(Drawing):
    """Draws samples of a model of the emoji world.

    Args:
        denoiser: takes the conditions "text" and "style".
        album: with the vectors of the names.
        weight: of classifier-free guidance.
        settings: of `Drawing`; no two groups share their noise.
    """

    def __init__(self, denoiser: Denoiser, album: Album, *, weight: float = WEIGHT, **settings: Any) -> None:
        super().__init__(denoiser, weight=weight, **settings)
        self.album = album

    def samples(self, asked: Pairs, group: str) -> Tensor:
        """A picture of each; sample i of a group has the noise of index i and a million times the group's place."""
        told = {"text": self.album.vectors[asked.character], "style": asked.style}
        return self.draw(told, group, 1_000_000 * GROUPS.index(group))


@torch.no_grad()
def evaluate(
    models: Mapping[str, Denoiser],
    count: int = 1000,
    *,
    device: torch.device | str | None = None,
    **settings: Any,
) -> tuple[dict[str, Figures], Figures, dict[str, str]]:
    """Figures of models and of the true drawings, and what could not be had and why.

    Args:
        models: by name.
        count: at most so many samples of each group.
        device: of the judges.
        settings: of `Evaluation`.

    Raises:
        WeightsError: where the world's files are not installed, and where neither judges nor drawings can be had.
    """
    album, why = with_or_without()
    asked = judges(device=device, progress=bool(settings.get("progress")))
    missing = {**asked.missing, **({} if why is None else {"true drawings": why})}
    if not asked.networks and not album.layers:
        raise WeightsError(f"nothing can be measured: {'; '.join(missing.values())}")
    measures: dict[int, Measures] = {}
    figures = {}
    for name, model in models.items():
        if model.shape is None:
            raise ConfigError(f"{name} does not say of which shape its samples are")
        side = model.decode(torch.zeros(1, *model.shape, device=model.device)).shape[-1]
        mine = measures.setdefault(side, Measures(album, asked, side))
        figures[name] = mine.figures(Evaluation(model, album, **settings).samples, count)
    return figures, measures[min(measures)].drawings(count), missing


def words(figures: Figures, drawings: Figures, count: int, weight: float = WEIGHT, steps: int = 25) -> str:
    """What a model's card says of it."""
    head = [
        f"At most {count:,} samples of each, {steps} steps of dpmpp_2m, classifier-free guidance of weight {weight:g};",
        "in brackets what the true drawings get. Shares, but for Frechet distances and ratios of distances (to ...);",
        "symguide.evaluation.emoji.Measures says what each is.",
        "",
    ]

    def shown(what: str, key: str, value: float) -> str:
        best = drawings.get(what, {}).get(key)
        return f"{key} {value:.3f}" + ("" if best is None else f" ({best:.3f})")

    lines = [f"- {what}: {', '.join(shown(what, k, v) for k, v in each.items())}" for what, each in figures.items()]
    return "\n".join([*head, *lines])


def measured(
    model: Denoiser,
    count: int = 1000,
    *,
    weight: float = WEIGHT,
    steps: int = 25,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> str:
    """What a card says of a model, measured now; what could not be had is named.

    Args:
        model: of the emoji world.
        count: at most so many samples of each group.
        weight, steps, progress: of `Evaluation`.
        device: of the judges.

    Raises:
        WeightsError: where neither judges nor drawings can be had.
    """
    settings = {"weight": weight, "steps": steps, "progress": progress}
    figures, drawings, missing = evaluate({"model": model}, count, device=device, **settings)
    said = words(figures["model"], drawings, count, weight, steps)
    return said + (f"\n\nNot measured, for want of {', '.join(missing)}." if missing else "")
