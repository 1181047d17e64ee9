"""Methods replaced on an object for a while, such that copies and pickles of the object have their own ones.

Several may replace the same method, and leave in any order: each takes out what is its own.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_LOCK = threading.Lock()
_NOTHING = object()


class Patched:
    """What stands in for a method of an object. Its signature is the method's: pipelines read it for what to hand over.

    Args:
        owner: the object.
        name: of the method.
        call: what is called in its place.

    Attributes:
        before: what the object itself had in this place: another one, or nothing where the method is its class's.
    """

    def __init__(self, owner: Any, name: str, call: Callable[..., Any]) -> None:
        functools.update_wrapper(self, getattr(owner, name))  # first: it copies the attributes of a Patched, too
        self.owner, self.name, self.call = owner, name, call
        self.before = vars(owner).get(name, _NOTHING)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.owner, self.name)  # asked of a copy that has no such attribute yet: its class's method

    def put_on(self) -> None:
        """From now on the object has this one."""
        vars(self.owner)[self.name] = self

    def take_off(self) -> None:
        """The object has what it had before; where another one was put over this since, that one has it."""
        above = vars(self.owner).get(self.name)
        if above is self and self.before is _NOTHING:
            del vars(self.owner)[self.name]
        elif above is self:
            vars(self.owner)[self.name] = self.before
        while isinstance(above, Patched) and above.before is not self:
            above = above.before
        if isinstance(above, Patched):
            above.before = self.before


@contextmanager
def patched(owner: Any, **calls: Callable[..., Any]) -> Iterator[None]:
    """Methods of an object replaced inside, and its own again outside, whatever happens."""
    made = list[Patched]()
    try:
        with _LOCK:
            for name, call in calls.items():
                made.append(Patched(owner, name, call))
                made[-1].put_on()
        yield
    finally:
        with _LOCK:
            for patch in made:
                patch.take_off()
