"""Prediction guidance: rules that make one prediction out of several network calls. One rule a file."""

from symguide.prediction_guidance.cfg import CFG

RULES = {"cfg": CFG}

__all__ = ["CFG", "RULES"]
