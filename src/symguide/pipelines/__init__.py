"""diffusers pipelines: guidance inside them. Needs nothing of diffusers itself; the pipeline brings it."""

from symguide.pipelines.bridge import text_condition
from symguide.pipelines.guide import Record, guide

__all__ = ["Record", "guide", "text_condition"]
