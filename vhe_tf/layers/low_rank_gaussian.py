"""A Gaussian of low rank as the distribution of a latent template."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf._utils import validation
from vhe_tf.distributions.low_rank_gaussian import LowRankGaussian
from vhe_tf.layers import base

__all__ = ["LowRankGaussianPrior"]


@keras.saving.register_keras_serializable(package="vhe_tf")
class LowRankGaussianPrior(base.BaseLayer):
    """A Gaussian whose covariance is of low rank plus a diagonal.

    It starts as N(0, I). `vhe_tf.fit_prior` sets its weights, the mean
    `[E...]`, factors `[R, E...]` and standard deviations `[E...]`. Factors are
    float16, since they are most of the numbers.

    Args:
        event_shape: Positive integers, E. The shape of the latent.
        rank: Positive integer, R.
        **kwargs: Passed on to `keras.layers.Layer`.

    Returns:
        A `LowRankGaussian` with batch shape `[]` and event shape `E`.

    Raises:
        ValueError: If a size is not a positive integer.

    Example:
    >>> LowRankGaussianPrior((8, 8, 3), rank=2)().event_shape
    TensorShape([8, 8, 3])
    """

    def __init__(
        self, event_shape: Sequence[int], rank: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.event_shape = tuple(
            validation.positive("event_shape", size) for size in event_shape
        )
        self.rank = validation.positive("rank", rank)
        shape = self.event_shape
        self.loc = self._weight("loc", shape)
        self.factors = self._weight(
            "factors", (self.rank, *shape), dtype="float16"
        )
        self.scale_diag = self._weight("scale_diag", shape, initializer="ones")

    def _weight(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        initializer: str = "zeros",
        dtype: str = "float32",
    ) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            trainable=False,
            autocast=False,
        )

    def call(self, *parents: tf.Tensor) -> tfd.Distribution:
        return LowRankGaussian(
            self.loc.value,
            tf.cast(self.factors.value, tf.float32),
            self.scale_diag.value,
        )
