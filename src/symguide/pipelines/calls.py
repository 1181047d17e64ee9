"""Calls of networks: what they were given, what they returned, and what of that went into later ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import GuidanceError
from symguide.private.torch import leaves, tree_map


@dataclass(frozen=True)
class Graph:
    """What a network returned with its graph, the latents that this begins at, and the bytes it holds (on a CPU)."""

    latents: Tensor
    output: Any
    held: int


@dataclass(frozen=True)
class RecordedCall:
    """One call of a network, what it returned, and its graph where one was asked for."""

    network: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    graph: Graph | None = None

    def get(self, key: str | int) -> Any:
        """An argument by name or place."""
        return self.args[key] if isinstance(key, int) else self.kwargs[key]


def plain(tensor: Tensor) -> Tensor:
    """The tensor, or where it was made in inference mode a copy that can be part of a graph."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(mode=False):
        return tensor.clone()


def tensors(output: Any) -> list[Tensor]:
    """The tensors of a network's output, in order: a tuple, a dictionary of diffusers', or a tensor."""
    values = dict(output) if isinstance(output, Mapping) else output
    return [leaf for leaf in leaves(values) if isinstance(leaf, Tensor)]


def exchanged(tensors: Mapping[int, Tensor], arguments: Any) -> Any:
    """Arguments in lists and dictionaries of their own, with other tensors in place of those of these ids."""
    return tree_map(lambda v: tensors.get(id(v), v) if isinstance(v, Tensor) else v, arguments)


@dataclass(frozen=True)
class Link:
    """A tensor that one network returned and a later one was given.

    Attributes:
        call, place: which call returned it, and as which of its tensors.
        given: what the later call was given: the tensor itself, or one of another type, or behind as many zeros.
    """

    call: int
    place: int
    given: Tensor

    def of(self, made: Tensor) -> Tensor:
        """What the later network is given in place of it when it is `made`."""
        made = made.to(self.given.dtype)
        return made if len(made) == len(self.given) else torch.cat([torch.zeros_like(made), made])

    def holds(self, made: Tensor) -> bool:
        """Whether it is what it was given."""
        if self.given is made:
            return True
        size, doubled = tuple(self.given.shape), (2 * len(made), *made.shape[1:])
        return size in (tuple(made.shape), doubled) and torch.equal(self.given, self.of(made))


def mains(calls: Sequence[RecordedCall]) -> list[int]:
    """Which of the calls predict: those of the network called last, and of others of its class (Ideogram 4 has two)."""
    last = calls[-1].network
    return [index for index, call in enumerate(calls) if call.network is last or type(call.network) is type(last)]


def links_between(calls: Sequence[RecordedCall]) -> list[Link]:
    """How what helpers returned, such as ControlNets, reached the networks called after them.

    Raises:
        GuidanceError: if something was done to it on the way: what it is at other latents would not be known.
    """
    links, predicting = list[Link](), mains(calls)
    for index, call in enumerate(calls):
        if index in predicting:
            continue
        given = [v for later in calls[index + 1 :] for v in tensors([later.args, later.kwargs])]
        taken = {id(link.given) for link in links}
        for place, made in enumerate(tensors(call.output)):
            same = [v for v in given if v is made] or [v for v in given if id(v) not in taken]
            link = next((link for v in same if (link := Link(index, place, v)).holds(made)), None)
            if link is None:
                raise GuidanceError(
                    f"what {type(call.network).__name__} returned was changed before {type(calls[-1].network).__name__}"
                    " was given it, so it cannot be made again at other latents: this pipeline cannot be guided"
                )
            taken.add(id(link.given))
            links.append(link)
    return links
