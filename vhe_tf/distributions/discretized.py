"""Pixels of images with few or many levels, such as the 256 of 8 bits.

The discretized mixture of logistics of PixelCNN++ (Salimans et al. 2017,
"PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood
and Other Modifications", Sections 2.1 and 2.2). A component has a logistic
variable for each channel, its location moved linearly by the channels before.
The channel is the nearest level: the first and the last have the tails.

Unlike PixelCNN++, which falls back on the density where a difference of
cumulative probabilities underflows, its logarithm is taken in closed form.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.distributions.depth_upscaling import DepthUpscaled
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.distributions.pixel_cnn import Pixels

__all__ = [
    "DiscretizedLogisticPixels",
    "GuidedDiscretizedPixels",
    "bits_per_dimension",
    "pixel_levels",
    "pixels_of",
]

# Limits of log-scales if levels span [-1, 1]. At the first, a logistic lies
# within a level (as in PixelCNN++). At the second, only the edges have mass.
_MIN_LOG_SCALE = -7.0
_MAX_LOG_SCALE = 7.0

# Initial log-scale of a component: a fifteenth of the span of all levels.
_INITIAL_LOG_SCALE = -2.0

# Smallest distance of a uniform number from 0 and 1: the float32 next to 1.
_TINY = 2.0**-24


def bits_per_dimension(
    nats: float | tf.Tensor, image_shape: Sequence[int]
) -> float | tf.Tensor:
    """Converts nats per image to bits per dimension.

    Args:
        nats: Float or tensor of any shape, nats per image.
        image_shape: `(H, W, C)`. An image has H W C dimensions.

    Returns:
        Float or tensor of the same shape.

    Example:
    >>> round(bits_per_dimension(100.0, (8, 8, 1)), 4)
    2.2542
    """
    return nats / (math.log(2.0) * math.prod(image_shape))


def pixels_of(num_levels: int, num_components: int) -> Pixels:
    """Returns the distribution of a pixel with some number of levels.

    Args:
        num_levels: Integer. Number of levels per channel: 2 for independent
            Bernoullis, more for a mixture.
        num_components: Integer. Components of that mixture.

    Raises:
        ValueError: As in `DiscretizedLogisticPixels`.

    Example:
    >>> pixels_of(2, 10)
    BernoulliPixels()
    """
    if num_levels == 2:
        return BernoulliPixels()
    return DiscretizedLogisticPixels(num_components, num_levels)


def pixel_levels(likelihood: tfd.Distribution) -> int | None:
    """Returns the number of levels per channel that a likelihood models.

    Args:
        likelihood: `tfd.Distribution`. A distribution over images.

    Returns:
        2 for binary pixels, L for pixels of L levels, None for a density.

    Example:
    >>> from tensorflow_probability import distributions as tfd
    >>> pixel_levels(tfd.Independent(tfd.Bernoulli([[0.0]]), 1))
    2
    """
    while isinstance(likelihood, tfd.Independent):
        likelihood = likelihood.distribution
    if isinstance(likelihood, tfd.Bernoulli):
        return 2
    if isinstance(likelihood, PixelCNN | DepthUpscaled):
        return likelihood.num_levels
    return None


@dataclasses.dataclass(frozen=True)
class DiscretizedLogisticPixels(Pixels):
    """Channels of L levels: a mixture of logistics, channels in order.

    Images hold level / (L - 1) for levels 0 to L - 1. Any other value is
    rounded to the nearest of these. P = K (1 + 2 C + C (C - 1) / 2): the logits
    of all components, the locations and log-scales of each channel (levels span
    [-1, 1]), and coefficients before a tanh by which each channel moves the
    locations of later channels.

    At a temperature t the probability p(x_c | x_<c) of a channel given earlier
    channels is raised to the power 1 / t and normalised over its levels. A
    pixel is thus an autoregressive distribution of C steps. This is not the
    power of the joint probability of the pixel.

    Args:
        num_components: Positive integer, K. Defaults to 10.
        num_levels: Integer, L, 2 or more. Defaults to 256.

    Raises:
        ValueError: If `num_components` is not a positive integer or
            `num_levels` is not an integer of 2 or more.

    Example:
    >>> DiscretizedLogisticPixels(num_components=10).num_parameters(3)
    100
    """

    num_components: int = 10
    num_levels: int = 256

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if not isinstance(self.num_levels, int) or self.num_levels < 2:
            raise ValueError(
                "`num_levels` must be an int of 2 or more. "
                f"Received: num_levels={self.num_levels!r}."
            )
        validation.positive("num_components", self.num_components)

    def num_parameters(self, channels: int) -> int:
        """Returns P."""
        return self.num_components * sum(_rows(channels))

    def initial_parameters(self, channels: int) -> list[float]:
        """Returns parameters whose components share the levels evenly.

        A component has one centre in all channels: colours begin near grey.
        From all at 0, components alike and wider than the levels, it takes a
        network hundreds of steps to learn that pixels have a place.
        """
        count = self.num_components
        zeros = [0.0] * count
        centres = [(2 * k + 1) / count - 1.0 for k in range(count)]
        kinds = [zeros, centres, [_INITIAL_LOG_SCALE] * count, zeros]
        return [
            value
            for kind, rows in zip(kinds, _rows(channels), strict=True)
            for value in kind * rows
        ]

    def log_prob(
        self,
        parameters: tf.Tensor,
        images: tf.Tensor,
        *,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Returns `[..., H, W, C]`, nats, of each channel given those before.

        They are of probabilities, not of densities. It is L times the work at
        a temperature other than 1, or one that a graph does not know.
        """
        mixture = self._mixture(parameters, images.shape[-1])
        last = self.num_levels - 1.0
        levels = tf.clip_by_value(tf.round(last * images), 0.0, last)
        log_probs = []
        for level in tf.unstack(levels, axis=-1):
            log_probs.append(mixture.tempered_log_prob(level, temperature))
            mixture = mixture.given(level)
        log_probs = tf.stack(log_probs, axis=-1)
        # No comparison with NaN is true, so that it would be a tail of mass 1.
        return tf.where(tf.math.is_nan(images), images, log_probs)

    def noise(self, shape: Any, seeds: tf.Tensor) -> tf.Tensor:
        """Samples uniformly from (0, 1)."""
        return random.uniform(shape, seeds)

    def transform(
        self, parameters: tf.Tensor, noise: tf.Tensor, *, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns a component's logistics, rounded to levels.

        At a temperature other than 1 it returns the inverse cumulative
        probability, a channel at a time, which is L times the work.
        """
        mixture = self._mixture(parameters, noise.shape[-1])

        def tempered() -> tf.Tensor:
            levels, rest = [], mixture
            for noise_of_channel in tf.unstack(noise, axis=-1):
                levels.append(
                    rest.transform_tempered(noise_of_channel, temperature)
                )
                rest = rest.given(levels[-1])
            return tf.stack(levels, axis=-1)

        def plain() -> tf.Tensor:
            return mixture.transform(noise)

        static = tf.get_static_value(temperature)
        if static is None:
            levels = tf.cond(tf.equal(temperature, 1.0), plain, tempered)
        else:
            levels = plain() if static == 1.0 else tempered()
        return levels / (self.num_levels - 1.0)

    def guided(self, guidance: float, num_contrasts: int) -> Pixels:
        """Returns `GuidedDiscretizedPixels`."""
        return GuidedDiscretizedPixels(
            self.num_components,
            self.num_levels,
            guidance=guidance,
            num_contrasts=num_contrasts,
        )

    def _mixture(self, parameters: tf.Tensor, channels: int) -> "_Mixture":
        rows = _rows(channels)
        shape = [tf.shape(parameters)[:-1], [sum(rows), self.num_components]]
        logits, loc, log_scale, coefficients = tf.split(
            tf.reshape(parameters, tf.concat(shape, axis=0)), rows, axis=-2
        )
        return _Mixture(
            logits=logits[..., 0, :],
            loc=loc,
            log_scale=tf.clip_by_value(
                log_scale, _MIN_LOG_SCALE, _MAX_LOG_SCALE
            ),
            coefficients=tf.tanh(coefficients),
            last=self.num_levels - 1.0,
        )


@dataclasses.dataclass(frozen=True)
class GuidedDiscretizedPixels(DiscretizedLogisticPixels):
    """Channels of L levels, pushed away from what contrasting images have.

    A channel x_c has, given earlier channels and pixels, a probability in
    proportion to p(x_c)^(1 + w) / m(x_c)^w. p is that of the image itself, and
    m the mean of p and of those of K contrasts with the same channels and
    pixels before. p / m is thus, up to a factor, the probability that the
    level is of the image itself and not of one of the contrasts. It is at most
    1 + K: no level that is improbable becomes probable.

    The rows of a batch are N images, then K times N contrasts.

    Args:
        guidance: Float, w.
        num_contrasts: Integer, K.
    """

    guidance: float = 0.0
    num_contrasts: int = 1

    def log_prob(
        self,
        parameters: tf.Tensor,
        images: tf.Tensor,
        *,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Returns `[N, H, W, C]`, nats; `images` are the same in each set."""
        mixture = self._mixture(parameters, images.shape[-1])
        last = self.num_levels - 1.0
        levels = tf.clip_by_value(tf.round(last * images), 0.0, last)
        log_probs = []
        for level in tf.unstack(levels, axis=-1):
            every = self._log_probs(mixture, temperature)  # [L, N, ...]
            own = tf.cast(level[: tf.shape(every)[1]], tf.int32)
            chosen = tf.one_hot(own, self.num_levels, axis=0)
            log_probs.append(tf.reduce_sum(chosen * every, axis=0))
            mixture = mixture.given(level)
        log_probs = tf.stack(log_probs, axis=-1)
        images = images[: tf.shape(log_probs)[0]]
        return tf.where(tf.math.is_nan(images), images, log_probs)

    def transform(
        self, parameters: tf.Tensor, noise: tf.Tensor, *, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns the pixels of N images, once for each set."""
        mixture = self._mixture(parameters, noise.shape[-1])
        levels: list[tf.Tensor] = []
        for noise_of_channel in tf.unstack(noise, axis=-1):
            every = self._log_probs(mixture, temperature)
            level = _inverse_cumulative(
                every, noise_of_channel[: tf.shape(every)[1]]
            )
            axes = [1] * (level.shape.rank - 1)
            levels.append(tf.tile(level, [1 + self.num_contrasts, *axes]))
            mixture = mixture.given(levels[-1])
        return tf.stack(levels, axis=-1) / (self.num_levels - 1.0)

    def _log_probs(
        self, mixture: "_Mixture", temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns those of each level of the first channel, `[L, N, ...]`."""
        each = mixture.log_prob(mixture.levels())
        count = 1 + self.num_contrasts
        by_set = tf.reshape(
            each,
            tf.concat(
                [[self.num_levels, count, -1], tf.shape(each)[2:]], axis=0
            ),
        )
        # The 1 / (1 + K) of the mean cancels.
        mean = tf.reduce_logsumexp(by_set, axis=1)
        scores = (1.0 + self.guidance) * by_set[:, 0] - self.guidance * mean
        return tf.nn.log_softmax(scores / temperature, axis=0)


def _inverse_cumulative(log_probs: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Returns the levels `[...]` that noise in [0, 1) decides.

    Args:
        log_probs: `[L, ...]`, log-probabilities of the levels, nats.
        noise: `[...]`, in [0, 1).
    """
    cumulative = tf.cumsum(tf.exp(log_probs), axis=0)
    # Rounding leaves the last beside 1, where the noise could pass it.
    passed = cumulative[:-1] <= noise * cumulative[-1]
    return tf.reduce_sum(tf.cast(passed, tf.float32), axis=0)


def _rows(channels: int) -> list[int]:
    """Returns how many logits, locations, ... each component has."""
    return [1, channels, channels, channels * (channels - 1) // 2]


@dataclasses.dataclass(frozen=True)
class _Mixture:
    """The distribution of the R channels of a pixel that are not known yet.

    Levels are floats, 0 to `last`.

    Args:
        logits: `[..., K]`, of the components given the known channels.
        loc: `[..., R, K]`, locations given the known channels.
        log_scale: `[..., R, K]`, log of the scale of each logistic
            distribution.
        coefficients: `[..., R (R - 1) / 2, K]`, of the first channel for each
            of the others, then of the second, and so on.
    """

    logits: tf.Tensor
    loc: tf.Tensor
    log_scale: tf.Tensor
    coefficients: tf.Tensor
    last: float

    def log_prob(self, level: tf.Tensor) -> tf.Tensor:
        """Returns that of the first channel, `[...]`, nats."""
        return tf.reduce_logsumexp(
            tf.nn.log_softmax(self.logits) + self._log_masses(level), axis=-1
        )

    def tempered_log_prob(
        self, level: tf.Tensor, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns that of the first channel at a temperature, `[...]`, nats."""
        if tf.get_static_value(temperature) == 1.0:
            return self.log_prob(level)
        # A level at a time: all at once are L K numbers for each channel.
        every = tf.map_fn(self.log_prob, self.levels())
        return self.log_prob(level) / temperature - tf.reduce_logsumexp(
            every / temperature, axis=0
        )

    def transform(self, noise: tf.Tensor) -> tf.Tensor:
        """Returns the levels of all channels, `[..., R]`.

        Args:
            noise: `[..., R]`, in [0, 1). That of the first channel chooses the
                component too: what it passes of the component's share of
                [0, 1) is again uniform.
        """
        weights = tf.nn.softmax(self.logits)  # [..., K]
        upper = tf.cumsum(weights, axis=-1)
        first = noise[..., :1] * upper[..., -1:]
        count = self.logits.shape[-1]
        index = tf.reduce_sum(
            tf.cast(upper[..., :-1] <= first, tf.int32), axis=-1
        )
        chosen = tf.one_hot(index, count)  # [..., K]

        def of_chosen(values: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(values * chosen[..., tf.newaxis, :], axis=-1)

        weight = tf.reduce_sum(weights * chosen, axis=-1)
        passed = tf.reduce_sum((upper - weights) * chosen, axis=-1)
        within = (first[..., 0] - passed) / weight
        loc, coefficients = of_chosen(self.loc), of_chosen(self.coefficients)
        scale = tf.exp(of_chosen(self.log_scale))
        uniform = tf.concat([within[..., tf.newaxis], noise[..., 1:]], axis=-1)
        uniform = tf.clip_by_value(uniform, _TINY, 1.0 - _TINY)
        moved = scale * (tf.math.log(uniform) - tf.math.log1p(-uniform))
        levels: list[tf.Tensor] = []
        for channel, position in enumerate(tf.unstack(loc + moved, axis=-1)):
            # The coefficients by which earlier channels move this one.
            offset = 0
            for earlier, level in enumerate(levels):
                at = offset + channel - earlier - 1
                position += self._position(level) * coefficients[..., at]
                offset += loc.shape[-1] - earlier - 1
            levels.append(
                tf.clip_by_value(
                    tf.round((position + 1.0) * self.last / 2.0), 0.0, self.last
                )
            )
        return tf.stack(levels, axis=-1)

    def transform_tempered(
        self, noise: tf.Tensor, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns the level of the first channel, `[...]`.

        Args:
            noise: `[...]`, in [0, 1).
            temperature: `[]`. Temperature of the channel.
        """
        scores = self.log_prob(self.levels()) / temperature  # [L, ...]
        return _inverse_cumulative(tf.nn.log_softmax(scores, axis=0), noise)

    def given(self, level: tf.Tensor) -> "_Mixture":
        """Returns the distribution of the others, given the first channel."""
        others = self.loc.shape[-2] - 1
        position = self._position(level)[..., tf.newaxis, tf.newaxis]
        return _Mixture(
            logits=self.logits + self._log_masses(level),
            loc=self.loc[..., 1:, :]
            + position * self.coefficients[..., :others, :],
            log_scale=self.log_scale[..., 1:, :],
            coefficients=self.coefficients[..., others:, :],
            last=self.last,
        )

    def levels(self) -> tf.Tensor:
        """Returns every level, `[L, 1...]`: each is that of all pixels."""
        leading = [1] * (self.logits.shape.rank - 1)
        return tf.reshape(tf.range(self.last + 1.0), [-1, *leading])

    def _log_masses(self, level: tf.Tensor) -> tf.Tensor:
        """Returns those of the first channel in each component, `[..., K]`."""
        level = level[..., tf.newaxis]
        loc = self.loc[..., 0, :]
        inverse_scale = tf.exp(-self.log_scale[..., 0, :])
        upper = (self._position(level + 0.5) - loc) * inverse_scale
        lower = (self._position(level - 0.5) - loc) * inverse_scale
        width = 2.0 / self.last * inverse_scale  # upper - lower
        # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), where nothing cancels; an
        # edge level has one of the first two factors alone.
        below = tf.where(level < self.last, tf.math.log_sigmoid(upper), 0.0)
        above = tf.where(level > 0.0, tf.math.log_sigmoid(-lower), 0.0)
        inside = (level > 0.0) & (level < self.last)
        between = tf.where(inside, tf.math.log(-tf.math.expm1(-width)), 0.0)
        return below + above + between

    def _position(self, level: tf.Tensor) -> tf.Tensor:
        """Returns where levels lie, the first at -1 and the last at 1."""
        return (2.0 * level - self.last) / self.last
