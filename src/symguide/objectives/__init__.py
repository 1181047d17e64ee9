"""Objectives: what to steer toward. Any callable x0 (B, ...) -> loss (B,) is one; these are ready-made."""

from symguide.objectives.aesthetic import Aesthetic as Aesthetic
from symguide.objectives.balanced import Balanced as Balanced
from symguide.objectives.base import BlackBox as BlackBox
from symguide.objectives.base import Objective as Objective
from symguide.objectives.base import Sum as Sum
from symguide.objectives.blur import Blur as Blur
from symguide.objectives.blur import GaussianBlur as GaussianBlur
from symguide.objectives.blur import MotionBlur as MotionBlur
from symguide.objectives.classifier import Classifier as Classifier
from symguide.objectives.classifier import softened as softened
from symguide.objectives.decoded import Decoded as Decoded
from symguide.objectives.depth import Depth as Depth
from symguide.objectives.edges import Edges as Edges
from symguide.objectives.measurement import Measurement as Measurement
from symguide.objectives.measurement import Region as Region
from symguide.objectives.measurement import measured as measured
from symguide.objectives.motion import Motion as Motion
from symguide.objectives.motion import MotionField as MotionField
from symguide.objectives.noisy import NoisyClassifier as NoisyClassifier
from symguide.objectives.operators import CompressedSensing as CompressedSensing
from symguide.objectives.operators import Downsample as Downsample
from symguide.objectives.operators import LinearOperator as LinearOperator
from symguide.objectives.operators import Mask as Mask
from symguide.objectives.palette import Palette as Palette
from symguide.objectives.photometry import Ellipticity as Ellipticity
from symguide.objectives.photometry import Flux as Flux
from symguide.objectives.photometry import Moments as Moments
from symguide.objectives.photometry import Size as Size
from symguide.objectives.preprocess import Preprocess as Preprocess
from symguide.objectives.segmentation import Segmentation as Segmentation
from symguide.objectives.similarity import Identity as Identity
from symguide.objectives.similarity import ImageSimilarity as ImageSimilarity
from symguide.objectives.similarity import TextSimilarity as TextSimilarity
from symguide.objectives.style import Style as Style
from symguide.objectives.views import Augmented as Augmented
from symguide.objectives.views import Cutouts as Cutouts
from symguide.registry import Registry, registry_of

OBJECTIVES: Registry[type[Objective]] = registry_of("objective")
