"""Small networks of our own, and the model folders they are kept in."""

from symguide.networks.attention import CrossAttention, SelfAttention
from symguide.networks.autoencoder import Autoencoder
from symguide.networks.averaged import Averaged
from symguide.networks.caption_unet import CaptionUNet
from symguide.networks.classifier import ConvClassifier, ResidualClassifier, TimedClassifier, TokenClassifier
from symguide.networks.encoder import TwinEncoder
from symguide.networks.generator import Generator, LayeredGenerator
from symguide.networks.io import NETWORKS, load, save
from symguide.networks.segmenter import DilatedSegmenter, PyramidSegmenter
from symguide.networks.unet import UNet

__all__ = [
    "NETWORKS",
    "Autoencoder",
    "Averaged",
    "CaptionUNet",
    "ConvClassifier",
    "CrossAttention",
    "DilatedSegmenter",
    "Generator",
    "LayeredGenerator",
    "PyramidSegmenter",
    "ResidualClassifier",
    "SelfAttention",
    "TimedClassifier",
    "TokenClassifier",
    "TwinEncoder",
    "UNet",
    "load",
    "save",
]
