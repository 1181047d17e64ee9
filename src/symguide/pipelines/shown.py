"""What objectives see is what the pipeline decodes: its autoencoder is watched as its networks are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from symguide.errors import GuidanceError
from symguide.pipelines.decode import Decoder, autoencoder
from symguide.pipelines.patch import patched
from symguide.pipelines.running import own_code


class Shown:
    """The decoding that objectives saw in a run, to be compared with what the pipeline decodes at its end.

    Only the pipeline's own code is looked at: callbacks that draw previews, and others with the same autoencoder, may
    decode what they like.

    Args:
        pipe: the pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe, self._seen = pipe, False
        self._decoder: Decoder | None = None
        self._last: Tensor | None = None
        self._rest: Tensor | None = None

    def decoding(self, decoder: Decoder) -> "Shown":
        """What an objective is to be shown latents by, from here on."""
        self._decoder = decoder
        return self

    def __call__(self, z: Tensor) -> Tensor:
        assert self._decoder is not None
        self._seen = True
        return self._decoder(z)

    def begin(self) -> None:
        """Another run begins."""
        self._last, self._rest, self._seen = None, None, False

    def end(self, sample: Tensor) -> None:
        """The run's last step is made, and gave this sample, which is to be decoded."""
        if self._seen:
            self._last = sample

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The autoencoder is watched inside."""
        vae = autoencoder(self.pipe)
        if vae is None:
            yield
            return
        stock = vae.decode

        def decode(*args: Any, **kwargs: Any) -> Any:
            if self._last is not None and own_code(self.pipe, depth=2):
                self._compare([v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)])
            return stock(*args, **kwargs)

        with patched(vae, decode=decode):
            yield

    @torch.no_grad()
    def _compare(self, given: list[Tensor]) -> None:
        """GuidanceError if this is not the next part of what the objective would be shown of the last sample."""
        assert self._decoder is not None and self._last is not None
        (z, *told), last = given, self._last
        rest = self._decoder.given(last) if self._rest is None else self._rest
        expected, self._rest = rest[: len(z)], rest[len(z) :]
        if not len(self._rest):
            self._last = self._rest = None
        level = self._decoder.level
        if (
            z.shape != expected.shape
            or not _alike(z, expected, max(torch.finfo(v.dtype).eps for v in (z, last)))
            or (level is not None and told and not bool(((told[0] - level).abs() < 1e-2).all()))
        ):
            self._last = self._rest = None
            raise GuidanceError(
                f"{type(self.pipe).__name__} decodes something else than the objective saw: use decode=False and an "
                "objective on latents"
            )


def _alike(z: Tensor, expected: Tensor, eps: float) -> bool:
    """Whether latents are the expected ones, up to rounding, or these in some places: inpainting keeps the others."""
    tolerance = max(64 * torch.finfo(torch.float32).eps, 4 * eps)
    gap, expected = (z.to(expected) - expected).double(), expected.double()
    if bool((gap.flatten(1).norm(dim=1) <= tolerance * expected.flatten(1).norm(dim=1).clamp_min(1e-12)).all()):
        return True
    places = (gap.abs() <= tolerance * expected.square().mean().sqrt()).all(dim=1).double().mean()
    return bool(places > 16 * tolerance ** z.shape[1])  # more than agree by chance
