"""Prediction guidance: rules that make one prediction out of several network calls. One rule a file."""

from symguide.prediction_guidance.apg import APG
from symguide.prediction_guidance.branches import TwoBranches
from symguide.prediction_guidance.cfg import CFG
from symguide.prediction_guidance.cfg_pp import CFGPlusPlus

RULES: dict[str, type[TwoBranches]] = {"cfg": CFG, "cfg++": CFGPlusPlus, "apg": APG}

__all__ = ["APG", "CFG", "RULES", "CFGPlusPlus", "TwoBranches"]
