"""The laws on the device: exact gradients, batch == loop, true counts, and no step that waits for the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import symguide as sg
from benchmarks.stages import Cell, Row, Setting

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
EXACT = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
"""Relative difference to autograd that a dtype allows: of half precision, where n calls round apart."""
ALONE = {"float64": 1e-9, "float32": 1e-3}
"""Largest difference of a sample alone and in its batch: kernels are chosen by size, and round apart."""
CONDITIONS: dict[str, Row] = {"digits": {"label": 3}, "scenes": {}}
RECIPES: dict[str, Callable[..., Any]] = {
    "SAG n=3": partial(sg.SAG, n=3),
    "SAG n=3, fast": partial(sg.SAG, n=3, memory="fast"),
    "SAG n=3, first": partial(sg.SAG, n=3, jacobian="first"),
    "SAG n=3, own path, repeats": partial(sg.SAG, n=3, path="own", repeats=2),
    "SAG n=2, fresh paths": partial(sg.SAG, n=2, path="fresh", samples=2),
    "SAG + sphere, repeats": partial(sg.SAG, n=2, constraint=sg.Sphere(0.2), repeats=2),
    "FreeDoM": sg.FreeDoM,
    "DPS": sg.DPS,
    "MPGD": sg.MPGD,
    "UniversalGuidance": partial(sg.UniversalGuidance, backward_steps=2),
    "LGD": partial(sg.LGD, samples=2),
    "DSG": sg.DSG,
    "TFG": sg.TFG,
    "ABMS": sg.ABMS,
    "AdamDPS": sg.AdamDPS,
    "ECM": partial(sg.ECM, scale=0.1),
    "EluCD": sg.EluCD,
    "Dreamguider": sg.Dreamguider,
}
SETTINGS: dict[str, Callable[[], Row]] = {
    "CFG": lambda: {"condition": {"label": 1}, "prediction": sg.CFG(2.0)},
    "APG": lambda: {"condition": {"label": 1}, "prediction": sg.APG(2.0)},
    "dpmpp_2m, eta 0": lambda: {"solver": "dpmpp_2m", "eta": 0.0},
    "skip": lambda: {"on_nan": "skip"},
    "best of 2": lambda: {"particles": sg.BestOfN(squares, 2)},
    "restart": lambda: {"restart": sg.Restart(0.1, 10.0)},
}


def squares(x0: Tensor) -> Tensor:
    """Squared distance to a light grey, (B,)."""
    return (x0 - 0.5).square().flatten(1).sum(dim=1)


def cells(setting: Setting) -> Iterator[Cell]:
    """Exactness in all dtypes first, then what must hold in all runs."""

    def cell(law: str, measure: Callable[..., Row], model: str, dtype: str, case: str, *given: Any) -> Cell:
        key = {"law": law, "model": model, "dtype": dtype, "case": case}
        return Cell(key, partial(measure, setting, model, dtype, *given))

    models = ("digits",) if setting.quick else ("digits", "scenes")
    for model in models:
        for dtype in ("float64", "bfloat16") if setting.quick else DTYPES:
            for solver in ("best",) if setting.quick else ("best", "heun"):
                yield cell("exact", exact, model, dtype, solver, solver)
    yield cell("waits", control, "digits", "float32", "a look at a number")
    for name in ("SAG n=3", "DSG") if setting.quick else RECIPES:
        yield cell("waits", waits, "digits", "float32", name, RECIPES[name], dict)
    for name in ("CFG",) if setting.quick else SETTINGS:
        yield cell("waits", waits, "digits", "float32", name, partial(sg.SAG, n=2), SETTINGS[name])
    for model in models:
        for dtype in ("float64",) if setting.quick else ALONE:
            yield cell("alone", alone, model, dtype, "SAG n=2")
        yield cell("counts", counts, model, "float32", "SAG n=4")
        yield cell("as on a CPU", as_on_a_cpu, model, "float64", "SAG n=2")


def _loaded(setting: Setting, model: str, dtype: str) -> sg.Denoiser:
    return sg.load(model, device=setting.device, dtype=DTYPES[dtype])


def exact(setting: Setting, model: str, dtype: str, solver: str) -> Row:
    """Relative difference to autograd through all calls, and whether memory plans agree to the last bit."""
    torch.backends.cudnn.deterministic = True  # or two plans may be given different convolutions
    denoiser = _loaded(setting, model, dtype)
    assert denoiser.shape is not None
    x = torch.randn(4, *denoiser.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(setting.device, DTYPES[dtype])
    told = {"condition": CONDITIONS[model], "solver": solver, "n": 4}
    leaf = x.clone().requires_grad_()
    loss = squares(sg.lookahead(denoiser, leaf, 0.6, **told).x0)
    reference = torch.autograd.grad(loss.sum(), leaf)[0].double()
    plans = [
        sg.lookahead_gradient(denoiser, x, 0.6, squares, memory=plan, **told).value.double()
        for plan in ("minimal", "fast", 0, 2)
    ]
    error = ((plans[0] - reference).norm() / reference.norm()).item()
    same = all(torch.equal(plan, plans[0]) for plan in plans)
    return {"value": error, "bound": EXACT[dtype], "good": error < EXACT[dtype] and same, "plans agree": same}


@contextmanager
def no_waiting(setting: Setting) -> Iterator[Callable[[], None]]:
    """What it gives is called once the device has warmed up: from then on whoever waits for a GPU gets an error."""

    def begin() -> None:
        if setting.gpu:
            torch.cuda.set_sync_debug_mode("error")

    try:
        yield begin
    finally:
        if setting.gpu:
            torch.cuda.set_sync_debug_mode("default")


def control(setting: Setting, model: str, dtype: str) -> Row:
    """That waiting is noticed: looking at a number of the device's must fail."""
    with no_waiting(setting) as begin:
        begin()
        try:
            torch.ones((), device=setting.device).item()
        except RuntimeError:
            return {"value": 1, "bound": 1, "good": True}
    return {"value": 0, "bound": 1, "good": not setting.gpu}


def waits(setting: Setting, model: str, dtype: str, make: Callable[..., Any], more: Callable[[], Row]) -> Row:
    """Whether a run goes from its second step to its last one without waiting for the device."""
    denoiser, steps = _loaded(setting, model, dtype), 5
    with no_waiting(setting) as begin:

        def after(record: Any, x: Tensor) -> None:
            if record.index == 0:  # networks, references and kernels are in place
                setting.wait()
                begin()
            elif record.index == steps - 1 and setting.gpu:
                torch.cuda.set_sync_debug_mode("default")  # what is looked at after the run may wait

        try:
            loss = make(squares)
            sg.sample(denoiser, batch=4, steps=steps, loss=loss, callback=after, device=setting.device, **more())
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            return {"value": 1, "bound": 0, "good": False, "error": str(error).splitlines()[0]}
    return {"value": 0, "bound": 0, "good": True}


def alone(setting: Setting, model: str, dtype: str) -> Row:
    """The largest difference between samples drawn in one batch and one by one."""
    denoiser, recipe = _loaded(setting, model, dtype), sg.SAG(squares, n=2)
    told: Row = {"steps": 8, "loss": recipe, "dtype": DTYPES[dtype], "device": setting.device}
    told["condition"] = CONDITIONS[model]
    whole = sg.sample(denoiser, batch=6, **told).samples
    one = torch.cat([sg.sample(denoiser, indices=[i], **told).samples for i in range(6)])
    gap = (whole - one).abs().max().item()
    return {"value": gap, "bound": ALONE[dtype], "good": gap < ALONE[dtype]}


class _Counting(nn.Module):
    """A network that counts the rows that it is given and those that a gradient comes back for."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.forward_rows, self.backward_rows = network, 0, 0

    def forward(self, x: Tensor, timestep: Tensor, **condition: Any) -> Tensor:
        self.forward_rows += len(x)
        out: Tensor = self.network(x, timestep, **condition)
        if out.requires_grad:
            out.register_hook(self._back)
        return out

    def _back(self, gradient: Tensor) -> None:
        self.backward_rows += len(gradient)


def counts(setting: Setting, model: str, dtype: str) -> Row:
    """Calls that the run says it made, against those that the network saw."""
    denoiser = _loaded(setting, model, dtype)
    network = _Counting(denoiser.network)
    counted = sg.Denoiser(network, denoiser.schedule, denoiser.predicts, shape=denoiser.shape, null=denoiser.null)
    told: Row = {"condition": CONDITIONS[model], "device": setting.device}
    cost = sg.sample(counted, batch=3, steps=5, loss=sg.SAG(squares, n=4), **told).cost
    seen = network.forward_rows / 3, network.backward_rows / 3
    said = cost.forward_calls, cost.backward_calls
    return {"value": list(said), "bound": list(seen), "good": said == seen == (4 * 7 + 1, 4 * 4)}


def as_on_a_cpu(setting: Setting, model: str, dtype: str) -> Row:
    """The largest difference to the samples of the same seed on the CPU."""
    told: Row = {"batch": 2, "steps": 8, "loss": sg.SAG(squares, n=2), "dtype": DTYPES[dtype]}
    told["condition"] = CONDITIONS[model]
    here = sg.sample(_loaded(setting, model, dtype), device=setting.device, **told).samples.cpu()
    there = sg.sample(sg.load(model, dtype=DTYPES[dtype]), **told).samples
    gap = (here - there).abs().max().item()
    return {"value": gap, "bound": 1e-9, "good": gap < 1e-9}
