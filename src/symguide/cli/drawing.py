"""A run: from options to settings, from settings to samples on disk, and what they cost."""

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import symguide as sg
from symguide import encoders
from symguide import files as disk
from symguide.cli import config, digests, methods, model, outputs, pipeline
from symguide.cli.files import locked, sweep
from symguide.cli.shards import Record, Shards
from symguide.cli.source import Show, Source
from symguide.errors import ConfigError, WeightsError
from symguide.specs.pictures import Say
from symguide.specs.steering import Steering, files, resolved
from symguide.worlds import WORLDS


@dataclass(frozen=True)
class Plan:
    """A run that can be made: its settings as a config file has them, and what they stand for."""

    settings: dict[str, Any]
    method: dict[str, Any]
    source: Source
    steering: Steering | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a picture."""
        return self.source.shape

    def draw(self, indices: range, show: Show) -> tuple[Tensor, sg.Cost]:
        """The samples of these indices, as pictures, and what they cost."""
        aim = None if self.steering is None else self.steering.at(indices)
        name = self.settings.get("method")
        recipe = None if name is None else functools.partial(methods.make, name, settings=self.method)
        return self.source.draw(indices, aim, recipe, show)


def plan(options: Mapping[str, Any], say: Say) -> Plan:
    """The run that the options ask for, with everything looked up and checked that can be before the first step.

    Args:
        options: of symguide sample, by name, with one source among them.
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
    source: Source = model.source(options) if options["pipeline"] is None else pipeline.source(options)
    settings = dict(source.settings)
    spec = None if spec is None else resolved(spec)
    if spec is not None:
        settings["objective"] = spec
    names = [str(Path(each).resolve()) if Path(each).is_dir() else each for each in options["encoder"]]
    if names:
        settings["encoder"] = names
    if name is not None:
        settings |= {"method": name, **chosen}
    settings |= {"format": options["format"], "grid_png": options["grid_png"]}
    made_with: dict[str, Any] = {"symguide": sg.__version__, "torch": torch.__version__.split("+")[0]}
    made_with |= {
        **source.made_with,
        "files": {str(path): digests.of_file(path) for path in files(spec)} if spec else {},
    }
    settings[config.MADE_WITH] = made_with
    steering = None
    if spec is not None:
        asked = [encoders.load(each) for each in names]
        for each, encoder in zip(names, asked, strict=True):
            made_with["files"] |= digests.of_encoder(each, encoder)
        steering = Steering(spec, source.name, source.shape, encoders=asked, black_box=name is None, say=say)
        if scored := {f"{s.world}/{s.kind}": WORLDS[s.world].scorers[s.kind] for s in steering.scored}:
            made_with["scorers"] = {scorer: digests.of_network(folder) for scorer, folder in scored.items()}
        if name is not None:
            methods.make(name, steering.at(range(1)), chosen)  # its own checks
    return Plan(settings, chosen, source, steering)


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

        def show(done: int, steps: int) -> None:
            bar.set_postfix_str(f"step {done}/{steps}")

        for indices in shards.ranges:
            try:
                shards.read(indices)
            except (FileNotFoundError, WeightsError) as error:
                if isinstance(error, WeightsError):
                    bar.clear()
                    say(f"{error}: its samples are drawn again")
                samples, cost = run.draw(indices, show)
                record = Record(cost.forward_calls, cost.backward_calls, cost.seconds, cost.peak_bytes)
                shards.save(indices, samples, record)
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
