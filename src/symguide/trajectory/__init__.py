"""Optimisation of a whole sampling trajectory: its start, or a control at every step. One method a file."""

from symguide.trajectory.dflow import DFlow
from symguide.trajectory.doodl import DOODL
from symguide.trajectory.ocflow import OCFlow
from symguide.trajectory.ogd import OptimalGaussian
from symguide.trajectory.optimise import IterationRecord, Optimised, optimise
from symguide.trajectory.path import Method

TRAJECTORIES: dict[str, type[Method]] = {"doodl": DOODL, "dflow": DFlow, "ocflow": OCFlow}

__all__ = [
    "DOODL",
    "TRAJECTORIES",
    "DFlow",
    "IterationRecord",
    "Method",
    "OCFlow",
    "OptimalGaussian",
    "Optimised",
    "optimise",
]
