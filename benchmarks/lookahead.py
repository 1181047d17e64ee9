"""How good is an n-call estimate of the clean sample? By solver and grid, on closed forms and on the digits model.

    python benchmarks/lookahead.py [--quick]

Relative error |x0 - truth| / |truth| over samples x_t of the model's own noise level. Truth: the closed-form flow map
for Gaussian priors (variances 0.01 to 2); for digits, 400 calls of Heun on the flow grid.
"""

import argparse

import torch

import symguide as sg
from benchmarks.common import save, table
from symguide.solver import GRIDS, SOLVERS
from symguide.worlds.digits import images

NS = (1, 2, 4, 8, 16)


def gaussians(name: str, schedule: sg.Schedule, t: float, ns: tuple[int, ...]) -> list[dict]:
    variances = torch.logspace(-2, 0.301, 64, dtype=torch.float64)
    denoiser = sg.GaussianDenoiser(torch.zeros(64, dtype=torch.float64), torch.diag(variances), schedule)
    spread = (schedule.alpha(t) ** 2 * variances + schedule.sigma(t) ** 2).sqrt()
    x = spread * torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return errors(f"Gaussian, {name}", denoiser, x, t, denoiser.transport(x, t), ns)


def digits(t: float, batch: int, calls: int, ns: tuple[int, ...]) -> list[dict]:
    denoiser = sg.load("digits", dtype=torch.float64)
    x0 = images("held_out")[:batch].double()
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = denoiser.schedule.alpha(t) * x0 + denoiser.schedule.sigma(t) * noise
    with torch.no_grad():
        truth = sg.lookahead(denoiser, x, t, calls, "heun").x0
    return errors("digits", denoiser, x, t, truth, ns)


@torch.no_grad()
def errors(
    prior: str, denoiser: sg.Denoiser, x: torch.Tensor, t: float, truth: torch.Tensor, ns: tuple[int, ...]
) -> list[dict]:
    rows = []
    for solver in SOLVERS:
        for grid in GRIDS:
            row = {"prior": prior, "t": t, "solver": solver, "grid": grid}
            for n in ns:
                x0 = sg.lookahead(denoiser, x, t, n, solver, grid).x0
                row[f"n={n}"] = f"{((x0 - truth).norm() / truth.norm()).item():.3f}"
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few samples, nothing written")
    quick = parser.parse_args().quick
    rows, ns = [], NS[:3] if quick else NS
    for name, schedule, t in (
        ("VP linear", sg.VP.linear(), 0.3),
        ("VP linear", sg.VP.linear(), 0.6),
        ("VP linear", sg.VP.linear(), 0.9),
        ("VP cosine", sg.VP.cosine(), 0.6),
        ("flow", sg.RectifiedFlow(), 0.6),
        ("flow", sg.RectifiedFlow(), 0.95),
    ):
        rows += gaussians(name, schedule, t, ns)
    for t in (0.6,) if quick else (0.3, 0.6, 0.9):
        rows += digits(t, 2 if quick else 128, 20 if quick else 400, ns)
    print(table(rows))
    if not quick:
        print("written:", save("lookahead", rows))


if __name__ == "__main__":
    main()
