"""Optimisation of a whole sampling trajectory: its start, or a control at every step. One method a file.

    result = sg.optimise(denoiser, objective, sg.DOODL(), batch=8, steps=20)

Guidance changes a step and goes on; these methods run to the clean sample, take the gradient through the whole run,
and run again. The run is the probability-flow ODE (eta = 0), the gradient exact for its steps, the memory that of one
network call: `memory=` as for SAG. Conditions, `prediction=`, every solver, grid and schedule, `seed` and `indices`
are as in `sample`, and a sample is the same alone and in any batch. With 0 iterations the samples are the plain
sampler's, bit for bit. On the command line there is no optimisation of trajectories.
"""

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
