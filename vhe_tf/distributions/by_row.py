"""One seed per row, under the names that `vhe_tf.models` still imports."""

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import random

__all__ = ["fold_in", "sample_by_row"]

fold_in = random.fold_in


def sample_by_row(
    distribution: tfd.Distribution, sample_shape: Any, seed: tf.Tensor
) -> tf.Tensor:
    """Samples a distribution with seeds of shape `[B, 2]`."""
    return random.sample(distribution, sample_shape, seed=seed)
