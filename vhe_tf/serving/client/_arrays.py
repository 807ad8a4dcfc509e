"""NumPy arrays in the dtypes and shapes that a signature declares."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vhe_tf.serving.client._transport import ServingError
from vhe_tf.serving.client._transport import Tensor

__all__ = ["as_array", "broadcast_rows", "cast", "checked_output", "padded"]

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


# The NumPy kinds of answers for each kind.
_KINDS_OF_ANSWERS = {"b": "b", "f": "fiu", "i": "iu", "u": "iu", "O": "O"}


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
        raise ValueError(
            f"`{name}` must be an array, or lists of equal lengths. "
            f"Received: {error}"
        ) from None


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

    Floats are pixels or parameters, so uint8 from 0 to 255 becomes 0 to 1.

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
    elif array.dtype.name == "bfloat16":  # of no kind of NumPy
        array = array.astype(np.float32)
    elif array.dtype == np.uint8 and dtype == "DT_FLOAT" and array.max() > 1:
        array = array / np.float32(255)  # pixels
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


def padded(support: np.ndarray, num_shots: int) -> np.ndarray:
    """Appends absent images, whose pixels are -1, to supports of fewer.

    Args:
        support: float32 array `[..., N, H, W, C]`, the support images.
        num_shots: Integer. Number of images of the result, if above N.

    Example:
    >>> padded(np.zeros([2, 1, 28, 28, 1], np.float32), 5).shape
    (2, 5, 28, 28, 1)
    """
    missing = max(0, num_shots - support.shape[-4])
    widths = [(0, 0)] * (support.ndim - 4) + [(0, missing)] + [(0, 0)] * 3
    return np.pad(support, widths, constant_values=-1)


def checked_output(value: Any, tensor: Tensor, *, name: str) -> np.ndarray:
    """Returns an output of a server, checked against its signature.

    Args:
        value: Nested lists, or an array.
        tensor: `Tensor`. The output in the signature.
        name: String. Name of the output, for the error.

    Raises:
        ServingError: If the shape or the dtype does not match the signature.

    Example:
    >>> declared = Tensor("DT_FLOAT", (-1, 28, 28, 1))
    >>> checked_output([], declared, name="images").shape
    (0, 28, 28, 1)
    """
    target = np.dtype(_DTYPES[tensor.dtype])
    try:
        array = np.array(value, None if target.kind != "O" else object)
    except ValueError:
        array = np.array(None)  # ragged
    if array.size == 0 and array.ndim < len(tensor.shape):
        # Without rows, only the signature has the rest of the shape.
        shape = (0, *(max(size, 0) for size in tensor.shape[1:]))
        return np.zeros(shape, target)
    matches = array.ndim == len(tensor.shape) and all(
        declared in (-1, size)
        for size, declared in zip(array.shape, tensor.shape, strict=True)
    )
    if not matches or array.dtype.kind not in _KINDS_OF_ANSWERS[target.kind]:
        raise ServingError(
            f"Expected the output {name!r} to be {tensor.dtype} of shape "
            f"{tensor.shape}. Received: {array.dtype} of shape {array.shape}."
        )
    return array.astype(target)
