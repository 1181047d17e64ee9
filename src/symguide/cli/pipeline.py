"""A diffusers pipeline on the command line: what it can be asked, and its pictures."""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import symguide as sg
from symguide import values
from symguide.cli import methods
from symguide.cli.methods import Method
from symguide.cli.registered import weighs_condition
from symguide.cli.request import Request
from symguide.cli.source import Show
from symguide.errors import ConfigError
from symguide.meter import Peak
from symguide.pipelines import load
from symguide.pipelines.levels import levels
from symguide.pipelines.modules import networks
from symguide.private.diffusers import packs
from symguide.specs.kinds import Loss, cycle
from symguide.store import digests

COPIED = ("num", "batch", "steps", "seed", "scheduler", "eta", "cfg", "device", "dtype", "on_nan", "negative_prompt")
PYTHON = "guide it in Python, with symguide.guide(pipe, loss=...)"
_SPREAD = 0x9E3779B1  # odd, so that i -> _SPREAD * i is one to one in 32 bits; Knuth's multiplicative hashing


def generator(seed: int, index: int) -> torch.Generator:
    """The numbers of sample `index` of a run, on the CPU, so that they are the same for all devices.

    torch's generator on the CPU knows 32 bits of its seed. No two samples of a run have the same: indices are spread
    over the 32 bits one to one, from a place that the run's seed decides.

    >>> len({generator(0, index).initial_seed() for index in range(1000)})
    1000
    """
    place = int(np.random.SeedSequence(seed % 2**64).generate_state(1)[0])
    return torch.Generator().manual_seed((place + _SPREAD * index) % 2**32)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, which draws in its own loop and is guided inside: see `symguide.cli.source.Source`."""

    name: str
    pipe: Any
    shape: tuple[int, ...]
    settings: Mapping[str, Any]
    made_with: Mapping[str, str]
    call: Mapping[str, Any]
    """What every run of the pipeline is given; lists go to the samples in turn."""
    methods: Sequence[Method]

    def draw(
        self, indices: range, objective: Loss | None, loss: Callable[[Loss], Any] | None, show: Show
    ) -> tuple[Tensor, sg.Cost]:
        s, pipe, device = self.settings, self.pipe, torch.device(self.settings["device"])
        call = {key: cycle(v, indices) if isinstance(v, list) else v for key, v in self.call.items()}
        if "batch_size" in call:
            call["batch_size"] = len(indices)
        if "callback_on_step_end" in _parameters(pipe):
            call["callback_on_step_end"] = _telling(show)
        began, record = time.perf_counter(), None
        with ExitStack() as stack:
            peak, rows = stack.enter_context(Peak(device)), stack.enter_context(_rows(networks(pipe)))
            recipe = None if objective is None or loss is None else loss(objective)
            rule = methods.prediction(self.methods)
            if recipe is not None or rule is not None:
                settings = {"checkpoint": "checkpoint" in s, "seed": s["seed"], "on_nan": s["on_nan"]}
                record = stack.enter_context(sg.guide(pipe, loss=recipe, prediction=rule, indices=indices, **settings))
            drawn = pipe(**call, generator=[generator(s["seed"], i) for i in indices]).images
        pictures = 2 * _tensor(drawn).float().cpu() - 1
        if pictures.shape[1:] != self.shape:
            raise ConfigError(
                f"{type(pipe).__name__} drew pictures of shape {tuple(pictures.shape[1:])} and not {self.shape}: give "
                "a --size that it draws"
            )
        spent = time.perf_counter() - began
        if record is None:
            return pictures, sg.Cost(sum(rows) // len(indices), 0, spent, peak())
        return pictures, replace(record.total, seconds=spent, peak_bytes=max(peak(), record.total.peak_bytes))


def source(asked: Request, found: Sequence[Method]) -> Pipeline:
    """The pipeline that is asked for, loaded and checked.

    Raises:
        ConfigError: for pipelines that draw no pictures of prompts alone, and settings that this one does not take.
        WeightsError: where it cannot be had or read.
    """
    device = values.device(asked["device"])
    name, pipe, folder = load.load_pipeline(asked["pipeline"], getattr(torch, asked["dtype"]))
    made_with = {package: version(package) for package in ("diffusers", "transformers") if load.installed(package)}
    made_with["weights"] = digests.of_pipeline(folder) if name == str(folder) else folder.name
    _check(pipe)
    if asked["scheduler"] is not None:
        pipe.scheduler = _swapped(pipe, asked["scheduler"])
    if asked["objective"] is not None:
        levels(pipe.scheduler)  # its own checks
    elif asked["checkpoint"]:
        raise ConfigError("--checkpoint saves memory in guidance, and nothing is guided: give --objective, or leave it")
    size = _size(pipe, asked["size"])
    rule = next((each for each in found if weighs_condition(each.name)), None)
    call = _call(pipe, {**asked.settings, "cfg": None} if rule is not None else asked.settings)
    if rule is not None and call.get("guidance_scale", 0.0) <= 1:
        raise ConfigError(
            f"{type(pipe).__name__} makes no prediction without the condition by itself: leave out --rule"
        )
    if "height" in _parameters(pipe):
        call |= {"height": size[0], "width": size[1]}
    weight = call.get("guidance_scale") if rule is None else rule.settings["scale"]
    if rule is None and weight is not None and weight > 1 and methods.prediction(found) is not None:
        found = [*found, methods.whole("cfg", {"scale": weight})]  # a rule stands in the place of the pipeline's own
    resolved = {**asked.settings, "steps": call.get("num_inference_steps"), "cfg": weight}
    settings: dict[str, Any] = {"pipeline": name}
    settings |= {key: resolved[key] for key in COPIED if resolved.get(key) is not None}
    if asked["prompt"]:
        settings["prompt"] = asked["prompt"]
    if "height" in call:
        settings["size"] = list(size)
    if asked["checkpoint"]:
        settings["checkpoint"] = True
    return Pipeline(name, pipe.to(device), (_channels(pipe), *size), settings, made_with, call, found)


def _check(pipe: Any) -> None:
    """ConfigError for pipelines that do not draw pictures of a prompt, or of nothing."""
    name, parameters = type(pipe).__name__, _parameters(pipe)
    if {"num_frames", "video_length"} & set(parameters):
        raise ConfigError(f"{name} draws videos, and symguide sample pictures: {PYTHON}, as examples/video.py does")
    if pictures := [key for key in ("image", "control_image", "mask_image") if key in parameters]:
        raise ConfigError(f"{name} takes pictures ({', '.join(pictures)}), and symguide sample none: {PYTHON}")
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [key for key, p in parameters.items() if p.default is p.empty and p.kind not in kinds and key != "prompt"]
    if needed or not {"prompt", "batch_size"} & set(parameters):
        raise ConfigError(f"{name} takes {', '.join(needed) or 'no prompt'}, and symguide sample has prompts: {PYTHON}")


def _swapped(pipe: Any, name: str) -> Any:
    """Another scheduler in the place of the pipeline's, with its settings.

    Raises:
        ConfigError: for one of another kind of noise: networks that were trained on flows know no other.
    """
    made = getattr(load.diffusers(), name).from_config(pipe.scheduler.config)
    own, other = (levels(scheduler).kind for scheduler in (pipe.scheduler, made))
    if own != other:
        raise ConfigError(f"the pipeline's network knows the noise of {own}, and {name} is one of {other}")
    return made


def _call(pipe: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the pipeline's call that the options give, with its own defaults of those that decide samples.

    Raises:
        ConfigError: for options that it does not take.
    """
    parameters, name = _parameters(pipe), type(pipe).__name__
    out: dict[str, Any] = {"output_type": "pt"}
    for option, key in (("steps", "num_inference_steps"), ("cfg", "guidance_scale"), ("eta", "eta")):
        value = options[option]
        if value is None and option != "eta" and key in parameters:
            value = parameters[key].default
        if options[option] is not None and (key not in parameters or not _steps_with(pipe, key)):
            raise ConfigError(f"{name} with {type(pipe.scheduler).__name__} takes no --{option}: leave it out")
        out |= {} if value is None else {key: value}
    if "prompt" not in parameters:
        if options["prompt"] or options["negative_prompt"] is not None:
            raise ConfigError(f"{name} takes no prompt: leave it out")
        return out | {"batch_size": 1}
    if not options["prompt"]:
        raise ConfigError(f'{name} draws what a prompt says: give --prompt, or --prompt "" for anything')
    out["prompt"] = list(options["prompt"])
    if "use_resolution_binning" in parameters:
        out["use_resolution_binning"] = False  # pictures have the size that is asked for, inside guidance as well
    if options["negative_prompt"] is not None:
        key = "true_cfg_scale" if "true_cfg_scale" in parameters else "guidance_scale"
        scale = parameters[key].default if key == "true_cfg_scale" else out.get(key)
        if "negative_prompt" not in parameters or scale is None or scale <= 1:
            raise ConfigError(f"{name} heeds a --negative-prompt only with a {key} above 1, and has {scale}")
        out["negative_prompt"] = [options["negative_prompt"]]
    return out


def _steps_with(pipe: Any, key: str) -> bool:
    """Whether an argument of the pipeline's call reaches the scheduler's steps, for those that are meant for these."""
    return key != "eta" or key in inspect.signature(pipe.scheduler.step).parameters


def _size(pipe: Any, given: Sequence[int] | None) -> tuple[int, int]:
    """Height and width of the pictures.

    Raises:
        ConfigError: for sizes that the pipeline does not draw, and where it does not say its own.
    """
    name, parameters = type(pipe).__name__, _parameters(pipe)
    factor = 1 if getattr(pipe, "vae", getattr(pipe, "vqvae", None)) is None else getattr(pipe, "vae_scale_factor", 8)
    if given is not None:
        if "height" not in parameters:
            raise ConfigError(f"{name} draws one size only: leave out --size")
        patch = 2 if packs(pipe) else getattr(pipe, "patch_size", 1)
        if any(side % (factor * patch) for side in given):
            raise ConfigError(f"{name} draws sizes that are multiples of {factor * patch}, not {given[0]}x{given[1]}")
        return given[0], given[1]
    if isinstance(default := getattr(parameters.get("height"), "default", None), int):
        return default, parameters["width"].default
    known = getattr(pipe, "default_sample_size", None) or getattr(networks(pipe)[0].config, "sample_size", None)
    if known is None:
        raise ConfigError(f"{name} does not say which size it draws: give --size HEIGHT WIDTH")
    height, width = (known, known) if isinstance(known, int) else known
    return height * factor, width * factor


def _channels(pipe: Any) -> int:
    """Of a picture."""
    vae = getattr(pipe, "vae", None) or getattr(pipe, "vqvae", None)
    config: Any = networks(pipe)[0].config if vae is None else vae.config
    return int(config.in_channels if vae is None else config.out_channels)


def _parameters(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """Of the pipeline's call."""
    return inspect.signature(pipe.__call__).parameters


def _telling(show: Show) -> Callable[..., dict[str, Any]]:
    """What pipelines call after each step."""

    def told(pipe: Any, index: int, timestep: Any, kept: Any) -> dict[str, Any]:
        show(index + 1, len(pipe.scheduler.timesteps))
        return {}

    return told


@contextmanager
def _rows(modules: Sequence[nn.Module]) -> Iterator[list[int]]:
    """How many samples the networks are called with, call by call."""
    rows: list[int] = []

    def note(module: nn.Module, given: Any, output: Any) -> None:
        rows.append(len(output[0] if not isinstance(output, Tensor) else output))

    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def _tensor(drawn: Any) -> Tensor:
    """Pictures (B, C, H, W) in [0, 1]; some pipelines know no tensors, and give arrays with channels last."""
    return drawn if isinstance(drawn, Tensor) else torch.from_numpy(np.asarray(drawn)).permute(0, 3, 1, 2)
