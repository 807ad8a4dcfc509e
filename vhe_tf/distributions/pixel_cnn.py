"""Autoregressive distributions over images.

p(x) = prod over pixels i in raster order of p(x_i | x_<i, conditioning) (van
den Oord et al. 2016, "Pixel Recurrent Neural Networks", Eq. 1). A network says,
for all pixels at once and each from those before it only, what the parameters
of p(x_i | x_<i) are; the kind of pixel says what they mean.
"""

import abc
import dataclasses
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
    "NormalPixels",
    "PixelCNN",
    "Pixels",
]

# Keeps a Gaussian pixel from collapsing onto a point.
_MIN_SCALE = 1e-3


class Pixels(abc.ABC):
    """A family of distributions over the C channels of a pixel.

    Instances are equal if they are the same family, so that a compiled sampler
    can be used again.
    """

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
            parameters: `[..., H, W, P]`.
            images: `[..., H, W, C]`.
            temperature: `[]`; the family's p to the power 1 / temperature,
                normalised.
        """

    @abc.abstractmethod
    def noise(self, shape: Any, seeds: tf.Tensor) -> tf.Tensor:
        """Samples the only randomness of the channels of pixels.

        Args:
            shape: Integers `[..., C]`. The shape of one row.
            seeds: int32 tensor of shape `[B, 2]`.

        Returns:
            float32 tensor of shape `[B, ..., C]`.
        """

    @abc.abstractmethod
    def draw(
        self, parameters: tf.Tensor, noise: tf.Tensor, *, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns the pixels `[..., C]` that the noise, `[..., C]`, decides."""


@dataclasses.dataclass(frozen=True)
class BernoulliPixels(Pixels):
    """Binary channels, independent given the pixels before; P = C logits."""

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

    def draw(
        self, parameters: tf.Tensor, noise: tf.Tensor, *, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns 1 where the noise is below the probability of 1."""
        return tf.cast(noise < tf.sigmoid(parameters / temperature), tf.float32)


@dataclasses.dataclass(frozen=True)
class NormalPixels(Pixels):
    """Gaussian channels; P = 2 C, locations and scales before softplus."""

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

    def draw(
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
    """What `PixelCNN` asks of a network (`vhe_tf.layers.pixel_cnn` has one)."""

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
        """Draws images by the noise, `[N, H, W, C]`, that decides them."""


class PixelCNN(tfd.Distribution):
    """An autoregressive distribution over images.

    Args:
        network: The network.
        pixels: The kind of pixel.
        image_shape: `(H, W, C)`.
        conditioning: `[B..., H, W, L]`, or None for a network without.
        temperature: `[]`, positive: each p(x_i | x_<i) is raised to the power
            1 / temperature and normalised. Below 1, samples are more typical.
        validate_args: As in TFP.
        name: As in TFP.

    `log_prob` is one parallel pass. `sample` works in raster order, and
    computes for each new pixel only what that pixel needs (Ramachandran et al.
    2017, "Fast Generation for Convolutional Autoregressive Models").
    """

    def __init__(
        self,
        network: AutoregressiveNetwork,
        pixels: Pixels,
        image_shape: Sequence[int],
        conditioning: tf.Tensor | None = None,
        temperature: float | tf.Tensor = 1.0,
        validate_args: bool = False,
        name: str = "PixelCNN",
    ) -> None:
        parameters = dict(locals())
        self._network = network
        self._pixels = pixels
        self._image_shape = tuple(image_shape)
        self._conditioning = conditioning
        self._temperature = tf.convert_to_tensor(temperature, tf.float32)
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
            conditioning = _fold(_spread(conditioning, leading))
        else:
            leading = tf.shape(images)[:-3]
        parameters = self._network(_fold(images), conditioning)
        log_prob = self._pixels.log_prob(
            parameters, _fold(images), temperature=self._temperature
        )
        return tf.reshape(tf.reduce_sum(log_prob, axis=[1, 2, 3]), leading)

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        leading = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        seeds = random.fold_in(_seed(seed), tf.range(tf.reduce_prod(leading)))
        noise = self._pixels.noise(self._image_shape, seeds)
        shape = tf.concat([leading, self._image_shape], axis=0)
        return self.sample_from(tf.reshape(noise, shape))

    def sample_from(self, noise: tf.Tensor) -> tf.Tensor:
        """Draws images by given noise.

        Args:
            noise: `[S..., B..., H, W, C]`, from `pixels.noise`.

        Returns:
            As `noise`; each image is decided by its noise.
        """
        leading = tf.shape(noise)[:-3]
        conditioning = self._conditioning
        if conditioning is not None:
            conditioning = _fold(_spread(conditioning, leading))
        images = self._network.generate(
            _fold(noise),
            conditioning,
            pixels=self._pixels,
            temperature=self._temperature,
        )
        return tf.reshape(images, tf.shape(noise))


random.register(
    PixelCNN,
    noise=lambda distribution, shape, seeds: distribution.pixels.noise(
        shape, seeds
    ),
    transform=lambda distribution, noise: distribution.sample_from(noise),
)


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
