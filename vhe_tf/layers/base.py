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
    """

    def build(self, *input_shapes: Any) -> None:
        super().build(input_shapes)
