"""symguide: steer pretrained diffusion and flow models at sampling time, without training.

>>> import torch, symguide as sg
>>> denoiser = sg.GaussianDenoiser(torch.zeros(2), torch.eye(2))       # or sg.load("digits"), or your own sg.Denoiser
>>> result = sg.sample(denoiser, batch=4, loss=sg.SAG(lambda x0: ((x0 - 1) ** 2).sum(dim=1), n=4))
>>> result.samples.shape
torch.Size([4, 2])
"""

from symguide import objectives
from symguide.checkpointed import checkpointed
from symguide.closed_form import GaussianDenoiser, MixtureDenoiser
from symguide.denoiser import Denoiser, Prediction
from symguide.errors import ConfigError, GuidanceError, SymguideError, WeightsError
from symguide.integrations import from_azula, from_diffusers, from_generator
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
    Recipe,
    Sphere,
    UniversalGuidance,
    noise_window,
    on_sphere,
    rules,
)
from symguide.particle_guidance import BestOfN
from symguide.pipelines import guide
from symguide.prediction_guidance import APG, CFG, CFGPlusPlus
from symguide.ranges import Range
from symguide.restart import Restart
from symguide.schedule import VE, VP, RectifiedFlow, Schedule
from symguide.solver import starting_at, timesteps
from symguide.step import Step
from symguide.trajectory import DOODL, DFlow, IterationRecord, OCFlow, OptimalGaussian, Optimised, optimise
from symguide.tuning import Trial, Tuned, tune
from symguide.worlds.load import load, save

__version__ = "0.1.0"

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
    "SAG",
    "TFG",
    "VE",
    "VP",
    "AdamDPS",
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
    "IterationRecord",
    "MixtureDenoiser",
    "OCFlow",
    "OptimalGaussian",
    "Optimised",
    "Prediction",
    "Range",
    "Recipe",
    "RectifiedFlow",
    "Restart",
    "Result",
    "Schedule",
    "Sphere",
    "Step",
    "StepRecord",
    "SymguideError",
    "Trial",
    "Tuned",
    "UniversalGuidance",
    "WeightsError",
    "checkpointed",
    "from_azula",
    "from_diffusers",
    "from_generator",
    "guide",
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
    "starting_at",
    "timesteps",
    "tune",
]
