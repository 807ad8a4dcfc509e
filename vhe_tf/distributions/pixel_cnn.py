"""Autoregressive distributions over images.

p(x) = prod over pixels i in raster order of p(x_i | x_<i, conditioning) (van
den Oord et al. 2016, "Pixel Recurrent Neural Networks", Eq. 1). A network says,
for all pixels at once and each from those before it only, what the parameters
of p(x_i | x_<i) are; the kind of pixel says what they mean.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability import util as tfp_util

from vhe_tf import random

__all__ = [
    "AutoregressiveNetwork",
    "BernoulliPixels",
    "GuidedPixels",
    "NormalPixels",
    "PixelCNN",
    "Pixels",
    "guided",
    "has_binary_pixels",
]

# Keeps a Gaussian pixel from collapsing onto a point.
_MIN_SCALE = 1e-3


class Pixels(abc.ABC):
    """A family of distributions over the C channels of a pixel.

    Instances are equal if they are the same family, so that a compiled sampler
    can be used again.

    Attributes:
        binary: Boolean. Whether a channel has two values, so that most of a row
            can be guessed.
        num_levels: Integer, the number of levels of a channel; None for a
            density.

    Example:
    >>> BernoulliPixels().num_parameters(3), NormalPixels().num_parameters(3)
    (3, 6)
    """

    binary = False
    num_levels: int | None = None

    @abc.abstractmethod
    def num_parameters(self, channels: int) -> int:
        """Returns P, the number of parameters of a pixel."""

    def initial_parameters(self, channels: int) -> list[float]:
        """Returns the P parameters that a network does well to begin with."""
        return [0.0] * self.num_parameters(channels)

    @abc.abstractmethod
    def log_prob(
        self,
        parameters: tf.Tensor,
        images: tf.Tensor,
        *,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Returns `[..., H, W, C]`, nats.

        Args:
            parameters: `[..., H, W, P]`, the parameters of each pixel.
            images: `[..., H, W, C]`, the values of the channels.
            temperature: `[]`; the family's p to the power 1 / temperature,
                normalised.
        """

    @abc.abstractmethod
    def noise(self, shape: Any, seeds: tf.Tensor) -> tf.Tensor:
        """Samples the only randomness of the channels of pixels.

        Args:
            shape: Integers `[..., C]`. The shape of one row.
            seeds: int32 tensor of shape `[B, 2]`, one seed per row.

        Returns:
            float32 tensor of shape `[B, ..., C]`.
        """

    @abc.abstractmethod
    def transform(
        self, parameters: tf.Tensor, noise: tf.Tensor, *, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns the pixels `[..., C]` that the noise, `[..., C]`, decides."""

    def guided(self, guidance: float, num_contrasts: int) -> "Pixels | None":
        """Returns the family under guidance, see `guided`.

        Args:
            guidance: Float, w.
            num_contrasts: Integer, K.

        Returns:
            `Pixels`, or None if the family has no levels. The rows of its
            parameters are those of N images, then of K times N contrasts.
        """
        del guidance, num_contrasts
        return None


@dataclasses.dataclass(frozen=True)
class BernoulliPixels(Pixels):
    """Binary channels, independent given the pixels before; P = C logits.

    Example:
    >>> logits, noise = tf.zeros([2]), tf.constant([0.2, 0.9])
    >>> BernoulliPixels().transform(logits, noise, temperature=1.0).numpy()
    array([1., 0.], dtype=float32)
    """

    binary = True
    num_levels = 2

    def num_parameters(self, channels: int) -> int:
        """Returns P."""
        return channels

    def log_prob(
        self,
        parameters: tf.Tensor,
        images: tf.Tensor,
        *,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Returns `[..., H, W, C]`, nats; exact for channels of 0 and 1."""
        return -tf.nn.sigmoid_cross_entropy_with_logits(
            labels=images, logits=parameters / temperature
        )

    def noise(self, shape: Any, seeds: tf.Tensor) -> tf.Tensor:
        """Samples uniformly from (0, 1)."""
        return random.uniform(shape, seeds)

    def transform(
        self, parameters: tf.Tensor, noise: tf.Tensor, *, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns 1 where the noise is below the probability of 1."""
        return tf.cast(noise < tf.sigmoid(parameters / temperature), tf.float32)

    def guided(self, guidance: float, num_contrasts: int) -> Pixels:
        """Returns `GuidedPixels`."""
        return GuidedPixels(guidance, num_contrasts)


@dataclasses.dataclass(frozen=True)
class GuidedPixels(BernoulliPixels):
    """Binary channels, pushed away from what contrasting images would have.

    The logit of a channel is (1 + w) l - w m. l is that of the image itself,
    and m that of the mean probability of K contrasts, which have the same
    pixels before. The rows of a batch are N images, then K times N contrasts.

    Attributes:
        guidance: Float, w.
        num_contrasts: Integer, K.
    """

    guidance: float
    num_contrasts: int

    def logits(self, parameters: tf.Tensor) -> tf.Tensor:
        """Returns the logits of N rows, from the parameters of (1 + K) N."""
        count = 1 + self.num_contrasts
        by_set = tf.reshape(parameters, [count, -1, *parameters.shape[1:]])
        own, others = by_set[0], by_set[1:]
        # The logit of a mean of sigmoids; the 1 / K of both cancel.
        mean = tf.reduce_logsumexp(tf.math.log_sigmoid(others), axis=0)
        mean -= tf.reduce_logsumexp(tf.math.log_sigmoid(-others), axis=0)
        return (1.0 + self.guidance) * own - self.guidance * mean

    def log_prob(
        self,
        parameters: tf.Tensor,
        images: tf.Tensor,
        *,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Returns `[N, H, W, C]`, nats; `images` are the same in each set."""
        logits = self.logits(parameters)
        return super().log_prob(
            logits, images[: _num_rows(logits)], temperature=temperature
        )

    def transform(
        self, parameters: tf.Tensor, noise: tf.Tensor, *, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns the pixels of N images, once for each set."""
        logits = self.logits(parameters)
        noise = noise[: _num_rows(logits)]
        values = super().transform(logits, noise, temperature=temperature)
        axes = [1] * (values.shape.rank - 1)
        return tf.tile(values, [1 + self.num_contrasts, *axes])


@dataclasses.dataclass(frozen=True)
class NormalPixels(Pixels):
    """Gaussian channels; P = 2 C, locations and scales before softplus.

    Example:
    >>> parameters, noise = tf.constant([2.0, 0.0]), tf.constant([0.0])
    >>> NormalPixels().transform(parameters, noise, temperature=1.0).numpy()
    array([2.], dtype=float32)
    """

    def num_parameters(self, channels: int) -> int:
        """Returns P."""
        return 2 * channels

    def log_prob(
        self,
        parameters: tf.Tensor,
        images: tf.Tensor,
        *,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Returns `[..., H, W, C]`, nats."""
        loc, scale = self._loc_and_scale(parameters, temperature)
        return tfd.Normal(loc, scale).log_prob(images)

    def noise(self, shape: Any, seeds: tf.Tensor) -> tf.Tensor:
        """Samples from N(0, 1)."""
        return random.normal(shape, seeds)

    def transform(
        self, parameters: tf.Tensor, noise: tf.Tensor, *, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns the location plus the scale times the noise."""
        loc, scale = self._loc_and_scale(parameters, temperature)
        return loc + scale * noise

    @staticmethod
    def _loc_and_scale(
        parameters: tf.Tensor, temperature: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        loc, raw_scale = tf.split(parameters, 2, axis=-1)
        scale = tf.nn.softplus(raw_scale) + _MIN_SCALE
        return loc, scale * tf.sqrt(temperature)


class AutoregressiveNetwork(Protocol):
    """The network of a `PixelCNN` (`vhe_tf.layers.pixel_cnn` has one)."""

    def __call__(
        self, images: tf.Tensor, conditioning: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns the parameters of all pixels, `[N, H, W, P]`."""

    def generate(
        self,
        noise: tf.Tensor,
        conditioning: tf.Tensor | None,
        *,
        pixels: Pixels,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Samples images from noise `[N, H, W, C]`."""


class PixelCNN(tfd.Distribution):
    """An autoregressive distribution over images.

    Args:
        network: `AutoregressiveNetwork`. The network.
        pixels: `Pixels`. The kind of pixel.
        image_shape: `(H, W, C)`.
        conditioning: `[B..., H, W, L]`, or None for a network without.
        temperature: `[]`, positive: each p(x_i | x_<i) is raised to the power
            1 / temperature and normalised.
        contrast: `[K, B..., H, W, L]` or None. Conditionings of other images,
            for `GuidedPixels`.
        validate_args: As in TFP.
        name: As in TFP.

    `log_prob` is one parallel pass. `sample` works in raster order, and
    computes for each new pixel only what that pixel needs (Ramachandran et al.
    2017, "Fast Generation for Convolutional Autoregressive Models").

    Example:
    >>> from vhe_tf.layers import GatedPixelCNN
    >>> network = GatedPixelCNN(1, filters=4, num_blocks=1)
    >>> distribution = PixelCNN(network, BernoulliPixels(), (4, 4, 1))
    >>> image = distribution.sample(seed=(0, 1))
    >>> distribution.log_prob(image).shape
    TensorShape([])
    """

    def __init__(
        self,
        network: AutoregressiveNetwork,
        pixels: Pixels,
        image_shape: Sequence[int],
        conditioning: tf.Tensor | None = None,
        temperature: float | tf.Tensor = 1.0,
        contrast: tf.Tensor | None = None,
        validate_args: bool = False,
        name: str = "PixelCNN",
    ) -> None:
        parameters = dict(locals())
        self._network = network
        self._pixels = pixels
        self._image_shape = tuple(image_shape)
        self._conditioning = conditioning
        self._temperature = tf.convert_to_tensor(temperature, tf.float32)
        self._contrast = contrast
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(
        cls, dtype: Any, num_classes: Any = None
    ) -> dict[str, Any]:
        return {"conditioning": tfp_util.ParameterProperties(event_ndims=3)}

    @property
    def network(self) -> AutoregressiveNetwork:
        """The network."""
        return self._network

    @property
    def pixels(self) -> Pixels:
        """The kind of pixel."""
        return self._pixels

    @property
    def num_levels(self) -> int | None:
        """Number of levels per channel; None if the pixels have a density."""
        return self._pixels.num_levels

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(H, W, C)`."""
        return self._image_shape

    @property
    def conditioning(self) -> tf.Tensor | None:
        """`[B..., H, W, L]` or None."""
        return self._conditioning

    @property
    def temperature(self) -> tf.Tensor:
        """`[]`."""
        return self._temperature

    @property
    def contrast(self) -> tf.Tensor | None:
        """`[K, B..., H, W, L]` or None."""
        return self._contrast

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape(self._image_shape)

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant(self._image_shape, tf.int32)

    def _log_prob(self, images: tf.Tensor) -> tf.Tensor:
        images = tf.convert_to_tensor(images)
        conditioning = self._conditioning
        if conditioning is not None:
            leading = tf.broadcast_dynamic_shape(
                tf.shape(images)[:-3], tf.shape(conditioning)[:-3]
            )
            images = _spread(images, leading)
            conditioning = self._conditionings(leading)
        else:
            leading = tf.shape(images)[:-3]
        images = self._for_each_set(_fold(images))
        parameters = self._network(images, conditioning)
        log_prob = self._pixels.log_prob(
            parameters, images, temperature=self._temperature
        )
        return tf.reshape(tf.reduce_sum(log_prob, axis=[1, 2, 3]), leading)

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        leading = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        seeds = random.fold_in(_seed(seed), tf.range(tf.reduce_prod(leading)))
        noise = self._pixels.noise(self._image_shape, seeds)
        shape = tf.concat([leading, self._image_shape], axis=0)
        return self.sample_from(tf.reshape(noise, shape))

    def sample_from(self, noise: tf.Tensor) -> tf.Tensor:
        """Samples images from given noise.

        Args:
            noise: `[S..., B..., H, W, C]`, from `pixels.noise`.

        Returns:
            As `noise`; each image is decided by its noise.
        """
        leading = tf.shape(noise)[:-3]
        conditioning = None
        if self._conditioning is not None:
            conditioning = self._conditionings(leading)
        flat = _fold(noise)
        images = self._network.generate(
            self._for_each_set(flat),
            conditioning,
            pixels=self._pixels,
            temperature=self._temperature,
        )
        return tf.reshape(images[: tf.shape(flat)[0]], tf.shape(noise))

    def _conditionings(self, leading: tf.Tensor) -> tf.Tensor:
        """Returns those of the images, then of each contrast, folded."""
        sets = [self._conditioning]
        if self._contrast is not None:
            sets += tf.unstack(self._contrast)
        folded = [_fold(_spread(each, leading)) for each in sets]
        return folded[0] if len(folded) == 1 else tf.concat(folded, axis=0)

    def _for_each_set(self, rows: tf.Tensor) -> tf.Tensor:
        """Repeats images or noise, `[N, H, W, C]`, for the contrasts."""
        if self._contrast is None:
            return rows
        return tf.tile(rows, [1 + self._contrast.shape[0], 1, 1, 1])


def guided(
    distribution: PixelCNN, contrast: PixelCNN, *, guidance: float
) -> PixelCNN:
    """Returns a distribution of images that are more like their own class.

    Each pixel has the logit (1 + w) l(x_i | x_<i, c) - w m(x_i | x_<i), where
    m is the logit of the mean probability under K other conditionings. This is
    classifier-free guidance (Ho and Salimans 2022) without another training.
    For channels of several levels see `GuidedDiscretizedPixels`.

    Args:
        distribution: `PixelCNN` of pixels with levels, of batch shape `[B...]`.
        contrast: `PixelCNN` with the same network, of batch shape
            `[K, B...]`; K is known.
        guidance: Float, w. 0 returns the distribution itself.

    Raises:
        ValueError: If the guidance is negative or not finite, or the
            distribution is not a `PixelCNN` of pixels with levels, or has
            guidance already.
    """
    if guidance == 0.0:
        return distribution
    if not 0.0 < guidance < math.inf:
        raise ValueError(
            "`guidance` must be a finite non-negative number. "
            f"Received: guidance={guidance!r}."
        )
    pixels = None
    if isinstance(distribution, PixelCNN) and distribution.contrast is None:
        conditioning = tf.convert_to_tensor(contrast.conditioning)
        pixels = _guided_pixels(
            distribution.pixels, float(guidance), conditioning.shape[0]
        )
    if pixels is None:
        raise ValueError(
            "`guidance` is for a PixelCNN of binary pixels or of pixels with "
            "levels; leave it out, or pass 0. Received: "
            f"guidance={guidance!r} for {distribution}."
        )
    return distribution.copy(pixels=pixels, contrast=conditioning)


@functools.cache
def _guided_pixels(
    pixels: Pixels, guidance: float, num_contrasts: int
) -> Pixels | None:
    """Returns the same object again: a `tf.function` is traced for each."""
    return pixels.guided(guidance, num_contrasts)


def has_binary_pixels(distribution: tfd.Distribution) -> bool:
    """Returns whether a distribution is a `PixelCNN` of binary pixels."""
    return (
        isinstance(distribution, PixelCNN)
        and distribution.pixels == BernoulliPixels()
    )


random.register(
    PixelCNN,
    noise=lambda distribution, shape, seeds: distribution.pixels.noise(
        shape, seeds
    ),
    transform=lambda distribution, noise: distribution.sample_from(noise),
)


def _num_rows(values: tf.Tensor) -> Any:
    """Returns the size of the first axis, an integer if it is known."""
    return values.shape[0] or tf.shape(values)[0]


def _spread(images: tf.Tensor, leading: tf.Tensor) -> tf.Tensor:
    """Broadcasts `[..., H, W, C]` to leading axes."""
    shape = tf.concat([leading, images.shape[-3:]], axis=0)
    return tf.broadcast_to(images, shape)


def _fold(images: tf.Tensor) -> tf.Tensor:
    """Folds leading axes into one: `[N, H, W, C]`."""
    return tf.reshape(images, [-1, *images.shape[-3:]])


def _seed(seed: Any) -> tf.Tensor:
    from tensorflow_probability.python.internal import samplers

    return samplers.sanitize_seed(seed, salt="pixel_cnn")
