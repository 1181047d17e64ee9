"""From the terms of a spec to an objective, for any samples by their index."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError, WeightsError
from symguide.objectives import OBJECTIVES, BlackBox, Objective, Sum
from symguide.specs import own
from symguide.specs.grammar import Term, parse, show
from symguide.specs.kinds import KINDS, Context, Kind, Loss, Maker
from symguide.specs.pictures import Say
from symguide.worlds import WORLDS, load
from symguide.worlds.scorers import ASKS

NAMES = frozenset({*OBJECTIVES, *KINDS})


def resolved(spec: str) -> str:
    """The spec with the full paths of its files, so that it means the same in any folder."""

    def full(term: Term) -> Term:
        paths = dict(_paths(term))
        return term._replace(parts=tuple(str(paths.get(at, part)) for at, part in enumerate(term.parts)))

    return show([full(term) for term in parse(spec)])


def files(spec: str) -> list[Path]:
    """The files that a resolved spec depends on: references, masks, and the code of your own objectives."""
    out: list[Path] = []
    for term in parse(spec):
        out += [path for _, path in _paths(term)]
        if term.name not in KINDS and term.name != "measurement":
            source = getattr(own.imported(term, NAMES), "__file__", None)
            out += [Path(source)] if source else []
    return out


def _paths(term: Term) -> Iterator[tuple[int, Path]]:
    """Where among a term's arguments files are, and their full paths."""
    if term.name in KINDS and len(term.parts) in KINDS[term.name].counts:
        for at in KINDS[term.name].files(term.parts):
            yield at, Path(term.parts[at]).resolve()


@dataclass(frozen=True)
class Scored:
    """A term whose objective has an embedded network inside: what guides, and what judges it."""

    text: str
    kind: str
    world: str
    make: Maker
    scorer: nn.Module
    say: Say

    def judge(self) -> nn.Module | None:
        """The network of the same kind that guidance never sees, where there is one that this objective can ask.

        Where one cannot be loaded, such as for a package of others that it stands on, that is said: a run is not lost.
        """
        try:
            judge = judge_of(self.kind, self.world)
        except WeightsError as error:
            self.say(f"{self.text} is not judged: {error}")
            return None
        try:
            return None if judge is None or self.make(judge, range(1)) is None else judge
        except ConfigError:  # of another build, such as one without feature maps for a style
            return None


class Steering:
    """The objective of a spec; `at` gives it for the samples of some indices.

    Args:
        spec: see `symguide.specs.grammar`.
        model: name of the model; its world has the networks that some objectives need.
        shape: shape of one sample.
        encoders: real networks, which the objectives that can take one ask in place of the world's.
        black_box: whether callables of your own are taken as rules without gradients.
        say: takes remarks, such as that a picture was resized.

    Raises:
        ConfigError: for what cannot be understood, found, read or fitted to the samples.
    """

    def __init__(
        self,
        spec: str,
        model: str,
        shape: tuple[int, ...],
        *,
        encoders: Sequence[nn.Module] = (),
        black_box: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model, self.context, self.black_box = model, Context(tuple(shape), say), black_box
        if model in WORLDS and WORLDS[model].reads is not None:
            self.context = replace(self.context, read=self._read)
        self.scored: list[Scored] = []
        self.sentences: list[str] = []
        """Those that were read as the emoji world reads them."""
        self._encoders, self._asked = encoders, set[nn.Module]()
        self._terms = [self._term(term) for term in parse(spec)]
        if idle := [encoder for encoder in encoders if encoder not in self._asked]:
            raise ConfigError(f"no objective here asks the {type(idle[0]).__name__}: leave that --encoder out")
        self.at(range(1))  # what only shows once the objectives are made

    def at(self, indices: Sequence[int]) -> Loss:
        """The objective for these samples."""
        return _summed([(factor, aim(indices)) for factor, aim, _ in self._terms])

    def judged(self) -> Callable[[Sequence[int]], Loss] | None:
        """The objective with a judge in the place of every embedded scorer; None where there is none."""
        judges = {id(scored): scored.judge() for scored in self.scored}
        if not judges or None in judges.values():
            return None

        def at(indices: Sequence[int]) -> Loss:
            return _summed(
                (factor, aim(indices) if scored is None else scored.make(judges[id(scored)], indices))
                for factor, aim, scored in self._terms
            )

        return at

    def _read(self, sentences: Sequence[str]) -> Tensor:
        reads = WORLDS[self.model].reads
        assert reads is not None
        self.sentences += sentences
        return reads(sentences, self.context.say)

    def _term(self, term: Term) -> tuple[float, Callable[[Sequence[int]], Loss], Scored | None]:
        """A term's factor, its objective by index, and what judges it where it is scored by an embedded network."""
        before = len(self.scored)
        aim = self._by_index(term)
        return term.factor, aim, self.scored[before] if len(self.scored) > before else None

    def _by_index(self, term: Term) -> Callable[[Sequence[int]], Loss]:
        """A function from indices to the term's objective."""
        if term.name in KINDS:
            return self._of_kind(term, KINDS[term.name])
        if term.name == "measurement":
            raise ConfigError(
                "a measurement needs an operator: superres:PICTURE@FACTOR and deblur:PICTURE@SIGMA have one; for "
                "others write a function that returns symguide.objectives.Measurement(...), and give it as "
                "my_module:function"
            )
        aim = own.load(term, NAMES)
        if term.name == "blackbox" or (self.black_box and not isinstance(aim, Objective)):
            aim = BlackBox(aim)
        return lambda indices: aim

    def _of_kind(self, term: Term, kind: Kind) -> Callable[[Sequence[int]], Loss]:
        if len(term.parts) not in kind.counts:
            raise ConfigError(f"the objective {show([term])!r} must be {' or '.join(kind.forms)}")
        if kind.encoder is not None and (encoder := self._encoder(kind.encoder)) is not None:
            ask = kind.read(term.parts, self.context)
            return lambda indices: ask(encoder, indices)
        asked = ASKS.get(term.name)
        # samples of other models may have a world's shape, but its scorers know nothing of them
        known = self.model in WORLDS and asked in WORLDS[self.model].scorers
        if (asked or kind.encoder) and not known:
            raise ConfigError(self._without_network(term.name, kind))
        make = kind.read(term.parts, self.context)
        if asked is None:
            return lambda indices: make(None, indices)
        scorer = load.scorer(self.model, asked, dtype=torch.float32)
        text = show([term._replace(factor=1.0)])
        self.scored.append(Scored(text, asked, self.model, make, scorer, self.context.say))
        return lambda indices: make(scorer, indices)

    def _without_network(self, name: str, kind: Kind) -> str:
        """What to do where nothing can be asked."""
        own = (
            f"write a function that returns symguide.objectives.{OBJECTIVES[name].__name__}(...) with a network of "
            "yours, and give it as my_module:function"
        )
        encoder = "" if kind.encoder is None else f"give a {kind.encoder.__name__} with --encoder FOLDER_OR_ID, or "
        return f"{name} asks a network that knows the samples, and {self.model} comes with none for it: {encoder}{own}"

    def _encoder(self, kind: type[nn.Module]) -> nn.Module | None:
        """The first of the encoders that is of the kind."""
        for encoder in self._encoders:
            if isinstance(encoder, kind):
                if len(self.context.shape) != 3 or self.context.shape[0] != 3:
                    raise ConfigError(f"encoders see RGB pictures, and samples have shape {self.context.shape}")
                self._asked.add(encoder)
                return encoder
        return None


def _summed(terms: Iterable[tuple[float, Loss]]) -> Loss:
    aims = list(terms)
    return aims[0][1] if len(aims) == 1 and aims[0][0] == 1 else Sum(aims)


def judge_of(kind: str, model: str) -> nn.Module | None:
    """The judge beside a scorer, or None where the world has none or its weights were left out."""
    folder = WORLDS[model].judges.get(kind) if model in WORLDS else None
    return load.judge(model, kind) if folder is not None and folder.is_dir() else None
