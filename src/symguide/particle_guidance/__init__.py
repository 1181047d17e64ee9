"""Particle guidance: rules that steer a population with forward evaluations only. One rule a file."""

from symguide.particle_guidance.best_of_n import BestOfN

METHODS = {"best_of_n": BestOfN}

__all__ = ["METHODS", "BestOfN"]
