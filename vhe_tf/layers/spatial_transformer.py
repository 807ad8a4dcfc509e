"""Differentiable affine resampling of images.

Jaderberg, Simonyan, Zisserman and Kavukcuoglu (2015), "Spatial Transformer
Networks", Section 3.
"""

from typing import Any

import keras
import tensorflow as tf

from vhe_tf.layers import base

__all__ = ["AffineMap", "Localisation", "affine_transform"]

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def affine_transform(images: tf.Tensor, theta: tf.Tensor) -> tf.Tensor:
    """Resamples images by affine maps, bilinearly, with zeros around them.

    Args:
        images: `[..., H, W, C]`, the images.
        theta: `[..., 6]`, the rows of the matrices (a b t; c d u): the pixel
            of the output at (x, y) is read at (a x + b y + t, c x + d y + u).
            x runs to the right and y down, both from -1 to 1 between the
            outer edges of the image.

    Returns:
        `[..., H, W, C]`, float32, with the leading axes of `theta`; those of
        `images` are the same.

    Example:
    >>> identity = tf.constant([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
    >>> affine_transform(tf.ones([1, 8, 8, 1]), identity).shape
    TensorShape([1, 8, 8, 1])
    """
    height, width, channels = images.shape[-3:]
    x, y = _source_positions(tf.reshape(theta, [-1, 6]), height, width)
    # Positions outside the image end in a border of zeros.
    x = tf.clip_by_value(x + 1.0, 0.0, width + 1.0)
    y = tf.clip_by_value(y + 1.0, 0.0, height + 1.0)
    x_low = tf.minimum(tf.floor(x), width)
    y_low = tf.minimum(tf.floor(y), height)
    right, below = x - x_low, y - y_low  # [N, H, W], the bilinear weights
    padded = tf.pad(
        tf.reshape(images, [-1, height, width, channels]),
        [(0, 0), (1, 1), (1, 1), (0, 0)],
    )
    row = width + 2
    image = tf.range(tf.shape(padded)[0]) * ((height + 2) * row)
    corner = (
        image[:, tf.newaxis, tf.newaxis]
        + tf.cast(y_low, tf.int32) * row
        + tf.cast(x_low, tf.int32)
    )
    corners = tf.stack([corner, corner + 1, corner + row, corner + row + 1])
    weights = tf.stack(
        [
            (1.0 - right) * (1.0 - below),
            right * (1.0 - below),
            (1.0 - right) * below,
            right * below,
        ]
    )
    values = tf.gather(tf.reshape(padded, [-1, channels]), corners)
    values = tf.cast(values, tf.float32)
    output = tf.reduce_sum(weights[..., tf.newaxis] * values, axis=0)
    shape = tf.concat([tf.shape(theta)[:-1], images.shape[-3:]], axis=0)
    return tf.reshape(output, shape)


def _source_positions(
    theta: tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sources of output pixels, x and y in pixels, [N, H, W]."""
    x = ((tf.range(width, dtype=tf.float32) + 0.5) / width * 2.0) - 1.0
    y = ((tf.range(height, dtype=tf.float32) + 0.5) / height * 2.0) - 1.0
    a, b, t, c, d, u = (
        v[:, tf.newaxis, tf.newaxis] for v in tf.unstack(theta, axis=1)
    )
    y = y[:, tf.newaxis]
    source_x = a * x + b * y + t
    source_y = c * x + d * y + u
    return (
        (source_x + 1.0) * (0.5 * width) - 0.5,
        (source_y + 1.0) * (0.5 * height) - 0.5,
    )


@keras.saving.register_keras_serializable(package="vhe_tf")
class AffineMap(base.BaseLayer):
    """Maps features to an affine map, initially the identity.

    Each parameter stays within 1 of that of the identity, so that the image
    never leaves the frame.

    Args:
        units: Integer. Width of the hidden layer.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        features: `[..., F]`, the features of each image.

    Returns:
        `[..., 6]`, float32, for `affine_transform`.

    Example:
    >>> AffineMap(8)(tf.zeros([1, 3])).numpy()
    array([[1., 0., 0., 0., 1., 0.]], dtype=float32)
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(
            units, activation="elu", dtype=self.dtype_policy
        )
        self.offset = keras.layers.Dense(
            6, kernel_initializer="zeros", dtype=self.dtype_policy
        )

    def call(self, features: tf.Tensor) -> tf.Tensor:
        offset = tf.cast(self.offset(self.hidden(features)), tf.float32)
        return tf.constant(_IDENTITY) + tf.tanh(offset)


@keras.saving.register_keras_serializable(package="vhe_tf")
class Localisation(base.BaseLayer):
    """Two convolutions with pooling that encode the pose of an image.

    The localisation network of the PixelCNN model has convolutions of 7x7 to 8
    channels and 5x5 to 10 channels without padding, each with 2x2 maximum
    pooling and ReLU. A 28x28 image has 90 features. Smaller images are padded.

    Args:
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        images: `[N, H, W, C]`, the images.

    Returns:
        `[N, F]`.

    Example:
    >>> Localisation()(tf.zeros([1, 28, 28, 1])).shape
    TensorShape([1, 90])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.convolutions = [
            keras.layers.Conv2D(
                filters, size, data_format="channels_last", dtype=policy
            )
            for filters, size in ((8, 7), (10, 5))
        ]
        self.pool = keras.layers.MaxPooling2D(
            data_format="channels_last", dtype=policy
        )

    def call(self, images: tf.Tensor) -> tf.Tensor:
        features = images
        for convolution in self.convolutions:
            size = convolution.kernel_size[0]
            lacking = [
                max(0, size + 1 - length) for length in features.shape[1:3]
            ]
            pads = [(length // 2, length - length // 2) for length in lacking]
            features = tf.pad(features, [(0, 0), *pads, (0, 0)])
            features = tf.nn.relu(self.pool(convolution(features)))
        size = features.shape[1] * features.shape[2] * features.shape[3]
        return tf.reshape(features, [-1, size])
