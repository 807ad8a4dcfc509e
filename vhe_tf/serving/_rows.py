"""Rows of a batch in a signature: checks, and computation in pieces."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["Function", "checked", "gathered", "in_pieces"]

Function = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]

# Support images per row, over classes.
_MAX_SUPPORT = 1024


def checked(
    function: Function, specs: Sequence[tf.TensorSpec], *, max_rows: int
) -> Any:
    """Makes a signature with named inputs of checked shapes and values.

    Args:
        function: Callable. Maps inputs to outputs by name, all of one batch.
        specs: Tensor specs of the inputs, in order.
        max_rows: Integer. Largest number of rows of a batch.

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
            status = _status(inputs)
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
        if name.startswith("support"):
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


def _status(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
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
        else:
            valid = (value >= 0.0) & (value <= 1.0)
            rule = "hold pixels from 0 to 1, ink 1; no NaN"
        rows = tf.reduce_all(valid, list(range(1, value.shape.rank)))
        status = tf.where(rows, status, f"`{name}` must {rule}.")
    return status


def _where(rows: tf.Tensor, value: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the value in the given rows and the other elsewhere."""
    axes = [1] * (value.shape.rank - 1)
    return tf.where(tf.reshape(rows, [-1, *axes]), value, other)


def gathered(
    inputs: Mapping[str, tf.Tensor], rows: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns some rows of all inputs."""
    return {name: tf.gather(value, rows) for name, value in inputs.items()}


def in_pieces(
    function: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    count: tf.Tensor,
    *,
    most: int | tf.Tensor,
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, tf.Tensor]:
    """Computes values of all rows in even pieces.

    Args:
        function: Callable. Maps indices of rows, `[N]` int32, to float32 values
            `[N, ...]` by name.
        count: Scalar int32. Number of rows.
        most: Integer, or scalar int32. Largest number of rows of a piece.
        shapes: Mapping. Shapes of the values of one row by name.

    Returns:
        Mapping from names to values `[count, ...]`.
    """
    num_pieces = (count + most - 1) // most
    size, num_longer = count // num_pieces, count % num_pieces  # by one

    def add_piece(piece: tf.Tensor, results: Any) -> tuple[tf.Tensor, Any]:
        start = piece * size + tf.minimum(piece, num_longer)
        end = start + size + tf.cast(piece < num_longer, tf.int32)
        values = function(tf.range(start, end))
        return piece + 1, {
            name: result.write(piece, values[name])
            for name, result in results.items()
        }

    _, results = tf.while_loop(
        lambda piece, _: piece < num_pieces,
        add_piece,
        (
            0,
            {
                name: tf.TensorArray(
                    tf.float32,
                    num_pieces,
                    element_shape=[None, *shape],
                    infer_shape=False,
                )
                for name, shape in shapes.items()
            },
        ),
        parallel_iterations=1,
    )
    return {name: result.concat() for name, result in results.items()}
