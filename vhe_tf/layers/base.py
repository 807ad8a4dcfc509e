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

    Its configuration holds the arguments of the constructor. If some are not
    plain values, such as layers and initializers, each argument must be an
    attribute of that name, or the class must define `get_config`.

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
        of_keras = super().get_config()  # last, in one order
        arguments = self._arguments().items()
        return {k: v for k, v in arguments if k not in of_keras} | of_keras

    def _arguments(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        # Keras keeps them if all are plain values.
        if self._auto_config is not None:
            return {k: _saved(v) for k, v in self._auto_config.config.items()}
        names = {
            name: None
            for cls in reversed(type(self).__mro__)
            if issubclass(cls, BaseLayer) and "__init__" in vars(cls)
            for name, parameter in inspect.signature(
                cls.__init__
            ).parameters.items()
            if name not in ("self", "name")
            and parameter.kind
            not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }
        lacking = [name for name in names if not hasattr(self, name)]
        if lacking and type(self).get_config is BaseLayer.get_config:
            raise NotImplementedError(
                f"{type(self).__name__} cannot be saved: arguments of its "
                "constructor are not attributes. Assign each to an attribute "
                "of its name, or define `get_config` with all arguments. "
                f"Received: no attribute {', '.join(map(repr, lacking))}."
            )
        return {
            name: _saved(getattr(self, name))
            for name in names
            if name not in lacking
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config(
            {
                name: value if name == "dtype" else _revived(value)
                for name, value in config.items()
            }
        )


def _saved(value: Any) -> Any:
    if isinstance(value, keras.layers.Layer | keras.initializers.Initializer):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, list | tuple):
        return [_saved(item) for item in value]
    return value


def _revived(value: Any) -> Any:
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, list | tuple):
        return [_revived(item) for item in value]
    return value
