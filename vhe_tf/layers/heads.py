"""Layers from features to distributions: every constraint lives here."""

from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.layers import lazy

__all__ = ["BernoulliImageHead", "DiagonalNormalHead", "StandardNormal"]

# Keeps a posterior from collapsing onto a point, where densities overflow.
_MIN_SCALE = 1e-5


@keras.saving.register_keras_serializable(package="vhe_tf")
class StandardNormal(lazy.LazyLayer):
    """The prior N(0, I) over a latent vector, whatever its parents.

    Args:
        latent_size: Positive int, `L`, the number of latent dimensions.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        *parents: Ignored.

    Returns:
        A `tfd.MultivariateNormalDiag` with batch shape `[]` and event shape
        `[L]`.

    Raises:
        ValueError: If `latent_size` is not a positive int.
    """

    def __init__(self, latent_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_size = _checked_size(latent_size)

    def call(self, *parents: tf.Tensor) -> tfd.Distribution:
        return tfd.MultivariateNormalDiag(
            loc=tf.zeros(self.latent_size), scale_diag=tf.ones(self.latent_size)
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "latent_size": self.latent_size}


@keras.saving.register_keras_serializable(package="vhe_tf")
class DiagonalNormalHead(lazy.LazyLayer):
    """Maps features to a diagonal Gaussian over a latent vector.

    The affine map runs in the layer's compute dtype; the distribution itself
    is always float32, since sums of log-probabilities lose nats in float16.

    Args:
        latent_size: Positive int, `L`, the number of latent dimensions.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        features: `[..., F]`.

    Returns:
        A `tfd.MultivariateNormalDiag` with batch shape `[...]` and event
        shape `[L]`.

    Raises:
        ValueError: If `latent_size` is not a positive int.
    """

    def __init__(self, latent_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_size = _checked_size(latent_size)
        self.parameters = keras.layers.Dense(
            2 * latent_size, dtype=self.dtype_policy, name="parameters"
        )

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        parameters = tf.cast(self.parameters(features), tf.float32)
        loc, raw_scale = tf.split(parameters, 2, axis=-1)
        return tfd.MultivariateNormalDiag(
            loc=loc, scale_diag=tf.nn.softplus(raw_scale) + _MIN_SCALE
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "latent_size": self.latent_size}


@keras.saving.register_keras_serializable(package="vhe_tf")
class BernoulliImageHead(lazy.LazyLayer):
    """Reads features as the logits of independent binary pixels.

    Args:
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        logits: `[..., H, W, C]`.

    Returns:
        A `tfd.Independent` Bernoulli with batch shape `[...]`, event shape
        `[H, W, C]` and dtype float32.
    """

    def call(self, logits: tf.Tensor) -> tfd.Distribution:
        return tfd.Independent(
            tfd.Bernoulli(logits=tf.cast(logits, tf.float32), dtype=tf.float32),
            reinterpreted_batch_ndims=3,  # [H, W, C]
        )


def _checked_size(latent_size: int) -> int:
    if not isinstance(latent_size, int) or latent_size < 1:
        raise ValueError(
            "`latent_size` must be a positive int. "
            f"Received: latent_size={latent_size!r}."
        )
    return latent_size
