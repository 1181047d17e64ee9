"""What the stack knows of pipelines that run: which they are, and their variables, which no call of a network shows."""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any


def running(pipe: Any) -> Mapping[str, Any]:
    """Variables of the pipeline's `__call__` that this is called from; none where it is not called from one.

    Modular pipelines keep what they were called with in a state.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_locals.get("self") is pipe:
            return {**getattr(frame.f_locals.get("state"), "values", {}), **frame.f_locals}
        frame = frame.f_back
    return {}


def caller() -> Any:
    """The innermost pipeline whose `__call__` is under way in this thread, None in a loop that is in no pipeline.

    The stack knows it where no variable does: a thread, a task or a callback may run another pipeline of the same
    networks at any time. A pipeline is what has a scheduler with timesteps to set.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__call__" and code.co_varnames[:1] == ("self",):
            owner = frame.f_locals.get("self")
            if callable(getattr(getattr(owner, "scheduler", None), "set_timesteps", None)):
                return owner
        frame = frame.f_back
    return None


def own_code(pipe: Any, depth: int) -> bool:
    """Whether what called, so many frames further out, is the running pipeline's code: not a callback's, nor another's.

    Args:
        pipe: the pipeline.
        depth: 1 is what called the function that asks.
    """
    caller = sys._getframe(1 + depth)
    own = caller.f_locals.get("self") is pipe or caller.f_globals.get("__name__", "").startswith("diffusers.")
    return own and bool(running(pipe))
