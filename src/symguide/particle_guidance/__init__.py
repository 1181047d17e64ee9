"""Particle guidance: rules that steer a population with forward evaluations only. One rule a file.

A rule of yours has `particles`, `move(step, x_s)` and `choose(samples, log_weights)`, and sees K rows for every
sample, one after the other. Where it resamples, it returns `Moved(x_s, parents)` with the row that each row descends
from. Losses and gradient norms of the trace are then (B, K), and the trajectory is (1 + steps, B, K, ...).
"""

from symguide.particle_guidance.best_of_n import BestOfN as BestOfN
from symguide.particle_guidance.resampling import resample as resample
from symguide.registry import Registry, registry_of
from symguide.step import ParticleHook

METHODS: Registry[type[ParticleHook]] = registry_of("particle guidance")
