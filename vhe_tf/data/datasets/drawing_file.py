"""Reads a photograph or a scan of one drawing, as a model sees drawings."""

import os
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL import ImageFilter

from vhe_tf.data.datasets.image_file import open_image
from vhe_tf.data.datasets.image_file import resized
from vhe_tf.data.polarity import found_polarity

__all__ = ["read_drawing"]

_SIDE = 256  # of the page on which ink is looked for
_SMALL_SIDE = 64  # of the page by which dark and light ink are distinguished
_INK_SIDE = 20 / 28  # of the image: as large as characters of Omniglot are
_LEAST_INK_SIDE = 0.4  # of an image that is not cropped
_LEAST_DARKNESS = 0.1
_MIN_SPECK = 9  # pixels of the page within a square of 7x7


class _Ink(NamedTuple):
    """Ink on a page, and whether the page is even, as of a digital drawing."""

    mask: np.ndarray  # [h, w] bool
    page_is_even: bool

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge, as Pillow counts."""
        rows, columns = np.nonzero(self.mask)
        return (
            int(columns.min()),
            int(rows.min()),
            int(columns.max()) + 1,
            int(rows.max()) + 1,
        )

    @property
    def side(self) -> float:
        """The longer side of the box, as a fraction of that of the page."""
        left, upper, right, lower = self.box
        return max(right - left, lower - upper) / max(self.mask.shape)


def read_drawing(
    path: str | os.PathLike[str],
    image_size: tuple[int, int],
    *,
    invert: bool | None = None,
) -> np.ndarray:
    """Reads a photograph or a scan of one drawing.

    Ink is what is darker than the paper around it, so that shadows and grey
    paper do not count; what is dark along the edges of the image does not
    either. The ink is brought to the middle and to the size of characters of
    Omniglot, and its strokes to at least the width of a pixel. An image with
    an even background that the ink fills keeps its frame. An image of the size
    of the model is only made binary.

    Args:
        path: Path. A file of any format that Pillow knows.
        image_size: `(H, W)` of the image to return.
        invert: Boolean or None. True for dark ink, False for light ink. None
            decides by the image. Defaults to None.

    Returns:
        `[H, W, 1]` float32. 1 is ink, 0 is paper.

    Raises:
        ValueError: If the file cannot be read, or has no ink.
    """
    image = open_image(path).convert("RGB")
    if (image.height, image.width) == tuple(image_size):
        return _as_it_is(image, invert)
    ink = _find_ink(image, invert)
    if ink is None:
        raise ValueError(
            f"{os.fspath(path)!r} shows no drawing: nothing in it is clearly "
            "darker, or clearly lighter, than the rest. "
            f"Received: an image of {image.width}x{image.height} pixels."
        )
    height, width = image_size
    aspect = (image.width * height) / (image.height * width)
    keeps_frame = ink.page_is_even and abs(aspect - 1) < 0.1
    if ink.side < _LEAST_INK_SIDE:
        keeps_frame = False
        ink = _find_ink(image.crop(_around(ink, image)), invert) or ink
    page = _image_of(ink.mask)
    if not keeps_frame:
        page = page.crop(_frame(ink.box, width / height))
    coverage = np.asarray(resized(page, image_size), np.float32) / 255
    pixel = page.width / width
    threshold = min(0.5, 0.45 * _stroke_width(ink.mask) / pixel)
    return (coverage >= threshold).astype(np.float32)[..., np.newaxis]


def _as_it_is(image: Image.Image, invert: bool | None) -> np.ndarray:
    levels = np.asarray(image.convert("L"), np.float32)[..., np.newaxis] / 255
    if invert is None:
        invert = not found_polarity(levels[np.newaxis]).page_is_dark
    return ((levels < 0.5) == invert).astype(np.float32)


def _find_ink(image: Image.Image, invert: bool | None) -> _Ink | None:
    size = _shrunk((image.height, image.width), _SIDE)
    # The darkest channel: ink of any colour is dark in one of them.
    darkest = np.asarray(resized(image, size)).min(axis=2)
    page = Image.fromarray(darkest).filter(ImageFilter.GaussianBlur(0.7))
    levels = np.asarray(page, np.float32) / 255
    border = _border(levels)
    low, high = np.quantile(border, [0.1, 0.9])
    is_even = bool(high - low < 0.06)
    if invert is None:
        invert = _ink_is_dark(page, levels, is_even)
    if not invert:
        page, levels = Image.eval(page, lambda v: 255 - v), 1 - levels
    paper = np.median(_border(levels)) if is_even else _paper(page)
    darkness = np.clip(1 - levels / np.maximum(paper, 0.02), 0, 1)
    base = float(np.median(darkness))
    noise = 1.4826 * float(np.median(np.abs(darkness - base)))
    mask = darkness > base + max(_LEAST_DARKNESS, 4 * noise)
    if not is_even:
        mask = _without_border(mask)
    mask = _without_specks(mask)
    if not mask.any():
        return None
    mask &= darkness > base + 0.5 * (np.median(darkness[mask]) - base)
    return _Ink(mask, is_even)


def _shrunk(size: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _border(values: np.ndarray) -> np.ndarray:
    """Returns the outermost pixels, flat."""
    return np.concatenate(
        [values[0], values[-1], values[1:-1, 0], values[1:-1, -1]]
    )


def _ink_is_dark(page: Image.Image, levels: np.ndarray, is_even: bool) -> bool:
    if is_even:
        found = found_polarity(levels[np.newaxis, :, :, np.newaxis])
        if found.light or found.dark:
            return not found.page_is_dark
    small = resized(page, _shrunk((page.height, page.width), _SMALL_SIDE))
    paper = small.filter(ImageFilter.MedianFilter(_SMALL_SIDE // 4 + 1))
    darker = np.asarray(paper, np.float64) - np.asarray(small, np.float64)
    return bool((darker**3).sum() >= 0)


def _paper(page: Image.Image) -> np.ndarray:
    """Returns how light the paper is around each pixel, `[h, w]`.

    The closing of the page: strokes that are narrower than its window vanish.
    """
    # Windows of 5 pixels, one after the other, make a wide one.
    times = max(page.size) // 16
    for closing in (ImageFilter.MaxFilter(5), ImageFilter.MinFilter(5)):
        for _ in range(times):
            page = page.filter(closing)
    return np.asarray(page, np.float32) / 255


def _without_border(mask: np.ndarray) -> np.ndarray:
    """Removes what is connected to the border, unless it is the drawing."""
    outside = mask.copy()
    outside[1:-1, 1:-1] = False
    count = 0
    while outside.sum() > count:
        count = outside.sum()
        outside = _dilated(outside, 3) & mask
    # The edge of what is dark is blurred.
    kept = mask & ~_dilated(outside, 5)
    is_frame = _border(mask).mean() > 0.2 and _without_specks(kept).any()
    return kept if is_frame or kept.sum() > 0.7 * mask.sum() else mask


def _dilated(mask: np.ndarray, window: int) -> np.ndarray:
    grown = _image_of(mask).filter(ImageFilter.MaxFilter(window))
    return np.asarray(grown) > 0


def _image_of(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(255 * mask.astype(np.uint8))


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """Removes pixels with few others around them."""
    around = np.asarray(_image_of(mask).filter(ImageFilter.BoxBlur(3)))
    return mask & (around * (7 * 7 / 255) >= _MIN_SPECK - 0.5)


def _around(ink: _Ink, image: Image.Image) -> tuple[int, int, int, int]:
    """Returns the box of ink in the image, with a margin."""
    scale = max(image.size) / max(ink.mask.shape)
    left, upper, right, lower = (scale * edge for edge in ink.box)
    margin = 0.3 * max(right - left, lower - upper) + 2 * scale
    return (
        max(0, round(left - margin)),
        max(0, round(upper - margin)),
        min(image.width, round(right + margin)),
        min(image.height, round(lower + margin)),
    )


def _frame(
    box: tuple[int, int, int, int], aspect: float
) -> tuple[int, int, int, int]:
    """Returns a frame of this proportion with the box in its middle."""
    left, upper, right, lower = box
    side = max((right - left) / aspect, lower - upper) / _INK_SIDE
    x, y = (left + right) / 2, (upper + lower) / 2
    width = max(1, round(side * aspect))
    height = max(1, round(side))
    left, upper = round(x - width / 2), round(y - height / 2)
    return left, upper, left + width, upper + height


def _stroke_width(mask: np.ndarray) -> float:
    """Returns the mean width of strokes: twice the area by the perimeter."""
    padded = np.pad(mask, 1).astype(np.int8)
    edges = sum(np.abs(np.diff(padded, axis=axis)).sum() for axis in (0, 1))
    # Edges along a diagonal are counted with the length of both sides.
    return float(2 * mask.sum() / (edges * np.pi / 4))
