"""Generators of one call, a GAN's or the decoder of a VAE, as models of our own loop: `from_generator`."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from symguide.denoiser import Denoiser
from symguide.errors import ConfigError
from symguide.schedule import VP


class _Normal(nn.Module):
    """v of N(0, I) on a variance-preserving schedule, which is 0; it has the generator's device and floating type.

    E[x_0 | x] = alpha x and E[eps | x] = sigma x, so v = alpha sigma x - sigma alpha x.
    """

    def __init__(self, generator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.generator = generator if isinstance(generator, nn.Module) else None

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return 0 * x


def from_generator(generator: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Denoiser:
    """A generator of one call, z ~ N(0, I) -> picture, as a latent model whose prior is known in closed form.

        model = from_generator(gan, shape=(64,))
        aim = objectives.Decoded(objective, model.decode)
        best = optimise(model, aim, DOODL(clip=0.02), batch=8, steps=1, solver="midpoint")   # descent on z
        pictures = model.decode(best.samples)

    The samples are z. Of N(0, I) all is known: E[z | z_t] = alpha z_t, v = 0, and the probability-flow ODE leaves
    every point where it is, so that z_t itself is what ever longer look-aheads come to. One step of "midpoint"
    keeps it there too, as in its middle z and noise are estimated alike; other solvers shorten z where steps are
    few. DOODL keeps |z| as it was drawn, which for N(0, I) in d dimensions is about sqrt(d).

    Args:
        generator: z (B, *shape) -> pictures, differentiable; a module is moved and cast with the model.
        shape: of one z.

    Raises:
        ConfigError: where the generator is no callable.

    Cost: a model call costs nothing, and is counted; the generator is called where the objective is.
    """
    if not callable(generator):
        raise ConfigError(f"from_generator takes a callable z -> pictures, not {type(generator).__name__}")
    return Denoiser(_Normal(generator), VP.cosine(), "v", shape=shape, decoder=generator)
