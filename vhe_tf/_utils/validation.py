"""Checks of arguments that count something."""

import numpy as np

__all__ = ["is_positive_int", "positive"]


def is_positive_int(value: object) -> bool:
    """Tells whether `value` is a positive integer, NumPy's included."""
    return isinstance(value, (int, np.integer)) and bool(value > 0)


def positive(name: str, value: int) -> int:
    """Returns a positive int.

    Args:
        name: That of the argument, for the message.
        value: The argument.

    Raises:
        ValueError: If it is anything else.
    """
    if not is_positive_int(value):
        raise ValueError(
            f"`{name}` must be a positive int. Received: {name}={value!r}."
        )
    return int(value)
