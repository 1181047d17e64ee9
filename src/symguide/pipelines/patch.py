"""Methods replaced on an object for a while, such that copies and pickles of the object have their own ones."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Patched:
    """What stands in for a method of an object. Its signature is the method's: pipelines read it for what to hand over.

    Args:
        owner: the object.
        name: of the method.
        call: what is called in its place.
    """

    def __init__(self, owner: Any, name: str, call: Callable[..., Any]) -> None:
        functools.update_wrapper(self, getattr(owner, name))  # first: it copies the attributes of a Patched, too
        self.owner, self.name, self.call = owner, name, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.owner, self.name)  # asked of a copy that has no such attribute yet: its class's method


@contextmanager
def patched(owner: Any, **calls: Callable[..., Any]) -> Iterator[None]:
    """Methods of an object replaced inside, and its own again outside, whatever happens."""
    made = {name: Patched(owner, name, call) for name, call in calls.items()}
    before = {name: vars(owner)[name] for name in calls if name in vars(owner)}
    try:
        vars(owner).update(made)
        yield
    finally:
        for name in made:
            vars(owner).pop(name, None)
        vars(owner).update(before)
