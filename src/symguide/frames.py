"""Levels per frame: the programs of all frames, each with its own times, as one with diagonal coefficients."""

from collections.abc import Sequence
from typing import NamedTuple

from symguide.schedule import Schedule, Time
from symguide.solver import Linear, Predict, Program, Transition, transition


def by_frames(programs: Sequence[Program], rest: Sequence[float]) -> Program:
    """One program of a program for each frame, all of them alike but for coefficients and times.

    A sweep through it is the same as through any: its coefficients are diagonal. A frame whose program is shorter, or
    has no node at all, stays where it is after that, at the time `rest` says.
    """
    longest = max(programs, key=lambda program: len(program.nodes))
    every = [_padded(program, longest, t) for program, t in zip(programs, rest, strict=True)]
    return Program(longest.inputs, tuple(_zipped(nodes) for nodes in zip(*every, strict=True)))


def _padded(program: Program, longest: Program, t: float) -> list[Linear | Predict]:
    """The nodes of a program, and then the kinds of nodes of a longer one: all states are its output."""
    nodes = list(program.nodes)
    for node in longest.nodes[len(nodes) :]:
        state = max((program.inputs + k for k, one in enumerate(nodes) if isinstance(one, Linear)), default=0)
        nodes.append(Predict(node.node, t) if isinstance(node, Predict) else Linear(((1.0, state),)))
    return nodes


def _zipped(nodes: Sequence[Linear | Predict]) -> Linear | Predict:
    """The same node of all frames; terms that some of them do not have have weight 0 there."""
    if isinstance(nodes[0], Predict):
        return Predict(nodes[0].node, tuple(node.t for node in nodes))  # type: ignore[misc,union-attr]
    weights = [_numbered(node.terms) for node in nodes]  # type: ignore[arg-type,union-attr]
    keys = dict.fromkeys(key for own in sorted(weights, key=len, reverse=True) for key in own)
    return Linear(tuple((_one_or_all([own.get(key, 0.0) for own in weights]), key[0]) for key in keys))


def _numbered(terms: Sequence[tuple[float, int]]) -> dict[tuple[int, int], float]:
    """Weights by node and how many terms of that node came before: a solver may name a node twice."""
    nodes = [j for _, j in terms]
    return {(j, nodes[:k].count(j)): c for k, (c, j) in enumerate(terms)}


def _one_or_all(values: list[float]) -> Time:
    return values[0] if len(set(values)) == 1 else tuple(values)


class FrameTransition(NamedTuple):
    """`Transition` of frames that each have their own; those that stay have std = 0."""

    program: Program
    std: tuple[float, ...]
    radius_std: tuple[float, ...]


def frame_transition(
    solver: str,
    schedule: Schedule,
    t: tuple[float, ...],
    s: tuple[float, ...],
    eta: float,
    before: tuple[float, ...] | None,
) -> FrameTransition:
    """The step of every frame from its t to its s, see `transition`; frames with s = t stay as they are."""
    still = Transition(Program(1 if before is None else 2, ()), 0.0, 0.0)
    frames = [
        transition(solver, schedule, r, q, eta, past) if r > q else still
        for r, q, past in zip(t, s, before or [None] * len(t), strict=True)
    ]
    programs, stds, radii = zip(*frames, strict=True)
    return FrameTransition(by_frames(programs, s), stds, radii)
