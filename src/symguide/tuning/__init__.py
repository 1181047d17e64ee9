"""Tuning: settings of guidance for a model and an objective within a budget of network calls. Needs Optuna."""

from symguide.ranges import Choice, Maybe, Range, Window
from symguide.tuning.trial import Trial, Tuned, front
from symguide.tuning.tune import ByIndex, tune

__all__ = ["ByIndex", "Choice", "Maybe", "Range", "Trial", "Tuned", "Window", "front", "tune"]
