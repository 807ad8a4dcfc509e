"""A check that images show something: not all blank, and not all ink."""

from typing import Any

import numpy as np

__all__ = ["check_contrast", "shows_something"]

# Photographs whose darkest and brightest pixels are closer show nothing. Pixels
# of 4 bits that are read as 8 bits lie in 15 / 255.
_LEAST_SPREAD = 1 / 16


def check_contrast(
    images: np.ndarray, name: str, *, binary: bool, constant: bool = False
) -> None:
    """Raises a `ValueError` for images that are all blank or all ink.

    Most often they are on another scale: 0 and 1 in uint8, 4 bits in 8, 12
    bits in 16, or divided by 255 twice.

    Args:
        images: Any shape, uint8 in 0..255 or floating point in 0..1.
        name: String. What they are, for the error.
        binary: Boolean. Whether they become binary at one half.
        constant: Boolean. Whether images with one value throughout are
            allowed. Defaults to False.

    Raises:
        ValueError: If no pixel, or every pixel, is ink, or the values span
            less than a sixteenth of the scale. The message has their range.

    Example:
    >>> check_contrast(np.array([[0, 255]], np.uint8), "images", binary=True)
    """
    scale = 255 if images.dtype == np.uint8 else 1
    low, high = float(images.min()), float(images.max())
    if constant and low == high:
        return
    if not shows_something(low / scale, high / scale, binary=binary):
        shown = "of one shade"
        if binary:
            shown = "blank" if high < scale / 2 else "ink"
        raise ValueError(
            f"All of {name!r} is {shown}; is it on another scale? Pixels are "
            f"uint8 in 0..255 or floating point in 0..1; spread them over this "
            f"range. Received: {images.dtype} pixels in {low:g}..{high:g}."
        )


def shows_something(low: Any, high: Any, *, binary: bool) -> Any:
    """Returns whether images of this range are not blank or all ink.

    Args:
        low: Floating point number, array or tensor. Smallest pixel, in 0..1.
        high: As `low`. Largest pixel.
        binary: Boolean. As in `check_contrast`.

    Returns:
        Boolean of the shape of `low`.

    Example:
    >>> shows_something(0.0, 1 / 255, binary=False)
    False
    """
    if binary:
        return (low < 0.5) & (high >= 0.5)
    return high - low >= _LEAST_SPREAD
