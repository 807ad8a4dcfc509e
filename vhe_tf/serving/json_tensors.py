"""Conversion between JSON and arrays by the rules of TensorFlow Serving.

`instances` are rows and `inputs` are columns. Integers convert to floats, and
no other type converts. Strings may be `{"b64": ...}`. NaN and Infinity are
numbers. If keys are equal, the first counts. In addition, errors name the
input, and shapes must match the signature.
"""

import base64
import binascii
import itertools
import json
import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

__all__ = [
    "RequestError",
    "TensorInfo",
    "columns",
    "columns_json",
    "parsed",
    "rows_json",
    "shown",
    "to_array",
]


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class RequestError(Exception):
    """A request that cannot be served.

    Args:
        message: String. What is wrong with the request.
        status: Integer. HTTP status of the answer. Defaults to 400.

    Example:
    >>> RequestError("Could not find any versions of model x", 404).status
    404
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class TensorInfo(NamedTuple):
    """An input or output of a signature.

    Attributes:
        name: String. Name of the tensor in the graph.
        dtype: `numpy.dtype`. The type of its entries; object for strings.
        shape: Tuple of integers, -1 for any size. None for any rank.

    Example:
    >>> TensorInfo("seed:0", np.dtype(np.int64), (-1,)).shape
    (-1,)
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...] | None


def parsed(body: bytes) -> dict[str, Any]:
    """Parses a request. NaN and Infinity are numbers.

    Args:
        body: Bytes. The body of the request.

    Raises:
        RequestError: If the body is not a JSON object.

    Example:
    >>> parsed(b'{"instances": [1, NaN]}')
    {'instances': [1, nan]}
    """
    try:
        text = body.decode("utf-8-sig")
        document = json.loads(text, object_pairs_hook=_first_of_each)
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()  # none is alone
    except RecursionError:
        raise RequestError("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        raise RequestError(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise RequestError(f"JSON Value: {shown(document)} Is not object")
    return document


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def columns(
    document: Mapping[str, Any], declared: Mapping[str, TensorInfo]
) -> tuple[bool, dict[str, Any]]:
    """Returns the nested lists of each input.

    Args:
        document: Mapping. The parsed request.
        declared: Mapping from names to the inputs of the signature.

    Returns:
        A Boolean, True if the request has rows (`instances`), False if it has
        columns (`inputs`); and a mapping from names to nested lists.

    Raises:
        RequestError: If the request names other inputs than the signature.

    Example:
    >>> seed = TensorInfo("seed:0", np.dtype(np.int64), (-1,))
    >>> columns({"instances": [{"seed": 1}, {"seed": 2}]}, {"seed": seed})
    (True, {'seed': [1, 2]})
    """
    given = [key for key in ("instances", "inputs") if key in document]
    if len(given) != 1:
        raise RequestError(
            "Expected one of 'inputs' and 'instances'. Received: "
            f"{' and '.join(given) or 'neither'}"
        )
    (key,) = given
    value, by_rows = document[key], key == "instances"
    if by_rows and not (isinstance(value, list) and value):
        raise RequestError("Expected 'instances' to be a list of rows")
    rows = value if by_rows else [value]
    if len(declared) == 1 and not _names_inputs(rows[0]):
        (name,) = declared
        return by_rows, {name: value}
    for index, row in enumerate(rows):
        # TensorFlow Serving ignores unknown names in columns, and so misspelt
        # ones.
        if not _names_inputs(row) or set(row) != set(declared):
            raise RequestError(
                f"Expected an object with {', '.join(declared)} at row {index} "
                f"of {key!r}. {_difference(row, declared)}"
            )
    if by_rows:
        value = {name: [row[name] for row in rows] for name in declared}
    return by_rows, value


def _names_inputs(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Mapping[str, Any]) -> bool:
    return set(value) == {"b64"} and isinstance(value["b64"], str)


def _difference(given: Any, declared: Iterable[str]) -> str:
    if not _names_inputs(given):
        return f"Received: {shown(given)}"
    missing = ", ".join(shown(n) for n in sorted(set(declared) - set(given)))
    unknown = ", ".join(shown(n) for n in sorted(set(given) - set(declared)))
    return f"Missing: {missing or 'none'}. Unknown: {unknown or 'none'}."


def to_array(value: Any, tensor: TensorInfo, *, name: str) -> np.ndarray:
    """Converts nested lists to an array.

    Args:
        value: Nested lists.
        tensor: `TensorInfo`. The input in the signature.
        name: String. Name of the input, for the error.

    Raises:
        RequestError: If the lists are ragged, or if their shape or type does
            not match the signature.

    Example:
    >>> seed = TensorInfo("seed:0", np.dtype(np.int64), (-1,))
    >>> to_array([1, 2], seed, name="seed")
    array([1, 2])
    """
    shape = _shape_of(value)
    declared = tensor.shape
    if declared is not None and not (
        len(shape) == len(declared)
        and all(d in (-1, s) for s, d in zip(shape, declared, strict=True))
    ):
        raise RequestError(
            f'Input "{name}": expected shape {_shape_shown(declared)}, -1 for '
            f"any size, but got: {_shape_shown(shape)}"
        )
    try:
        return _values(_flat(value, shape), tensor.dtype).reshape(shape)
    except OverflowError:
        raise RequestError(f'Input "{name}": an integer is too large') from None
    except RequestError as error:
        raise RequestError(f'Input "{name}": {error}', error.status) from None


def _shape_of(value: Any) -> tuple[int, ...]:
    """Returns the shape of the first elements of nested lists."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _flat(value: Any, shape: Sequence[int]) -> list[Any]:
    """Returns the values of nested lists, all of which have a shape."""
    values = [value]
    for size in shape:
        for found in values:
            if type(found) is not list or len(found) != size:
                raise RequestError(
                    f"Expected a list of {size}, as the others are. Received: "
                    f"{shown(found)}"
                )
        values = list(itertools.chain.from_iterable(values))
    if list in set(map(type, values)):
        raise RequestError("Lists are nested in some places alone")
    return values


def _values(values: list[Any], dtype: np.dtype) -> np.ndarray:
    """Returns a flat array. Only integers convert, to floats."""
    if dtype.kind == "f" and dtype.itemsize >= 4:
        _check_types(values, dtype, int, float)
        with np.errstate(over="ignore"):
            return np.array(values, np.float64).astype(dtype)
    if dtype.kind in "iu":
        _check_types(values, dtype, int)
        bounds = np.iinfo(dtype)
        for extreme in (min(values, default=0), max(values, default=0)):
            if not bounds.min <= extreme <= bounds.max:
                raise _wrong_type(extreme, dtype)
        return np.array(values, dtype)
    if dtype.kind == "b":
        _check_types(values, dtype, bool)
        return np.array(values, dtype)
    if dtype.kind == "O":
        array = np.empty(len(values), object)
        array[:] = [_bytes(value) for value in values]
        return array
    raise RequestError(f"Conversion of JSON to type: {dtype.name}", 501)


def _bytes(value: Any) -> bytes:
    if isinstance(value, dict):
        if not _is_base64(value):
            raise RequestError(
                f"JSON Value: {shown(value)} not formatted correctly for "
                "base64 data"
            )
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise RequestError("Unable to base64 decode") from None
    if not isinstance(value, str):
        raise _wrong_type(value, np.dtype(object))
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise RequestError(
            f"JSON Value: {shown(value)} is not valid Unicode"
        ) from None


def _check_types(values: list[Any], dtype: np.dtype, *allowed: type) -> None:
    # By type and not isinstance: in Python, True is an int.
    if set(map(type, values)) - set(allowed):
        raise _wrong_type(
            next(v for v in values if type(v) not in allowed), dtype
        )


def _wrong_type(value: Any, dtype: np.dtype) -> RequestError:
    name = "string" if dtype.kind == "O" else dtype.name
    return RequestError(
        f"JSON Value: {shown(value)} is not of expected type: {name}"
    )


def shown(value: Any) -> str:
    """Returns a JSON value, shortened for an error message.

    Example:
    >>> shown([1, None])
    '[1, null]'
    """
    if isinstance(value, list | dict) and len(value) > 8:
        return f"({type(value).__name__} of {len(value)} items)"
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "(nested deeply)"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _shape_shown(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def columns_json(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the answer to a request with columns.

    Args:
        outputs: Mapping from names to arrays.

    Raises:
        RequestError: If JSON cannot represent the dtype of an output.

    Example:
    >>> columns_json({"label": np.array([3, 1])})
    {'outputs': [3, 1]}
    """
    lists = {name: _lists(name, value) for name, value in outputs.items()}
    return {"outputs": _unnamed_if_alone(lists)}


def rows_json(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the answer to a request with rows.

    Args:
        outputs: Mapping from names to arrays.

    Raises:
        RequestError: If an output is a scalar, the outputs differ in rows, or
            JSON cannot represent the dtype of an output.

    Example:
    >>> rows_json({"label": np.array([3, 1]), "score": np.array([0.5, 1.5])})
    {'predictions': [{'label': 3, 'score': 0.5}, {'label': 1, 'score': 1.5}]}
    """
    sizes = set()
    for name, value in outputs.items():
        if np.ndim(value) == 0:
            raise RequestError(f"Tensor name: {name} has no shape information")
        sizes.add(len(value))
        if len(sizes) > 1:
            raise RequestError(
                f"Tensor name: {name} has inconsistent batch size: {len(value)}"
            )
    lists = {name: _lists(name, value) for name, value in outputs.items()}
    return {
        "predictions": [
            _unnamed_if_alone(dict(zip(lists, row, strict=True)))
            for row in zip(*lists.values(), strict=True)
        ]
    }


def _unnamed_if_alone(named: Mapping[str, Any]) -> Any:
    return next(iter(named.values())) if len(named) == 1 else named


def _lists(name: str, value: Any) -> Any:
    # A session returns a scalar string as bytes.
    array = np.asarray(value, object if isinstance(value, bytes) else None)
    if array.dtype == np.float32:
        # The shortest digits that identify the float32: 0.2, not the nearest
        # float64, 0.20000000298023224.
        return array.astype(str).astype(np.float64).tolist()
    if array.dtype == object:
        as_base64 = name.endswith("_bytes")
        texts = [
            {"b64": base64.b64encode(item).decode()}
            if as_base64
            else item.decode(errors="replace")
            for item in array.reshape(-1)
        ]
        strings = np.empty(array.size, object)
        strings[:] = texts
        return strings.reshape(array.shape).tolist()
    if array.dtype.kind in "biuf" and array.dtype != np.float16:
        return array.tolist()
    raise RequestError(
        f"Failed to write JSON value for tensor type: {array.dtype.name}"
    )
