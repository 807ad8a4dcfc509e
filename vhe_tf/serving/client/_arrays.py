"""NumPy arrays in the dtypes and shapes that a signature declares."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vhe_tf.serving.client._transport import Tensor

__all__ = ["as_array", "broadcast_rows", "cast", "from_lists"]

_DTYPES: dict[str, Any] = {
    "DT_BOOL": np.bool_,
    "DT_DOUBLE": np.float64,
    "DT_FLOAT": np.float32,
    "DT_INT32": np.int32,
    "DT_STRING": np.object_,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
}

# The NumPy kinds that are cast to each kind. Strings are not supported.
_KINDS_FOR = {"b": "b", "f": "biuf", "i": "biu", "u": "biu", "O": ""}


def as_array(value: npt.ArrayLike, *, name: str) -> np.ndarray:
    """Returns an array.

    Args:
        value: Array or nested lists.
        name: String. Name of the input, for the error.

    Raises:
        ValueError: If nested lists are ragged.

    Example:
    >>> as_array([[1, 2]], name="seed").shape
    (1, 2)
    """
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"Expected `{name}` to be an array: {error}") from None


def broadcast_rows(
    inputs: Mapping[str, npt.ArrayLike],
) -> dict[str, np.ndarray]:
    """Broadcasts all inputs to the same number of rows.

    Args:
        inputs: Arrays by name. Each has one row or B rows. An integer `seed`
            s becomes the seeds s, s + 1, ... of the rows.

    Raises:
        ValueError: If two inputs have different numbers of rows, neither of
            them 1.

    Example:
    >>> inputs = {"query": np.zeros([3, 28, 28, 1]), "seed": 7}
    >>> broadcast_rows(inputs)["seed"]
    array([7, 8, 9])
    """
    arrays = {n: as_array(value, name=n) for n, value in inputs.items()}
    lengths = {name: len(a) for name, a in arrays.items() if a.ndim}
    several = set(lengths.values()) - {1}
    if len(several) > 1:
        raise ValueError(
            "Expected the same number of rows in every input, or one. "
            f"Received: {lengths}."
        )
    count = several.pop() if several else 1
    if arrays["seed"].ndim == 0:
        arrays["seed"] = arrays["seed"] + np.arange(count)
    return {
        name: np.broadcast_to(array, (count, *array.shape[1:]))
        for name, array in arrays.items()
    }


def cast(value: npt.ArrayLike, dtype: str, *, name: str) -> np.ndarray:
    """Returns an array of the dtype that a signature declares.

    Args:
        value: Array or nested lists.
        dtype: String, such as `"DT_FLOAT"`.
        name: String. Name of the input, for the error.

    Raises:
        ValueError: If the dtype is not supported, if a value is out of range,
            or if the cast is not safe, such as float to integer.

    Example:
    >>> cast([True, False], "DT_FLOAT", name="query")
    array([1., 0.], dtype=float32)
    """
    array = as_array(value, name=name)
    if not array.size:
        array = array.astype(np.bool_)  # an empty array can be of any kind
    target = np.dtype(_DTYPES.get(dtype, object))
    if array.dtype.kind not in _KINDS_FOR[target.kind]:
        raise ValueError(
            f"Expected `{name}` to hold {dtype}. Received: {array.dtype}."
        )
    result = array.astype(target)
    if target.kind in "iu" and (result != array).any():
        raise ValueError(
            f"Expected `{name}` to hold {dtype}. Received: values from "
            f"{array.min()} to {array.max()}."
        )
    return result


def from_lists(value: Any, tensor: Tensor) -> np.ndarray:
    """Returns the array of an output that came as nested lists.

    Args:
        value: Nested lists.
        tensor: `Tensor`. The output in the signature.

    Example:
    >>> from_lists([], Tensor("DT_FLOAT", (-1, 28, 28, 1))).shape
    (0, 28, 28, 1)
    """
    array = np.array(value, _DTYPES[tensor.dtype])
    if array.size == 0 and array.ndim < len(tensor.shape):
        # Without rows, only the signature has the rest of the shape.
        array = array.reshape(0, *(max(size, 0) for size in tensor.shape[1:]))
    return array
