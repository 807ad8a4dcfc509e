"""Priors, posteriors and likelihoods of the PixelCNN models (Figures 3, 8).

Their class latent c is a template: an image of several channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.distributions import depth_upscaling
from vhe_tf.distributions import discretized
from vhe_tf.distributions import pixel_cnn as distributions
from vhe_tf.layers import base
from vhe_tf.layers import heads
from vhe_tf.layers import pixel_cnn
from vhe_tf.layers import spatial_transformer
from vhe_tf.layers.shift_convolution import ShiftConvolution

__all__ = [
    "DepthUpscaledLikelihood",
    "PixelCNNPrior",
    "PoseLikelihood",
    "PosePosterior",
    "StyledLikelihood",
    "TemplatePosterior",
]

_MIN_SCALE = 1e-3


@keras.saving.register_keras_serializable(package="vhe_tf")
class TemplatePosterior(base.BaseLayer):
    """Posterior q(c; D): a spatial transformer averaged over the support.

    A spatial transformer moves each support image to a common pose, and
    convolutions encode it at one or several scales. The features of each scale
    are averaged over the support. From the averages, coarse to fine, further
    convolutions compute a diagonal Gaussian over the template.

    Args:
        channels: Integer, L. Channels of the template.
        filters: Integers. Filters of each scale, the full resolution first.
            Each further scale has half the height and width. Defaults to
            `(10,)`, one scale, as published.
        kernel_size: Integer. Kernel size of all convolutions. Defaults to 5.
        units: Integer. Width of the hidden layer between an image and its
            pose. Defaults to 32.
        initial_scale: Float or None. Standard deviation of the posterior of
            blank images at initialisation, approximately that of all images.
            The mean is then near zero, so that a template is mostly noise
            unless this is small. Defaults to None, log 2 from zero biases.
        conditional: Boolean. Whether the posterior depends on vector parents,
            q(c; D, a), as it does after training: at initialisation it does
            not. Defaults to False.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        support: `[B, N, H, W, C]`, D.
        *parents: `[S..., B, P]` each, the values of the parents, if
            `conditional`.

    Returns:
        A `tfd.Independent` Normal, batch shape `[B]`, or given parents
        `[S..., B]`, event shape `[H, W, L]`.

    Raises:
        ValueError: If `initial_scale` is not above the smallest scale, 0.001.

    Example:
    >>> TemplatePosterior(3)(tf.zeros([2, 5, 8, 8, 1])).event_shape
    TensorShape([8, 8, 3])
    """

    def __init__(
        self,
        channels: int,
        filters: Sequence[int] = (10,),
        kernel_size: int = 5,
        units: int = 32,
        initial_scale: float | None = None,
        conditional: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if initial_scale is not None and not initial_scale > _MIN_SCALE:
            raise ValueError(
                f"`initial_scale` must be above {_MIN_SCALE}. "
                f"Received: initial_scale={initial_scale!r}."
            )
        self.channels = channels
        self.filters = tuple(filters)
        self.kernel_size = kernel_size
        self.units = units
        self.initial_scale = initial_scale
        self.conditional = conditional
        self.localisation = spatial_transformer.Localisation(
            dtype=self.dtype_policy
        )
        self.pose = spatial_transformer.AffineMap(
            units, dtype=self.dtype_policy
        )
        # Down: one convolution at full size; then one of stride 2 and one more
        # at each further scale. Up: one at each scale but the coarsest.
        self.down = [[self._convolution(self.filters[0])]]
        for size in self.filters[1:]:
            self.down.append([self._halving(size), self._convolution(size)])
        self.up = [
            (self._convolution(size, 1), self._convolution(size))
            for size in self.filters[-2::-1]
        ]
        raw_scale = 0.0
        if initial_scale is not None:
            raw_scale = math.log(math.expm1(initial_scale - _MIN_SCALE))
        self.parameters = self._convolution(
            2 * channels,
            bias_initializer=keras.initializers.Constant(
                [0.0] * channels + [raw_scale] * channels
            ),
        )
        # Last, so that the other weights are those of q(c; D), in order.
        if conditional:
            self.shift = keras.layers.Dense(
                self.filters[-1],
                kernel_initializer="zeros",
                dtype=self.dtype_policy,
            )

    def _convolution(
        self, filters: int, kernel_size: int | None = None, **options: Any
    ) -> ShiftConvolution:
        size = kernel_size or self.kernel_size
        return ShiftConvolution(
            filters, (size, size), dtype=self.dtype_policy, **options
        )

    def _halving(self, filters: int) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            filters,
            self.kernel_size,
            strides=2,
            padding="same",
            data_format="channels_last",
            dtype=self.dtype_policy,
        )

    def call(self, support: tf.Tensor, *parents: tf.Tensor) -> tfd.Distribution:
        shape = tf.shape(support)
        images = tf.reshape(support, [-1, *support.shape[2:]])
        theta = self.pose(self.localisation(images))
        features = spatial_transformer.affine_transform(images, theta)
        scales: list[tf.Tensor] = []
        for convolutions in self.down:
            for convolution in convolutions:
                features = tf.nn.elu(convolution(features))
            by_group = tf.reshape(
                features, [shape[0], shape[1], *features.shape[1:]]
            )
            scales.append(tf.reduce_mean(by_group, axis=1))
        leading = shape[:1]
        if self.conditional:
            shift = self.shift(tf.concat(parents, axis=-1))
            leading = tf.shape(shift)[:-1]
            scales = [_repeated(features, leading) for features in scales]
            shift = tf.reshape(shift, [-1, 1, 1, self.filters[-1]])
            scales[-1] += tf.cast(shift, scales[-1].dtype)
        features = scales.pop()
        for project, convolution in self.up:
            finer = scales.pop()
            coarse = _doubled(project(features), finer.shape[1:3])
            features = tf.nn.elu(convolution(tf.nn.elu(finer + coarse)))
        parameters = tf.cast(self.parameters(features), tf.float32)
        parameters = tf.reshape(
            parameters, tf.concat([leading, parameters.shape[1:]], axis=0)
        )
        loc, raw_scale = tf.split(parameters, 2, axis=-1)
        scale = tf.nn.softplus(raw_scale) + _MIN_SCALE
        return tfd.Independent(
            tfd.Normal(loc, scale),
            reinterpreted_batch_ndims=3,  # [H, W, L]
        )


def _repeated(images: tf.Tensor, leading: tf.Tensor) -> tf.Tensor:
    """Repeats `[B, ...]` for sample axes, `leading` `[S..., B]`; folded."""
    shape = tf.concat([leading, images.shape[1:]], axis=0)
    return tf.reshape(tf.broadcast_to(images, shape), [-1, *images.shape[1:]])


def _doubled(images: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Repeats each pixel in both directions; `[N, *size, F]`."""
    doubled = tf.repeat(tf.repeat(images, 2, axis=1), 2, axis=2)
    return doubled[:, : size[0], : size[1]]


@keras.saving.register_keras_serializable(package="vhe_tf")
class PixelCNNPrior(base.BaseLayer):
    """Prior p(c), or p(c | a) given vectors: a PixelCNN with Gaussian pixels.

    It is autoregressive over space only, not over channels. Parents condition
    every location alike.

    Args:
        image_shape: `(H, W, L)` of the template.
        filters: Integer. Filters of the gated PixelCNN.
        num_blocks: Integer. Number of its blocks.
        conditional: Boolean. Whether the prior depends on vector parents.
            Defaults to False.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        *parents: `[S..., B, P]` each, the values of the parents, if
            `conditional`.

    Returns:
        A `PixelCNN` distribution, batch shape `[]`, or given parents
        `[S..., B]`, event shape `[H, W, L]`.

    Example:
    >>> PixelCNNPrior((8, 8, 3), filters=4, num_blocks=1)().event_shape
    TensorShape([8, 8, 3])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        filters: int,
        num_blocks: int,
        conditional: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.filters = filters
        self.num_blocks = num_blocks
        self.conditional = conditional
        self.pixels = distributions.NormalPixels()
        self.network = pixel_cnn.GatedPixelCNN(
            self.pixels.num_parameters(self.image_shape[2]),
            filters=filters,
            num_blocks=num_blocks,
            dtype=self.dtype_policy,
        )
        if conditional:
            self.embedding = keras.layers.Dense(
                filters, activation="elu", dtype=self.dtype_policy
            )

    def call(self, *parents: tf.Tensor) -> tfd.Distribution:
        conditioning = None
        if self.conditional:
            embedded = self.embedding(tf.concat(parents, axis=-1))
            shape = tf.shape(embedded)
            conditioning = tf.broadcast_to(
                embedded[..., tf.newaxis, tf.newaxis, :],
                tf.concat(
                    [shape[:-1], self.image_shape[:2], shape[-1:]], axis=0
                ),
            )
        return distributions.PixelCNN(
            self.network,
            self.pixels,
            self.image_shape,
            conditioning=conditioning,
        )


@keras.saving.register_keras_serializable(package="vhe_tf")
class PosePosterior(base.BaseLayer):
    """Posterior q(z; x, c): a diagonal Gaussian over the pose of x.

    Args:
        encoder: Keras layer from images `[N, H, W, C]` to features `[N, F]`.
        latent_size: Positive integer, Z.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        query: `[B, H, W, C]`, x.
        *templates: Tensors of shape `[S..., B, H, W, L]`. The encoder receives
            them as further channels of the query. Omitted for q(z; x).

    Returns:
        A `tfd.MultivariateNormalDiag`, batch shape `[S..., B]`, event shape
        `[Z]`.

    Example:
    >>> posterior = PosePosterior(keras.layers.Flatten(), 3)
    >>> posterior(tf.zeros([2, 8, 8, 1])).batch_shape
    TensorShape([2])
    """

    def __init__(
        self, encoder: keras.layers.Layer, latent_size: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.latent_size = latent_size
        self.head = heads.DiagonalNormalHead(
            latent_size, dtype=self.dtype_policy
        )

    def call(self, query: tf.Tensor, *templates: tf.Tensor) -> tfd.Distribution:
        images = query
        if templates:
            leading = tf.shape(templates[0])[:-3]
            shape = tf.concat([leading, query.shape[-3:]], axis=0)
            images = tf.concat(
                [tf.broadcast_to(query, shape), *templates], axis=-1
            )
        leading = tf.shape(images)[:-3]
        features = self.encoder(tf.reshape(images, [-1, *images.shape[-3:]]))
        shape = tf.concat([leading, [features.shape[-1]]], axis=0)
        return self.head(tf.reshape(features, shape))


@keras.saving.register_keras_serializable(package="vhe_tf")
class PoseLikelihood(base.BaseLayer):
    """Likelihood p(x | STN(c, z)): a PixelCNN given a template in a pose.

    Args:
        network: `GatedPixelCNN` with conditioning.
        image_shape: `(H, W, C)`.
        template: String. The name of c, the latent that is transformed.
        pose: String. The name of z, from which the affine map is computed.
        num_levels: Integer. Number of levels per channel: 2 for independent
            Bernoullis, more for a mixture; see `DiscretizedLogisticPixels`.
            Defaults to 2.
        num_components: Integer. Components of that mixture. Defaults to 1.
        units: Integer. Width of the hidden layer between z and the affine map.
            Defaults to 32.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        **latents: `template`, `[S..., B, H, W, L]`, and `pose`,
            `[S..., B, Z]`.

    Returns:
        A `PixelCNN` distribution, batch shape `[S..., B]`, event shape
        `[H, W, C]`.

    Raises:
        ValueError: If `num_levels` or `num_components` is out of range.

    Example:
    >>> likelihood = PoseLikelihood(
    ...     pixel_cnn.GatedPixelCNN(1, filters=4, num_blocks=1),
    ...     (8, 8, 1),
    ...     template="character",
    ...     pose="pose",
    ... )
    >>> template, pose = tf.zeros([2, 8, 8, 3]), tf.zeros([2, 4])
    >>> likelihood(character=template, pose=pose).event_shape
    TensorShape([8, 8, 1])
    """

    def __init__(
        self,
        network: pixel_cnn.GatedPixelCNN,
        image_shape: Sequence[int],
        *,
        template: str,
        pose: str,
        num_levels: int = 2,
        num_components: int = 1,
        units: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.network = network
        self.image_shape = tuple(image_shape)
        self.template = template
        self.pose = pose
        self.num_levels = num_levels
        self.num_components = num_components
        self.units = units
        self.pixels = discretized.pixels_of(num_levels, num_components)
        self.affine_map = spatial_transformer.AffineMap(
            units, dtype=self.dtype_policy
        )

    def call(self, **latents: tf.Tensor) -> tfd.Distribution:
        return distributions.PixelCNN(
            self.network,
            self.pixels,
            self.image_shape,
            conditioning=self.conditioning(**latents),
        )

    def conditioning(self, **latents: tf.Tensor) -> tf.Tensor:
        """Returns what the network sees, `[S..., B, H, W, K]`."""
        return spatial_transformer.affine_transform(
            latents[self.template], self.affine_map(latents[self.pose])
        )


@keras.saving.register_keras_serializable(package="vhe_tf")
class StyledLikelihood(PoseLikelihood):
    """Likelihood p(x | STN(c, z), s): a PixelCNN of colour images in a style.

    Each location is conditioned on the outer product of the style and the
    template there (Section 4.3). Unlike the paper, a constant 1 is appended to
    both first: c and s then also act by themselves, and c can be learned before
    s is.

    Args:
        network: `GatedPixelCNN` with conditioning.
        image_shape: `(H, W, C)`.
        style: String. The name of s.
        **kwargs: Passed on to `PoseLikelihood`.

    Call arguments:
        **latents: `template`, `[S..., B, H, W, L]`, `pose`, `[S..., B, Z]`,
            and `style`, `[S..., B, Y]`.

    Returns:
        A `PixelCNN` distribution, batch shape `[S..., B]`, event shape
        `[H, W, C]`.

    Example:
    >>> likelihood = StyledLikelihood(
    ...     pixel_cnn.GatedPixelCNN(3, filters=4, num_blocks=1),
    ...     (8, 8, 3),
    ...     template="character",
    ...     pose="pose",
    ...     style="style",
    ... )
    >>> template, pose = tf.zeros([2, 8, 8, 3]), tf.zeros([2, 4])
    >>> style = tf.zeros([2, 6])
    >>> likelihood(character=template, pose=pose, style=style).event_shape
    TensorShape([8, 8, 3])
    """

    def __init__(
        self,
        network: pixel_cnn.GatedPixelCNN,
        image_shape: Sequence[int],
        *,
        style: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, image_shape, **kwargs)
        self.style = style

    def conditioning(self, **latents: tf.Tensor) -> tf.Tensor:
        template = _with_constant(super().conditioning(**latents))
        style = _with_constant(tf.cast(latents[self.style], template.dtype))
        product = tf.einsum("...hwl,...s->...hwls", template, style)
        channels = template.shape[-1] * style.shape[-1]
        shape = tf.concat([tf.shape(template)[:-1], [channels]], axis=0)
        # The product of the two constants says nothing.
        return tf.reshape(product, shape)[..., :-1]


@keras.saving.register_keras_serializable(package="vhe_tf")
class DepthUpscaledLikelihood(base.BaseLayer):
    """Likelihood p(high image | latents) p(low image | high image).

    Args:
        high: Keras layer. `high(**latents)` returns a `PixelCNN` over the high
            image, such as a `PoseLikelihood` of few levels.
        network: `GatedPixelCNN` with conditioning, of the low image.
        num_levels: Integer. Number of levels of the low image; see
            `PoseLikelihood`.
        num_components: Integer. Components of a pixel of the low image.
            Defaults to 1.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        **latents: Tensors, those of `high`.

    Returns:
        A `DepthUpscaled` distribution, batch shape `[S..., B]`, event shape
        `[H, W, C]`.

    Raises:
        ValueError: If `num_levels` or `num_components` is out of range.

    Example:
    >>> def network():
    ...     return pixel_cnn.GatedPixelCNN(3, filters=4, num_blocks=1)
    >>> high = PoseLikelihood(
    ...     network(), (8, 8, 1), template="c", pose="z", num_levels=8
    ... )
    >>> likelihood = DepthUpscaledLikelihood(high, network(), num_levels=32)
    >>> likelihood(c=tf.zeros([2, 8, 8, 3]), z=tf.zeros([2, 4])).num_levels
    256
    """

    def __init__(
        self,
        high: keras.layers.Layer,
        network: pixel_cnn.GatedPixelCNN,
        *,
        num_levels: int,
        num_components: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.high = high
        self.network = network
        self.num_levels = num_levels
        self.num_components = num_components
        self.pixels = discretized.pixels_of(num_levels, num_components)

    def call(self, **latents: tf.Tensor) -> tfd.Distribution:
        high = self.high(**latents)
        low = distributions.PixelCNN(
            self.network, self.pixels, high.image_shape
        )
        return depth_upscaling.DepthUpscaled(high, low)


def _with_constant(values: tf.Tensor) -> tf.Tensor:
    """Appends a 1 to the last axis."""
    return tf.concat([values, tf.ones_like(values[..., :1])], axis=-1)
