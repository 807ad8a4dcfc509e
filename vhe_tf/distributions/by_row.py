"""Draws of which each row has chance of its own.

A server batches requests of strangers. With a seed a row, what a row draws
does not depend on the rows beside it, nor on how many there are.
"""

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.distributions.pixel_cnn import PixelCNN

__all__ = ["fold_in", "sample_by_row"]


def fold_in(seed: tf.Tensor, data: int | tf.Tensor) -> tf.Tensor:
    """Returns another seed, decided by this one and by data.

    Args:
        seed: `[2]` int32, or `[B, 2]`, a seed a row.
        data: Int, the same for every row.

    Returns:
        As `seed`.

    Raises:
        ValueError: If the seed has another shape.
    """
    seed = tf.convert_to_tensor(seed, tf.int32)
    if seed.shape.rank not in (1, 2) or seed.shape[-1] != 2:
        raise ValueError(
            "`seed` must be two ints, [2], or a pair for each row, [B, 2]. "
            f"Received: a seed of shape {seed.shape}."
        )
    if seed.shape.rank == 1:
        return tf.random.experimental.stateless_fold_in(seed, data)
    return tf.map_fn(
        lambda row: tf.random.experimental.stateless_fold_in(row, data), seed
    )


def sample_by_row(
    distribution: tfd.Distribution, sample_shape: Any, seed: tf.Tensor
) -> tf.Tensor:
    """Draws from a distribution with a seed for each row.

    Args:
        distribution: Normal, MultivariateNormalDiag, Bernoulli, PixelCNN, or an
            Independent of the first three; of batch shape `[]`, `[B]` or
            `[S..., B]`.
        sample_shape: `[S...]` int32, axes to add before those of the batch; for
            the batch shape `[]`, `[S..., B]`.
        seed: `[B, 2]` int32.

    Returns:
        `[S..., B, E...]`.

    Raises:
        TypeError: For another distribution.
    """
    shape = tf.concat([sample_shape, distribution.batch_shape_tensor()], axis=0)
    event_shape = distribution.event_shape
    each = tf.concat([shape[:-1], event_shape], axis=0)  # [S..., E...] a row

    def by_row(draw: Any) -> tf.Tensor:
        noise = tf.map_fn(
            lambda row: draw(each, row), seed, fn_output_signature=tf.float32
        )  # [B, S..., E...]
        count = tf.shape(noise)[0]
        flat = tf.reshape(
            noise,
            [count, tf.reduce_prod(shape[:-1]), event_shape.num_elements()],
        )
        moved = tf.transpose(flat, [1, 0, 2])
        return tf.reshape(moved, tf.concat([shape, event_shape], axis=0))

    family = distribution
    while isinstance(family, tfd.Independent):
        family = family.distribution
    if isinstance(family, PixelCNN):
        return family.sample_from(by_row(family.pixels.noise))
    if isinstance(family, tfd.Normal):
        return family.loc + family.scale * by_row(_normal)
    if isinstance(family, tfd.MultivariateNormalDiag):
        return family.loc + family.stddev() * by_row(_normal)
    if isinstance(family, tfd.Bernoulli):
        probabilities = family.probs_parameter()
        return tf.cast(by_row(_uniform) < probabilities, family.dtype)
    raise TypeError(
        "A seed a row is known for Normal, MultivariateNormalDiag, Bernoulli, "
        "PixelCNN and Independent; give one seed, [2], instead. "
        f"Received: {type(distribution).__name__}."
    )


def _normal(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_normal(shape, seed)


def _uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, seed)
