"""Real encoders for objectives: CLIP, segmentation and depth of transformers, aesthetic heads, faces, your backbone.

They take samples (B, 3, H, W) in [-1, 1], of any size, and bring them to the network's own units themselves.
transformers is imported when something is loaded with it, and not before.
"""

from typing import Any

from symguide.encoders.aesthetic import AestheticPredictor as AestheticPredictor
from symguide.encoders.clip import CLIP as CLIP
from symguide.encoders.depth import DepthEstimator as DepthEstimator
from symguide.encoders.faces import FFHQ as FFHQ
from symguide.encoders.faces import FaceEmbedder as FaceEmbedder
from symguide.encoders.features import Features as Features
from symguide.encoders.load import Name, pretrained
from symguide.encoders.processing import Processing as Processing
from symguide.encoders.segmentation import Segmenter as Segmenter
from symguide.errors import ConfigError


def load(name: Name, local_files_only: bool = False) -> CLIP | Segmenter | DepthEstimator:
    """The encoder that a folder or a hub id holds, by the architecture in its config.

    Raises:
        WeightsError: where it cannot be reached or read. ConfigError: for another kind of model.
    """
    config: Any = pretrained("AutoConfig", name, local_files_only)
    told = config.architectures
    architecture = str(told[0] if isinstance(told, list) and told else type(config).__name__)
    if architecture == "CLIPModel":
        return CLIP.from_pretrained(name, local_files_only=local_files_only)
    if architecture.startswith("CLIPVisionModel"):
        return CLIP.from_pretrained(name, text=False, local_files_only=local_files_only)
    if architecture.endswith("ForSemanticSegmentation"):
        return Segmenter.from_pretrained(name, local_files_only)
    if architecture.endswith("ForDepthEstimation"):
        return DepthEstimator.from_pretrained(name, local_files_only)
    raise ConfigError(f"{name} holds {architecture}: an encoder is a CLIP, or a model for segmentation or for depth")
