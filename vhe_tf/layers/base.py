"""Base class of layers that take a varying number of tensors."""

from typing import Any

import keras

__all__ = ["BaseLayer"]


class BaseLayer(keras.layers.Layer):
    """A layer whose sub-layers are built by its first eager call.

    Keras builds a composite layer by tracing `call` on symbolic tensors. That
    can neither pass `*parents` nor return a distribution, and causes a warning.
    `VHE` calls each of its layers once on zeros at construction, so that
    `build` has nothing to do.

    Example:
    >>> @keras.saving.register_keras_serializable(package="example")
    ... class UnitNormal(BaseLayer):
    ...     def call(self, *parents):
    ...         return tfd.MultivariateNormalDiag(tf.zeros([1, 2]))
    >>> UnitNormal()(tf.zeros([1, 3])).event_shape
    TensorShape([2])
    """

    def build(self, *input_shapes: Any) -> None:
        super().build(input_shapes)
