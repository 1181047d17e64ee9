"""The guiders of a modular pipeline: components that decide on its classifier-free guidance in the pipeline's place."""

from typing import Any

from symguide.errors import ConfigError


def guiders(pipe: Any) -> list[Any]:
    """A pipeline's guiders: none, one, or as many as it has networks, in their order."""
    parts = getattr(pipe, "components", {}).values()
    return [part for part in parts if any(kind.__name__ == "BaseGuidance" for kind in type(part).__mro__)]


def refuse_perturbing(pipe: Any) -> None:
    """ConfigError for guiders that change networks for some of their calls: made again, those calls would be others."""
    for guider in guiders(pipe):
        base = next(kind for kind in type(guider).__mro__ if kind.__name__ == "BaseGuidance")
        if type(guider).prepare_models is not base.prepare_models:  # type: ignore[attr-defined]
            raise ConfigError(
                f"{type(guider).__name__} changes the network for some of its calls, which cannot be made again: give "
                "the pipeline a guider that combines plain calls, such as ClassifierFreeGuidance"
            )
