"""diffusers pipelines: guidance inside them. Needs nothing of diffusers itself; the pipeline brings it."""

from symguide.pipelines.bridge import text_condition
from symguide.pipelines.estimate import Estimate, Plan, estimate_memory
from symguide.pipelines.guide import Record, guide

__all__ = ["Estimate", "Plan", "Record", "estimate_memory", "guide", "text_condition"]
