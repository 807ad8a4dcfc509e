"""Layers from features to distributions, with the constraints on them."""

import math
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf._utils import validation
from vhe_tf.layers import base

__all__ = [
    "BernoulliImageHead",
    "DiagonalNormalHead",
    "NormalImageHead",
    "StandardNormal",
]

# Keeps a posterior from collapsing onto a point, where densities overflow.
_MIN_SCALE = 1e-5

# At initialisation features are small. Pixels then have a scale of 0.25, as in
# photographs, and not 0.69.
_RAW_SCALE_AT_START = -1.25


@keras.saving.register_keras_serializable(package="vhe_tf")
class StandardNormal(base.BaseLayer):
    """The prior N(0, I) over a latent vector, independent of its parents.

    Args:
        latent_size: Positive integer, L. Number of latent dimensions.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        *parents: Tensors. Ignored.

    Returns:
        A `tfd.MultivariateNormalDiag` with batch shape `[]` and event shape
        `[L]`.

    Raises:
        ValueError: If `latent_size` is not a positive integer.

    Example:
    >>> StandardNormal(3)().event_shape
    TensorShape([3])
    """

    def __init__(self, latent_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_size = validation.positive("latent_size", latent_size)

    def call(self, *parents: tf.Tensor) -> tfd.Distribution:
        return tfd.MultivariateNormalDiag(
            loc=tf.zeros(self.latent_size), scale_diag=tf.ones(self.latent_size)
        )


@keras.saving.register_keras_serializable(package="vhe_tf")
class DiagonalNormalHead(base.BaseLayer):
    """Maps features to a diagonal Gaussian over a latent vector.

    The affine map runs in the layer's compute dtype; the distribution itself
    is always float32, since sums of log-probabilities lose nats in float16.

    Args:
        latent_size: Positive integer, L. Number of latent dimensions.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        features: `[..., F]`, the features to map.

    Returns:
        A `tfd.MultivariateNormalDiag` with batch shape `[...]` and event
        shape `[L]`.

    Raises:
        ValueError: If `latent_size` is not a positive integer.

    Example:
    >>> DiagonalNormalHead(3)(tf.zeros([2, 5])).batch_shape
    TensorShape([2])
    """

    def __init__(self, latent_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_size = validation.positive("latent_size", latent_size)
        self.parameters = keras.layers.Dense(
            2 * latent_size, dtype=self.dtype_policy, name="parameters"
        )

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        parameters = tf.cast(self.parameters(features), tf.float32)
        loc, raw_scale = tf.split(parameters, 2, axis=-1)
        return tfd.MultivariateNormalDiag(
            loc=loc, scale_diag=tf.nn.softplus(raw_scale) + _MIN_SCALE
        )


@keras.saving.register_keras_serializable(package="vhe_tf")
class BernoulliImageHead(base.BaseLayer):
    """Maps logits to independent binary pixels.

    Args:
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        logits: `[..., H, W, C]`, the log-odds of ink in each channel.

    Returns:
        A `tfd.Independent` Bernoulli with batch shape `[...]`, event shape
        `[H, W, C]` and dtype float32.

    Example:
    >>> BernoulliImageHead()(tf.zeros([2, 8, 8, 1])).event_shape
    TensorShape([8, 8, 1])
    """

    def call(self, logits: tf.Tensor) -> tfd.Distribution:
        return tfd.Independent(
            tfd.Bernoulli(logits=tf.cast(logits, tf.float32), dtype=tf.float32),
            reinterpreted_batch_ndims=3,  # [H, W, C]
        )


@keras.saving.register_keras_serializable(package="vhe_tf")
class NormalImageHead(base.BaseLayer):
    """Maps features to independent Gaussian pixels.

    The likelihood of Edwards and Storkey (2016) for colour images. Each pixel
    and channel has a location in (0, 1) and a scale of at least one level.

    Log-probabilities are in nats, of a density whose unit is one level,
    1 / (num_levels - 1). If scales are well above one level, they approximate
    those of a distribution over the levels.

    Args:
        num_levels: Integer, 2 or more. Number of levels per channel. Defaults
            to 256.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        features: `[..., H, W, 2C]`: for each channel a location before a
            sigmoid, then for each channel a scale before a softplus, 1.25 more.

    Returns:
        A `tfd.Independent` Normal with batch shape `[...]`, event shape
        `[H, W, C]` and dtype float32.

    Raises:
        ValueError: If `num_levels` is not an integer of 2 or more.

    Example:
    >>> NormalImageHead()(tf.zeros([2, 8, 8, 6])).event_shape
    TensorShape([8, 8, 3])
    """

    def __init__(self, num_levels: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_levels = validation.at_least(2, num_levels=num_levels)

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        raw_loc, raw_scale = tf.split(tf.cast(features, tf.float32), 2, axis=-1)
        level = 1.0 / (self.num_levels - 1)
        return tfd.Independent(
            _NormalInLevels(
                loc=tf.sigmoid(raw_loc),
                # A narrower density would grow without bound on pixels that
                # are always black.
                scale=tf.nn.softplus(raw_scale + _RAW_SCALE_AT_START) + level,
                level=level,
            ),
            reinterpreted_batch_ndims=3,  # [H, W, C]
        )


class _NormalInLevels(tfd.Normal):
    """A Normal whose density is per `level` instead of per 1."""

    def __init__(
        self,
        loc: tf.Tensor,
        scale: tf.Tensor,
        level: float,
        name: str = "NormalInLevels",
    ) -> None:
        super().__init__(loc, scale, name=name)
        self._parameters = {
            "loc": loc,
            "scale": scale,
            "level": level,
            "name": name,
        }
        self._level = level

    @classmethod
    def _parameter_properties(
        cls, dtype: tf.DType, num_classes: int | None = None
    ) -> dict[str, Any]:
        return super()._parameter_properties(dtype, num_classes)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return super()._log_prob(x) + math.log(self._level)

    def _entropy(self) -> tf.Tensor:
        return super()._entropy() - math.log(self._level)
