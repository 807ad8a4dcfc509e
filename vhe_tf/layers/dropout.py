"""Dropout by the seeds of an episode, not by a generator's hidden state."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from vhe_tf import random
from vhe_tf.layers import base

__all__ = ["SeededDropout", "seed_scope"]


class _Seeds:
    """Hands out seeds folded from those of the rows, in the order of calls."""

    def __init__(self, seeds: tf.Tensor, training: bool | None) -> None:
        self._seeds = seeds
        self.training = training
        self._count = 0

    def next(self) -> tf.Tensor:
        self._count += 1
        return random.fold_in(self._seeds, self._count - 1)


_SEEDS: contextvars.ContextVar[_Seeds | None] = contextvars.ContextVar(
    "seeds", default=None
)


@contextlib.contextmanager
def seed_scope(
    seeds: tf.Tensor, training: bool | None = None
) -> Iterator[None]:
    """Gives every `SeededDropout` that is called within it its seeds.

    Args:
        seeds: int32 tensor of shape `[B, 2]`, one seed per row. Each call of a
            layer folds its number into them.
        training: Boolean. Replaces the `training` that Keras passes to each
            layer: `model.stateless_call(...)` passes it to no nested layer.
            Defaults to None, which replaces nothing.
    """
    token = _SEEDS.set(_Seeds(seeds, training))
    try:
        yield
    finally:
        _SEEDS.reset(token)


@keras.saving.register_keras_serializable(package="vhe_tf")
class SeededDropout(base.BaseLayer):
    """Sets a fraction of the features to zero while training.

    Unlike `keras.layers.Dropout`, which advances a generator, it samples by
    the seeds of the surrounding `seed_scope`, so that a call is a pure function
    of weights, inputs and seeds.

    Args:
        rate: Float. The fraction, in [0, 1).
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        features: Tensor of shape `[B K, ...]` for the B seeds of the scope:
            first the K entries of the first row, then those of the next.
        training: Boolean. Whether to drop entries. A `seed_scope` may override
            it.

    Returns:
        `features`, or while training those kept, divided by `1 - rate`.

    Raises:
        ValueError: If `rate` is out of range.
        RuntimeError: While training outside of any `seed_scope`.

    Example:
    >>> dropout = SeededDropout(0.5)
    >>> with seed_scope(tf.constant([[0, 1], [0, 2]])):
    ...     kept = dropout(tf.ones([2, 4]), training=True)
    >>> set(kept.numpy().flat) <= {0.0, 2.0}
    True
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: {rate=}.")
        self.rate = rate

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        seeds = _SEEDS.get()
        if seeds is not None and seeds.training is not None:
            training = seeds.training
        if not self.rate or not training:
            return features
        if seeds is None:
            raise RuntimeError(
                "Dropout needs one seed per row: call the layer in "
                "`vhe_tf.layers.dropout.seed_scope(seeds)`."
            )
        of_rows, shape = seeds.next(), tf.shape(features)
        per_row = tf.size(features) // tf.shape(of_rows)[0]
        noise = tf.reshape(random.uniform([per_row], of_rows), shape)
        scale = 1.0 / (1.0 - self.rate)
        return tf.where(noise >= self.rate, features * scale, 0.0)
