"""Loss guidance: recipes that steer by the gradient of an objective. One recipe a file.

All take the objective, and the rest by name: `scale`, `window=(start, stop)` (fractions of the steps, or
`noise_window(low, high)`), `repeats` (time travel: the step is made again from x_t drawn anew from q(x_t | x_s)) and
`constraint=Sphere(rate)`. A guided step with `repeats=k` costs k times as much. A normalised step has no length in
the last step, to sigma = 0, so that step is left unguided and costs one call. Costs are of a guided step and one
sample, the sampler's own call included.
"""

from symguide.loss_guidance import rules as rules
from symguide.loss_guidance.abms import ABMS as ABMS
from symguide.loss_guidance.adam import AdamDPS as AdamDPS
from symguide.loss_guidance.classifier import ClassifierGuidance as ClassifierGuidance
from symguide.loss_guidance.dps import DPS as DPS
from symguide.loss_guidance.dreamguider import Dreamguider as Dreamguider
from symguide.loss_guidance.dsg import DSG as DSG
from symguide.loss_guidance.dsg import Sphere as Sphere
from symguide.loss_guidance.dsg import on_sphere as on_sphere
from symguide.loss_guidance.ecm import ECM as ECM
from symguide.loss_guidance.elucd import EluCD as EluCD
from symguide.loss_guidance.freedom import FreeDoM as FreeDoM
from symguide.loss_guidance.lgd import LGD as LGD
from symguide.loss_guidance.mpgd import MPGD as MPGD
from symguide.loss_guidance.pigdm import PiGDM as PiGDM
from symguide.loss_guidance.recipe import Recipe as Recipe
from symguide.loss_guidance.recipe import noise_window as noise_window
from symguide.loss_guidance.sag import SAG as SAG
from symguide.loss_guidance.tfg import TFG as TFG
from symguide.loss_guidance.universal import UniversalGuidance as UniversalGuidance
from symguide.registry import Registry, registry_of

RECIPES: Registry[type[Recipe]] = registry_of("loss guidance")
