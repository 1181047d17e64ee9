"""guide(pipe, loss=...): loss guidance inside any diffusers pipeline."""

import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from symguide.branch import Rule
from symguide.errors import ConfigError
from symguide.pipelines.bridge import Bridge
from symguide.pipelines.modules import checkpointed
from symguide.pipelines.runs import Record


@contextmanager
def guide(
    pipe: Any,
    *,
    loss: Any = None,
    prediction: Rule | None = None,
    decode: bool = True,
    checkpoint: bool = False,
    seed: int = 0,
    indices: Iterable[int] | None = None,
    on_nan: str = "raise",
) -> Iterator[Record]:
    """Guide everything that a diffusers pipeline draws inside, and nothing else: networks may be shared with others.

        with guide(pipe, loss=SAG(Style(reference, encoder), n=4)) as run:
            images = pipe("a cat wearing glasses").images
        run.trace, run.cost

    Args:
        pipe: a pipeline whose scheduler has a `step`.
        loss: a recipe, such as SAG(objective, n=4).
        prediction: a rule in place of the pipeline's own classifier-free guidance, such as APG(10.0) or PAG(modules).
            It takes the passes that the pipeline makes anyway: call the pipeline with guidance on where a rule needs
            the one without the condition, else without; the pipeline's own scale does not count.
        decode: whether objectives are of decoded pictures or videos (B, C, ...), in [-1, 1]; else of clean latents.
        checkpoint: keep less for the backward sweep: blocks of networks and decoder are computed again there, and
            pictures are decoded one by one. The gradient is the same.
        seed: of the noise that recipes draw themselves; the pipeline's own comes from its generator.
        indices: of the samples that each run inside draws, which with the seed decide that noise: sample i has the same
            alone and in any batch. Counted from 0 where not given.
        on_nan: "raise", or "skip" to leave samples with a non-finite loss or gradient unguided for that step.

    Yields:
        Record, filled while the pipeline runs: `trace` and `cost` of the last run of its scheduler, and all `runs` with
        their `total` cost.

    Raises:
        ConfigError: for pipelines and schedulers that cannot be guided, or are in a `guide` already, and where a run
            draws another number of samples than there are indices.
        GuidanceError: for predictions that cannot be made again, for steps that were made by another scheduler, where
            no step of a run lies in the window, and as the recipe.

    Warns:
        UserWarning: where a run was interrupted before a step in the window.

    Cost: as the recipe's; the pipeline's own call is the first of every look-ahead. Where its graph is needed (n = 1,
    memory="fast", jacobian="first") the pipeline makes it with one from the second guided step on, and in the first it
    is made again; with a ControlNet, in all of them. With `checkpoint` a backward call
    includes another forward one. Where weights are offloaded between components, no graph is kept (`memory=0`).
    """
    bridge = Bridge(pipe, *checked(loss, prediction, decode, checkpoint, seed, indices, on_nan))
    with checkpointed(pipe, checkpoint), bridge.in_place():
        yield bridge.record
        bridge.refuse_unseen()


def checked(
    loss: Any,
    prediction: Any,
    decode: Any,
    checkpoint: Any,
    seed: Any,
    indices: Any,
    on_nan: Any,
) -> tuple[Any, Rule | None, bool, bool, int, tuple[int, ...] | None, str]:
    """What `guide` is given beside the pipeline.

    Raises:
        ConfigError: for what is no recipe, no rule, or no value of the others.
    """
    if loss is None and prediction is None:
        raise ConfigError(
            "guide takes loss=, a recipe such as SAG(objective), or prediction=, a rule such as APG(10.0)"
        )
    if loss is not None and not hasattr(loss, "guide"):
        raise ConfigError("loss= takes a recipe, such as SAG(objective) or FreeDoM(objective), not a bare objective")
    if prediction is not None and not isinstance(prediction, Rule):
        raise ConfigError(f"prediction= takes a rule such as CFGPlusPlus(0.6) or APG(10.0), not {prediction!r}")
    for name, value in (("decode", decode), ("checkpoint", checkpoint)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} is True or False, not {value!r}")
    if on_nan not in ("raise", "skip"):
        raise ConfigError(f"on_nan is 'raise' or 'skip', not {on_nan!r}")
    try:
        seed = operator.index(seed)
        numbers = None if indices is None else tuple(operator.index(i) for i in indices)
    except TypeError as error:
        raise ConfigError(f"seed and indices are whole numbers, not {seed!r} and {indices!r}") from error
    if numbers is not None and min(numbers, default=0) < 0:
        raise ConfigError("indices of samples must not be negative")
    return loss, prediction, decode, checkpoint, seed, numbers, on_nan
