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

P = ParamSpec("P")


def batch_axis_optional(
    support_axes: str = "BNHWC",
) -> Callable[[Callable[P, tf.Tensor]], Callable[P, tf.Tensor]]:
    """Lets a method accept images of one class without the batch axis.

    Args:
        support_axes: String. The axes of a support, starting with B. Defaults
            to `"BNHWC"`.

    Returns:
        Decorator of methods with arguments `support`, `other` or `query`. If
        their tensors lack the axis B, it is added to them and removed from the
        result.
    """
    ranks = {
        "support": len(support_axes),
        "other": len(support_axes),
        "query": 4,
    }

    def decorate(method: Callable[P, tf.Tensor]) -> Callable[P, tf.Tensor]:
        signature = inspect.signature(method)

        @functools.wraps(method)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> tf.Tensor:
            bound = signature.bind(*args, **kwargs)
            images = {
                k: bound.arguments[k] for k in ranks if k in bound.arguments
            }
            lacking = {
                key: any(_rank(v) == ranks[key] - 1 for v in _tensors(value))
                for key, value in images.items()
            }
            if not any(lacking.values()):
                return method(*args, **kwargs)
            if not all(lacking.values()):
                raise ValueError(
                    "Either all images have a batch axis or none has. Received: "
                    + ", ".join(
                        f"{key} of shape {[tuple(np.shape(v)) for v in _tensors(value)]}"
                        for key, value in images.items()
                    )
                )
            for key, value in images.items():
                bound.arguments[key] = _with_batch_axis(value)
            return method(*bound.args, **bound.kwargs)[0]

        return wrapped

    return decorate


def _tensors(images: Any) -> list[Any]:
    return list(images.values()) if isinstance(images, Mapping) else [images]


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
