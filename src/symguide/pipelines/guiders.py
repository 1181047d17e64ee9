"""The guiders of a modular pipeline: components that decide on its classifier-free guidance in the pipeline's place."""

from typing import Any

from symguide.errors import ConfigError


def guiders(pipe: Any) -> list[Any]:
    """A pipeline's guiders: none, one, or as many as it has networks, in their order."""
    parts = getattr(pipe, "components", {}).values()
    return [part for part in parts if any(kind.__name__ == "BaseGuidance" for kind in type(part).__mro__)]


OTHERWISE = (
    "AdaptiveProjectedGuidance",
    "AdaptiveProjectedMixGuidance",
    "ClassifierFreeZeroStarGuidance",
    "FrequencyDecoupledGuidance",
    "MagnitudeAwareGuidance",
    "TangentialClassifierFreeGuidance",
)
"""Guiders of diffusers whose combination is no fixed weighted sum, though it may look like one at some points."""


def refuse_unfit_guiders(pipe: Any, ours: bool) -> None:
    """ConfigError for guiders whose prediction cannot be made again at other points.

    Args:
        pipe: the pipeline.
        ours: whether a rule of ours combines the passes in their place.
    """
    for guider in guiders(pipe):
        if not ours and any(kind.__name__ in OTHERWISE for kind in type(guider).__mro__):
            raise ConfigError(
                f"{type(guider).__name__} makes no fixed weighted sum of its passes: give the pipeline a guider such "
                "as ClassifierFreeGuidance, or give guide a rule for its two passes, such as prediction=APG(10.0)"
            )
        base = next(kind for kind in type(guider).__mro__ if kind.__name__ == "BaseGuidance")
        if type(guider).prepare_models is not base.prepare_models:  # type: ignore[attr-defined]
            raise ConfigError(
                f"{type(guider).__name__} changes the network for some of its calls, which cannot be made again: give "
                "the pipeline a guider that combines plain calls, such as ClassifierFreeGuidance, and guide a rule, "
                "such as prediction=chain(CFG(5.0), PAG(modules))"
            )
