"""Rows of a batch in a signature: checks, and computation in pieces."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vhe_tf.data.contrast import shows_something
from vhe_tf.distributions.domain import Domain

__all__ = [
    "Function",
    "checked",
    "distinct",
    "gathered",
    "in_pieces",
    "without_absent",
]

Function = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]

# Support images per row, over classes.
_MAX_SUPPORT = 1024

# The value of all pixels of an image that is absent.
_ABSENT = -1.0


def checked(
    function: Function,
    specs: Sequence[tf.TensorSpec],
    *,
    max_rows: int,
    domain: Domain,
) -> Any:
    """Makes a signature with named inputs of checked shapes and values.

    Args:
        function: Callable. Maps inputs to outputs by name, all of one batch.
        specs: Tensor specs of the inputs, in order.
        max_rows: Integer. Largest number of rows of a batch.
        domain: `Domain`. The pixels that the likelihood models.

    Returns:
        A concrete function. It fails if the shapes of the inputs do not fit. A
        row whose values are invalid does not fail: its outputs are NaN or -1,
        and its `status` says why.
    """

    def answer(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = {
            spec.name: value for spec, value in zip(specs, values, strict=True)
        }
        num_rows = tf.shape(values[0])[0]
        with tf.control_dependencies(_shape_checks(inputs, max_rows)):
            status = _status(inputs, domain)
            valid = tf.equal(status, "")
            # Ones are valid everywhere. Some kernels fail on an empty batch:
            # compute one row.
            padded = {
                name: tf.pad(
                    _where(valid, value, tf.ones([], value.dtype)),
                    [(0, tf.maximum(0, 1 - num_rows))]
                    + [(0, 0)] * (value.shape.rank - 1),
                    constant_values=1,
                )
                for name, value in inputs.items()
            }
        outputs = {
            name: _where(
                valid,
                value[:num_rows],
                tf.constant(
                    -1 if value.dtype.is_integer else np.nan, value.dtype
                ),
            )
            for name, value in function(padded).items()
        }
        return {**outputs, "status": status}

    return tf.function(
        answer, input_signature=specs, autograph=False
    ).get_concrete_function()


def _shape_checks(
    inputs: Mapping[str, tf.Tensor], max_rows: int
) -> list[tf.Operation]:
    """Returns assertions on shapes whose messages name the input."""
    checks = []
    first = next(iter(inputs))
    for name, value in inputs.items():
        shape = tf.shape(value)
        same_rows = tf.equal(shape[0], tf.shape(inputs[first])[0])
        rules = [
            (
                shape[0] <= max_rows,
                f"must have at most {max_rows} rows. Send fewer rows.",
            ),
            (same_rows, f"and `{first}` must have the same number of rows."),
        ]
        if name.endswith("stddev"):
            mean = name.removesuffix("stddev") + "mean"
            same = tf.reduce_all(tf.equal(shape, tf.shape(inputs[mean])))
            rules.append((same, f"and `{mean}` must have the same shape."))
        if name == "log_likelihood":
            same = tf.equal(shape[1], tf.shape(inputs[first])[1])
            rules.append((same, f"and `{first}` must have the same classes."))
        if _is_support(name):
            images = tf.reduce_prod(shape[1:-3])
            rules.append(
                (
                    images <= _MAX_SUPPORT,
                    f"must have at most {_MAX_SUPPORT} images per row.",
                )
            )
        # A batch may be empty; its ways and shots may not.
        not_empty = tf.reduce_all(shape[1:] > 0)
        rules.append((not_empty, "must have at least one class and one image."))
        checks += [
            tf.debugging.Assert(condition, [f"`{name}` {rule}"])
            for condition, rule in rules
        ]
    return checks


def _status(inputs: Mapping[str, tf.Tensor], domain: Domain) -> tf.Tensor:
    """Returns a string per row: what is wrong with its values."""
    status = tf.fill(tf.shape(next(iter(inputs.values())))[:1], "")
    for name, value in inputs.items():
        if name == "seed":
            continue
        if name.endswith("mean"):
            valid, rule = tf.math.is_finite(value), "be finite"
        elif name.endswith("stddev"):
            valid = tf.math.is_finite(value) & (value > 0.0)
            rule = "be positive and finite"
        elif name == "log_likelihood":
            valid, rule = ~tf.math.is_nan(value), "not be NaN"
        else:
            valid = (value >= 0.0) & (value <= 1.0) & domain.holds(value)
            rule = "hold pixels from 0 to 1, ink 1; no NaN"
            if domain.binary:
                rule = "hold pixels 0 or 1, ink 1, as in `images >= 0.5`"
            elif domain.is_bounded:
                status = _stated(
                    status,
                    _is_spread(value),
                    f"`{name}` is of one shade, as if on another scale: it "
                    "must hold pixels spread from 0 to 1.",
                )
            if _is_support(name):
                present = _present(value)
                valid |= ~present[..., tf.newaxis, tf.newaxis, tf.newaxis]
                status = _stated(
                    status,
                    tf.reduce_any(present, axis=-1),
                    f"`{name}` must have at least one image per class.",
                )
        status = _stated(status, valid, f"`{name}` must {rule}.")
    return status


def _is_spread(images: tf.Tensor) -> tf.Tensor:
    """Returns the rows that `check_contrast` accepts; not `_ABSENT` ones."""
    axes = list(range(1, images.shape.rank))
    low = tf.reduce_min(tf.where(images < 0.0, 1.0, images), axes)
    high = tf.reduce_max(images, axes)
    return (low == high) | shows_something(low, high, binary=False)


def _stated(status: tf.Tensor, valid: tf.Tensor, rule: str) -> tf.Tensor:
    """Returns the status of rows, `rule` where not all of a row is valid."""
    rows = tf.reduce_all(valid, list(range(1, valid.shape.rank)))
    return tf.where(rows, status, rule)


def _present(support: tf.Tensor) -> tf.Tensor:
    """Returns the support mask: which images `[..., H, W, C]` are there."""
    return tf.reduce_any(tf.not_equal(support, _ABSENT), axis=[-3, -2, -1])


def _where(rows: tf.Tensor, value: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the value in the given rows and the other elsewhere."""
    axes = [1] * (value.shape.rank - 1)
    return tf.where(tf.reshape(rows, [-1, *axes]), value, other)


def gathered(
    inputs: Mapping[str, tf.Tensor], rows: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns some rows of all inputs."""
    return {name: tf.gather(value, rows) for name, value in inputs.items()}


def distinct(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the rows that differ, and for each row which of them it is."""
    shape = tf.shape(values)
    with tf.device("CPU:0"):  # the only kernel
        rows, index = tf.raw_ops.UniqueV2(
            x=tf.reshape(values, [shape[0], -1]), axis=[0]
        )
    rows = tf.reshape(rows, tf.concat([[-1], shape[1:]], axis=0))
    return tf.ensure_shape(rows, values.shape), index


def in_pieces(
    function: Callable[[dict[str, tf.Tensor]], Mapping[str, tf.Tensor]],
    inputs: Mapping[str, tf.Tensor],
    *,
    most: int | tf.Tensor,
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, tf.Tensor]:
    """Computes values of all rows in pieces.

    The rows of a piece have supports of the same sizes, so that absent images
    are left out. Pieces of the same sizes are even.

    Args:
        function: Callable. Maps the inputs of N rows to float32 values
            `[N, ...]` by name.
        inputs: Tensors `[B, ...]` by name; supports are `[B, N, H, W, C]`.
        most: Integer, or scalar int32. Largest number of rows of a piece.
        shapes: Mapping. Shapes of the values of one row by name.

    Returns:
        Mapping from names to values `[B, ...]`.
    """
    count = tf.shape(next(iter(inputs.values())))[0]
    sizes = tf.zeros([count], tf.int64)
    for name in filter(_is_support, inputs):
        present = tf.cast(_present(inputs[name]), tf.int64)
        sizes = (_MAX_SUPPORT + 1) * sizes + tf.reduce_sum(present, axis=1)
    order = tf.argsort(sizes, stable=True)
    sizes = tf.gather(sizes, order)
    ends = tf.searchsorted(sizes, sizes, side="right")  # of equal sizes

    def add_piece(piece: tf.Tensor, start: tf.Tensor, results: Any) -> Any:
        left = ends[start] - start
        num_pieces = (left + most - 1) // most
        end = start + (left + num_pieces - 1) // num_pieces
        some = gathered(inputs, order[start:end])
        for name in filter(_is_support, inputs):
            some[name] = without_absent(some[name])
        values = function(some)
        return (
            piece + 1,
            end,
            {
                name: result.write(piece, values[name])
                for name, result in results.items()
            },
        )

    arrays = {
        name: tf.TensorArray(
            tf.float32,
            0,
            dynamic_size=True,
            element_shape=[None, *shape],
            infer_shape=False,
        )
        for name, shape in shapes.items()
    }
    _, _, results = tf.while_loop(
        lambda piece, start, _: start < count,
        add_piece,
        (0, 0, arrays),
        parallel_iterations=1,
    )
    rows = tf.math.invert_permutation(order)
    return gathered({k: v.concat() for k, v in results.items()}, rows)


def _is_support(name: str) -> bool:
    return name.startswith("support")


def without_absent(support: tf.Tensor) -> tf.Tensor:
    """Returns supports of one size, `[N, shot, H, W, C]`, without the rest."""
    present = _present(support)
    size = tf.math.count_nonzero(present[0], dtype=tf.int32)
    first = tf.argsort(tf.cast(~present, tf.int32), stable=True)[:, :size]
    return tf.gather(support, first, batch_dims=1)
