"""Checks of numbers that methods of a model take; each raises a `ValueError`.

Values are checked where there are any: not in graphs.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from vhe_tf._utils import validation

__all__ = ["check_finite_samples", "checked_count"]


def check_finite_samples(samples: Mapping[str, Any]) -> None:
    """Rejects latents that are NaN or infinite: their images would be blank."""
    for name, value in samples.items():
        values = tf.get_static_value(tf.convert_to_tensor(value))
        if values is not None:
            validation.check_finite(f"samples[{name!r}]", values)


def checked_count(name: str, value: int | tf.Tensor) -> int | tf.Tensor:
    """Returns a positive number of samples or groups."""
    known = tf.get_static_value(value) if tf.is_tensor(value) else value
    return value if known is None else validation.positive(name, known)
