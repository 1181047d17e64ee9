"""What hooks remember from step to step: it belongs to the run, so that hooks are values that runs may share."""

from typing import Any

from torch import Tensor

from symguide.private.torch import tree_map


class Memory:
    """What the hooks of one run keep, by owner and key: `step.run.memory`.

    Tensors that are kept, alone or in tuples, lists and dictionaries, have one row for each row of the batch.

    >>> import torch
    >>> memory, owner = Memory(), object()
    >>> memory.put(owner, "seen", torch.tensor([1, 2]))
    >>> memory.rows(torch.tensor([1, 1]))
    >>> memory.get(owner, "seen"), memory.get(owner, "other", 0)
    (tensor([2, 2]), 0)
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[object, dict[str, Any]]] = {}  # the owner too, so that its id stays its own

    def get(self, owner: object, key: str, default: Any = None) -> Any:
        """What that owner last put under that key in this run."""
        return self._kept[id(owner)][1].get(key, default) if id(owner) in self._kept else default

    def put(self, owner: object, key: str, value: Any) -> None:
        """Keeps a value until the run ends, or the next one is put."""
        self._kept.setdefault(id(owner), (owner, {}))[1][key] = value

    def rows(self, parents: Tensor) -> None:
        """Row i of all that is kept is now what row parents[i] was: the batch was resampled, see `Moved`."""
        for owner, kept in self._kept.values():
            moved = tree_map(lambda v: v[parents] if isinstance(v, Tensor) else v, kept)
            self._kept[id(owner)] = owner, moved
