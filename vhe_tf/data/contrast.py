"""A check that images show something: not all blank, and not all ink."""

import numpy as np

__all__ = ["LEAST_SPREAD", "check_contrast"]

# Photographs whose darkest and brightest pixels are closer show nothing. Pixels
# of 4 bits that are read as 8 bits lie in 15 / 255.
LEAST_SPREAD = 1 / 16


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
    if binary:
        shown = (
            "blank" if high < scale / 2 else "ink" if low >= scale / 2 else ""
        )
    else:
        shown = "" if high - low >= scale * LEAST_SPREAD else "of one shade"
    if shown:
        raise ValueError(
            f"All of {name!r} is {shown}; is it on another scale? Pixels are "
            f"uint8 in 0..255 or floating point in 0..1; spread them over this "
            f"range. Received: {images.dtype} pixels in {low:g}..{high:g}."
        )
