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
        self._later: dict[tuple[int, str], tuple[object, Any]] = {}
        self._step: int | None = None

    def get(self, owner: object, key: str, default: Any = None) -> Any:
        """What that owner last put under that key in this run."""
        return self._kept[id(owner)][1].get(key, default) if id(owner) in self._kept else default

    def put(self, owner: object, key: str, value: Any) -> None:
        """Keeps a value until the run ends, or the next one is put."""
        self._kept.setdefault(id(owner), (owner, {}))[1][key] = value

    def later(self, owner: object, key: str, value: Any) -> None:
        """Keeps a value from the next step on: all that is asked in this one sees what was there before."""
        self._later[id(owner), key] = owner, value

    def begin(self, step: int) -> None:
        """A step begins: what was kept for later in the one before is there now."""
        if step != self._step:
            later, self._step, self._later = self._later, step, {}
            for (_, key), (owner, value) in later.items():
                self.put(owner, key, value)

    def rows(self, parents: Tensor) -> None:
        """Row i of all that is kept is now what row parents[i] was: the batch was resampled, see `Moved`."""

        def moved(value: Any) -> Any:
            return tree_map(lambda v: v[parents] if isinstance(v, Tensor) else v, value)

        self._kept = {place: (owner, moved(kept)) for place, (owner, kept) in self._kept.items()}
        self._later = {place: (owner, moved(value)) for place, (owner, value) in self._later.items()}
