"""Objectives: what to steer toward. Any callable x0 (B, ...) -> loss (B,) is one; these are ready-made."""

from symguide.objectives.aesthetic import Aesthetic
from symguide.objectives.balanced import Balanced
from symguide.objectives.base import BlackBox, Objective, Sum
from symguide.objectives.blur import Blur, GaussianBlur, MotionBlur
from symguide.objectives.classifier import Classifier, softened
from symguide.objectives.decoded import Decoded
from symguide.objectives.depth import Depth
from symguide.objectives.edges import Edges
from symguide.objectives.measurement import Measurement, Region
from symguide.objectives.motion import Motion, MotionField
from symguide.objectives.noisy import NoisyClassifier
from symguide.objectives.operators import CompressedSensing, Downsample, LinearOperator, Mask
from symguide.objectives.palette import Palette
from symguide.objectives.preprocess import Preprocess
from symguide.objectives.segmentation import Segmentation
from symguide.objectives.similarity import Identity, ImageSimilarity, TextSimilarity
from symguide.objectives.style import Style
from symguide.objectives.views import Augmented, Cutouts

OBJECTIVES: dict[str, type[Objective]] = {
    "classifier": Classifier,
    "noisy": NoisyClassifier,
    "text": TextSimilarity,
    "image": ImageSimilarity,
    "identity": Identity,
    "style": Style,
    "aesthetic": Aesthetic,
    "segmentation": Segmentation,
    "depth": Depth,
    "palette": Palette,
    "edges": Edges,
    "motion": MotionField,
    "region": Region,
    "measurement": Measurement,
    "blackbox": BlackBox,
}

__all__ = [
    "OBJECTIVES",
    "Aesthetic",
    "Augmented",
    "Balanced",
    "BlackBox",
    "Blur",
    "Classifier",
    "CompressedSensing",
    "Cutouts",
    "Decoded",
    "Depth",
    "Downsample",
    "Edges",
    "GaussianBlur",
    "Identity",
    "ImageSimilarity",
    "LinearOperator",
    "Mask",
    "Measurement",
    "Motion",
    "MotionBlur",
    "MotionField",
    "NoisyClassifier",
    "Objective",
    "Palette",
    "Preprocess",
    "Region",
    "Segmentation",
    "Style",
    "Sum",
    "TextSimilarity",
    "softened",
]
