"""Particle guidance: rules that steer a population with forward evaluations only. One rule a file."""

from symguide.particle_guidance.best_of_n import BestOfN as BestOfN
from symguide.particle_guidance.resampling import resample as resample
from symguide.registry import Registry, registry_of
from symguide.step import ParticleHook

METHODS: Registry[type[ParticleHook]] = registry_of("particle guidance")
