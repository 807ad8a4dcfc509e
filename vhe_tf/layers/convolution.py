"""Convolutional networks between images and feature vectors."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from vhe_tf.layers import base

__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder"]


@keras.saving.register_keras_serializable(package="vhe_tf")
class ConvolutionalEncoder(base.BaseLayer):
    """Stages of 3x3 convolutions, each of which ends with a stride of 2.

    Unlike the paper's source (Edwards and Storkey, 2016), which normalises
    over the batch, each image is normalised separately. `call` therefore
    assigns no moving statistics, episodes do not interact, and 1-shot and
    5-shot supports are treated alike.

    Args:
        filters: Integers. Number of filters of each stage.
        convolutions: Integer. Number of stride-1 convolutions of each stage
            before its stride-2 convolution. Defaults to 2.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        images: `[B, H, W, C]`, the images.

    Returns:
        `[B, F]`, the flattened features of the last stage.

    Example:
    >>> ConvolutionalEncoder([8, 16])(tf.zeros([2, 8, 8, 1])).shape
    TensorShape([2, 64])
    """

    def __init__(
        self, filters: Sequence[int], convolutions: int = 2, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.convolutions = convolutions
        self.blocks = [
            _convolution(size, stride, self.dtype_policy)
            for size in self.filters
            for stride in [1] * convolutions + [2]
        ]

    def call(self, images: tf.Tensor) -> tf.Tensor:
        features = images
        for block in self.blocks:
            features = block(features)
        shape = tf.shape(features)
        size = math.prod(features.shape[1:])
        return tf.reshape(features, [shape[0], size])


@keras.saving.register_keras_serializable(package="vhe_tf")
class ConvolutionalDecoder(base.BaseLayer):
    """A mirrored `ConvolutionalEncoder`, from features to parameters of images.

    Args:
        image_shape: `(H, W, C)` of the output.
        filters: Integers. The `filters` of the mirrored encoder.
        convolutions: Integer. Number of stride-1 convolutions of each stage
            before its transposed convolution of stride 2. Defaults to 2.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        features: `[..., F]`, the features of each image.

    Returns:
        `[..., H, W, C]`, logits.

    Example:
    >>> ConvolutionalDecoder((8, 8, 1), [8, 16])(tf.zeros([2, 3])).shape
    TensorShape([2, 8, 8, 1])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        filters: Sequence[int],
        convolutions: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.filters = tuple(filters)
        self.convolutions = convolutions
        # [(H, W), ..., smallest]: the sizes after each stage of the encoder.
        self.sizes = [self.image_shape[:2]]
        for _ in self.filters:
            height, width = self.sizes[-1]
            self.sizes.append((math.ceil(height / 2), math.ceil(width / 2)))
        policy = self.dtype_policy
        self.base = keras.layers.Dense(
            math.prod(self.sizes[-1]) * self.filters[-1], dtype=policy
        )
        self.stages = [
            [_convolution(size, 1, policy) for _ in range(convolutions)]
            + [_transposed_convolution(size, policy)]
            for size in reversed(self.filters)
        ]
        self.logits = keras.layers.Conv2D(
            self.image_shape[2],
            3,
            padding="same",
            data_format="channels_last",
            dtype=policy,
        )

    def call(self, features: tf.Tensor) -> tf.Tensor:
        leading = tf.shape(features)[:-1]
        flat = tf.reshape(features, [-1, features.shape[-1]])
        smallest = (*self.sizes[-1], self.filters[-1])
        image = tf.reshape(self.base(flat), [-1, *smallest])
        for stage, (height, width) in zip(
            self.stages, self.sizes[-2::-1], strict=True
        ):
            for block in stage:
                image = block(image)
            image = image[:, :height, :width]  # undoes the padding
        return tf.reshape(
            self.logits(image), tf.concat([leading, self.image_shape], axis=0)
        )


def _convolution(
    filters: int, stride: int, policy: keras.DTypePolicy
) -> keras.Sequential:
    return _normalised(
        keras.layers.Conv2D(
            filters,
            3,
            strides=stride,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            dtype=policy,
        ),
        policy,
    )


def _transposed_convolution(
    filters: int, policy: keras.DTypePolicy
) -> keras.Sequential:
    return _normalised(
        keras.layers.Conv2DTranspose(
            filters,
            3,
            strides=2,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            dtype=policy,
        ),
        policy,
    )


def _normalised(
    convolution: keras.layers.Layer, policy: keras.DTypePolicy
) -> keras.Sequential:
    return keras.Sequential(
        [
            convolution,
            keras.layers.GroupNormalization(groups=8, dtype=policy),
            keras.layers.Activation("elu", dtype=policy),
        ]
    )
