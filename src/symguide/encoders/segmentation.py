"""Semantic segmentation models of transformers as networks of objectives."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from symguide.encoders.load import Name, network, pretrained
from symguide.encoders.processing import Processing, preprocessing
from symguide.errors import ConfigError


class Segmenter(nn.Module):
    """Logits for every pixel of samples, for `Segmentation`: SegFormer, UperNet, BEiT, DPT and their kin.

        segmenter = Segmenter.from_pretrained("nvidia/segformer-b0-finetuned-ade-512-512")
        Segmentation(mask, segmenter)

    Samples come in [-1, 1] and in any size. The model's logits are brought to theirs bilinearly, as the processor's own
    post_process_semantic_segmentation does before it takes the largest.

    Args:
        model: of AutoModelForSemanticSegmentation; never changed.
        processor: its image processor, or a Preprocess.

    Raises:
        ConfigError: for a processor that cuts parts of pictures off, whose logits would belong to other pixels, or a
            model that gives no logits.

    Cost: one evaluation of the model, at its own size.

    Source: Xie et al., "SegFormer", 2105.15203.
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.model, self.preprocess = model, whole(processor)

    @classmethod
    def from_pretrained(cls, name: Name, local_files_only: bool = False) -> "Segmenter":
        """From a folder that save_pretrained wrote, or from the hub by its id.

        Raises:
            WeightsError: where it cannot be reached or read, or is no such model. ConfigError: without transformers.
        """
        loaded = network("AutoModelForSemanticSegmentation", name, local_files_only)
        return cls(loaded, pretrained("AutoImageProcessor", name, local_files_only)).eval()

    @property
    def classes(self) -> dict[str, int]:
        """What the numbers in a mask mean: the number of each class by its name."""
        config: Any = self.model.config
        return {str(name): int(number) for number, name in config.id2label.items()}

    def forward(self, x: Tensor) -> Tensor:
        """Samples (B, 3, H, W) in [-1, 1] -> logits (B, K, H, W)."""
        logits = getattr(self.model(self.preprocess(x)), "logits", None)
        if not isinstance(logits, Tensor) or logits.ndim != 4:
            raise ConfigError(f"{type(self.model).__name__} gives no logits (B, K, h, w): it segments nothing")
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)


def whole(processor: Any) -> Any:
    """`preprocessing`, where it keeps all of a picture."""
    made = preprocessing(processor)
    crops = made.crop is not None if isinstance(made, Processing) else isinstance(made.size, int)  # type: ignore[attr-defined]
    if crops:
        raise ConfigError("this processor crops pictures, and every pixel counts: set do_center_crop=False in it")
    return made
