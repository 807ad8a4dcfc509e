"""Images whose higher bits come first (Menick and Kalchbrenner 2019).

"Generating High Fidelity Images with Subscale Pixel Networks and
Multidimensional Upscaling": p(x) = p(high) p(low | high).
"""

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random
from tensorflow_probability import util as tfp_util

from vhe_tf import random
from vhe_tf.distributions import pixel_cnn
from vhe_tf.distributions.pixel_cnn import PixelCNN

__all__ = ["DepthUpscaled", "guided"]


class DepthUpscaled(tfd.Distribution):
    """The distribution of images in two parts, the higher bits first.

    A channel with the level l = m h + k, 0 <= k < m, has the level h in the
    high image and the level k in the low image. Thus log p(x) =
    log p(high) + log p(low | high), an exact probability of all levels. The low
    image is mostly noise: latents that condition the high image alone are
    learned as with few levels.

    Args:
        high: `PixelCNN` over the high image, batch shape `[B...]`. Its pixels
            have n levels.
        low: `PixelCNN` over the low image, without conditioning. Its pixels
            have m levels, and its network is conditioned on the whole high
            image, `[N, H, W, C]`.
        validate_args: As in TFP.
        name: As in TFP.

    Images hold level / (n m - 1), as those of `DiscretizedLogisticPixels`. Any
    other value is rounded to the nearest of these.

    Raises:
        ValueError: If the pixels of a part have a density, not levels.

    Example:
    >>> from vhe_tf.distributions import pixels_of
    >>> from vhe_tf.layers import GatedPixelCNN
    >>> def part(num_levels):
    ...     network = GatedPixelCNN(3, filters=4, num_blocks=1)
    ...     return PixelCNN(network, pixels_of(num_levels, 1), (4, 4, 1))
    >>> distribution = DepthUpscaled(high=part(8), low=part(32))
    >>> distribution.num_levels
    256
    >>> distribution.log_prob(distribution.sample(seed=(0, 1))).shape
    TensorShape([])
    """

    def __init__(
        self,
        high: PixelCNN,
        low: PixelCNN,
        validate_args: bool = False,
        name: str = "DepthUpscaled",
    ) -> None:
        parameters = dict(locals())
        n, m = high.num_levels, low.num_levels
        if n is None or m is None:
            raise ValueError(
                "`high` and `low` must have pixels with levels. "
                f"Received: high={high}, low={low}."
            )
        self._high, self._high_levels = high, n
        self._low, self._low_levels = low, m
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
        return {"high": tfp_util.ParameterProperties()}

    @property
    def high(self) -> PixelCNN:
        """The distribution of the high image."""
        return self._high

    @property
    def low(self) -> PixelCNN:
        """The distribution of the low image, without its conditioning."""
        return self._low

    @property
    def num_levels(self) -> int:
        """Number of levels per channel, n m."""
        return self._high_levels * self._low_levels

    def _event_shape(self) -> tf.TensorShape:
        return self._high.event_shape

    def _event_shape_tensor(self) -> tf.Tensor:
        return self._high.event_shape_tensor()

    def _log_prob(self, images: tf.Tensor) -> tf.Tensor:
        last = self.num_levels - 1.0
        levels = tf.clip_by_value(tf.round(last * images), 0.0, last)
        # Neither operation keeps NaN everywhere.
        levels = tf.where(tf.math.is_nan(images), images, levels)
        high = tf.floor(levels / self._low_levels)
        low = levels - self._low_levels * high
        high /= self._high_levels - 1.0
        low /= self._low_levels - 1.0
        return self._high.log_prob(high) + self._given(high).log_prob(low)

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        seeds = tfp_random.split_seed(seed, salt="depth_upscaled")
        high = self._high.sample(n, seed=seeds[0])
        return self._joined(high, self._given(high).sample(seed=seeds[1]))

    def sample_from(self, noise: tf.Tensor) -> tf.Tensor:
        """Samples images from given noise.

        Args:
            noise: `[S..., B..., H, W, C, 2]`, uniform on (0, 1), as the noise
                of all pixels with levels: of the high and of the low image.

        Returns:
            `[S..., B..., H, W, C]`; each image is decided by its noise.
        """
        noise_of_high, noise_of_low = tf.unstack(noise, axis=-1)
        high = self._high.sample_from(noise_of_high)
        return self._joined(high, self._given(high).sample_from(noise_of_low))

    def _given(self, high: tf.Tensor) -> PixelCNN:
        """Returns the distribution of the low image given the high one."""
        return self._low.copy(conditioning=high)

    def _joined(self, high: tf.Tensor, low: tf.Tensor) -> tf.Tensor:
        high = tf.round((self._high_levels - 1.0) * high)
        low = tf.round((self._low_levels - 1.0) * low)
        levels = self._low_levels * high + low
        return levels / (self.num_levels - 1.0)


def guided(
    distribution: tfd.Distribution,
    contrast: tfd.Distribution,
    *,
    guidance: float,
) -> tfd.Distribution:
    """Returns a distribution of images that are more like their own class.

    Of a `DepthUpscaled`, it guides the high image, which alone depends on the
    class. Of a `PixelCNN`, it does what `pixel_cnn.guided` does.

    Args:
        distribution: `DepthUpscaled` or `PixelCNN`, of batch shape `[B...]`.
        contrast: `DepthUpscaled` or `PixelCNN`, the same with K other
            conditionings, `[K, B...]`.
        guidance: Float, w. 0 returns the distribution itself.

    Raises:
        ValueError: As by `pixel_cnn.guided`.
    """
    if guidance and isinstance(distribution, DepthUpscaled):
        high = pixel_cnn.guided(
            distribution.high, contrast.high, guidance=guidance
        )
        return distribution.copy(high=high)
    return pixel_cnn.guided(distribution, contrast, guidance=guidance)


random.register(
    DepthUpscaled,
    noise=lambda _, shape, seeds: random.uniform(
        tf.concat([shape, [2]], axis=0), seeds
    ),
    transform=lambda distribution, noise: distribution.sample_from(noise),
)
