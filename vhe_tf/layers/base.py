"""Base class of layers that take a varying number of tensors."""

import inspect
from typing import Any
from typing import Self

import keras

__all__ = ["BaseLayer"]


class BaseLayer(keras.layers.Layer):
    """A layer whose sub-layers are built by its first eager call.

    Keras builds a composite layer by tracing `call` on symbolic tensors. That
    can neither pass `*parents` nor return a distribution, and causes a warning.
    `VHE` calls each of its layers once on zeros at construction, so that
    `build` has nothing to do.

    Its configuration holds each argument of the constructor that is an
    attribute of that name. Layers and initializers among them are saved too.

    Example:
    >>> @keras.saving.register_keras_serializable(package="example")
    ... class UnitNormal(BaseLayer):
    ...     def __init__(self, size, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.size = size
    ...
    ...     def call(self, *parents):
    ...         return tfd.MultivariateNormalDiag(tf.zeros([1, self.size]))
    >>> UnitNormal(2)(tf.zeros([1, 3])).event_shape
    TensorShape([2])
    >>> UnitNormal(2).get_config()["size"]
    2
    """

    def build(self, *input_shapes: Any) -> None:
        super().build(input_shapes)

    def get_config(self) -> dict[str, Any]:
        names = {
            name: None
            for cls in reversed(type(self).__mro__)
            if issubclass(cls, BaseLayer) and "__init__" in vars(cls)
            for name in inspect.signature(cls.__init__).parameters
            if name not in ("self", "args", "kwargs", "name")
        }
        return {
            **super().get_config(),
            **{n: _saved(getattr(self, n)) for n in names if hasattr(self, n)},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config(
            {
                name: keras.saving.deserialize_keras_object(value)
                if name != "dtype" and _is_saved(value)
                else value
                for name, value in config.items()
            }
        )


def _saved(value: Any) -> Any:
    if isinstance(value, keras.layers.Layer | keras.initializers.Initializer):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, list | tuple):
        return [_saved(item) for item in value]
    return value


def _is_saved(value: Any) -> bool:
    return isinstance(value, dict) and "class_name" in value
