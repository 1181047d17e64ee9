"""Loss guidance: recipes that steer by the gradient of an objective. One recipe a file; a new one is a line here."""

from symguide.loss_guidance import rules
from symguide.loss_guidance.abms import ABMS
from symguide.loss_guidance.adam import AdamDPS
from symguide.loss_guidance.classifier import ClassifierGuidance
from symguide.loss_guidance.dps import DPS
from symguide.loss_guidance.dreamguider import Dreamguider
from symguide.loss_guidance.dsg import DSG, Sphere, on_sphere
from symguide.loss_guidance.ecm import ECM
from symguide.loss_guidance.elucd import EluCD
from symguide.loss_guidance.freedom import FreeDoM
from symguide.loss_guidance.lgd import LGD
from symguide.loss_guidance.mpgd import MPGD
from symguide.loss_guidance.recipe import Recipe, noise_window
from symguide.loss_guidance.sag import SAG
from symguide.loss_guidance.tfg import TFG
from symguide.loss_guidance.universal import UniversalGuidance

RECIPES: dict[str, type[Recipe]] = {
    "sag": SAG,
    "freedom": FreeDoM,
    "dps": DPS,
    "mpgd": MPGD,
    "universal": UniversalGuidance,
    "lgd": LGD,
    "dsg": DSG,
    "tfg": TFG,
    "abms": ABMS,
    "adam-dps": AdamDPS,
    "ecm": ECM,
    "elucd": EluCD,
    "dreamguider": Dreamguider,
    "classifier": ClassifierGuidance,
}

__all__ = [
    "ABMS",
    "DPS",
    "DSG",
    "ECM",
    "LGD",
    "MPGD",
    "RECIPES",
    "SAG",
    "TFG",
    "AdamDPS",
    "ClassifierGuidance",
    "Dreamguider",
    "EluCD",
    "FreeDoM",
    "Recipe",
    "Sphere",
    "UniversalGuidance",
    "noise_window",
    "on_sphere",
    "rules",
]
