"""What a pipeline makes of its network's passes: their space, and the rule by which they become one prediction.

Most networks predict what their scheduler steps with, and are combined there. LTX-2 combines clean estimates, and
PRXPixel's network predicts them. A reading is taken only if it gives the prediction that the pipeline handed to its
scheduler.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Prediction
from symguide.errors import ConfigError, GuidanceError
from symguide.pipelines.combine import Affine, Combine, combination, conditional, sign, switch_off, two_passes
from symguide.pipelines.running import running

Convert = Callable[[Prediction], Tensor]
LEAST = {"PRXPixelPipeline": 0.05}
"""Noise levels below which a pipeline divides by this when it makes a flow of a clean estimate."""


@dataclass(frozen=True)
class Reading:
    """How one prediction is made of several.

    Attributes:
        combine: the rule; None where a rule of ours stands in for it.
        convert: a pass, taken for a prediction as the scheduler has it -> the clean estimate that `combine` is given;
            None where passes are combined as they are.
        conditional, sign: which of one or two passes has the condition, and -1 where passes are negatives of
            predictions; None where no rule of ours asks.
    """

    combine: Combine | None
    convert: Convert | None = None
    conditional: int | None = None
    sign: float = 1.0


def read(passes: Sequence[Tensor], made: Prediction, pipeline: Any, ours: bool, others: Sequence[int] = ()) -> Reading:
    """How `made`, in the scheduler's space, was made of the passes.

    Args:
        passes: what the network said in each.
        made: what the pipeline handed to its scheduler.
        pipeline: the pipeline.
        ours: whether a rule of ours combines the passes instead, so that only their kinds need be known.
        others: passes of another network than the last one's, which must count in what was made.

    Raises:
        GuidanceError: if that cannot be made again, and if there are more than two passes for a rule of ours.
    """
    if ours and len(passes) != 1:
        two_passes(passes, pipeline)
    try:
        if not ours and type(pipeline).__name__.startswith("ZImage") and running(pipeline).get("cfg_normalization"):
            raise switch_off(len(passes), pipeline)  # which acts in some steps and not in others
        found = _read(passes, made, pipeline)
    except GuidanceError:
        if not ours or len(passes) == 1 or not all(bool(y.isfinite().all()) for y in passes):
            raise
        found = None
    weights = found.combine.weights if found is not None and isinstance(found.combine, Affine) else None
    if weights is not None and any(abs(float(weights[place])) < 1e-3 for place in others):
        raise GuidanceError(
            f"{type(pipeline).__name__} called two networks alike, and one of them for something else than a "
            "prediction, so it cannot be made again at other latents: this pipeline cannot be guided"
        )
    if not ours:
        assert found is not None
        return found
    if found is None:
        return _two(passes, made, pipeline)
    place = 0 if len(passes) == 1 else conditional(found.combine, pipeline)
    return Reading(None, found.convert, place, sign(found.combine))


def _read(passes: Sequence[Tensor], made: Prediction, pipeline: Any) -> Reading:
    try:
        return Reading(combination(passes, made.value, pipeline))
    except GuidanceError as error:
        tried = (_converted(passes, made, pipeline, convert) for convert in _conversions(pipeline))
        if (found := next((reading for reading in tried if reading is not None), None)) is None:
            raise error
        return found


def _converted(passes: Sequence[Tensor], made: Prediction, pipeline: Any, convert: Convert) -> Reading | None:
    """The reading by a conversion, if the pipeline's is that."""
    try:
        estimates = [convert(made.with_value(y.to(made.value))) for y in passes]
        return Reading(combination(estimates, made.x0, pipeline), convert)
    except (ConfigError, GuidanceError):
        return None


def _conversions(pipeline: Any) -> Iterator[Convert]:
    """Ways to make a clean estimate of a pass: by the scheduler's space, and as one that it is already."""
    yield lambda said: said.x0
    least = LEAST.get(type(pipeline).__name__, 0.0)

    def estimate(said: Prediction) -> Tensor:
        assert isinstance(said.sigma, float)
        share = 1.0 if least <= said.sigma else said.sigma / least
        return said.x + share * (said.value - said.x)

    yield estimate


def _two(passes: Sequence[Tensor], made: Prediction, pipeline: Any) -> Reading:
    """Which of two passes has the condition, where their rule is not known: what is made leans towards that one.

    Raises:
        GuidanceError: where what is made is nearly no mixture of the two.
    """
    columns = torch.stack([y.double().flatten(1) for y in passes], dim=2)

    def mixed(target: Tensor) -> tuple[Tensor, float]:
        flat = target.double().flatten(1)[..., None]
        found = torch.linalg.lstsq(columns, flat).solution
        return found[..., 0].mean(dim=0), float((columns @ found - flat).norm() / flat.norm())

    weights, gap = mixed(made.value)
    if gap > 0.7 or abs(float(weights.sum())) < 0.01 or gap > mixed(made.x0)[1]:
        raise switch_off(1, pipeline)
    side = float(weights.sum().sign())
    return Reading(None, None, int((side * weights).argmax()), side)
