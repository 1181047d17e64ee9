"""What symguide tune does: from a request to a search, and from what it found to a table, a picture and configs."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import symguide as sg
from symguide import files as disk
from symguide import values
from symguide.cli import config, methods, registered, run
from symguide.cli.methods import Method
from symguide.cli.model import Model
from symguide.cli.registered import LOSS
from symguide.cli.request import Request
from symguide.errors import ConfigError, unknown
from symguide.evaluation.tasks import shapes_read
from symguide.files import locked, sweep
from symguide.ranges import Choice, Domain, Maybe, Range, Window
from symguide.report import Column, Table, draw_front
from symguide.specs.steering import Steering, judge_of
from symguide.store import outputs
from symguide.tuning import Trial, Tuned
from symguide.tuning.measure import At, Measure
from symguide.tuning.search import search as run_search
from symguide.tuning.space import Space, build
from symguide.tuning.tune import in_parts
from symguide.worlds.scenes.scene import SHAPES

TRIALS, PICTURE, RESULTS, FRONT = "trials.jsonl", "front.png", "results.json", "front"


@dataclass(frozen=True)
class Task:
    """What is tuned: a run of symguide sample, the space of its methods, and what is asked of the samples."""

    asked: Request
    run: run.Plan
    space: Space
    metric: At
    metric_name: str
    keep: At | None

    def cost(self, method: str | None, settings: Mapping[str, Any]) -> tuple[int, int]:
        assert isinstance(self.run.source, Model)
        return self.run.source.calls(self._loss(method, settings))

    def draw(
        self, method: str | None, settings: Mapping[str, Any], seed: int, indices: range
    ) -> tuple[Tensor, sg.Cost]:
        assert isinstance(self.run.source, Model) and self.run.steering is not None
        source = replace(self.run.source, settings={**self.run.source.settings, "seed": seed})
        objective = None if method is None else self.run.steering.at(indices)
        return source.draw(indices, objective, self._loss(method, settings), lambda done, steps: None)

    def _loss(self, method: str | None, settings: Mapping[str, Any]) -> Callable[[Any], Any] | None:
        return None if method is None else Method(LOSS, method, settings).make

    def config(self, trial: Trial) -> dict[str, Any]:
        """The settings of `symguide sample` that draw with a trial's."""
        assert trial.method is not None
        others = [each for each in self.run.methods if each.kind != LOSS]
        own = methods.record(self.run.methods)
        whole = {key: value for key, value in self.run.settings.items() if key not in own}
        made_with = whole.pop(config.MADE_WITH)
        chosen = methods.record([methods.whole(trial.method, trial.settings), *others])
        return {**whole, **chosen, config.MADE_WITH: made_with}

    def settings(self, trial: Trial) -> dict[str, Any]:
        """A trial's settings by the names that the command line has."""
        return {methods.key(str(trial.method), each): value for each, value in trial.settings.items()}

    def shown(self, trial: Trial) -> str:
        """The settings that were searched, as text."""
        if trial.method is None:
            return "unguided"
        searched = self.space.methods[trial.method].domains
        parts = [
            f"{methods.key(trial.method, key)} {_value(trial.settings[key])}"
            for key in searched
            if key in trial.settings
        ]
        return ", ".join([trial.method, *parts])


def prepare(asked: Request) -> Task:
    """The search that is asked for, with everything looked up and checked.

    Raises:
        ConfigError: for settings that do not go together or cannot be met here. WeightsError: for missing weights.
    """
    if asked["objective"] is None:
        raise ConfigError("tuning needs something to steer toward: give --objective, e.g. classifier:3")
    names = asked.names or ["sag"]
    for name in names:
        if (kind := registered.kind_of(name)) != LOSS:
            instead = "use --cfg SCALE" if registered.weighs_condition(name) else "sample with it"
            raise ConfigError(f"{name} is {kind}, and loss guidance is tuned: {instead}")
    given = methods.belong(asked.words, names)
    begin = {name: dict(methods.whole(name, own).settings) for name, own in given.items()}
    fixed = {key: value for own in methods.belong(asked.typed, names).values() for key, value in own.items()}
    first = registered.parameters(names[0])
    mine = [word for word in asked.words if registered.parameter_of(word.name) in first]
    plan = run.plan(asked, replace(asked, names=names[:1], words=mine).methods())
    outputs.check(Path(asked["out"]), plan.settings["format"], plan.shape)
    metric, metric_name = _metric(asked, plan)
    if asked["eta"] == 0 and not asked["search"]:
        fixed.setdefault("constraint", None)  # a step without noise has no sphere
    space = build(names, _space(asked["search"] or (), names), fixed, begin)
    return Task(asked, plan, space, metric, metric_name, _keep(asked, plan))


def _space(given: Sequence[str], names: Sequence[str]) -> dict[str, Domain | None] | None:
    """Parameters and the ranges that are typed; None where none is: all that the methods have ranges for."""
    out: dict[str, Domain | None] = {}
    for text in given:
        name, equals, rest = (part.strip() for part in text.partition("="))
        parameter = registered.parameter_of(name.replace("-", "_"))
        known = {key: own for each in names for key, own in registered.parameters(each).items()}
        if parameter not in known:
            raise unknown("parameter in --search", name, [methods.key(names[0], key) for key in known])
        if not equals and not any(parameter in registered.ranges(each) for each in names):
            raise ConfigError(f"{name} has no range of its own: give one, --search {name}=A,B or {name}=LOW:HIGH")
        out[parameter] = parse_range(name, known[parameter].kind, rest) if equals else None
    return out or None


def parse_range(name: str, kind: Any, text: str) -> Domain:
    """0.1:3:log, 1:8, 1,2,4, none,0.05:0.5, or for a window 0:0.4,0.6:1.

    Raises:
        ConfigError: for what is none of these, or has values that the parameter does not take.
    """

    def value(each: str) -> Any:
        return values.plain(each, kind, f"--search {name}={text}: {name}")

    def span(each: str, of: Callable[[str], Any] = value) -> Range:
        low, high, *log = (part.strip() for part in each.split(":"))
        if log not in ([], ["log"]):
            raise ConfigError(f"--search {name}={text} must be {name}=LOW:HIGH or {name}=LOW:HIGH:log")
        ends = of(low), of(high)
        if not all(isinstance(end, int | float) for end in ends):
            raise ConfigError(f"{name} has no numbers: write its values as a list, {name}=A,B")
        return Range(ends[0], ends[1], bool(log))

    parts = [part.strip() for part in text.split(",")]
    spans = [":" in part for part in parts]
    if values.words(kind) == 2:
        if spans != [True, True]:
            raise ConfigError(f"--search {name}={text} must be two ranges, of start and stop, such as 0:0.4,0.6:1")
        return Window(*(span(part, lambda end: values.plain(end, float, f"--search {name}")) for part in parts))
    if spans == [True]:
        return span(parts[0])
    if spans == [False, True] and parts[0] == "none" and value("none") is None:
        return Maybe(span(parts[1]))
    if any(spans):
        raise ConfigError(f"--search {name}={text} must be one range, LOW:HIGH, or a list of values, A,B,C")
    return Choice(*map(value, parts))


def _metric(asked: Request, plan: run.Plan) -> tuple[At, str]:
    """What is minimised, and its name."""
    steering, metric = plan.steering, asked["metric"]
    assert steering is not None
    judged = steering.judged() if metric in (None, "judge") else None
    if metric == "judge" and judged is None:
        raise ConfigError(
            f"there is no judge of {asked['objective']}: use --metric scorer, or a measure of your own, "
            "--metric my_module:score"
        )
    if judged is not None:
        return judged, "judge"
    if metric is None:
        asked.say("there is no judge of this objective: tuning on the objective itself, which guidance sees")
    if metric in (None, "scorer"):
        return steering.at, "scorer"
    return _steering(metric, plan).at, metric


def _steering(spec: str, plan: run.Plan) -> Steering:
    return Steering(spec, plan.source.name, plan.shape, black_box=True)


def _keep(asked: Request, plan: run.Plan) -> At | None:
    """What must not be lost, by the samples' indices."""
    keep = asked["keep"]
    if keep is None:
        if asked["floor"] is not None:
            raise ConfigError("--floor is of what --keep says: add --keep, e.g. --keep shape")
        return None
    if keep != "shape":
        return _steering(keep, plan).at
    name = plan.source.name
    if name.partition("-")[0] != "scenes" or judge_of("classifier", name) is None:
        raise ConfigError(
            "--keep shape asks the judge of the scenes world: use it with such pictures, or my_module:Name"
        )
    shapes = [[SHAPES.index(word) for word in prompt.split() if word in SHAPES] for prompt in asked["prompt"] or ()]
    if not shapes or any(len(each) != 1 for each in shapes):
        raise ConfigError(
            'with --keep shape every --prompt says which shape is asked for, one each, as in --prompt "a red star"'
        )

    def at(indices: Sequence[int]) -> Callable[[Tensor], Tensor]:
        wanted = torch.tensor([shapes[i % len(shapes)][0] for i in indices])
        return lambda samples: shapes_read(samples, wanted)

    return at


def search(task: Task, out: Path) -> Tuned:
    """Run the search, or go on with one that was interrupted.

    Raises:
        KeyboardInterrupt: what is kept and how to go on, if it is interrupted.
    """
    asked = task.asked
    measure = Measure(task, task.metric, task.keep, in_parts(asked["num"], asked["seeds"], asked["batch"]))
    ignored = methods.record(task.run.methods[:1])
    about = {k: v for k, v in config.matters(task.run.settings).items() if k not in ignored}
    about |= {"metric": task.metric_name, "keep": asked["keep"]}
    log, made = out / TRIALS, not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out):
            sweep(out)
            if asked["fresh"]:
                log.unlink(missing_ok=True)
            return run_search(
                task.space,
                measure,
                budget=asked["budget"],
                seed=asked["seed"],
                floor=asked["floor"],
                about=about,
                log=log,
                progress=asked["progress"],
            )
    except KeyboardInterrupt:
        kept = f"the trials so far are in {log}; run the same command again to go on"
        raise KeyboardInterrupt(f"interrupted: {kept if log.exists() else 'nothing kept'}") from None
    finally:
        if made and not log.exists():
            out.rmdir()


def figures(task: Task, found: Tuned) -> dict[str, Any]:
    """All that was found, as JSON values."""
    front = found.front
    return {
        "objective": task.run.settings["objective"],
        "metric": task.metric_name,
        "keep": task.asked["keep"],
        "floor": found.floor,
        "calls_spent": found.spent,
        "best": front[-1].number if front else None,
        "front": [trial.number for trial in front],
        "unguided": _record(task, found.unguided),
        "trials": [_record(task, trial) for trial in found.trials],
    }


def _record(task: Task, trial: Trial) -> dict[str, Any]:
    own = ("number", "method", "state", "error", "keep", "forward_calls", "backward_calls", "seconds", "why")
    row = {key: getattr(trial, key) for key in own}
    row |= {"settings": task.settings(trial), "metric": trial.value, "samples": len(trial.values)}
    return Table([], [row]).records()[0]


def write(task: Task, found: Tuned, results: Mapping[str, Any], out: Path) -> list[Path]:
    """The files of a search: figures, picture, and a config for the best and for each point of the front."""
    disk.write(out / RESULTS, (json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    written = [out / RESULTS]
    try:
        disk.write(out / PICTURE, draw_front(found, task.metric_name))
        written.append(out / PICTURE)
    except ConfigError as missing:
        task.asked.say(str(missing))
    (out / config.NAME).unlink(missing_ok=True)
    shutil.rmtree(out / FRONT, ignore_errors=True)
    if found.front:
        (out / FRONT).mkdir()
        for trial in found.front:
            figures = f"{trial.calls} calls, {task.metric_name} {trial.value:.4g}"
            text = config.dump(task.config(trial), f"draws with trial {trial.number}: {figures}")
            disk.write(out / FRONT / f"{trial.calls:06d}-calls.yaml", text)
        disk.write(out / config.NAME, text)
        written += [out / FRONT, out / config.NAME]
    return written


def summary(task: Task, found: Tuned, written: Sequence[Path]) -> str:
    """What was found, for people."""
    named = {id(trial): "default" for trial in found.defaults} | {id(found.unguided): ""}
    rows = []
    for trial in [found.unguided, *found.defaults, *(t for t in found.front if id(t) not in named)]:
        where = ["front"] if any(trial is each for each in found.front) else []
        row = {"settings": task.shown(trial), "trial": None if trial.method is None else trial.number}
        row |= {key: getattr(trial, key) for key in ("keep", "forward_calls", "backward_calls", "seconds")}
        row["what"] = ", ".join(filter(None, [named.get(id(trial), ""), *where])) or None
        rows.append(row | {"metric": f"{trial.value:.4g} ± {trial.error:.2g}"})
    columns = [Column("settings", "\nsettings"), Column("trial", "\ntrial"), Column("what", "\n")]
    columns += [Column("metric", f"{task.metric_name}\n(lower is better)")]
    columns += [Column("keep", "\nkept", "{:.2f}")] if task.keep is not None else []
    columns += [Column("forward_calls", "forward\ncalls"), Column("backward_calls", "backward\ncalls")]
    columns += [Column("seconds", "\nseconds", "{:.2g}")]
    states = ", ".join(
        f"{count} {state}"
        for state in ("complete", "pruned", "failed")
        if (count := sum(trial.state == state for trial in found.trials))
    )
    lines = [str(Table(columns, rows)), ""]
    lines += [f"{len(found.trials)} trials ({states}), {found.spent:,} network calls; ± is the standard error"]
    if found.floor is not None:
        lines += [f"settings that keep less than {found.floor:.2f} were not chosen"]
    lines += ["wrote: " + ", ".join(map(str, written))]
    if found.front:
        lines += [f"draw with the best: symguide sample --config {written[-1]} --out FOLDER"]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_value, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
