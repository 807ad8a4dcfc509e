"""Layers that `ablations.py` tries in the small PixelCNN VHE.

The decoders train and score, and refuse to draw images.
"""

from typing import Any
from typing import NoReturn

import keras
import tensorflow as tf

from vhe_tf import VHE
from vhe_tf.layers import gated_residual
from vhe_tf.layers import spatial_inference
from vhe_tf.layers.pixel_cnn import GatedPixelCNN
from vhe_tf.layers.shift_convolution import Pointwise
from vhe_tf.models.latents import Latent

__all__ = [
    "AttentiveGatedPixelCNN",
    "AttentiveTemplatePosterior",
    "DownsamplingGatedPixelCNN",
    "with_attention_in_decoder",
    "with_attention_over_support",
    "with_downsampling_in_decoder",
    "with_pose_that_shows",
]

_HEADS = 4
_COARSE_BLOCKS = 3
_POSE_SCALE = 0.05


class _ScoringGatedPixelCNN(GatedPixelCNN):
    """A gated PixelCNN that is not made to draw a pixel at a time."""

    def incremental(self, *_: Any) -> NoReturn:
        """Refuses: it would draw by another network."""
        raise NotImplementedError(
            f"{type(self).__name__} scores images and does not draw them; a "
            "network that does needs the same steps a pixel at a time."
        )


@keras.saving.register_keras_serializable(package="vhe_tf_trainers")
class AttentiveGatedPixelCNN(_ScoringGatedPixelCNN):
    """A gated PixelCNN with causal self-attention after its blocks.

    As in PixelSNAIL (Chen et al. 2018), but once: a pixel sees what every
    pixel before it has seen.
    """

    def build(self, images_shape: Any, conditioning_shape: Any = None) -> None:
        super().build(images_shape, conditioning_shape)
        _, height, width, _ = images_shape
        self.attend = Pointwise(3 * self.filters, dtype=self.dtype_policy)
        self.attend.build((None, None, None, self.filters))
        self.attended = Pointwise(self.filters, dtype=self.dtype_policy)
        self.attended.build((None, None, None, self.filters))
        self.positions = self.add_weight(
            (1, height, width, self.filters), name="positions"
        )

    def call(
        self, images: tf.Tensor, conditioning: tf.Tensor | None = None
    ) -> tf.Tensor:
        above, left = self.first(images)
        conditioning = self.embedded(conditioning)
        for block in self.blocks:
            above, left = block(above, left, conditioning)
        return self.last(left + self.attended(self._attention(left)))

    def _attention(self, features: tf.Tensor) -> tf.Tensor:
        """Returns `[N, H, W, F]`: of each pixel, those up to it.

        The features of a pixel already leave out the pixel itself.
        """
        shape = tf.shape(features)
        pixels = features.shape[1] * features.shape[2]
        projected = tf.reshape(
            self.attend(features + self.positions),
            [-1, pixels, 3, _HEADS, self.filters // _HEADS],
        )
        query, key, value = tf.unstack(
            tf.transpose(projected, [2, 0, 3, 1, 4])
        )  # [N, heads, pixels, F / heads]
        scale = (self.filters // _HEADS) ** -0.5
        logits = scale * tf.matmul(query, key, transpose_b=True)
        up_to = tf.linalg.band_part(tf.ones([pixels, pixels], tf.bool), -1, 0)
        weights = tf.nn.softmax(tf.where(up_to, logits, -1e9))
        seen = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return tf.reshape(seen, shape)


@keras.saving.register_keras_serializable(package="vhe_tf_trainers")
class DownsamplingGatedPixelCNN(_ScoringGatedPixelCNN):
    """A gated PixelCNN whose vertical stack has a path at half the size.

    Rows are averaged two by two, and columns too; gated blocks of the vertical
    stack follow, and what they find is added to the rows below those they have
    seen, so that the reach upwards grows by 4 rows a block instead of 1.
    """

    def build(self, images_shape: Any, conditioning_shape: Any = None) -> None:
        super().build(images_shape, conditioning_shape)
        self.coarse = [
            gated_residual.vertical(
                2 * self.filters, 5, dtype=self.dtype_policy
            )
            for _ in range(_COARSE_BLOCKS)
        ]
        self.finer = Pointwise(self.filters, dtype=self.dtype_policy)
        for layer in (*self.coarse, self.finer):
            layer.build((None, None, None, self.filters))

    def call(
        self, images: tf.Tensor, conditioning: tf.Tensor | None = None
    ) -> tf.Tensor:
        above, left = self.first(images)
        conditioning = self.embedded(conditioning)
        above += self.finer(self._coarse(above))
        for block in self.blocks:
            above, left = block(above, left, conditioning)
        return self.last(left)

    def _coarse(self, above: tf.Tensor) -> tf.Tensor:
        """Returns `[N, H, W, F]`: of a row, what is seen of those above."""
        _, height, width, _ = above.shape
        features = tf.nn.avg_pool2d(above, 2, 2, "SAME")
        for convolution in self.coarse:
            features += gated_residual.gate(convolution(features))
        # Row i of `above` has seen the images' rows before i; row k of the
        # coarse features those before 2 k + 1. So rows 2 k and 2 k + 1 may
        # see coarse row k - 1.
        features = tf.pad(features[:, :-1], [(0, 0), (1, 0), (0, 0), (0, 0)])
        features = tf.repeat(tf.repeat(features, 2, axis=1), 2, axis=2)
        return features[:, :height, :width]


@keras.saving.register_keras_serializable(package="vhe_tf_trainers")
class AttentiveTemplatePosterior(spatial_inference.TemplatePosterior):
    """q(c; D) whose averages over D are by attention, of each pixel and head.

    The mean of D asks and its images answer: an image weighs as much as its
    key agrees with the query that the mean makes, by a softmax over D. At
    first all queries are zero, and all weights equal.
    """

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(channels, **kwargs)
        self.query = [
            keras.layers.Dense(
                filters, kernel_initializer="zeros", dtype=self.dtype_policy
            )
            for filters in self.filters
        ]
        # A bias of the keys would be the same for all of D.
        self.key = [
            keras.layers.Dense(filters, use_bias=False, dtype=self.dtype_policy)
            for filters in self.filters
        ]

    def average(self, features: tf.Tensor, *, scale: int) -> tf.Tensor:
        filters = features.shape[-1]
        of_head = filters // _HEADS
        mean = tf.reduce_mean(features, axis=1, keepdims=True)
        products = self.query[scale](mean) * self.key[scale](features)
        shape = tf.concat([tf.shape(features)[:-1], [_HEADS, of_head]], axis=0)
        logits = tf.reduce_sum(tf.reshape(products, shape), axis=-1)
        weights = tf.nn.softmax(logits * of_head**-0.5, axis=1)
        weights = tf.repeat(weights, of_head, axis=-1)  # [B, N, H, W, F]
        return tf.reduce_sum(weights * features, axis=1)


def with_attention_in_decoder(model: VHE) -> VHE:
    """Returns the model with another network as its decoder."""
    return _with_decoder(model, AttentiveGatedPixelCNN)


def with_downsampling_in_decoder(model: VHE) -> VHE:
    """Returns the model with another network as its decoder."""
    return _with_decoder(model, DownsamplingGatedPixelCNN)


def _with_decoder(model: VHE, decoder: type[GatedPixelCNN]) -> VHE:
    likelihood = model.likelihood
    network = decoder.from_config(likelihood.network.get_config())
    config = likelihood.get_config()
    del config["network"]
    return _remade(
        model,
        model.latents,
        spatial_inference.PoseLikelihood(network, **config),
    )


def with_attention_over_support(model: VHE) -> VHE:
    """Returns the model with another q(c; D)."""
    template, pose = model.latents
    return _remade(
        model,
        [
            Latent(
                template.name,
                prior=template.prior,
                posterior=AttentiveTemplatePosterior.from_config(
                    template.posterior.get_config()
                ),
                divergence=template.divergence,
            ),
            pose,
        ],
        model.likelihood,
    )


def with_pose_that_shows(model: VHE) -> VHE:
    """Returns the model; its template moves with z from the start.

    The last layer from z to the affine map begins with zeros otherwise, so
    that z says nothing of the image at first.
    """
    kernel = model.likelihood.affine_map.offset.kernel
    kernel.assign(
        keras.initializers.RandomNormal(stddev=_POSE_SCALE)(kernel.shape)
    )
    return model


def _remade(model: VHE, latents: Any, likelihood: Any) -> VHE:
    return VHE(
        latents=latents,
        likelihood=likelihood,
        image_shape=model.image_shape,
        objective=model.objective,
    )
