"""A run: from what is asked for to samples on disk, what they cost, and how well they met the objective."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import symguide as sg
from symguide import configs, encoders
from symguide import files as disk
from symguide.cli import config, methods, model, pipeline
from symguide.cli.methods import Method
from symguide.cli.registered import LOSS
from symguide.cli.request import Request
from symguide.cli.source import Show, Source
from symguide.errors import ConfigError, WeightsError
from symguide.files import locked, sweep
from symguide.objectives import Classifier
from symguide.specs import conditions
from symguide.specs.steering import Scored, Steering, files, resolved
from symguide.store import digests, outputs
from symguide.store.shards import Part, Shards
from symguide.worlds import WORLDS


@dataclass(frozen=True)
class Plan:
    """A run that can be made: its settings as a config file has them, and what they stand for."""

    settings: dict[str, Any]
    methods: list[Method]
    source: Source
    steering: Steering | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a picture."""
        return self.source.shape

    @property
    def loss(self) -> Method | None:
        """The method of gradients."""
        return methods.one(self.methods, LOSS)

    def draw(self, indices: range, show: Show) -> tuple[Tensor, sg.Cost]:
        """The samples of these indices, as pictures, and what they cost."""
        objective = None if self.steering is None else self.steering.at(indices)
        return self.source.draw(indices, objective, None if self.loss is None else self.loss.make, show)


def plan(asked: Request, found: list[Method]) -> Plan:
    """The run that is asked for, with everything looked up and checked that can be before the first step.

    Raises:
        ConfigError: for settings that do not go together or cannot be met here. WeightsError: for missing weights.
    """
    spec, loss = asked["objective"], methods.one(found, LOSS)
    if spec is None and asked["encoder"]:
        raise ConfigError("--encoder is what an objective asks: give --objective, e.g. text:'a red star'")
    source: Source = (model if asked["pipeline"] is None else pipeline).source(asked, found)
    settings = dict(source.settings)
    spec = None if spec is None else resolved(spec)
    if spec is not None:
        settings["objective"] = spec
    names = [str(Path(each).resolve()) if Path(each).is_dir() else each for each in asked["encoder"] or ()]
    if names:
        settings["encoder"] = names
    settings |= methods.record(found)
    settings |= {"format": asked["format"], "grid_png": asked["grid_png"]}
    made_with: dict[str, Any] = {"symguide": sg.__version__, "torch": torch.__version__.split("+")[0]}
    made_with |= {
        **source.made_with,
        "files": {str(path): digests.of_file(path) for path in files(spec)} if spec else {},
    }
    settings[config.MADE_WITH] = made_with
    steering = None
    if spec is not None:
        loaded = [encoders.load(each) for each in names]
        for each in names:
            made_with["files"] |= digests.of_encoder(each)
        steering = Steering(spec, source.name, source.shape, encoders=loaded, black_box=loss is None, say=asked.say)
        if steering.sentences:
            made_with["sentences"] = made_with.get("sentences", {}) | conditions.readings(steering.sentences)
        if scored := {f"{s.world}/{s.kind}": WORLDS[s.world].scorers[s.kind] for s in steering.scored}:
            made_with["scorers"] = {scorer: digests.of_network(folder) for scorer, folder in scored.items()}
        if loss is not None:
            loss.make(steering.at(range(1)))  # its own checks
    return Plan(settings, found, source, steering)


@contextmanager
def folder(out: Path, settings: Mapping[str, Any], fresh: bool, part: Part) -> Iterator[Shards]:
    """The output folder for this run or this part of one: its config written, the shards of an earlier start kept.

    A whole run has the folder for itself; a part has its shards, and the folder only while the config is written.
    What fails inside before anything is drawn leaves no folder behind.

    Raises:
        ConfigError: if the folder has another run's samples, or another process is writing to it.
        KeyboardInterrupt: what is saved and how to go on, if it is interrupted inside.
    """
    shards = Shards(out / "shards", settings["num"], settings["batch"], config.identity(settings))
    made = not out.exists()
    shards.folder.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            with ExitStack() as whole:
                whole.enter_context(locked(out, wait=0 if part.whole else 60))
                alone = not part.others(shards.folder)
                if part.whole and not alone:
                    raise ConfigError(f"parts of the run are being drawn in {out}: wait, or choose another --out")
                if not part.whole:
                    stack.enter_context(locked(part.lock(shards.folder), f"part {part} of {out}", wait=1))
                for place in (out, shards.folder) if alone else ():
                    sweep(place)
                _check_owner(out / config.NAME, settings, fresh or (alone and not shards.files()))
                for path in shards.files() if fresh else []:
                    path.unlink()
                if alone or not (out / config.NAME).exists():
                    disk.write(out / config.NAME, config.dump(settings))
                if part.whole:
                    stack.push(whole.pop_all())
            yield shards
    except KeyboardInterrupt:
        saved = sum(len(indices) for indices in shards.found())
        kept = f"{saved} of {shards.num} samples are saved in {shards.folder}" if saved else "nothing is saved yet"
        again = f"run the same command again, or symguide sample --config {out / config.NAME} --out {out}, to go on"
        raise KeyboardInterrupt(f"interrupted: {kept}" + (f"; {again}" if saved else "")) from None
    finally:
        if made and not shards.files() and not part.others(shards.folder):
            part.lock(shards.folder).unlink(missing_ok=True)
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
    old = configs.read(path)
    if not isinstance(old.get(config.MADE_WITH), dict):
        raise ConfigError(f"{path} was not written by a run, and a run would replace it: choose another --out")
    if not empty and (different := config.differences(old, settings)):
        raise ConfigError(
            f"{path.parent} has samples of another run: {', '.join(different)}; "
            "choose another --out, or start over with --fresh"
        )


def draw(run: Plan, shards: Shards, part: Part, asked: Request) -> int:
    """Draw all shards of a part that are not there yet; how many samples were drawn."""
    num, drawn, progress = run.settings["num"], 0, asked["progress"]
    if kept := sum(len(indices) for indices in shards.found()):
        asked.say(f"continuing: {kept} of {num} samples are in {shards.folder} already")
    total = num if part.whole else sum(map(len, part.of(shards.ranges)))
    bar = tqdm(total=total, unit="sample", disable=None if progress is None else not progress, file=sys.stderr)
    with bar:

        def show(done: int, steps: int) -> None:
            bar.set_postfix_str(f"step {done}/{steps}")

        for indices in part.of(shards.ranges):
            try:
                shards.read(indices)
            except (FileNotFoundError, WeightsError) as error:
                if isinstance(error, WeightsError):
                    bar.clear()
                    asked.say(f"{error}: its samples are drawn again")
                shards.save(indices, *run.draw(indices, show))
                drawn += len(indices)
            bar.update(len(indices))
    return drawn


def assemble(run: Plan, shards: Shards, out: Path) -> list[Path]:
    """Write the samples in their format, and the sheet of the first ones."""
    shards.drop_shorter()
    for path in shards.folder.glob("part-*.lock"):
        path.unlink(missing_ok=True)
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


@torch.no_grad()
def reached(run: Plan, shards: Shards) -> dict[str, Any]:
    """The objective's mean loss; for terms with an embedded network also each one's by its scorer and by its judge.

    Returns:
        {"objective": text, "loss": mean, "terms": [{"term": ..., "scorer": {"loss": ...}, "judge": ...}]}, with "hits",
        the share of samples whose label is the network's first choice, for classifiers; {} without an objective.
    """
    if run.steering is None:
        return {}
    device = run.settings["device"]
    losses = [run.steering.at(indices)(samples.to(device)).double() for indices, samples, _ in shards]
    out: dict[str, Any] = {"objective": run.settings["objective"], "loss": _mean(losses)}
    for scored in run.steering.scored:
        entry: dict[str, Any] = {"term": scored.text, "scorer": _by(scored.scorer, scored, shards, device)}
        if (judge := scored.judge()) is not None:
            entry["judge"] = _by(judge, scored, shards, device)
        out.setdefault("terms", []).append(entry)
    return out


def _by(network: nn.Module, scored: Scored, shards: Shards, device: str) -> dict[str, float | None]:
    losses, hits = [], []
    for indices, samples, _ in shards:
        objective, samples = scored.make(network, indices), samples.to(device)
        losses.append(objective(samples).double())
        if isinstance(objective, Classifier):
            hits.append((objective.logits(samples).argmax(dim=1).cpu() == objective.label).double())
    return {"loss": _mean(losses)} | ({"hits": _mean(hits)} if hits else {})


def _mean(parts: list[Tensor]) -> float | None:
    """The mean, or None where it is not finite (JSON has no such number)."""
    value = torch.cat([part.cpu() for part in parts]).mean().item()
    return value if abs(value) < float("inf") else None
