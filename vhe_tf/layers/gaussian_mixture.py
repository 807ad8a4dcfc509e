"""A mixture of Gaussians as the distribution of a latent vector."""

from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf._utils import validation
from vhe_tf.distributions.gaussian_mixture import GaussianMixture
from vhe_tf.layers import base

__all__ = ["GaussianMixturePrior"]


@keras.saving.register_keras_serializable(package="vhe_tf")
class GaussianMixturePrior(base.BaseLayer):
    """A mixture of Gaussians with full covariances over a latent vector.

    It starts as N(0, I). `vhe_tf.fit_prior` sets its weights, the logits
    `[K]`, means `[K, L]` and Cholesky factors `[K, L, L]`.

    Args:
        latent_size: Positive integer, L. Number of latent dimensions.
        num_components: Positive integer, K.
        **kwargs: Passed on to `keras.layers.Layer`.

    Returns:
        A `GaussianMixture` with batch shape `[]` and event shape `[L]`.

    Raises:
        ValueError: If a size is not a positive integer.

    Example:
    >>> GaussianMixturePrior(3, num_components=2)().event_shape
    TensorShape([3])
    """

    def __init__(
        self, latent_size: int, num_components: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.latent_size = validation.positive("latent_size", latent_size)
        self.num_components = validation.positive(
            "num_components", num_components
        )
        size, count = self.latent_size, self.num_components
        self.logits = self._weight("logits", (count,))
        self.loc = self._weight("loc", (count, size))
        self.scale_tril = self._weight("scale_tril", (count, size, size))
        self.scale_tril.assign(keras.ops.eye(size) + self.scale_tril)

    def _weight(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer="zeros",
            dtype="float32",
            trainable=False,
        )

    def call(self, *parents: tf.Tensor) -> tfd.Distribution:
        return GaussianMixture(
            self.logits.value, self.loc.value, self.scale_tril.value
        )
