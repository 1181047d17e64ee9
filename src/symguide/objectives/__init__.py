"""Objectives: what to steer toward. Any callable x0 (B, ...) -> loss (B,) is one; these are ready-made."""

from symguide.objectives.base import BlackBox, Objective, Sum
from symguide.objectives.classifier import Classifier
from symguide.objectives.measurement import Measurement, Region

OBJECTIVES: dict[str, type[Objective]] = {
    "classifier": Classifier,
    "measurement": Measurement,
    "region": Region,
    "blackbox": BlackBox,
}

__all__ = ["OBJECTIVES", "BlackBox", "Classifier", "Measurement", "Objective", "Region", "Sum"]
