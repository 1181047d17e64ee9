"""Steer toward what an embedding holds: a text, what a picture shows, who or what it is."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.objectives.base import Fixed, Follower, Objective, at_least_float32, pictures, required, rows_for
from symguide.registry import register

Preprocess = Callable[[Tensor], Tensor]


class Similarity(Objective):
    """1 - cos(embedding of x_0, embedding of the target), from 0 (the same direction) to 2 (the opposite one).

    The base of the objectives below, which say what embeds samples and what the target is.
    """

    network: Follower
    method: str | None = None
    """Of the network, (B, ...) -> (B, w); None calls the network itself."""

    def _target(self, like: Tensor) -> Tensor:
        """Embeddings of the targets, (1, w) or (B, w)."""
        raise NotImplementedError

    def __init__(self, network: Follower) -> None:
        self.network = network
        self._wanted = Fixed(self._target)

    def __call__(self, x0: Tensor) -> Tensor:
        made, wanted = self.network(x0, self.method), self._wanted(x0)
        if made.ndim != 2 or made.shape[1:] != wanted.shape[1:]:
            raise ConfigError(
                f"the network embeds samples as {tuple(made.shape[1:])} and the target as {tuple(wanted.shape[1:])}: "
                "both must be (w,)"
            )
        return 1 - F.cosine_similarity(made, rows_for(wanted, x0, "the target"), dim=1)


@register("objective", "text")
class TextSimilarity(Similarity):
    """1 - cos(image embedding of x_0, text embedding of a text), by a network that embeds both: CLIP guidance.

    Args:
        text: one for all samples, or a list with one for each; or its tokens, integers (L,) or (B, L), or vectors, for
            a network that takes these.
        network: has image(x) -> (B, w) and text(tokens (M, L)) -> (M, w), which need not be normalised, such as
            encoders.CLIP.
        tokenize: texts -> tokens (M, L), the network's own; not needed where text is tokens.
        preprocess: applied to samples before the network.

    Raises:
        ConfigError: without a network, for one without these methods, text without the network's tokenizer, words that
            it does not know, or another number of texts than samples.

    Cost: one evaluation of the image network.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2103.00020; as
    guidance in Nichol et al., GLIDE, 2112.10741.
    """

    method = "image"

    def __init__(
        self,
        text: str | Sequence[str] | Tensor,
        network: nn.Module | None = None,
        tokenize: Callable[[Sequence[str]], Tensor] | None = None,
        preprocess: Preprocess | None = None,
    ) -> None:
        network = required(network, self, "text", "text")
        if not isinstance(text, Tensor):
            if tokenize is None:
                raise ConfigError("text needs the tokenizer of the network: pass tokenize=, or tokens for text")
            text = tokenize([text] if isinstance(text, str) else list(text))
        self.tokens = text if text.ndim == 2 else text[None]
        super().__init__(Follower(network, "image", "text", preprocess=preprocess))
        if text.ndim not in (1, 2) or not text.numel() or (text.is_floating_point() and not self._takes_vectors()):
            raise ConfigError(f"tokens are integers (L,) or (B, L), not {tuple(text.shape)} of {text.dtype}")

    def _takes_vectors(self) -> bool:
        try:
            self._wanted(self.tokens)
        except (RuntimeError, TypeError, ValueError):  # it looks tokens up
            return False
        return True

    def _target(self, like: Tensor) -> Tensor:
        tokens = self.tokens.to(like.device)
        tokens = tokens.to(at_least_float32(like)) if tokens.is_floating_point() else tokens
        return self.network.at(like).text(tokens)


@register("objective", "image")
class ImageSimilarity(Similarity):
    """1 - cos(image embedding of x_0, image embedding of a reference): show what the reference shows.

    Args:
        reference: (C, H, W) or (1, C, H, W) for all samples, (B, C, H, W) with one for each.
        network: has image(x) -> (B, w), such as encoders.CLIP.
        preprocess: applied before the network, to samples and reference.

    Raises:
        ConfigError: without a network, for one without image, or a reference that is no picture.

    Cost: one evaluation of the image network.

    Source: as TextSimilarity; with references in Bansal et al., "Universal Guidance", 2302.07121.
    """

    method = "image"

    def __init__(
        self, reference: Tensor, network: nn.Module | None = None, preprocess: Preprocess | None = None
    ) -> None:
        self.reference = pictures(reference)
        super().__init__(Follower(required(network, self, "image", "reference"), "image", preprocess=preprocess))

    def _target(self, like: Tensor) -> Tensor:
        embedding: Tensor = self.network(self.reference.to(like), self.method)
        return embedding


@register("objective", "identity")
class Identity(Similarity):
    """1 - cos(identity of x_0, identity of a reference): the same individual, whatever else the picture shows.

    Args:
        reference: (C, H, W) or (1, C, H, W) for all samples, (B, C, H, W) with one for each.
        network: clean samples (B, ...) -> (B, w), such as encoders.FaceEmbedder.
        preprocess: applied before the network, to samples and reference, such as a crop to the face.

    Raises:
        ConfigError: without a network, for one that gives no vectors, or a reference that is no picture.

    Cost: one evaluation of the network.

    Source: Deng et al., "ArcFace", 1801.07698; as guidance in FreeDoM (2303.09833) and SAG (2312.12030).
    """

    def __init__(
        self, reference: Tensor, network: nn.Module | None = None, preprocess: Preprocess | None = None
    ) -> None:
        self.reference = pictures(reference)
        super().__init__(Follower(required(network, self, "identity", "reference"), preprocess=preprocess))

    def _target(self, like: Tensor) -> Tensor:
        embedding: Tensor = self.network(self.reference.to(like))
        return embedding
