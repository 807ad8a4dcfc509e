"""Dropout whose chance is the episode's, not a generator's hidden state."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from vhe_tf import distribute

__all__ = ["SeededDropout", "seed_scope"]


class _Seeds:
    """Hands out seeds folded from one, in the order of the calls."""

    def __init__(self, seed: tf.Tensor, training: bool | None) -> None:
        self._seed = seed
        self.training = training
        self._count = 0

    def next(self) -> tf.Tensor:
        self._count += 1
        return tf.random.experimental.stateless_fold_in(
            self._seed, self._count - 1
        )


_SEEDS: contextvars.ContextVar[_Seeds | None] = contextvars.ContextVar(
    "seeds", default=None
)


@contextlib.contextmanager
def seed_scope(seed: tf.Tensor, training: bool | None = None) -> Iterator[None]:
    """Within it, every `SeededDropout` draws from a seed folded from this one.

    Args:
        seed: `[2]` int32.
        training: Bool, in place of what Keras tells each layer; it tells
            layers of layers nothing in `model.stateless_call(...)`.
    """
    token = _SEEDS.set(_Seeds(seed, training))
    try:
        yield
    finally:
        _SEEDS.reset(token)


@keras.saving.register_keras_serializable(package="vhe_tf")
class SeededDropout(keras.layers.Layer):
    """Sets a fraction of the features to zero while training.

    Unlike `keras.layers.Dropout`, which advances a generator, it draws from
    the seed of the surrounding `seed_scope`, so that a call is a pure function
    of weights, inputs and seed.

    Args:
        rate: The fraction, in [0, 1).
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        features: Tensor of any shape.
        training: Bool; a `seed_scope` may say otherwise.

    Returns:
        `features`, or while training those kept, divided by `1 - rate`.

    Raises:
        ValueError: If `rate` is out of range.
        RuntimeError: While training outside of any `seed_scope`.
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
                "Dropout needs a seed: call the layer in "
                "`vhe_tf.layers.dropout.seed_scope(seed)`."
            )
        seed, shape = seeds.next(), tf.shape(features)
        noise = distribute.draw(
            lambda leading: tf.random.stateless_uniform(
                [*leading, *tf.unstack(shape)], seed, dtype=features.dtype
            )
        )
        scale = 1.0 / (1.0 - self.rate)
        return tf.where(noise >= self.rate, features * scale, 0.0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}
