"""CLIP of transformers as a network of objectives."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from symguide.encoders.features import outputs
from symguide.encoders.load import Name, network, pretrained
from symguide.encoders.processing import preprocessing
from symguide.errors import ConfigError

MODELS = ("clip", "clip_vision_model")


class CLIP(nn.Module):
    """Embeddings of pictures and texts, and the feature maps of the vision transformer.

        clip = CLIP.from_pretrained("openai/clip-vit-large-patch14")
        TextSimilarity("a cat in the rain", clip, clip.tokenize)
        ImageSimilarity(reference, clip)
        Style(reference, clip)

    Samples come in [-1, 1] and in any size: they are brought to CLIP's own units here, so objectives get no preprocess.
    What its processor does, a resize of the shorter side and a crop of the centre, leaves the margins of wide pictures
    unguided; give Preprocess.clip((224, 224)) as the processor to squeeze them instead.

    Args:
        model: a CLIPModel, or where only pictures are embedded a CLIPVisionModelWithProjection (pipe.image_encoder) or
            a CLIPVisionModel, whose embeddings are not projected. It is never changed.
        processor: its CLIPProcessor, its image processor, e.g. pipe.feature_extractor, or a Preprocess.
        tokenizer: where texts are embedded; that of the processor where not given.
        layers: whose hidden states are the maps: 0 the embedded patches, k the output of block k. FreeDoM and SAG take
            the third block of ViT-B/16 and ViT-B/32.

    Raises:
        ConfigError: for another kind of model or processor, layers that it has not, or when it is asked for what it has
            no part for; for texts longer than it reads.

    Cost: of `image` one evaluation of the vision transformer, of `maps` that of its blocks up to the deepest layer, and
    of `text` one of the text transformer.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2103.00020.
    """

    def __init__(self, model: nn.Module, processor: Any, tokenizer: Any = None, layers: Sequence[int] = (3,)) -> None:
        super().__init__()
        config: Any = getattr(model, "config", None)
        if getattr(config, "model_type", None) not in MODELS:
            raise ConfigError(f"{type(model).__name__} is no CLIP of transformers: give a CLIPModel or CLIPVisionModel")
        self.model: Any = model
        self.vision = getattr(config, "vision_config", config)
        self.layers, depth = tuple(layers), self.vision.num_hidden_layers
        if not self.layers or not all(0 <= layer <= depth for layer in self.layers):
            raise ConfigError(f"layers must be among 0 to {depth} in this CLIP, not {list(layers)}")
        self.preprocess = preprocessing(processor)
        self.tokenizer = getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer

    @classmethod
    def from_pretrained(
        cls, name: Name, layers: Sequence[int] = (3,), text: bool = True, local_files_only: bool = False
    ) -> "CLIP":
        """A CLIP from a folder that save_pretrained wrote, or from the hub by its id.

        Args:
            name: the folder, or the id, such as "openai/clip-vit-large-patch14".
            layers: as above.
            text: whether its text transformer is loaded too.
            local_files_only: do not ask the hub, only what was downloaded before.

        Raises:
            WeightsError: where it cannot be reached or read, or is no CLIP. ConfigError: without transformers.
        """
        processor = pretrained("AutoImageProcessor", name, local_files_only)
        if not text:
            tower = network("CLIPVisionModelWithProjection", name, local_files_only)
            return cls(tower, processor, layers=layers).eval()
        tokenizer = pretrained("AutoTokenizer", name, local_files_only)
        return cls(network("CLIPModel", name, local_files_only), processor, tokenizer, layers).eval()

    @property
    def width(self) -> int:
        """Of an embedding."""
        projection = getattr(self.model, "visual_projection", None)
        return int(self.vision.hidden_size if projection is None else projection.out_features)

    def image(self, x: Tensor) -> Tensor:
        """Samples (B, 3, H, W) in [-1, 1] -> embeddings (B, w), not normalised."""
        pooled: Tensor = self._tower()(self._pixels(x)).pooler_output
        projection = getattr(self.model, "visual_projection", None)
        return pooled if projection is None else projection(pooled)

    def text(self, tokens: Tensor) -> Tensor:
        """Tokens (M, L) -> embeddings (M, w), not normalised."""
        if not hasattr(self.model, "text_model"):
            raise ConfigError(f"{type(self.model).__name__} embeds pictures alone: give a CLIPModel for texts")
        embedding: Tensor = self.model.text_projection(self.model.text_model(tokens).pooler_output)
        return embedding

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> tokens (M, L), all padded to the length that CLIP reads: the same alone as in any list."""
        if self.tokenizer is None or not hasattr(self.model, "text_model"):
            raise ConfigError("this CLIP has no tokenizer or embeds no texts: make it of CLIPModel and CLIPProcessor")
        longest = self.model.config.text_config.max_position_embeddings
        rows = self.tokenizer(list(texts), padding="max_length", max_length=longest).input_ids
        for text, row in zip(texts, rows, strict=True):
            if len(row) > longest:
                raise ConfigError(f"{text[:40]!r}... has {len(row)} tokens and CLIP reads {longest}: shorten it")
        return torch.tensor(rows)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Samples (B, 3, H, W) in [-1, 1] -> hidden states of the layers as (B, C, h, w), without the class token."""
        pixels, patch = self._pixels(x), self.vision.patch_size
        names = [f"encoder.layers.{layer - 1}" if layer else "pre_layrnorm" for layer in self.layers]
        grid = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        return [tokens[:, 1:].mT.unflatten(2, grid) for tokens in outputs(self._tower(), names, pixels)]

    def _tower(self) -> Any:
        return getattr(self.model, "vision_model", self.model)

    def _pixels(self, x: Tensor) -> Tensor:
        pixels, side = self.preprocess(x), self.vision.image_size
        if pixels.shape[-2:] != (side, side):
            raise ConfigError(f"the processor gives {tuple(pixels.shape[-2:])} and this CLIP takes {(side, side)}")
        return pixels
