"""Loss guidance: recipes that steer by the gradient of an objective. One recipe a file; a new one is a line here."""

from symguide.loss_guidance import rules
from symguide.loss_guidance.classifier import ClassifierGuidance
from symguide.loss_guidance.dps import DPS
from symguide.loss_guidance.dsg import DSG, Sphere, on_sphere
from symguide.loss_guidance.freedom import FreeDoM
from symguide.loss_guidance.lgd import LGD
from symguide.loss_guidance.mpgd import MPGD
from symguide.loss_guidance.recipe import Recipe, noise_window
from symguide.loss_guidance.sag import SAG
from symguide.loss_guidance.universal import UniversalGuidance

RECIPES: dict[str, type[Recipe]] = {
    "sag": SAG,
    "freedom": FreeDoM,
    "dps": DPS,
    "mpgd": MPGD,
    "universal": UniversalGuidance,
    "lgd": LGD,
    "dsg": DSG,
    "classifier": ClassifierGuidance,
}

__all__ = [
    "DPS",
    "DSG",
    "LGD",
    "MPGD",
    "RECIPES",
    "SAG",
    "ClassifierGuidance",
    "FreeDoM",
    "Recipe",
    "Sphere",
    "UniversalGuidance",
    "noise_window",
    "on_sphere",
    "rules",
]
