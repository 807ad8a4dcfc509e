"""Distributions at a temperature."""

import math
import numbers

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.distributions.depth_upscaling import DepthUpscaled
from vhe_tf.distributions.gaussian_mixture import GaussianMixture
from vhe_tf.distributions.low_rank_gaussian import LowRankGaussian
from vhe_tf.distributions.pixel_cnn import PixelCNN

__all__ = ["tempered"]


def tempered(
    distribution: tfd.Distribution, temperature: float | tf.Tensor
) -> tfd.Distribution:
    """Returns the distribution whose density is p to the power 1 / temperature.

    For an autoregressive distribution this holds for each conditional, and for
    a mixture for p(component) and each Gaussian.

    Args:
        distribution: `tfd.Distribution`. Bernoulli, Normal,
            MultivariateNormalDiag, PixelCNN, DepthUpscaled, GaussianMixture,
            LowRankGaussian, or an Independent of these. Any distribution if the
            temperature is 1.
        temperature: Positive float or scalar tensor. Samples are more typical
            below 1, except binary images of a `PixelCNN`: most pixels are
            paper, so that ink and whole strokes disappear; see `guided`.

    Raises:
        ValueError: If the temperature is not positive or not finite. That of a
            tensor in a graph is not checked.
        TypeError: For another distribution.

    Example:
    >>> float(tempered(tfd.Normal(0.0, 1.0), 0.25).scale)
    0.5
    """
    if isinstance(temperature, numbers.Real) and temperature == 1:
        return distribution
    received = temperature
    temperature = tf.convert_to_tensor(temperature, tf.float32)
    value = tf.get_static_value(temperature)  # None in a graph
    if value is not None and not 0.0 < value < math.inf:
        raise ValueError(
            "`temperature` must be positive and finite. "
            f"Received: temperature={received!r}."
        )
    if isinstance(distribution, tfd.Independent):
        return distribution.copy(
            distribution=tempered(distribution.distribution, temperature)
        )
    if isinstance(distribution, tfd.Bernoulli):
        return tfd.Bernoulli(
            logits=distribution.logits_parameter() / temperature,
            dtype=distribution.dtype,
        )
    if isinstance(distribution, tfd.Normal):
        # A copy keeps the unit of a subclass.
        return distribution.copy(
            scale=distribution.scale * tf.sqrt(temperature)
        )
    if isinstance(distribution, tfd.MultivariateNormalDiag):
        return tfd.MultivariateNormalDiag(
            loc=distribution.loc,
            scale_diag=distribution.stddev() * tf.sqrt(temperature),
        )
    if isinstance(distribution, (GaussianMixture, LowRankGaussian)):
        return distribution.tempered(temperature)
    if isinstance(distribution, PixelCNN):
        return distribution.copy(
            temperature=distribution.temperature * temperature
        )
    if isinstance(distribution, DepthUpscaled):
        return distribution.copy(
            high=tempered(distribution.high, temperature),
            low=tempered(distribution.low, temperature),
        )
    raise TypeError(
        "Temperatures other than 1 are implemented for Bernoulli, Normal, "
        "MultivariateNormalDiag, PixelCNN, DepthUpscaled, GaussianMixture, "
        "LowRankGaussian and Independent. "
        f"Received: {type(distribution).__name__}."
    )
