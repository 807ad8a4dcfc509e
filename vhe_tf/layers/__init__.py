"""Keras layers; those that end a network return distributions."""

from vhe_tf._utils import backend  # noqa: F401
from vhe_tf.layers.base import BaseLayer
from vhe_tf.layers.convolution import ConvolutionalDecoder
from vhe_tf.layers.convolution import ConvolutionalEncoder
from vhe_tf.layers.dense_likelihood import DenseLikelihood
from vhe_tf.layers.dropout import SeededDropout
from vhe_tf.layers.gated_residual import GatedResidualBlock
from vhe_tf.layers.gaussian_mixture import GaussianMixturePrior
from vhe_tf.layers.heads import BernoulliImageHead
from vhe_tf.layers.heads import DiagonalNormalHead
from vhe_tf.layers.heads import NormalImageHead
from vhe_tf.layers.heads import StandardNormal
from vhe_tf.layers.inference import ConditionalNormal
from vhe_tf.layers.inference import ImageLikelihood
from vhe_tf.layers.inference import QueryPosterior
from vhe_tf.layers.inference import SupportPosterior
from vhe_tf.layers.low_rank_gaussian import LowRankGaussianPrior
from vhe_tf.layers.pixel_cnn import GatedPixelCNN
from vhe_tf.layers.shift_convolution import Pointwise
from vhe_tf.layers.shift_convolution import ShiftConvolution
from vhe_tf.layers.spatial_inference import DepthUpscaledLikelihood
from vhe_tf.layers.spatial_inference import PixelCNNPrior
from vhe_tf.layers.spatial_inference import PoseLikelihood
from vhe_tf.layers.spatial_inference import PosePosterior
from vhe_tf.layers.spatial_inference import StyledLikelihood
from vhe_tf.layers.spatial_inference import TemplatePosterior
from vhe_tf.layers.spatial_transformer import AffineMap
from vhe_tf.layers.spatial_transformer import Localisation

__all__ = [
    "AffineMap",
    "BaseLayer",
    "BernoulliImageHead",
    "ConditionalNormal",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "DenseLikelihood",
    "DepthUpscaledLikelihood",
    "DiagonalNormalHead",
    "GatedPixelCNN",
    "GatedResidualBlock",
    "GaussianMixturePrior",
    "ImageLikelihood",
    "Localisation",
    "LowRankGaussianPrior",
    "NormalImageHead",
    "PixelCNNPrior",
    "Pointwise",
    "PoseLikelihood",
    "PosePosterior",
    "QueryPosterior",
    "SeededDropout",
    "ShiftConvolution",
    "StandardNormal",
    "StyledLikelihood",
    "SupportPosterior",
    "TemplatePosterior",
]
