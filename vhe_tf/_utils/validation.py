"""Argument validation."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "at_least",
    "check_choice",
    "check_finite",
    "check_image_size",
    "image_shape_of",
    "is_image_shape",
    "is_positive_int",
    "positive",
]

# Height, width, channels.
_IMAGE_RANK = 3


def is_positive_int(value: object) -> bool:
    """Returns whether `value` is a positive integer, NumPy's included."""
    return isinstance(value, (int, np.integer)) and bool(value > 0)


def positive(name: str, value: int) -> int:
    """Returns a positive int; see `at_least`."""
    return at_least(1, **{name: value})


def at_least(least: int, **named: Any) -> int:
    """Returns an int of at least so much.

    Args:
        least: Integer. The smallest value allowed.
        **named: Integer. The argument, by its name.

    Raises:
        ValueError: If it is anything else.
    """
    ((name, value),) = named.items()
    is_integer = isinstance(value, int | np.integer)
    if not is_integer or isinstance(value, bool) or value < least:
        expected = (
            "a positive int" if least == 1 else f"an int of {least} or more"
        )
        raise ValueError(
            f"`{name}` must be {expected}. Received: {name}={value!r}."
        )
    return int(value)


def check_finite(name: str, values: np.ndarray) -> None:
    """Raises a `ValueError` if a value is NaN or infinite.

    Args:
        name: String. The argument, for the message.
        values: Array of numbers.
    """
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise ValueError(
            f"`{name}` must be finite. Repair what it was made from. Received: "
            f"{int(wrong.sum())} of {wrong.size} values are NaN or infinite."
        )


def is_image_shape(event_shape: Sequence[int]) -> bool:
    """Returns whether elements of this shape are images, `(H, W, C)`."""
    return len(event_shape) == _IMAGE_RANK


def image_shape_of(event_shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns the shape of elements that must be images.

    Args:
        event_shape: Integers. The shape of an element.

    Raises:
        ValueError: If they are not images.
    """
    if not is_image_shape(event_shape):
        raise ValueError(
            "Pictures, augmentation and exports are for images, elements of "
            "shape (H, W, C). "
            f"Received: elements of shape {tuple(event_shape)}."
        )
    height, width, channels = event_shape
    return height, width, channels


def check_choice(choices: Iterable[Any], **named: object) -> None:
    """Raises a `ValueError` if a named value is none of `choices`."""
    choices = tuple(choices)
    for name, value in named.items():
        if value not in choices:
            raise ValueError(
                f"`{name}` must be one of {', '.join(map(repr, choices))}. "
                f"Received: {name}={value!r}."
            )


def check_image_size(image_size: Any) -> None:
    """Raises ValueError unless `image_size` is two positive ints."""
    valid = isinstance(image_size, (tuple, list)) and len(image_size) == 2
    if not valid or not all(map(is_positive_int, image_size)):
        raise ValueError(
            "`image_size` must be two positive ints, (height, width). "
            f"Received: image_size={image_size!r}."
        )
