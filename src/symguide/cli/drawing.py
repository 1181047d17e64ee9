"""A run: from options to settings, from settings to samples on disk, and what they cost."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import symguide as sg
from symguide import encoders
from symguide import files as disk
from symguide.cli import conditions, config, methods, outputs
from symguide.cli.device import usable
from symguide.cli.files import locked, sweep
from symguide.cli.kinds import cycle
from symguide.cli.shards import Record, Shards
from symguide.cli.steering import Steering, files, resolved
from symguide.errors import ConfigError, WeightsError
from symguide.networks import io
from symguide.worlds import WORLDS

Say = Callable[[str], None]

DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PROMPTED = 5.0
"""Weight of classifier-free guidance where a prompt is given and no weight: captions are hardly followed without."""

COPIED = ("num", "batch", "steps", "seed", "solver", "grid", "eta", "cfg", "best_of", "device", "dtype", "on_nan")


@dataclass(frozen=True)
class Plan:
    """A run that can be made: its settings as a config file has them, and what they stand for."""

    settings: dict[str, Any]
    method: dict[str, Any]
    denoiser: sg.Denoiser
    shape: tuple[int, ...]
    """Of a picture; where the model draws latents, they are decoded before anything sees them."""
    steering: Steering | None
    condition: dict[str, list[Any]]
    """Values by name, which go to the samples in turn."""

    def draw(self, indices: range, callback: Callable[[sg.StepRecord, Tensor], None] | None = None) -> sg.Result:
        """The samples of these indices, as pictures."""
        s = self.settings
        aim = None if self.steering is None else self.steering.at(indices)
        if aim is not None and self.denoiser.decoder is not None:
            aim = sg.objectives.Decoded(aim, self.denoiser.decode)
        result = sg.sample(
            self.denoiser,
            indices=indices,
            steps=s["steps"],
            seed=s["seed"],
            condition={name: cycle(values, indices) for name, values in self.condition.items()},
            solver=s["solver"],
            grid=s["grid"],
            eta=s["eta"],
            prediction=sg.CFG(s["cfg"]) if "cfg" in s else None,
            loss=methods.make(s["method"], aim, self.method) if "method" in s else None,
            particles=sg.BestOfN(aim, s["best_of"]) if s.get("best_of", 1) > 1 else None,
            dtype=DTYPES[s["dtype"]],
            device=s["device"],
            on_nan=s["on_nan"],
            callback=callback,
        )
        with torch.no_grad():
            return replace(result, samples=self.denoiser.decode(result.samples))


def plan(options: Mapping[str, Any], say: Say) -> Plan:
    """The run that the options ask for, with everything looked up and checked that can be before the first step.

    Args:
        options: of symguide sample, by name.
        say: takes remarks, such as that a picture was resized.

    Raises:
        ConfigError: for options that do not go together or cannot be met here. WeightsError: for missing weights.
    """
    spec, best_of = options["objective"], options["best_of"]
    name, chosen = _method(options)
    if spec is None and name is not None:
        raise ConfigError(f"--method {name} needs something to steer toward: give --objective, e.g. classifier:3")
    if spec is None and best_of is not None:
        raise ConfigError("--best-of keeps the best samples by an objective: give --objective, e.g. my_module:rule")
    if spec is None and options["encoder"]:
        raise ConfigError("--encoder is what an objective asks: give --objective, e.g. text:'a red star'")
    device, dtype = usable(options["device"]), DTYPES[options["dtype"]]
    denoiser = sg.load(options["model"], dtype=torch.float32).to(device, dtype)
    if denoiser.shape is None:
        raise ConfigError(f"{options['model']}/config.json does not say the shape of a sample: add it to 'denoiser'")
    with torch.no_grad():
        shape = tuple(denoiser.decode(torch.zeros(1, *denoiser.shape, device=device)).shape[1:])
    condition, prompts = conditions.given(denoiser, options["condition"]), list(options["prompt"])
    values = conditions.rows(denoiser, condition, prompts)
    if options["cfg"] not in (None, 1.0) and not values:
        raise ConfigError("--cfg strengthens a condition, and none is given: add --prompt or e.g. --condition label=3")

    settings: dict[str, Any] = {
        "model": options["model"] if options["model"] in WORLDS else str(Path(options["model"]).resolve())
    }
    settings |= {key: options[key] for key in COPIED if options[key] is not None}
    if prompts:
        settings = {"cfg": PROMPTED} | settings | {"prompt": prompts}
    if condition:
        settings["condition"] = condition
    spec = None if spec is None else resolved(spec)
    if spec is not None:
        settings["objective"] = spec
    names = [str(Path(each).resolve()) if Path(each).is_dir() else each for each in options["encoder"]]
    if names:
        settings["encoder"] = names
    if name is not None:
        settings |= {"method": name, **chosen}
    settings |= {"format": options["format"], "grid_png": options["grid_png"]}
    settings[config.MADE_WITH] = {
        "symguide": sg.__version__,
        "torch": torch.__version__.split("+")[0],
        "weights": _weights(WORLDS[options["model"]].denoiser if options["model"] in WORLDS else settings["model"]),
        "files": {str(path): _digest(path) for path in files(spec or "")} if spec else {},
    }
    steering = None
    if spec is not None:
        asked = [encoders.load(each) for each in names]
        for each, encoder in zip(names, asked, strict=True):
            settings[config.MADE_WITH]["files"] |= _source(each, encoder)
        steering = Steering(spec, settings["model"], shape, encoders=asked, black_box=name is None, say=say)
        if scorers := {f"{s.world}/{s.kind}": _weights(WORLDS[s.world].scorers[s.kind]) for s in steering.scored}:
            settings[config.MADE_WITH]["scorers"] = scorers
        if name is not None:
            methods.make(name, steering.at(range(1)), chosen)  # its own checks
    return Plan(settings, chosen, denoiser, shape, steering, values)


def _method(options: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The method's name and all of its options; SAG where only an objective is given."""
    given = {option: options[option] for option in methods.PARAMETERS if options[option] is not None}
    name = options["method"]
    if name is None and options["objective"] is not None and options["best_of"] is None:
        name = "sag"
    if name is not None:
        return name, methods.resolve(name, given)
    if given:
        raise ConfigError(
            f"{', '.join(map(methods.flag, given))} must go with a method: add --method, e.g. --method sag, "
            "and --objective"
        )
    return None, {}


def _source(name: str, encoder: Any) -> dict[str, str]:
    """What tells an encoder from its later self: digests of the files of its folder, or its commit on the hub."""
    if not Path(name).is_dir():
        return {name: str(encoder.model.config._commit_hash)}
    return {str(path): _digest(path) for path in sorted(Path(name).iterdir()) if path.is_file()}


def _weights(folder: str | Path) -> str:
    """Digest of a network's config and weights."""
    return hashlib.sha256(
        "".join(_digest(Path(folder) / name) for name in (io.CONFIG, io.WEIGHTS)).encode()
    ).hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


@contextmanager
def folder(out: Path, settings: Mapping[str, Any], fresh: bool) -> Iterator[Shards]:
    """The output folder for this run alone: its config written, the shards of an earlier start kept.

    What fails inside before anything is drawn leaves no folder behind.

    Raises:
        ConfigError: if the folder has another run's samples, or another process is writing to it.
        KeyboardInterrupt: what is saved and how to go on, if it is interrupted inside.
    """
    shards = Shards(out / "shards", settings["num"], settings["batch"], config.identity(settings))
    made = not out.exists()
    shards.folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out):
            for place in (out, shards.folder):
                sweep(place)
            _check_owner(out / config.NAME, settings, fresh or not shards.files())
            for path in shards.files() if fresh else []:
                path.unlink()
            disk.write(out / config.NAME, config.dump(settings))
            yield shards
    except KeyboardInterrupt:
        saved = sum(len(indices) for indices in shards.found())
        kept = f"{saved} of {shards.num} samples are saved in {shards.folder}" if saved else "nothing is saved yet"
        again = f"run the same command again, or symguide sample --config {out / config.NAME} --out {out}, to go on"
        raise KeyboardInterrupt(f"interrupted: {kept}" + (f"; {again}" if saved else "")) from None
    finally:
        if made and not shards.files():
            (out / config.NAME).unlink(missing_ok=True)
            with suppress(OSError):
                shards.folder.rmdir()
                out.rmdir()


def _check_owner(path: Path, settings: Mapping[str, Any], empty: bool) -> None:
    """ConfigError unless the folder's config is this run's, or it is ours and nothing of its run is kept."""
    if not path.exists():
        if not empty:
            raise ConfigError(f"{path.parent} has shards and no {path.name}: choose another --out, or --fresh")
        return
    old = config.read(path)
    if not isinstance(old.get(config.MADE_WITH), dict):
        raise ConfigError(f"{path} was not written by a run, and a run would replace it: choose another --out")
    if not empty and (different := config.differences(old, settings)):
        raise ConfigError(
            f"{path.parent} has samples of another run: {', '.join(different)}; "
            "choose another --out, or start over with --fresh"
        )


def draw(run: Plan, shards: Shards, say: Say, progress: bool | None) -> int:
    """Draw all shards that are not there yet; how many samples were drawn."""
    num, drawn = run.settings["num"], 0
    if kept := sum(len(indices) for indices in shards.found()):
        say(f"continuing: {kept} of {num} samples are in {shards.folder} already")
    bar = tqdm(total=num, unit="sample", disable=None if progress is None else not progress, file=sys.stderr)
    with bar:

        def show(record: sg.StepRecord, x: Tensor) -> None:
            bar.set_postfix_str(f"step {record.index + 1}/{run.settings['steps']}")

        for indices in shards.ranges:
            try:
                shards.read(indices)
            except (FileNotFoundError, WeightsError) as error:
                if isinstance(error, WeightsError):
                    bar.clear()
                    say(f"{error}: its samples are drawn again")
                result = run.draw(indices, show)
                cost = result.cost
                record = Record(cost.forward_calls, cost.backward_calls, cost.seconds, cost.peak_bytes)
                shards.save(indices, result.samples, record)
                drawn += len(indices)
            bar.update(len(indices))
    shards.drop_shorter()
    return drawn


def assemble(run: Plan, shards: Shards, out: Path) -> list[Path]:
    """Write the samples in their format, and the sheet of the first ones."""
    s = run.settings
    paths = [outputs.write(out, s["format"], s["num"], run.shape, ((i, x) for i, x, _ in shards))]
    if s["grid_png"] and outputs.drawable(run.shape):
        first: list[Tensor] = []
        for _, samples, _ in shards:
            first.append(samples)
            if sum(map(len, first)) >= outputs.SHEET:
                break
        paths.append(outputs.write_sheet(out, torch.cat(first)))
    return paths


def costs(run: Plan, shards: Shards) -> dict[str, Any]:
    """Calls for each sample that is kept, seconds in all, and the peak of bytes."""
    records = [record for _, _, record in shards]
    seconds = sum(record.seconds for record in records)
    return {
        "forward_calls_per_sample": records[0].forward_calls,
        "backward_calls_per_sample": records[0].backward_calls,
        "seconds": seconds,
        "seconds_per_sample": seconds / run.settings["num"],
        "peak_bytes": max(record.peak_bytes for record in records),
    }
