"""Prediction guidance: rules that make one prediction out of several network calls. One rule a file.

What a rule costs is spent wherever the prediction is evaluated, in look-aheads too, and gradients of loss guidance go
through all of its branches.
"""

from collections.abc import Callable

from symguide.branch import Rule
from symguide.prediction_guidance.apg import APG as APG
from symguide.prediction_guidance.autoguidance import Autoguidance as Autoguidance
from symguide.prediction_guidance.cfg import CFG as CFG
from symguide.prediction_guidance.cfg_pp import CFGPlusPlus as CFGPlusPlus
from symguide.prediction_guidance.chain import chain as chain
from symguide.prediction_guidance.interval import Interval as Interval
from symguide.prediction_guidance.pag import PAG as PAG
from symguide.registry import Registry, registry_of

RULES: Registry[Callable[..., Rule]] = registry_of("prediction guidance")
