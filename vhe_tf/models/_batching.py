"""Inference for a single class, without a batch axis."""

import functools
import inspect
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import ParamSpec

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

__all__ = ["batch_axis_optional"]

_P = ParamSpec("_P")


def batch_axis_optional(
    support_axes: str = "BN",
) -> Callable[[Callable[_P, tf.Tensor]], Callable[_P, tf.Tensor]]:
    """Lets a method accept images of one class without the batch axis.

    Args:
        support_axes: String. The axes of a support before those of an element,
            starting with B. Defaults to `"BN"`.

    Returns:
        Decorator of methods with arguments `support`, `other` or `query`. If
        their tensors lack the axis B, it is added to them, and to the argument
        `log_likelihood`, and removed from the result.
    """
    leading = {
        "support": len(support_axes),
        "other": len(support_axes),
        "query": 1,
    }

    def decorate(method: Callable[_P, tf.Tensor]) -> Callable[_P, tf.Tensor]:
        signature = inspect.signature(method)

        @functools.wraps(method)
        def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> tf.Tensor:
            bound = signature.bind(*args, **kwargs)
            images = {
                k: bound.arguments[k] for k in leading if k in bound.arguments
            }
            event_rank = len(bound.arguments["self"].event_shape)
            lacking = [
                _rank(value) == leading[key] + event_rank - 1
                for key, values in images.items()
                for value in _values(values)
            ]
            if not any(lacking):
                return method(*args, **kwargs)
            if not all(lacking):
                raise ValueError(
                    "Either all images have the batch axis, or none has it. "
                    "Add it by `images[None]`. Received: "
                    + ", ".join(f"{k} {_shapes(v)}" for k, v in images.items())
                )
            if bound.arguments.get("log_likelihood") is not None:
                images["log_likelihood"] = bound.arguments["log_likelihood"]
            for key, value in images.items():
                bound.arguments[key] = _with_batch_axis(value)
            return method(*bound.args, **bound.kwargs)[0]

        return wrapped

    return decorate


def _values(images: Any) -> list[Any]:
    return list(images.values()) if isinstance(images, Mapping) else [images]


def _shapes(images: Any) -> str:
    return " and ".join(
        str(
            value.batch_shape
            if isinstance(value, tfd.Distribution)
            else tuple(np.shape(value))
        )
        for value in _values(images)
    )


def _rank(images: Any) -> int | None:
    if isinstance(images, tfd.Distribution):
        return None
    if tf.is_tensor(images):
        return images.shape.rank
    return np.ndim(images)


def _with_batch_axis(images: Any) -> Any:
    if isinstance(images, Mapping):
        return {key: _with_batch_axis(value) for key, value in images.items()}
    return tf.convert_to_tensor(images)[tf.newaxis]
