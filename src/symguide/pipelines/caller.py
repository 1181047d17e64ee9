"""Which pipeline it is that calls a network: networks may be shared, by pipelines and by threads."""

import sys
from types import FrameType
from typing import Any


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
