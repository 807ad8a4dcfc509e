"""Likelihood of elements other than images: vectors, counts, sequences."""

import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf._utils.validation import check_choice
from vhe_tf.layers import base
from vhe_tf.layers.inference import concatenated

__all__ = ["DenseLikelihood"]

_MIN_SCALE = 1e-3
_NUM_COMPONENTS = 5


def _normal(loc: tf.Tensor, raw_scale: tf.Tensor) -> tfd.Distribution:
    return tfd.Normal(loc, tf.nn.softplus(raw_scale) + _MIN_SCALE)


def _mixture(*parameters: tf.Tensor) -> tfd.Distribution:
    logits, loc, raw_scale = (
        tf.stack(parameters[i::3], axis=-1) for i in range(3)
    )
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=logits), _normal(loc, raw_scale)
    )


# For each family the number of parameters of a value, and what makes of them
# its distribution.
_FAMILIES: dict[str, tuple[int, Callable[..., tfd.Distribution]]] = {
    "normal": (2, _normal),
    "mixture": (3 * _NUM_COMPONENTS, _mixture),
    "bernoulli": (1, lambda x: tfd.Bernoulli(logits=x, dtype=tf.float32)),
    "poisson": (1, lambda x: tfd.Poisson(log_rate=x)),
}


@keras.saving.register_keras_serializable(package="vhe_tf")
class DenseLikelihood(base.BaseLayer):
    """Likelihood p(x | latents) of arrays, by a dense network.

    The values of an element are independent given the latents.

    Args:
        event_shape: Integers. The shape of an element.
        family: String. The distribution of a value: `"normal"`; `"mixture"`, of
            five normal distributions; `"bernoulli"`, for 0 and 1; `"poisson"`,
            for counts. Defaults to `"normal"`.
        units: Integers. Widths of the hidden layers. Defaults to `(128,)`.
        exclude: Sequence of names of latents on which x does not depend
            directly. Defaults to none.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        **latents: `[S..., B, L]` each, the values of the latents.

    Returns:
        A `tfd.Independent` distribution, batch shape `[S..., B]`, event shape
        `event_shape`.

    Raises:
        ValueError: If `family` is unknown. `call` raises it if `exclude` names
            an unknown latent.

    Example:
    >>> likelihood = DenseLikelihood((5, 2), family="poisson")
    >>> likelihood(species=tf.zeros([3, 4])).event_shape
    TensorShape([5, 2])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        family: str = "normal",
        units: Sequence[int] = (128,),
        exclude: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice(_FAMILIES, family=family)
        self.event_shape = tuple(event_shape)
        self.family = family
        self.units = tuple(units)
        self.exclude = tuple(exclude)
        self._num_parameters, self._distribution = _FAMILIES[family]
        self.hidden = [
            keras.layers.Dense(width, activation="elu", dtype=self.dtype_policy)
            for width in self.units
        ]
        self.parameters = keras.layers.Dense(
            self._num_parameters * math.prod(self.event_shape),
            dtype=self.dtype_policy,
        )

    def call(self, **latents: tf.Tensor) -> tfd.Distribution:
        features = concatenated(latents, self.exclude)
        for layer in self.hidden:
            features = layer(features)
        parameters = tf.cast(self.parameters(features), tf.float32)
        shape = [*self.event_shape, self._num_parameters]
        parameters = tf.reshape(
            parameters, tf.concat([tf.shape(parameters)[:-1], shape], axis=0)
        )
        parameters.set_shape([*features.shape[:-1], *shape])
        return tfd.Independent(
            self._distribution(*tf.unstack(parameters, axis=-1)),
            reinterpreted_batch_ndims=len(self.event_shape),
        )
