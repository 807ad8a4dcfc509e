"""Random numbers from one seed per row of a batch.

What a row samples depends on its own seed alone, neither on the rows beside it
nor on their number. A replica, a worker, a microbatch and a batch of served
requests each hold some rows with their seeds, so all of them sample the same
values for the same rows.

The generator hashes a key and a counter (SplitMix64; Steele, Lea and Flood
2014, "Fast Splittable Pseudorandom Number Generators"). Its integers are the
same on every device, with and without XLA.
"""

import math
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

__all__ = [
    "Noise",
    "as_seed",
    "bits",
    "fold_in",
    "normal",
    "register",
    "sample",
    "uniform",
]

_Noise = Callable[[tfd.Distribution, tf.Tensor, tf.Tensor], tf.Tensor]
_Transform = Callable[[tfd.Distribution, tf.Tensor], tf.Tensor]

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15

# Two halves of one seed's randomness: new seeds, and numbers. Digits of pi.
_SEEDS, _NUMBERS = 0x243F6A8885A308D3, 0x13198A2E03707344


class Noise:
    """Given noise, which can take the place of one seed per row.

    A graph that takes its noise as inputs contains none of the operations of
    the generator, which few other runtimes know.

    Args:
        values: Iterable of float32 tensors `[B, ...]`, in the order in which
            they are used. Omitted to record them.
        seeds: int32 tensor of shape `[B, 2]`, from which to sample and record
            the noise. Omitted if there are `values`.

    Attributes:
        used: List of pairs, `"normal"` or `"uniform"` and a tensor, all noise
            that was used, in order.

    Example:
    >>> from vhe_tf import random
    >>> recorded = random.Noise(seeds=random.fold_in(0, tf.range(3)))
    >>> normal = tfd.Normal(tf.zeros([3]), 1.0)
    >>> sample = random.sample(normal, seed=recorded)
    >>> given = random.Noise(value for _, value in recorded.used)
    >>> bool(tf.reduce_all(random.sample(normal, seed=given) == sample))
    True
    """

    def __init__(
        self,
        values: Iterable[tf.Tensor] = (),
        *,
        seeds: tf.Tensor | None = None,
    ) -> None:
        self.used: list[tuple[str, tf.Tensor]] = []
        self.values = tuple(values)
        self.seeds = seeds

    def folded(self, data: Any) -> "Noise":
        """Returns the noise of derived seeds, as `fold_in` does."""
        if self.seeds is None:
            return self
        noise = Noise(seeds=fold_in(self.seeds, data))
        noise.used = self.used
        return noise

    def take(self, kind: str, shape: tf.Tensor) -> tf.Tensor:
        """Returns the next noise, `[B, *shape]`."""
        if self.seeds is None:
            value = self.values[len(self.used)]
        else:
            sampler = {"normal": normal, "uniform": uniform}[kind]
            value = sampler(shape, self.seeds)
        self.used.append((kind, value))
        return value


def as_seed(seed: Any) -> tf.Tensor:
    """Converts a seed to its tensor.

    Args:
        seed: Integer of at most 64 bits; or integers of shape `[2]`, one seed;
            or integers of shape `[B, 2]`, one seed per row. The low 32 bits
            of the entries of a pair count.

    Returns:
        int32 tensor of shape `[2]` or `[B, 2]`.

    Raises:
        ValueError: If `seed` has another type or shape.

    Example:
    >>> from vhe_tf import random
    >>> random.as_seed(7).numpy()
    array([7, 0], dtype=int32)
    """
    try:
        if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
            seed = tf.constant(seed, tf.int64)
        values = tf.convert_to_tensor(seed)
        known = values.dtype.is_integer and (
            values.shape.rank == 0
            or (values.shape.rank in (1, 2) and values.shape[-1] == 2)
        )
    except (TypeError, ValueError, OverflowError):
        known = False
    if not known:
        raise ValueError(
            "`seed` must be an integer of at most 64 bits, a pair of integers "
            "[2], or one pair per row [B, 2]. "
            f"Received: seed={seed!r}."
        )
    if values.shape.rank == 0:
        return tf.bitcast(tf.cast(values, tf.int64), tf.int32)
    return tf.cast(values, tf.int32)


def fold_in(seed: Any, data: Any) -> tf.Tensor:
    """Derives new seeds from a seed and integers.

    Args:
        seed: Integers. One seed or one per row; see `as_seed`.
        data: Integer or integer tensor of shape `[]` or `[B]`. Different
            integers of 64 bits give different seeds.

    Returns:
        int32 tensor of the shape of `seed`; `[B, 2]` if `data` is `[B]`.

    Example:
    >>> from vhe_tf import random
    >>> random.fold_in(0, tf.range(3)).shape
    TensorShape([3, 2])
    """
    if isinstance(seed, Noise):
        return seed.folded(data)
    state = _state(as_seed(seed), _SEEDS)
    if isinstance(data, int):
        data = tf.constant(data, tf.int64)
    counter = tf.bitcast(tf.cast(data, tf.int64), tf.uint64)
    return tf.bitcast(_split_mix(state, counter), tf.int32)


def bits(shape: Any, seeds: tf.Tensor) -> tf.Tensor:
    """Samples integers of 64 random bits.

    Args:
        shape: Integers. The shape of one row.
        seeds: int32 tensor of shape `[B, 2]`, one seed per row.

    Returns:
        int64 tensor of shape `[B, *shape]`.

    Example:
    >>> from vhe_tf import random
    >>> random.bits([3], random.fold_in(0, tf.range(2))).shape
    TensorShape([2, 3])
    """
    shape = _as_shape(shape)
    words = _words(tf.reduce_prod(shape), seeds)
    return tf.bitcast(_as_rows(words, shape), tf.int64)


def uniform(shape: Any, seeds: tf.Tensor) -> tf.Tensor:
    """Samples from the uniform distribution on (0, 1), ends excluded.

    Args:
        shape: Integers. The shape of one row.
        seeds: int32 tensor of shape `[B, 2]`, one seed per row.

    Returns:
        float32 tensor of shape `[B, *shape]`: centres of 2**23 equal cells.

    Example:
    >>> from vhe_tf import random
    >>> random.uniform([4], random.fold_in(0, tf.range(3))).shape
    TensorShape([3, 4])
    """
    shape = _as_shape(shape)
    if isinstance(seeds, Noise):
        return seeds.take("uniform", shape)
    return _as_rows(_cell_centres(_halves(shape, seeds)), shape)


def normal(shape: Any, seeds: tf.Tensor) -> tf.Tensor:
    """Samples from the standard normal distribution.

    It uses the transform of Box and Muller (1958). The radius comes from 32
    bits, so that the tails reach 6.7 standard deviations.

    Args:
        shape: Integers. The shape of one row.
        seeds: int32 tensor of shape `[B, 2]`, one seed per row.

    Returns:
        float32 tensor of shape `[B, *shape]`.

    Example:
    >>> from vhe_tf import random
    >>> random.normal([28, 28, 1], random.fold_in(0, tf.range(3))).shape
    TensorShape([3, 28, 28, 1])
    """
    shape = _as_shape(shape)
    if isinstance(seeds, Noise):
        return seeds.take("normal", shape)
    halves = _halves(shape, seeds)
    # Not of `uniform`, whose smallest number ends the tails at 5.8.
    fine = (tf.cast(halves[..., 0], tf.float32) + 0.5) * 2.0**-32
    radius = tf.sqrt(-2.0 * tf.math.log(fine))
    angle = 2.0 * math.pi * _cell_centres(halves[..., 1])
    pairs = [radius * tf.cos(angle), radius * tf.sin(angle)]
    return _as_rows(tf.stack(pairs, axis=-1), shape)


# Distributions ---------------------------------------------------------------


class _Family(NamedTuple):
    noise: _Noise
    transform: _Transform


_FAMILIES: dict[type[tfd.Distribution], _Family] = {}


def register(
    family: type[tfd.Distribution], *, noise: _Noise, transform: _Transform
) -> None:
    """Registers how to sample a family of distributions by rows.

    Args:
        family: Subclass of `tfd.Distribution`. Its own subclasses are
            registered along with it, and so is a `tfd.Independent` of it.
        noise: Callable. `noise(distribution, shape, seeds)` returns the
            randomness of samples, `[B, *shape]`. It may ask the distribution
            what it is, but not for parameters of single rows.
        transform: Callable. `transform(distribution, noise)` returns samples
            of the shape of `noise`, `[S..., B, E...]`; each is decided by its
            own noise.

    Example:
    >>> from vhe_tf import random
    >>> random.register(
    ...     tfd.Laplace,
    ...     noise=lambda _, shape, seeds: random.uniform(shape, seeds),
    ...     transform=lambda distribution, noise: distribution.quantile(noise),
    ... )
    >>> seeds = random.fold_in(0, tf.range(3))
    >>> random.sample(tfd.Laplace(tf.zeros([3]), 1.0), [5], seed=seeds).shape
    TensorShape([5, 3])
    """
    _FAMILIES[family] = _Family(noise, transform)


def sample(
    distribution: tfd.Distribution,
    sample_shape: Any = (),
    *,
    seed: Any,
    allow_unregistered: bool = False,
) -> tf.Tensor:
    """Samples a distribution, with one seed or with one seed per row.

    Args:
        distribution: Distribution of batch shape `[]`, `[B]` or `[S..., B]`.
        sample_shape: Integers. The axes to add before those of the batch. With
            one seed per row and a batch shape `[]`, the last one is B.
        seed: Integers. One seed or one per row; see `as_seed`. One seed goes to
            `distribution.sample`; seeds of shape `[B, 2]` need a family that is
            registered. With seeds of shape `[1, 2]` all rows share the same
            randomness.
        allow_unregistered: Boolean. Whether to sample an unregistered family
            with the first of the seeds. What a row samples then depends on the
            rows beside it. Defaults to False.

    Returns:
        Tensor of shape `[S..., B, E...]`.

    Raises:
        TypeError: If the family is not registered.

    Example:
    >>> from vhe_tf import random
    >>> seeds = random.fold_in(0, tf.range(2))
    >>> normal = tfd.Normal(tf.zeros([2]), 1.0)
    >>> random.sample(normal, seed=seeds).shape
    TensorShape([2])
    """
    if not isinstance(seed, Noise):
        seed = as_seed(seed)
        if seed.shape.rank == 1:
            return distribution.sample(sample_shape, seed=seed)
    member = distribution
    while isinstance(member, tfd.Independent):
        member = member.distribution
    known = [cls for cls in type(member).__mro__ if cls in _FAMILIES]
    if not known and allow_unregistered:
        return distribution.sample(sample_shape, seed=seed[0])
    if not known:
        names = sorted(cls.__name__ for cls in _FAMILIES)
        raise TypeError(
            f"One seed per row is possible for {', '.join(names)} and "
            "`Independent` of these. Add a family with `vhe_tf.random.register`"
            " or pass one seed, [2]. "
            f"Received: {type(member).__name__}."
        )
    family = _FAMILIES[known[0]]
    batch_shape = distribution.batch_shape_tensor()
    shape = tf.concat([_as_shape(sample_shape), batch_shape], axis=0)
    leading, num_rows = shape[:-1], shape[-1:]
    event_shape = distribution.event_shape_tensor()
    noise = family.noise(
        member, tf.concat([leading, event_shape], axis=0), seed
    )  # [B, S..., E...]
    noise = tf.broadcast_to(
        noise, tf.concat([num_rows, tf.shape(noise)[1:]], axis=0)
    )
    axes = list(range(noise.shape.rank))
    num_leading = leading.shape[0]
    order = [*axes[1 : num_leading + 1], 0, *axes[num_leading + 1 :]]
    return family.transform(member, tf.transpose(noise, order))


register(
    tfd.Normal,
    noise=lambda _, shape, seeds: normal(shape, seeds),
    transform=lambda distribution, noise: (
        distribution.loc + distribution.scale * noise
    ),
)

# With the diagonal, the triangular and all others.
register(
    tfd.MultivariateNormalLinearOperator,
    noise=lambda _, shape, seeds: normal(shape, seeds),
    transform=lambda distribution, noise: (
        distribution.mean() + distribution.scale.matvec(noise)
    ),
)

register(
    tfd.Bernoulli,
    noise=lambda _, shape, seeds: uniform(shape, seeds),
    transform=lambda distribution, noise: tf.cast(
        noise < distribution.probs_parameter(), distribution.dtype
    ),
)


# The generator ---------------------------------------------------------------


def _split_mix(state: tf.Tensor, counter: tf.Tensor) -> tf.Tensor:
    """Returns output number `counter`, from 0, of SplitMix64; all are uint64.

    It maps different states to different outputs, and so with counters.
    """
    z = state + (counter + 1) * tf.constant(_GOLDEN_GAMMA, tf.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = _xor_shift(z, shift) * tf.constant(factor, tf.uint64)
    return _xor_shift(z, 31)


def _xor_shift(z: tf.Tensor, count: int) -> tf.Tensor:
    shifted = tf.bitwise.right_shift(z, tf.constant(count, tf.uint64))
    return tf.bitwise.bitwise_xor(z, shifted)


def _state(seeds: tf.Tensor, purpose: int) -> tf.Tensor:
    """Returns where SplitMix64 begins, uint64 `[...]` of `[..., 2]`."""
    whole = tf.bitcast(seeds, tf.uint64)
    return tf.bitwise.bitwise_xor(whole, tf.constant(purpose, tf.uint64))


def _words(count: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Returns `[B, count]` uint64."""
    counter = tf.cast(tf.range(tf.cast(count, tf.int64)), tf.uint64)
    state = _state(tf.convert_to_tensor(seeds, tf.int32), _NUMBERS)
    return _split_mix(state[:, tf.newaxis], counter)


def _halves(shape: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Returns `[B, (size + 1) // 2, 2]` uint32."""
    count = (tf.reduce_prod(shape) + 1) // 2
    return tf.bitcast(_words(count, seeds), tf.uint32)


def _cell_centres(values: tf.Tensor) -> tf.Tensor:
    """Returns the centres of cells of (0, 1), by the high bits of uint32."""
    high = tf.bitwise.right_shift(values, tf.constant(9, tf.uint32))
    # One bit more, and float32 would round a centre to the end.
    return (tf.cast(high, tf.float32) + 0.5) * 2.0**-23


def _as_shape(shape: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(shape, tf.int32), tf.int32)


def _as_rows(values: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Returns `[B, *shape]` of `[B, ...]`, which may have a value more."""
    count = tf.shape(values)[0]
    width = tf.reduce_prod(tf.shape(values)[1:])
    flat = tf.reshape(values, [count, width])[:, : tf.reduce_prod(shape)]
    return tf.reshape(flat, tf.concat([[count], shape], axis=0))
