"""Small networks of our own, and the model folders they are kept in."""

from symguide.networks.attention import SelfAttention
from symguide.networks.classifier import ConvClassifier, TokenClassifier
from symguide.networks.io import NETWORKS, load, save
from symguide.networks.unet import UNet

__all__ = ["NETWORKS", "ConvClassifier", "SelfAttention", "TokenClassifier", "UNet", "load", "save"]
