"""The polarity of drawings: dark ink on light pages, or light on dark."""

import logging
from typing import NamedTuple

import numpy as np

__all__ = [
    "Polarity",
    "found_polarity",
    "warn_if_paper_is_ink",
    "with_ink_high",
]

_logger = logging.getLogger(__name__)


class Polarity(NamedTuple):
    """Counts of drawings by their page, which is the border of each.

    Attributes:
        light: Integer. Drawings whose border and mean are both light.
        dark: Integer. Drawings whose border and mean are both dark.
        unclear: Integer. All others.
        border: Float from 0 to 1. The mean of all borders.
        mean: Float from 0 to 1. The mean of all pixels.
    """

    light: int
    dark: int
    unclear: int
    border: float
    mean: float

    @property
    def page_is_dark(self) -> bool:
        """Returns whether more pages are dark than light."""
        return self.dark > self.light

    def __str__(self) -> str:
        return (
            f"{self.light} on a light page, {self.dark} on a dark page, "
            f"{self.unclear} unclear; mean of the border {self.border:.2f}, of "
            f"all pixels {self.mean:.2f} (0 is black, 1 is white)"
        )


def found_polarity(images: np.ndarray) -> Polarity:
    """Returns the polarity of drawings, from their borders and mean.

    Args:
        images: `[M, H, W, C]`, uint8 in 0..255 or floating point in 0..1.

    Example:
    >>> drawing = np.full([1, 8, 8, 1], 255, np.uint8)  # a light page
    >>> drawing[0, 2:6, 3] = 0  # a dark stroke
    >>> found_polarity(drawing).page_is_dark
    False
    >>> found_polarity(255 - drawing).page_is_dark
    True
    """
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    mean = images.mean(axis=(1, 2, 3), dtype=np.float64) / scale
    edges = [images[:, :1], images[:, -1:], images[:, 1:-1, :1]]
    edges.append(images[:, 1:-1, -1:])
    flat = [edge.reshape(len(images), -1) for edge in edges]
    border = np.concatenate(flat, axis=1).mean(axis=1, dtype=np.float64) / scale
    light = int(np.sum((border > 0.5) & (mean > 0.5)))
    dark = int(np.sum((border < 0.5) & (mean < 0.5)))
    return Polarity(
        light,
        dark,
        len(images) - light - dark,
        float(border.mean()),
        float(mean.mean()),
    )


def with_ink_high(
    images: np.ndarray,
    *,
    invert: bool | None = None,
    source: str = "the images",
) -> np.ndarray:
    """Returns drawings with ink 255, or 1, as this package has them.

    One decision holds for all images. A warning says what was found if it is
    not that of light pages alone, or if `invert` contradicts it.

    Args:
        images: `[M, H, W, C]`, uint8 in 0..255 or floating point in 0..1.
        invert: Boolean or None. Whether to swap light and dark. True is for
            dark ink on light pages. None decides by the border and the mean:
            it inverts unless more pages are dark than light. Defaults to None.
        source: String. Where the images are from, for the warning.

    Returns:
        Array of the same shape and dtype.

    Example:
    >>> page = np.full([1, 8, 8, 1], 255, np.uint8)
    >>> int(with_ink_high(page).max())
    0
    """
    found = found_polarity(images)
    inverts = not found.page_is_dark if invert is None else invert
    odd = found.light if found.page_is_dark else found.dark
    if invert is not None and inverts == found.page_is_dark:
        _logger.warning(
            "%s: `invert=%s` makes ink of the page. Found: %s. Leave `invert` "
            "out to decide by what is found, or pass `invert=%s`.",
            source,
            invert,
            found,
            not invert,
        )
    elif invert is None and (
        found.page_is_dark or odd or found.unclear > found.light
    ):
        ink, page = ("dark", "light") if inverts else ("light", "dark")
        _logger.warning(
            "%s: all images are read as %s ink on a %s page. Found: %s. If "
            "that is wrong, pass `invert=%s`.",
            source,
            ink,
            page,
            found,
            not inverts,
        )
    if not inverts:
        return images
    return 255 - images if images.dtype == np.uint8 else 1 - images


def warn_if_paper_is_ink(images: np.ndarray, name: str) -> None:
    """Warns of drawings most of whose borders and pixels are ink.

    Args:
        images: `[..., H, W, C]`, ink 255 or 1: uint8 in 0..255 or floating
            point in 0..1.
        name: String. What they are, for the warning.
    """
    found = found_polarity(images.reshape(-1, *images.shape[-3:]))
    if found.light > found.dark:
        _logger.warning(
            "%r is mostly ink: is the page ink? In this package ink is %d and "
            "paper is 0; pass %d - images if it is the other way round. Found: "
            "mean of the border %.2f, of all pixels %.2f.",
            name,
            *[255 if images.dtype == np.uint8 else 1] * 2,
            found.border,
            found.mean,
        )
