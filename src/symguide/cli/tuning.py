"""What symguide tune does: from options to a search, and from what it found to a table, a picture and configs."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from click.core import ParameterSource
from torch import Tensor

import symguide as sg
from symguide import files as disk
from symguide.cli import config, drawing, methods, outputs
from symguide.cli.files import locked, sweep
from symguide.cli.model import Model
from symguide.errors import ConfigError, unknown
from symguide.evaluation.tasks import shapes_read
from symguide.ranges import Choice, Domain, Maybe, Range, Window
from symguide.report import Column, Table, draw_front
from symguide.specs.pictures import Say
from symguide.specs.steering import Steering, judge_of
from symguide.tuning import Trial, Tuned
from symguide.tuning.measure import At, Measure
from symguide.tuning.search import search as run_search
from symguide.tuning.space import Space, build
from symguide.tuning.tune import in_parts
from symguide.worlds.scenes.scene import SHAPES

TRIALS, PICTURE, RESULTS, FRONT = "trials.jsonl", "front.png", "results.json", "front"

OPTIONS = {parameter: option for option, parameter in methods.PARAMETERS.items()}
"""The options of the command line by the parameters of recipes that they set."""


@dataclass(frozen=True)
class Task:
    """What is tuned: a run of symguide sample, the space of its methods, and what is asked of the samples."""

    run: drawing.Plan
    space: Space
    metric: At
    metric_name: str
    keep: At | None

    def cost(self, method: str | None, settings: Mapping[str, Any]) -> tuple[int, int]:
        assert isinstance(self.run.source, Model)
        return self.run.source.calls(self._recipe(method, settings))

    def draw(
        self, method: str | None, settings: Mapping[str, Any], seed: int, indices: range
    ) -> tuple[Tensor, sg.Cost]:
        assert isinstance(self.run.source, Model) and self.run.steering is not None
        source = replace(self.run.source, settings={**self.run.source.settings, "seed": seed})
        aim = None if method is None else self.run.steering.at(indices)
        return source.draw(indices, aim, self._recipe(method, settings), lambda done, steps: None)

    def _recipe(self, method: str | None, settings: Mapping[str, Any]) -> Callable[[Any], Any] | None:
        return None if method is None else lambda aim: self.space.methods[method].recipe(settings, aim)

    def config(self, trial: Trial) -> dict[str, Any]:
        """The settings of `symguide sample` that draw with a trial's."""
        assert trial.method is not None
        own = {*methods.PARAMETERS, "method"}
        chosen = {OPTIONS[key]: value for key, value in trial.settings.items()}
        whole = {key: value for key, value in self.run.settings.items() if key not in own}
        made_with = whole.pop(config.MADE_WITH)
        return {**whole, "method": trial.method, **methods.resolve(trial.method, chosen), config.MADE_WITH: made_with}

    def shown(self, trial: Trial) -> str:
        """The settings that were searched, as text."""
        if trial.method is None:
            return "unguided"
        searched = self.space.methods[trial.method].domains
        parts = [f"{OPTIONS[key]} {_value(trial.settings[key])}" for key in searched if key in trial.settings]
        return ", ".join([trial.method, *parts])


def prepare(ctx: click.Context, options: dict[str, Any], say: Say) -> Task:
    """The search that the options ask for, with everything looked up and checked.

    Raises:
        ConfigError: for options that do not go together or cannot be met here. WeightsError: for missing weights.
    """
    if options["objective"] is None:
        raise ConfigError("tuning needs something to steer toward: give --objective, e.g. classifier:3")
    names = list(options["method"]) or ["sag"]
    taken = {name: methods.parameters(methods.get_recipe(name)) for name in names}
    given = {option: options[option] for option in methods.PARAMETERS if options[option] is not None}
    typed = {o: v for o, v in given.items() if ctx.get_parameter_source(o) is ParameterSource.COMMANDLINE}
    for option in typed:
        if not any(methods.PARAMETERS[option] in own for own in taken.values()):
            methods.resolve(names[0], {option: typed[option]})  # says which methods take it
    begin, mine = {}, {}
    for name in names:
        mine[name] = {o: v for o, v in given.items() if methods.PARAMETERS[o] in taken[name]}
        whole = methods.resolve(name, mine[name])
        begin[name] = {methods.PARAMETERS[option]: value for option, value in whole.items()}
    first = {**options, **dict.fromkeys(methods.PARAMETERS), **mine[names[0]], "method": names[0]}
    run = drawing.plan(first, say)
    outputs.check(options["out"], run.settings["format"], run.shape)
    assert run.steering is not None
    metric, metric_name = _metric(options, run, say)
    fixed = {methods.PARAMETERS[option]: value for option, value in typed.items()}
    if options["eta"] == 0 and not options["search"]:
        fixed.setdefault("constraint", None)  # a step without noise has no sphere
    space = build(names, _space(ctx, options["search"], taken), fixed, begin)
    return Task(run, space, metric, metric_name, _keep(options, run))


def _space(ctx: click.Context, given: Sequence[str], taken: Mapping[str, Any]) -> dict[str, Domain | None]:
    """Parameters and their ranges; all that the methods have ranges for and options can set, where none is given."""
    if not given:
        own = [methods.get_recipe(name).search_space() for name in taken]
        return {p: None for p in methods.PARAMETERS.values() if any(p in space for space in own)}
    out: dict[str, Domain | None] = {}
    known = [option for option, parameter in methods.PARAMETERS.items() if any(parameter in t for t in taken.values())]
    for text in given:
        name, equals, rest = (part.strip() for part in text.partition("="))
        option = name.replace("-", "_")
        if option not in known:
            raise unknown("parameter in --search", name, known)
        parameter = methods.PARAMETERS[option]
        if not equals and not any(parameter in methods.get_recipe(each).search_space() for each in taken):
            raise ConfigError(f"{name} has no range of its own: give one, --search {name}=A,B or {name}=LOW:HIGH")
        out[parameter] = parse_range(ctx, option, rest) if equals else None
    return out


def parse_range(ctx: click.Context, option: str, text: str) -> Domain:
    """0.1:3:log, 1:8, 1,2,4, none,0.05:0.5, or for a window 0:0.4,0.6:1.

    Raises:
        ConfigError: for what is none of these, or has values that the option does not take.
    """
    kind = next(parameter.type for parameter in ctx.command.params if parameter.name == option)

    def value(each: str) -> Any:
        try:
            return None if each == "none" and option == "sphere" else kind.convert(each, None, ctx)
        except click.BadParameter as error:
            raise ConfigError(f"--search {option}={text}: {error.message.rstrip('.')}") from error

    def span(each: str) -> Range:
        low, high, *log = (part.strip() for part in each.split(":"))
        if log not in ([], ["log"]):
            raise ConfigError(f"--search {option}={text} must be {option}=LOW:HIGH or {option}=LOW:HIGH:log")
        ends = (_number(low), _number(high)) if option == "window" else (value(low), value(high))
        if not all(isinstance(end, int | float) for end in ends):
            raise ConfigError(f"{option} has no numbers: write its values as a list, {option}=A,B")
        return Range(ends[0], ends[1], bool(log))

    parts = [part.strip() for part in text.split(",")]
    spans = [":" in part for part in parts]
    if option == "window":
        if spans != [True, True]:
            raise ConfigError(f"--search window={text} must be two ranges, of start and stop, such as 0:0.4,0.6:1")
        return Window(*map(span, parts))
    if spans == [True]:
        return span(parts[0])
    if spans == [False, True] and parts[0] == "none" and option == "sphere":
        return Maybe(span(parts[1]))
    if any(spans):
        raise ConfigError(f"--search {option}={text} must be one range, LOW:HIGH, or a list of values, A,B,C")
    return Choice(*map(value, parts))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no number: ranges are LOW:HIGH, such as 0:0.4") from None


def _metric(options: Mapping[str, Any], run: drawing.Plan, say: Say) -> tuple[At, str]:
    """What is minimised, and its name."""
    steering, asked = run.steering, options["metric"]
    assert steering is not None
    judged = steering.judged() if asked in (None, "judge") else None
    if asked == "judge" and judged is None:
        raise ConfigError(
            f"there is no judge of {options['objective']}: use --metric scorer, or a measure of your own, "
            "--metric my_module:score"
        )
    if judged is not None:
        return judged, "judge"
    if asked is None:
        say("there is no judge of this objective: tuning on the objective itself, which guidance sees")
    if asked in (None, "scorer"):
        return steering.at, "scorer"
    return _asked(asked, run).at, asked


def _asked(spec: str, run: drawing.Plan) -> Steering:
    return Steering(spec, run.source.name, run.shape, black_box=True)


def _keep(options: Mapping[str, Any], run: drawing.Plan) -> At | None:
    """What must not be lost, by the samples' indices."""
    asked = options["keep"]
    if asked is None:
        if options["floor"] is not None:
            raise ConfigError("--floor is of what --keep says: add --keep, e.g. --keep shape")
        return None
    if asked != "shape":
        return _asked(asked, run).at
    name = run.source.name
    if name.partition("-")[0] != "scenes" or judge_of("classifier", name) is None:
        raise ConfigError(
            "--keep shape asks the judge of the scenes world: use it with such pictures, or my_module:Name"
        )
    shapes = [[SHAPES.index(word) for word in prompt.split() if word in SHAPES] for prompt in options["prompt"]]
    if not shapes or any(len(each) != 1 for each in shapes):
        raise ConfigError(
            'with --keep shape every --prompt says which shape is asked for, one each, as in --prompt "a red star"'
        )

    def at(indices: Sequence[int]) -> Callable[[Tensor], Tensor]:
        asked = torch.tensor([shapes[i % len(shapes)][0] for i in indices])
        return lambda samples: shapes_read(samples, asked)

    return at


def search(task: Task, out: Path, options: Mapping[str, Any]) -> Tuned:
    """Run the search, or go on with one that was interrupted.

    Raises:
        KeyboardInterrupt: what is kept and how to go on, if it is interrupted.
    """
    measure = Measure(task, task.metric, task.keep, in_parts(options["num"], options["seeds"], options["batch"]))
    ignored = {*methods.PARAMETERS, "method"}
    about = {k: v for k, v in config.matters(task.run.settings).items() if k not in ignored}
    about |= {"metric": task.metric_name, "keep": options["keep"]}
    log, made = out / TRIALS, not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out):
            sweep(out)
            if options["fresh"]:
                log.unlink(missing_ok=True)
            return run_search(
                task.space,
                measure,
                budget=options["budget"],
                seed=options["seed"],
                floor=options["floor"],
                about=about,
                log=log,
                progress=options["progress"],
            )
    except KeyboardInterrupt:
        kept = (
            f"the trials so far are in {log}; run the same command again to go on" if log.exists() else "nothing kept"
        )
        raise KeyboardInterrupt(f"interrupted: {kept}") from None
    finally:
        if made and not log.exists():
            out.rmdir()


def figures(task: Task, found: Tuned, options: Mapping[str, Any]) -> dict[str, Any]:
    """All that was found, as JSON values."""
    front = found.front
    return {
        "objective": task.run.settings["objective"],
        "metric": task.metric_name,
        "keep": options["keep"],
        "floor": found.floor,
        "calls_spent": found.spent,
        "best": front[-1].number if front else None,
        "front": [trial.number for trial in front],
        "unguided": _record(task, found.unguided),
        "trials": [_record(task, trial) for trial in found.trials],
    }


def _record(task: Task, trial: Trial) -> dict[str, Any]:
    settings = {OPTIONS[key]: value for key, value in trial.settings.items()}
    row = {
        "number": trial.number,
        "method": trial.method,
        "settings": settings,
        "state": trial.state,
        "metric": trial.value,
        "error": trial.error,
        "keep": trial.keep,
        "forward_calls": trial.forward_calls,
        "backward_calls": trial.backward_calls,
        "seconds": trial.seconds,
        "samples": len(trial.values),
        "why": trial.why,
    }
    return Table([], [row]).records()[0]


def write(task: Task, found: Tuned, results: Mapping[str, Any], out: Path, say: Say) -> list[Path]:
    """The files of a search: figures, picture, and a config for the best and for each point of the front."""
    disk.write(out / RESULTS, (json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    written = [out / RESULTS]
    try:
        disk.write(out / PICTURE, draw_front(found, task.metric_name))
        written.append(out / PICTURE)
    except ConfigError as missing:
        say(str(missing))
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
        rows.append(
            {
                "settings": task.shown(trial),
                "trial": None if trial.method is None else trial.number,
                "what": ", ".join(filter(None, [named.get(id(trial), ""), *where])) or None,
                "metric": f"{trial.value:.4g} ± {trial.error:.2g}",
                "keep": trial.keep,
                "forward": trial.forward_calls,
                "backward": trial.backward_calls,
                "seconds": trial.seconds,
            }
        )
    columns = [Column("settings", "\nsettings"), Column("trial", "\ntrial"), Column("what", "\n")]
    columns += [Column("metric", f"{task.metric_name}\n(lower is better)")]
    columns += [Column("keep", "\nkept", "{:.2f}")] if task.keep is not None else []
    columns += [Column("forward", "forward\ncalls"), Column("backward", "backward\ncalls")]
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
