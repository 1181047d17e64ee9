"""One training loop for all embedded models: AdamW, warm-up and cosine decay, EMA, and checkpoints that resume exactly.

Every step seeds torch anew from (seed, step), so a run that was stopped and resumed ends with the same weights as one
that was not. A checkpoint is one safetensors file; its header holds the state that is no tensor as JSON.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from symguide.errors import ConfigError, SymguideError, WeightsError
from symguide.files import write


@dataclass
class Run:
    """How to train: what a checkpoint must agree on to be resumed, and where it goes."""

    steps: int
    rate: float
    seed: int
    checkpoint: Path
    resume: bool = False
    decay: float = 0.999
    weight_decay: float = 0.01
    warmup: int = 200
    momentum: float = 0.9
    clip: float = 1.0
    """Largest norm of the gradient."""
    every: int = 500
    minutes: float | None = None
    """Where a leg ends: `Paused` after so many minutes, with a checkpoint to resume from."""
    keep: Collection[int] = ()
    """Steps whose average is kept: it is shown to `kept` of `fit`, and the training goes on as without."""

    def identity(self) -> dict[str, float]:
        return {k: getattr(self, k) for k in ("steps", "rate", "seed", "decay", "weight_decay", "warmup")}

    def factor(self, step: int) -> float:
        """Learning rate of a step as a fraction of `rate`."""
        return min((step + 1) / self.warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class Paused(SymguideError):
    """A leg is over and the training is not."""


def fit(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    run: Run,
    note: Callable[[nn.Module], str] | None = None,
    kept: Callable[[nn.Module, int], None] | None = None,
) -> tuple[nn.Module, float]:
    """Train `network` in place and return its exponential moving average with the hours spent.

    Args:
        network: what `loss` trains; parameters that need no gradient stay as they are.
        loss: the mean loss of a step's batch; may draw from torch's global generator, which is seeded before.
        run: the settings.
        note: at every checkpoint, what to say about the average so far.
        kept: what to do with the average after each of the steps `run.keep`.

    Raises:
        ConfigError: if the checkpoint to resume was made with other settings.
        WeightsError: if it is no checkpoint.
        SymguideError: if the loss is not finite.
        Paused: at the end of a leg.
    """
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [parameter for _, parameter in _trained(network)],
        lr=run.rate,
        weight_decay=run.weight_decay,
        betas=(run.momentum, 0.99),
    )
    start, spent = _restore(network, average, optimizer, run) if run.resume else (0, 0.0)
    began = time.perf_counter()
    network.train()
    bar = tqdm(range(start, run.steps), initial=start, total=run.steps, desc=run.checkpoint.stem, mininterval=5.0)
    for step in bar:
        torch.manual_seed(run.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = run.rate * run.factor(step)
        value = loss(step)
        if not torch.isfinite(value):
            raise SymguideError(f"the loss is {value.item()} at step {step}: lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), run.clip)
        optimizer.step()
        decay = min(run.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)
        if kept and step + 1 in run.keep:
            kept(average, step + 1)
        elapsed = time.perf_counter() - began
        over = run.minutes is not None and elapsed > 60 * run.minutes and step + 1 < run.steps
        if over or (step + 1) % run.every == 0 or step + 1 == run.steps:
            hours = spent + elapsed / 3600
            _keep(network, average, optimizer, run, step + 1, hours)
            tqdm.write(f"{run.checkpoint.stem}: step {step + 1}, {hours:.2f} h, {note(average) if note else ''}")
        if over:
            raise Paused(f"{run.checkpoint.stem} stands at step {step + 1} of {run.steps}: go on with --resume")
    return average, spent + (time.perf_counter() - began) / 3600


def in_rounds(
    network: nn.Module,
    runs: Sequence[Run],
    begin: Callable[[nn.Module], Callable[[int], Tensor]],
    note: Callable[[nn.Module], str] | None = None,
    kept: Callable[[nn.Module, int], None] | None = None,
    device: str = "cpu",
) -> tuple[nn.Module, float]:
    """Several trainings, each from the average that the one before left; the last average, and the hours of all.

    An average is rounded to the half precision that it is stored in, so that what is measured is what ships.

    Args:
        network: of the first.
        runs: the settings of each.
        begin: makes a round's network ready and gives its loss.
        note, kept: of `fit`; steps are counted from the first round's start.
        device: where to train.
    """
    hours, done = 0.0, 0
    for run in runs:
        network = network.to(device, memory_format=torch.channels_last).requires_grad_()
        shown = None if kept is None else lambda average, step, done=done: kept(average, done + step)
        average, spent = fit(network, begin(network), run, note, shown)
        network, hours, done = average.half().float(), hours + spent, done + run.steps
    return network, hours


def begin(network: nn.Module, start: nn.Module) -> None:
    """Take over all weights that have a place of the same shape; a latent model's from pixels: all but its ends."""
    mine = network.state_dict()
    network.load_state_dict(mine | {k: v for k, v in start.state_dict().items() if v.shape == mine[k].shape})


def _trained(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that are not frozen, by name."""
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]


def _keep(
    network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, run: Run, step: int, hours: float
) -> None:
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for name, parameter in _trained(network):
        tensors |= {f"{kind}.{name}": optimizer.state[parameter][kind] for kind in ("exp_avg", "exp_avg_sq")}
    state = {"step": step, "hours": hours, "run": run.identity()}
    data = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    run.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    write(run.checkpoint, safetensors.torch.save(data, metadata={"state": json.dumps(state)}))


def _restore(network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, run: Run) -> tuple[int, float]:
    """Load the checkpoint into all three and give its step and hours; (0, 0) where there is none yet."""
    if not run.checkpoint.exists():
        return 0, 0.0
    try:
        with safetensors.safe_open(run.checkpoint, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{run.checkpoint} is no checkpoint ({error}): remove it, or train without --resume"
        ) from error
    if state["run"] != run.identity():
        raise ConfigError(
            f"{run.checkpoint} was made with {state['run']}: use the same settings, or train without --resume"
        )
    for part, module in (("network.", network), ("average.", average)):
        module.load_state_dict({k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)})
    for name, parameter in _trained(network):
        optimizer.state[parameter] = {
            "step": torch.tensor(float(state["step"])),
            "exp_avg": tensors[f"exp_avg.{name}"].to(parameter),
            "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter),
        }
    return state["step"], state["hours"]
