"""diffusers pipelines: guidance inside them.

Needs nothing of diffusers itself, as the pipeline brings it; but for `Guider`, which is a component of diffusers' kind.
"""

from typing import TYPE_CHECKING, Any

from symguide.extras import library
from symguide.pipelines.guide import guide
from symguide.pipelines.runs import Record

if TYPE_CHECKING:
    from symguide.pipelines.modular import Guider

__all__ = ["Guider", "Record", "guide"]


def __getattr__(name: str) -> Any:
    """Guider, imported when it is asked for and not before: its base class is diffusers'."""
    if name != "Guider":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    library("diffusers", "Guider", "pipelines")
    from symguide.pipelines.modular import Guider

    return Guider
