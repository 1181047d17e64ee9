"""symguide: steer pretrained diffusion and flow models at sampling time, without training.

>>> import torch, symguide as sg
>>> denoiser = sg.GaussianDenoiser(torch.zeros(2), torch.eye(2))       # or sg.load("digits"), or your own sg.Denoiser
>>> result = sg.sample(denoiser, batch=4, loss=sg.SAG(lambda x0: ((x0 - 1) ** 2).sum(dim=1), n=4))
>>> result.samples.shape
torch.Size([4, 2])
"""

from importlib import import_module
from importlib.util import find_spec
from sys import modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

from symguide.version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers and editors; Python finds the same names by _MODULES, when they are asked for
    from symguide import objectives
    from symguide.advice import Advice, advise
    from symguide.checkpointed import checkpointed
    from symguide.closed_form import GaussianDenoiser, MixtureDenoiser
    from symguide.denoiser import Denoiser, Prediction
    from symguide.errors import ConfigError, GuidanceError, SymguideError, WeightsError
    from symguide.hooks import Keep
    from symguide.integrations import from_azula, from_diffusers, from_generator
    from symguide.jacobian import Jacobian, linearise
    from symguide.lookahead import Estimate, Gradient, lookahead, lookahead_gradient
    from symguide.loop import Cost, Result, StepRecord, sample
    from symguide.loss_guidance import (
        ABMS,
        DPS,
        DSG,
        ECM,
        LGD,
        MPGD,
        SAG,
        TFG,
        AdamDPS,
        ClassifierGuidance,
        Dreamguider,
        EluCD,
        FreeDoM,
        PiGDM,
        Recipe,
        Sphere,
        UniversalGuidance,
        noise_window,
        on_sphere,
        rules,
    )
    from symguide.particle_guidance import BestOfN
    from symguide.pipelines import guide
    from symguide.prediction_guidance import APG, CFG, PAG, Autoguidance, CFGPlusPlus, Interval, chain
    from symguide.ranges import Range
    from symguide.restart import Restart
    from symguide.schedule import VE, VP, RectifiedFlow, Schedule
    from symguide.solver import starting_at, timesteps
    from symguide.stages import Stage, staged
    from symguide.step import Moved, Step
    from symguide.trajectory import DOODL, DFlow, IterationRecord, OCFlow, OptimalGaussian, Optimised, optimise
    from symguide.tuning.trial import Trial, Tuned
    from symguide.tuning.tune import tune
    from symguide.worlds.load import load, save

__all__ = [
    "ABMS",
    "APG",
    "CFG",
    "DOODL",
    "DPS",
    "DSG",
    "ECM",
    "LGD",
    "MPGD",
    "PAG",
    "SAG",
    "TFG",
    "VE",
    "VP",
    "AdamDPS",
    "Advice",
    "Autoguidance",
    "BestOfN",
    "CFGPlusPlus",
    "ClassifierGuidance",
    "ConfigError",
    "Cost",
    "DFlow",
    "Denoiser",
    "Dreamguider",
    "EluCD",
    "Estimate",
    "FreeDoM",
    "GaussianDenoiser",
    "Gradient",
    "GuidanceError",
    "Interval",
    "IterationRecord",
    "Jacobian",
    "Keep",
    "MixtureDenoiser",
    "Moved",
    "OCFlow",
    "OptimalGaussian",
    "Optimised",
    "PiGDM",
    "Prediction",
    "Range",
    "Recipe",
    "RectifiedFlow",
    "Restart",
    "Result",
    "Schedule",
    "Sphere",
    "Stage",
    "Step",
    "StepRecord",
    "SymguideError",
    "Trial",
    "Tuned",
    "UniversalGuidance",
    "WeightsError",
    "advise",
    "chain",
    "checkpointed",
    "from_azula",
    "from_diffusers",
    "from_generator",
    "guide",
    "linearise",
    "load",
    "lookahead",
    "lookahead_gradient",
    "noise_window",
    "objectives",
    "on_sphere",
    "optimise",
    "rules",
    "sample",
    "save",
    "staged",
    "starting_at",
    "timesteps",
    "tune",
]

_MODULES = {
    "advice": "Advice advise",
    "checkpointed": "checkpointed",
    "closed_form": "GaussianDenoiser MixtureDenoiser",
    "denoiser": "Denoiser Prediction",
    "errors": "ConfigError GuidanceError SymguideError WeightsError",
    "hooks": "Keep",
    "integrations": "from_azula from_diffusers from_generator",
    "jacobian": "Jacobian linearise",
    "lookahead": "Estimate Gradient lookahead lookahead_gradient",
    "loop": "Cost Result StepRecord sample",
    "loss_guidance": "ABMS DPS DSG ECM LGD MPGD SAG TFG AdamDPS ClassifierGuidance Dreamguider EluCD FreeDoM PiGDM "
    "Recipe Sphere UniversalGuidance noise_window on_sphere rules",
    "particle_guidance": "BestOfN",
    "pipelines": "guide",
    "prediction_guidance": "APG CFG PAG Autoguidance CFGPlusPlus Interval chain",
    "ranges": "Range",
    "restart": "Restart",
    "schedule": "VE VP RectifiedFlow Schedule",
    "solver": "starting_at timesteps",
    "stages": "Stage staged",
    "step": "Moved Step",
    "trajectory": "DOODL DFlow IterationRecord OCFlow OptimalGaussian Optimised optimise",
    "tuning.trial": "Trial Tuned",
    "tuning.tune": "tune",
    "worlds.load": "load save",
}
_HOME = {name: f"symguide.{module}" for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        globals()[name] = value = getattr(import_module(_HOME[name]), name)
        return value
    if not name.startswith("_"):
        if find_spec(f"symguide.{name}") is not None:
            return import_module(f"symguide.{name}")
        for method in import_module("symguide.registry").methods():  # also those that plug-ins bring
            if method.__name__ == name:
                return method
    raise AttributeError(f"module 'symguide' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The package: an import of symguide.lookahead, the module, leaves symguide.lookahead, the function, as it is."""

    def __setattr__(self, name: str, value: Any) -> None:
        shadows = isinstance(value, ModuleType) and _HOME.get(name) == value.__name__
        super().__setattr__(name, getattr(value, name) if shadows else value)


modules[__name__].__class__ = _Package
