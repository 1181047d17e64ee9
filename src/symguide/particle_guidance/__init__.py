"""Particle guidance: rules that steer a population with forward evaluations only. One rule a file.

A rule of yours has `particles`, `move(step, x_s)` and `choose(samples, log_weights)`, and sees K rows for every
sample, one after the other. In `move` the step gives it draws of x_s for every row (`step.propose(k)`), predictions at
any point (`step.predict_at(x, t)`), densities (`step.log_density`), the weights so far (`step.log_weights`) and uniform
numbers of the sample (`step.uniform("resample", K)`), with which `resample` says who goes on. It returns x_s, or

    Moved(x_s, parents, first, log_weights)

with the row that each row descends from, by which history and memory move too, the prediction at (x_s, s), which the
next step does not make again, and the weights. Losses and gradient norms of the trace are then (B, K), beside
effective sample sizes (B,) and parents (B, K), and the trajectory is (1 + steps, B, K, ...). Of k proposals the best:

    class Best:
        particles = 1

        def move(self, step, x_s):
            if step.std == 0:
                return x_s
            proposed = step.propose(4)
            made = step.predict_at(proposed, step.s)
            rows = objective(made.x0).reshape(-1, 4).argmin(dim=1) + 4 * torch.arange(len(x_s))
            return Moved(proposed[rows], first=made.rows(rows))

        def choose(self, samples, log_weights):
            return torch.arange(len(samples))
"""

from symguide.particle_guidance.best_of_n import BestOfN as BestOfN
from symguide.particle_guidance.resampling import resample as resample
from symguide.registry import Registry, registry_of
from symguide.step import ParticleHook

METHODS: Registry[type[ParticleHook]] = registry_of("particle guidance")
