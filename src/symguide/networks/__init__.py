"""Small networks of our own, and the model folders they are kept in."""

from symguide.networks.attention import CrossAttention as CrossAttention
from symguide.networks.attention import SelfAttention as SelfAttention
from symguide.networks.autoencoder import Autoencoder as Autoencoder
from symguide.networks.averaged import Averaged as Averaged
from symguide.networks.caption_unet import CaptionUNet as CaptionUNet
from symguide.networks.classifier import ConvClassifier as ConvClassifier
from symguide.networks.classifier import ResidualClassifier as ResidualClassifier
from symguide.networks.classifier import TimedClassifier as TimedClassifier
from symguide.networks.classifier import TokenClassifier as TokenClassifier
from symguide.networks.encoder import TwinEncoder as TwinEncoder
from symguide.networks.generator import Generator as Generator
from symguide.networks.generator import LayeredGenerator as LayeredGenerator
from symguide.networks.io import load as load
from symguide.networks.io import save as save
from symguide.networks.saveable import NETWORKS as NETWORKS
from symguide.networks.saveable import saveable as saveable
from symguide.networks.segmenter import DilatedSegmenter as DilatedSegmenter
from symguide.networks.segmenter import PyramidSegmenter as PyramidSegmenter
from symguide.networks.unet import UNet as UNet
from symguide.networks.vector_unet import VectorUNet as VectorUNet
