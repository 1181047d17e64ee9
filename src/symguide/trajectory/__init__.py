"""Optimisation of a whole sampling trajectory: its start, or a control at every step. One method a file."""

from symguide.registry import Registry, registry_of
from symguide.trajectory.dflow import DFlow as DFlow
from symguide.trajectory.doodl import DOODL as DOODL
from symguide.trajectory.ocflow import OCFlow as OCFlow
from symguide.trajectory.ogd import OptimalGaussian as OptimalGaussian
from symguide.trajectory.optimise import IterationRecord as IterationRecord
from symguide.trajectory.optimise import Optimised as Optimised
from symguide.trajectory.optimise import optimise as optimise
from symguide.trajectory.path import Method as Method

TRAJECTORIES: Registry[type[Method]] = registry_of("trajectory optimisation")
