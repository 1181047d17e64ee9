"""From the terms of a spec to an objective, for any samples by their index."""

import copy
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from symguide.cli import references
from symguide.cli.spec import Term, parse, show
from symguide.errors import ConfigError, unknown
from symguide.objectives import OBJECTIVES, BlackBox, Classifier, Objective, Region, Sum
from symguide.worlds import WORLDS

Aim = Callable[[Tensor], Tensor]


def resolved(spec: str) -> str:
    """The spec with the full paths of its files, so that it means the same in any folder."""

    def full(part: str) -> str:
        return part if part in references.PARTS else str(Path(part).resolve())

    return show([t._replace(parts=tuple(map(full, t.parts))) if t.name == "region" else t for t in parse(spec)])


def files(spec: str) -> list[Path]:
    """The files that a resolved spec depends on: references, masks, and the code of your own objectives."""
    out: list[Path] = []
    for term in parse(spec):
        if term.name == "region":
            out += [Path(part) for part in term.parts if part not in references.PARTS]
        elif own := _own_module(term):
            source = getattr(_module(own, term.name), "__file__", None)
            out += [Path(source)] if source else []
    return out


class Steering:
    """The objective of a spec; `at` gives it for the samples of some indices.

    Args:
        spec: see `symguide.cli.spec`.
        model: name of the model; a classifier needs an embedded world, which has a scorer.
        shape: shape of one sample.
        black_box: whether callables of your own are taken as rules without gradients.

    Raises:
        ConfigError: for what cannot be understood, found, read or fitted to the samples.
    """

    def __init__(self, spec: str, model: str, shape: tuple[int, ...], *, black_box: bool = False) -> None:
        self.model, self.shape, self.black_box = model, shape, black_box
        self.labels: dict[str, list[int]] = {}  # of classifier terms
        self._terms = [(term.factor, self._aim(term)) for term in parse(spec)]

    def at(self, indices: Sequence[int]) -> Aim:
        """The objective for these samples."""
        aims = [(factor, aim(indices)) for factor, aim in self._terms]
        return aims[0][1] if len(aims) == 1 and aims[0][0] == 1 else Sum(aims)

    def _aim(self, term: Term) -> Callable[[Sequence[int]], Aim]:
        """A function from indices to the term's objective."""
        if term.name == "classifier":
            return self._classifier(*_arguments(term, 1))
        if term.name == "region":
            reference, mask = _arguments(term, 2)
            region = Region(references.reference(reference, self.shape), references.mask(mask, self.shape))
            return lambda indices: region
        if term.name == "measurement":
            raise ConfigError(
                "a measurement needs an operator, which only Python can say: write a function that returns "
                "symguide.objectives.Measurement(...) and give it as my_module:function"
            )
        aim = load(term)
        if term.name == "blackbox" or (self.black_box and not isinstance(aim, Objective)):
            aim = BlackBox(aim)
        return lambda indices: aim

    def _classifier(self, text: str) -> Callable[[Sequence[int]], Aim]:
        labels = _integers(text)
        scorer = world_part(self.model, "scorer")
        if scorer is None:
            raise ConfigError(
                f"classifier:{text} needs a model with a scorer of its own, one of {', '.join(WORLDS)}: for other "
                "models write a function that returns symguide.objectives.Classifier(...) and give it as "
                "my_module:function"
            )
        self.labels[text] = labels
        classifier = Classifier(scorer, labels)

        def for_samples(indices: Sequence[int]) -> Aim:
            mine = copy.copy(classifier)  # shares the network
            mine.label = torch.tensor(cycle(labels, indices))
            return mine

        return for_samples


def cycle(values: Sequence[Any], indices: Iterable[int]) -> list[Any]:
    """The value of every index, over and over: sample i has values[i % len(values)] in any batch.

    >>> cycle([3, 5, 7], range(2, 6))
    [7, 3, 5, 7]
    """
    return [values[i % len(values)] for i in indices]


def world_part(model: str, name: str) -> Any:
    """The scorer or judge of an embedded world; None where the model is none or has none."""
    if model not in WORLDS:
        return None
    make = getattr(importlib.import_module(f"symguide.worlds.{model}"), name, None)
    return make() if make is not None else None


def load(term: Term) -> Any:
    """The callable that a term names as module:Name.

    A class without arguments is made, a function without arguments is called (it is a factory), anything else that is
    callable is the objective itself.
    """
    module = _own_module(term)
    (text,) = _arguments(term, 1)
    if module is None:
        raise ConfigError(f"blackbox takes module:Name, not {text!r}")
    where = text.partition(":")[2].strip() if term.name == "blackbox" else text
    thing: Any = _module(module, term.name)
    for name in where.split("."):
        if not hasattr(thing, name):
            raise unknown(f"name in {module}:", name, [n for n in dir(thing) if not n.startswith("_")])
        thing = getattr(thing, name)
    return _made(thing, f"{module}:{where}")


def _made(thing: Any, text: str) -> Any:
    if not callable(thing):
        raise ConfigError(f"{text} is {type(thing).__name__}: an objective is a callable x0 -> loss (B,)")
    try:
        needed = list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError):
        return thing
    must = [p for p in needed if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if inspect.isclass(thing) and must:
        raise ConfigError(
            f"{text} is a class that needs {', '.join(p.name for p in must)}: write a function without arguments that "
            "returns one, and give that"
        )
    if not inspect.isclass(thing) and needed:
        return thing
    made = thing()
    if not callable(made):
        raise ConfigError(f"{text}() gave {type(made).__name__}: an objective is a callable x0 -> loss (B,)")
    return made


def _own_module(term: Term) -> str | None:
    """The module that a term of your own names."""
    if term.name == "blackbox":
        module, colon, _ = term.parts[0].partition(":")
        return module.strip() if colon else None
    return None if term.name in OBJECTIVES else term.name


def _module(module: str, name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # modules of the current folder, as `python -m` has it
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            raise ConfigError(
                f"{unknown('objective', name, OBJECTIVES)}, and there is no module {error.name!r} to import it from"
            ) from error
        raise ConfigError(f"cannot import {module}: {error}") from error
    except ImportError as error:
        raise ConfigError(f"cannot import {module}: {error}") from error


def _arguments(term: Term, count: int) -> tuple[str, ...]:
    forms = {"classifier": "classifier:LABEL", "region": "region:REFERENCE@MASK", "blackbox": "blackbox:module:Name"}
    if len(term.parts) != count:
        raise ConfigError(f"the objective {show([term])!r} must be {forms.get(term.name, 'module:Name')}")
    return term.parts


def _integers(text: str) -> list[int]:
    try:
        labels = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"classifier:{text} must have a label or a comma list of labels, such as 3 or 0,1,2"
        ) from None
    if min(labels) < 0:
        raise ConfigError(f"classifier:{text} has a negative label: labels count from 0")
    return labels
