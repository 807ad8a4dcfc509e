"""Random subsets and permutations as pure functions of seeds."""

import tensorflow as tf

from vhe_tf import random

__all__ = ["permuted", "sample_without_replacement"]


def sample_without_replacement(
    population: tf.Tensor, num_samples: int, *, seeds: tf.Tensor
) -> tf.Tensor:
    """Samples distinct integers uniformly, from one range per row.

    Floyd's algorithm (Bentley and Floyd, 1987), followed by a random
    permutation, so that the first columns are a uniform sample as well.
    TensorFlow's `index_shuffle` is not uniform over small ranges.

    Args:
        population: int64 tensor of shape `[B]`, each at least `num_samples`.
        num_samples: Integer, K.
        seeds: int32 tensor of shape `[B, 2]`, one seed per row.

    Returns:
        int64 tensor of shape `[B, K]`. The values of row b are distinct and
        in 0..population[b]-1.

    Example:
    >>> seeds = tf.constant([[1, 2], [3, 4]])
    >>> population = tf.constant([5, 9], tf.int64)
    >>> sample_without_replacement(population, 3, seeds=seeds).shape
    TensorShape([2, 3])
    """
    if num_samples == 0:
        return tf.zeros([population.shape[0], 0], tf.int64)
    bits = random.bits([2, num_samples], seeds)
    chosen: list[tf.Tensor] = []
    for index in range(num_samples):
        last = population - num_samples + index
        value = tf.math.floormod(bits[:, 0, index], last + 1)
        if chosen:
            taken = tf.reduce_any(
                tf.stack(chosen, axis=1) == value[:, None], axis=1
            )
            value = tf.where(taken, last, value)
        chosen.append(value)
    order = tf.argsort(bits[:, 1], axis=1)
    return tf.gather(tf.stack(chosen, axis=1), order, batch_dims=1)


def permuted(
    index: tf.Tensor, key: tf.Tensor, *, max_index: int, rounds: int
) -> tf.Tensor:
    """Permutes 0..max_index pseudo-randomly.

    Args:
        index: int64 tensor of any shape, values to permute.
        key: int64 tensor of the same shape, in 0..2**63-1. Each key is another
            permutation.
        max_index: Integer. The largest value.
        rounds: Even integer. Number of rounds of the block cipher.

    Returns:
        int64 tensor of the same shape.

    Example:
    >>> index = tf.range(6, dtype=tf.int64)
    >>> key = tf.zeros([6], tf.int64)
    >>> sorted(permuted(index, key, max_index=5, rounds=16).numpy().tolist())
    [0, 1, 2, 3, 4, 5]
    """
    # The operation reads only the low bits of each word, 8 bits for up to
    # 2**16 elements. Consecutive keys therefore need several words.
    words = tf.stack([key, key // 2**21, key // 2**42], axis=-1)
    return tf.raw_ops.RandomIndexShuffle(
        index=index,
        seed=tf.cast(words, tf.int32),
        max_index=tf.constant(max_index, tf.int64),
        rounds=rounds,
    )
