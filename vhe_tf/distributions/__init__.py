"""Divergences and distributions that TFP lacks."""

from vhe_tf._utils import backend  # noqa: F401
from vhe_tf.distributions.depth_upscaling import DepthUpscaled
from vhe_tf.distributions.discretized import DiscretizedLogisticPixels
from vhe_tf.distributions.discretized import bits_per_dimension
from vhe_tf.distributions.discretized import pixels_of
from vhe_tf.distributions.divergences import kl_from_sample
from vhe_tf.distributions.gaussian_mixture import GaussianMixture
from vhe_tf.distributions.low_rank_gaussian import LowRankGaussian
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import NormalPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.distributions.pixel_cnn import Pixels
from vhe_tf.distributions.tempering import tempered

__all__ = [
    "BernoulliPixels",
    "DepthUpscaled",
    "DiscretizedLogisticPixels",
    "GaussianMixture",
    "LowRankGaussian",
    "NormalPixels",
    "PixelCNN",
    "Pixels",
    "bits_per_dimension",
    "kl_from_sample",
    "pixels_of",
    "tempered",
]
