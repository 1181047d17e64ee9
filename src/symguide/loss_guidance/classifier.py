"""Classifier guidance: the gradient of a noise-aware classifier at the noisy sample itself."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from symguide.errors import GuidanceError, unknown
from symguide.loss import value_and_gradient
from symguide.loss_guidance.recipe import Constrained, Push, Recipe, Repeats, Scale, Window
from symguide.objectives.base import at_noise
from symguide.ranges import Choice
from symguide.registry import register
from symguide.step import Run, Step

FORMS = ("eps", "mean")


@register("loss guidance", "classifier")
@dataclass(frozen=True, kw_only=True)
class ClassifierGuidance(Recipe):
    """Classifier guidance: no look-ahead, and no gradient of the model.

        g    = d objective(x_t, t) / d x_t,    objective = -log p(label | x_t, t)
        eps' = eps + scale * sigma g,          that is x_0' = x_0 - scale * sigma² / alpha g      (form "eps")
        x_s  = mean + std z - scale * std² g                                                      (form "mean")

    By Bayes' rule eps' at scale 1 is the eps of the model given the label, exactly where the classifier is; with scale
    w samples go toward p(x_t) p(label | x_t)^w. The form "eps" (the paper's DDIM) takes any eta; its change of x_0
    arrives in x_s by the weight of a straight step, which is exact with solver="ddim" and of first order with others.
    "mean" (the paper's DDPM) shifts the mean of noisy steps, and the two agree as steps become small.

    Where alpha = 0, at the very start of a flow, and with "mean" in the last step, which has no noise, a step is left
    unguided.

    Args:
        objective: what judges noisy samples, `objectives.NoisyClassifier(network, label)`, or a sum of such.
        scale: w; 0 is off, 1 is the exact posterior, 1 to 10 in the paper.
        form: "eps" or "mean".
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.

    Raises:
        GuidanceError: for an objective that knows clean samples only, and for "mean" with eta = 0.

    Use it where there is a classifier of noisy samples, or one can be trained: `symguide sample --method classifier
    --objective noisy:3` has one for digits.

    Cost of a guided step: 1 forward and no backward call; one evaluation and gradient of the classifier.

    Source: Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2105.05233, algorithms 1 and 2.
    """

    unguided: ClassVar[str] = "steps at alpha = 0, and the last one with form='mean' or a constraint, are left unguided"

    scale: Scale = 1.0
    form: Annotated[str, Choice(*FORMS)] = "eps"
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    constraint: Constrained = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise unknown("form of classifier guidance", self.form, FORMS)

    @property
    def guides_last(self) -> bool:
        return super().guides_last and self.form == "eps"

    def prepare(self, run: Run) -> None:
        super().prepare(run)
        at_noise(self.objective)  # raises before the first step

    def guides_at(self, run: Run, index: int) -> bool:
        return super().guides_at(run, index) and run.predict.denoiser.schedule.alpha(run.times[index]) > 0

    def push(self, step: Step) -> Push:
        if self.form == "mean" and not step.std > 0:
            raise GuidanceError('form="mean" needs noisy steps: use eta=1, or form="eps" with any eta')
        judge = at_noise(self.objective)
        loss, gradient = value_and_gradient(lambda x: judge(x, step.t, step.schedule), step.x)
        weight = step.std**2
        if self.form == "eps":
            weight = step.x0_weight * step.schedule.sigma(step.t) ** 2 / step.schedule.alpha(step.t)
        return Push(gradient, loss, x_s=-self.scale * weight * gradient)
