"""How much memory a guided pipeline will take, before it runs: by plan, without a GPU and without weights.

The network's call, the decoder and their gradients are simulated on tensors without data (`simulate`). What lives at
once is what `symguide.memory_plan.Forecast` says, the decoder being the objective; weights come on top, and the peak is
no less than that of the pipeline's own last decoding. The pipeline makes the first call of every look-ahead itself, and
with its graph where all n are kept.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from symguide.errors import ConfigError, unknown
from symguide.memory_plan import Forecast, MemoryPlan, graphs_to_keep
from symguide.planning.architecture import architecture
from symguide.planning.inputs import TWO_PASSES
from symguide.planning.parts import Parts
from symguide.planning.simulate import Footprint

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CARDS = (4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 141, 192)
"""Sizes of cards that are sold, in GB."""


MEMORIES: tuple[MemoryPlan | None, ...] = (None, "fast", "minimal", 0)
"""The memory plans that are compared; None is plain autograd through all n calls and the decoder."""


def plan_name(memory: MemoryPlan | None, checkpoint: bool) -> str:
    """A plan as it is typed.

    >>> plan_name("minimal", True)
    'memory="minimal", checkpoint=True'
    """
    plan = "plain autograd" if memory is None else f"memory={memory!r}".replace("'", '"')
    return f"{plan}, checkpoint=True" if checkpoint else plan


@dataclass(frozen=True)
class Plan:
    """One way to take the gradient, and what it is predicted to take.

    Attributes:
        memory: one of `MEMORIES`, as for `lookahead_gradient`.
        checkpoint: whether blocks are computed again in the backward sweep, as `guide(checkpoint=True)` has it.
        weights: bytes of all networks on the device.
        states: bytes of the stored states.
        graphs: bytes of the network graphs that live while the objective is computed.
        network: the most bytes that one network call and its gradient hold.
        decoder: the most bytes that decoding and its gradient hold.
        peak: the most bytes at once.
        forward_calls, backward_calls: of the network in a guided step, the pipeline's own included.
        time: of a guided step by its floating point operations, in units of one network call.
    """

    memory: MemoryPlan | None
    checkpoint: bool
    weights: int
    states: int
    graphs: int
    network: int
    decoder: int
    peak: int
    forward_calls: int
    backward_calls: int
    time: float

    @property
    def name(self) -> str:
        """As it is typed."""
        return plan_name(self.memory, self.checkpoint)


@dataclass(frozen=True)
class Estimate:
    """Predictions for all plans, and the settings that they are for.

    Attributes:
        pipeline: the pipeline's class.
        height, width: of the pictures, in pixels.
        batch: samples at a time.
        dtype: of networks and autoencoder, by name.
        n: network calls of the look-ahead.
        guidance: whether classifier-free guidance makes every call a double one.
        upcast: whether pictures are decoded in float32 though the rest is float16, as the pipeline itself does.
        plans: plain autograd first, then the plans of `lookahead_gradient`, each without and with checkpointing.
    """

    pipeline: str
    height: int
    width: int
    batch: int
    dtype: str
    n: int
    guidance: bool
    upcast: bool
    plans: tuple[Plan, ...]

    def fitting(self, size: int) -> list[Plan]:
        """The plans (plain autograd aside) that fit into so many bytes, fastest first; of equals the smaller first."""
        fit = [plan for plan in self.plans if plan.memory is not None and plan.peak <= size]
        return sorted(fit, key=lambda plan: (plan.time, plan.peak))

    def smallest_card(self) -> int | None:
        """GB of the smallest card on which some plan fits; None where there is none."""
        return next((size for size in CARDS if self.fitting(size * 10**9)), None)

    def record(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**asdict(self), "plans": [{"name": plan.name, **asdict(plan)} for plan in self.plans]}


def estimate_memory(
    model: Any,
    height: int | None = None,
    width: int | None = None,
    *,
    batch: int = 1,
    dtype: str = "float16",
    n: int = 4,
    guidance: bool | None = None,
    text_encoders: bool = True,
) -> Estimate:
    """Predict the peak memory of `guide(pipe, loss=SAG(objective, n=n))`, for every memory plan.

        estimate_memory("sdxl").fitting(16 * 10**9)[0].name
        estimate_memory(pipe, 768, 768, n=8).plans

    Args:
        model: "sd-1.5", "sdxl", "dit-xl-2", "sd3-medium" or "flux.1-dev", the folder of a pipeline, its name on the
            hub, or a pipeline. Only configs are read.
        height, width: of the pictures, in pixels; what the model was trained for where they are left out.
        batch: samples at a time.
        dtype: "float16", "bfloat16" or "float32", of all networks.
        n: network calls of the look-ahead.
        guidance: classifier-free guidance; None is on, but off for Flux, which has learned it.
        text_encoders: whether text encoders (and whatever else is no part of the loop) stay on the device, or have
            been moved away once prompts are encoded.

    Returns:
        Estimate, whose bytes leave out: the objective's own networks, adapters, a ControlNet's graph, the driver's
        share (0.3 to 0.6 GB) and kernels' scratch space.

    Raises:
        ConfigError: for networks of other families than `inputs.FAMILIES`, sizes that the autoencoder cannot decode,
            and where diffusers is not installed. WeightsError: as `architecture`.

    Cost: some seconds, and no memory to speak of.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if n < 1 or batch < 1:
        raise ConfigError(f"n and batch must be at least 1, not {n} and {batch}")
    made = architecture(model)
    parts = Parts(made, DTYPES[dtype])
    guidance = made.network.name not in TWO_PASSES if guidance is None else guidance
    height, width = height or width or parts.size, width or height or parts.size
    shape = parts.latents(batch, height, width)
    plain, blocks = parts.footprints(shape, guidance, False), parts.footprints(shape, guidance, True)
    states = (n + 1) * 4 * shape.numel()  # in float32, and the clean estimate
    same = (n, parts.weights(text_encoders), states, parts.last_decoding(shape))
    return Estimate(
        made.pipeline,
        height,
        width,
        batch,
        dtype,
        n,
        guidance,
        parts.upcast,
        tuple(_plan(memory, each is blocks, *each, *same) for memory in MEMORIES for each in (plain, blocks)),
    )


def _plan(
    memory: MemoryPlan | None,
    checkpoint: bool,
    network: Footprint,
    decoder: Footprint,
    n: int,
    weights: int,
    states: int,
    last_decoding: int,
) -> Plan:
    """The phases of a guided step, one beside the other."""
    forecast = Forecast(n, network.saved, network.peak, decoder.peak, states)
    kept = graphs_to_keep("fast" if memory is None else memory, n, forecast, None) or 0
    peak = weights + max(forecast.peak(kept), states + last_decoding)
    forward = n if memory is None else 2 * n - kept
    flops = forward * network.forward_flops + n * network.backward_flops
    time = (flops + decoder.forward_flops + decoder.backward_flops) / network.forward_flops
    held = (kept * network.saved, network.peak, decoder.peak)
    return Plan(memory, checkpoint, weights, states, *held, peak, forward, n, time)
