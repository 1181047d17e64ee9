"""Depth estimators of transformers as networks of objectives."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from symguide.encoders.load import Name, network, pretrained
from symguide.encoders.segmentation import whole
from symguide.errors import ConfigError

SPARE = "neck.fusion_stage.layers.0.residual_layer1."
"""A part of DPT that is never called, which the published weights leave out."""


class DepthEstimator(nn.Module):
    """Depth of every pixel of samples, for `Depth`: Depth Anything, DPT and their kin.

        estimator = DepthEstimator.from_pretrained("depth-anything/Depth-Anything-V2-Small-hf")
        Depth.of(picture, estimator)

    In the model's own terms, which for most of them are inverse: larger is nearer, up to scale and shift. Samples come
    in [-1, 1] and in any size, and depth is brought to theirs as the processor's own post_process_depth_estimation does
    it (bicubic).

    Args:
        model: of AutoModelForDepthEstimation; never changed.
        processor: its image processor, or a Preprocess.

    Raises:
        ConfigError: for a processor that cuts parts of pictures off, or a model that gives no depth.

    Cost: one evaluation of the model, at its own size.

    Source: Ranftl et al., "Vision Transformers for Dense Prediction", 2103.13413; Yang et al., "Depth Anything V2",
    2406.09414.
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.model, self.preprocess = model, whole(processor)

    @classmethod
    def from_pretrained(cls, name: Name, local_files_only: bool = False) -> "DepthEstimator":
        """From a folder that save_pretrained wrote, or from the hub by its id.

        Raises:
            WeightsError: where it cannot be reached or read, or is no such model. ConfigError: without transformers.
        """
        loaded = network("AutoModelForDepthEstimation", name, local_files_only, SPARE)
        return cls(loaded, pretrained("AutoImageProcessor", name, local_files_only)).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Samples (B, 3, H, W) in [-1, 1] -> depth (B, H, W)."""
        depth = getattr(self.model(self.preprocess(x)), "predicted_depth", None)
        if not isinstance(depth, Tensor) or depth.ndim != 3:
            raise ConfigError(f"{type(self.model).__name__} gives no predicted_depth (B, h, w): it estimates no depth")
        return F.interpolate(depth[:, None], x.shape[-2:], mode="bicubic", align_corners=False)[:, 0]
