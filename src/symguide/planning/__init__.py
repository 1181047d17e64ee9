"""Forecasts: what a guided pipeline will hold in memory, and what it costs, from its architecture alone."""

from symguide.planning.estimate import Estimate, Plan, estimate_memory

__all__ = ["Estimate", "Plan", "estimate_memory"]
