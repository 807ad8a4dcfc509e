"""The architectures of the paper, ready to train (Section 4.1)."""

from vhe_tf.models.architectures.alphabet import alphabet_pixel_cnn_vhe
from vhe_tf.models.architectures.alphabet import alphabet_vhe
from vhe_tf.models.architectures.deconvolutional import deconvolutional_vhe
from vhe_tf.models.architectures.pixel_cnn import PIXEL_CNN_SIZES
from vhe_tf.models.architectures.pixel_cnn import PixelCNNSize
from vhe_tf.models.architectures.pixel_cnn import pixel_cnn_vhe
from vhe_tf.models.architectures.style import style_vhe

__all__ = [
    "PIXEL_CNN_SIZES",
    "PixelCNNSize",
    "alphabet_pixel_cnn_vhe",
    "alphabet_vhe",
    "deconvolutional_vhe",
    "pixel_cnn_vhe",
    "style_vhe",
]
