"""Prediction guidance: rules that make one prediction out of several network calls. One rule a file."""

from symguide.prediction_guidance.apg import APG as APG
from symguide.prediction_guidance.branches import TwoBranches as TwoBranches
from symguide.prediction_guidance.cfg import CFG as CFG
from symguide.prediction_guidance.cfg_pp import CFGPlusPlus as CFGPlusPlus
from symguide.registry import Registry, registry_of

RULES: Registry[type[TwoBranches]] = registry_of("prediction guidance")
