"""The base of layers that take a varying number of tensors."""

from typing import Any

import keras

__all__ = ["BaseLayer"]


class BaseLayer(keras.layers.Layer):
    """A layer whose sub-layers build themselves at its first eager call.

    Keras builds a composite layer by tracing `call` on symbolic tensors,
    which can neither pass `*parents` nor return a distribution, and warns of
    it. `VHE` calls each of its layers once on zeros at construction, so here
    `build` has nothing left to do.
    """

    def build(self, *input_shapes: Any) -> None:
        super().build(input_shapes)
