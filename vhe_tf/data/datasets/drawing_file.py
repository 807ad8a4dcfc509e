"""Reads photographs or scans of drawings, as a model sees drawings."""

import contextlib
import logging
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL import ImageFilter

from vhe_tf.data.datasets.image_file import NothingShownError
from vhe_tf.data.datasets.image_file import listing
from vhe_tf.data.datasets.image_file import no_drawing
from vhe_tf.data.datasets.image_file import open_image
from vhe_tf.data.datasets.image_file import read_each
from vhe_tf.data.datasets.image_file import resized
from vhe_tf.data.polarity import found_polarity
from vhe_tf.data.polarity import with_ink_high

__all__ = ["Drawing", "drawing_levels", "read_drawings", "read_levels"]

_logger = logging.getLogger(__name__)

_SIDE = 256  # of the page on which ink is looked for
_SMALL_SIDE = 64  # of the page by which dark and light ink are distinguished
_INK_SIDE = 20 / 28  # of the image: as large as characters of Omniglot are
_LEAST_INK_SIDE = 0.4  # of an image that is not cropped
_LEAST_DARKNESS = 0.1
_MOST_OF_TWO_LEVELS = 0.8  # of the pixels of an image without shadows
_LEAST_INK = 0.05  # of the pixels of a drawing that reaches the edges
_MAX_SAMPLE = 200  # images by which to distinguish light pages from dark ones
_MIN_SPECK = 9  # pixels of the page within a square of 7x7
_WINDOW = _SIDE // 4 + 1  # of the closing that removes strokes from the page


class Drawing(NamedTuple):
    """One drawing, as a model sees it.

    Attributes:
        levels: `[H, W, 1]` uint8. Ink is 128 to 255, paper less.
        colour: `[3]` float32 in 0..1. The ink, as it would be on white paper.
    """

    levels: np.ndarray
    colour: np.ndarray


class _Ink(NamedTuple):
    """Ink on a page, and whether the page is even, as of a digital drawing."""

    mask: np.ndarray  # [h, w] bool
    page_is_even: bool
    is_dark: bool
    colour: np.ndarray

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


def read_drawings(
    paths: Iterable[str | os.PathLike[str]],
    *,
    image_size: tuple[int, int],
    invert: bool | None = None,
) -> Iterator[Drawing]:
    """Yields photographs or scans of one drawing each.

    Ink is what is darker than the paper around it, so that shadows and
    coloured paper do not count; what is dark along the edges of the image does
    not either. The ink is brought to the middle and to the size of characters
    of Omniglot, and its strokes to at least the width of a pixel. An image with
    an even background that the ink fills keeps its frame. An image of the size
    of the model is not changed, but for its contrast. All of this is the same
    for light ink on dark paper.

    Args:
        paths: Iterable of paths. Files of any format that Pillow knows.
        image_size: `(H, W)` of the images to return.
        invert: Boolean or None. True for dark ink, False for light ink. None
            decides for each image. Defaults to None.

    Yields:
        The drawing of each file.

    Raises:
        ValueError: If files cannot be read, or have no ink; after all of them
            were tried, as by `read_images`.
    """
    return read_each(
        paths, lambda image: _drawing_in(image, image_size, invert)
    )


def read_levels(
    paths: Iterable[str | os.PathLike[str]],
    *,
    image_size: tuple[int, int],
    invert: bool | None = None,
) -> Iterator[np.ndarray]:
    """Yields images of one drawing each as those of a data set are read.

    Args:
        paths: As in `read_drawings`.
        image_size: As in `read_drawings`.
        invert: As in `read_drawings`.

    Yields:
        `[H, W, 1]` uint8 for each file, see `drawing_levels`.

    Raises:
        ValueError: As `read_drawings`.
    """
    return read_each(paths, lambda image: _levels(image, image_size, invert))


def drawing_levels(
    paths: Sequence[str | os.PathLike[str]],
    *,
    image_size: tuple[int, int],
    invert: bool | None,
    source: str | os.PathLike[str],
) -> Iterator[np.ndarray]:
    """Yields drawings of a data set, ink high.

    Ink is dark in all of them, or light in all of them. An image that is not a
    photograph keeps its frame and is resized; its strokes keep the width of a
    pixel. Photographs are read as by `read_drawings`. A few images may show no
    drawing: their levels are below 16, and all equal if the file is of one
    shade. A warning lists them.

    Args:
        paths: Sequence of paths. The files.
        image_size: `(H, W)` of the images.
        invert: Boolean or None. True for dark ink, False for light ink. None
            decides by the images as `with_ink_high` does.
        source: Path. Where the files are, for the warnings.

    Yields:
        `[H, W, 1]` uint8 for each file. Ink is 128 to 255, paper less.

    Raises:
        ValueError: If files cannot be read, or most of them show no drawing.
    """
    ink_is_dark = _ink_of_all_is_dark(
        paths, image_size, invert=invert, source=os.fspath(source)
    )

    def prepared(image: Image.Image) -> tuple[np.ndarray, str | None]:
        try:
            return _levels(image, image_size, ink_is_dark), None
        except NothingShownError as error:
            return _blank(image, image_size), str(error)

    blank = {}
    prepared_images = read_each(paths, prepared)
    for path, (levels, reason) in zip(paths, prepared_images, strict=True):
        if reason:
            blank[os.fspath(path)] = reason
        yield levels
    if 2 * len(blank) > len(paths):
        raise ValueError(no_drawing(blank))
    if blank:
        _logger.warning(
            "%s: %d of %d images show no drawing and are read as blank. Remove "
            "them, or decide by `invert` whether ink is dark:%s",
            os.fspath(source),
            len(blank),
            len(paths),
            listing(blank),
        )


def _ink_of_all_is_dark(
    paths: Sequence[str | os.PathLike[str]],
    image_size: tuple[int, int],
    *,
    invert: bool | None,
    source: str,
) -> bool:
    some = []
    for path in paths[:: -(-len(paths) // _MAX_SAMPLE)]:
        with contextlib.suppress(ValueError):  # reported with all others
            image = resized(open_image(path).convert("L"), image_size)
            some.append(np.asarray(image)[..., np.newaxis])
    if not some:
        return invert is not False
    sample = np.stack(some)
    return with_ink_high(sample, invert=invert, source=source) is not sample


def _levels(
    image: Image.Image, image_size: tuple[int, int], ink_is_dark: bool | None
) -> np.ndarray:
    image = image.convert("RGB")
    _check_contrast(image)
    if (image.height, image.width) == tuple(image_size):
        return _as_it_is(image, ink_is_dark).levels
    mask = _mask_of_two_levels(image, ink_is_dark)
    if mask is None:
        return _found(image, image_size, ink_is_dark).levels
    return _coverage(_image_of(mask), image_size, _stroke_width(mask))


def _drawing_in(
    image: Image.Image, image_size: tuple[int, int], invert: bool | None
) -> Drawing:
    image = image.convert("RGB")
    _check_contrast(image)
    if (image.height, image.width) == tuple(image_size):
        return _as_it_is(image, invert)
    return _found(image, image_size, invert)


def _check_contrast(image: Image.Image) -> None:
    if np.ptp(image.getextrema(), axis=1).max() < 255 * _LEAST_DARKNESS:
        raise _nothing_in(image)


def _blank(image: Image.Image, image_size: tuple[int, int]) -> np.ndarray:
    levels = np.asarray(resized(image.convert("L"), image_size))
    return np.minimum(levels - levels.min(), 15)[..., np.newaxis]


def _mask_of_two_levels(
    image: Image.Image, ink_is_dark: bool | None
) -> np.ndarray | None:
    """Returns where ink is, if an image has hardly other levels than two.

    Then it is not a photograph with shadows. None takes the level of fewer
    pixels for ink.
    """
    levels = np.asarray(image.convert("L"), np.float32)
    levels -= levels.min()
    if not levels.any():  # It has several colours.
        return None
    levels /= levels.max()
    if (np.abs(levels - 0.5) > 0.4).mean() < _MOST_OF_TWO_LEVELS:
        return None
    if ink_is_dark is None:
        ink_is_dark = bool(levels.mean() > 0.5)
    return levels < 0.5 if ink_is_dark else levels > 0.5


def _ink_of_two_levels(image: Image.Image, invert: bool | None) -> _Ink | None:
    """Returns the ink of a drawing that reaches the edges of its image."""
    mask = _mask_of_two_levels(image, invert)
    if mask is None or mask.mean() < _LEAST_INK:
        return None
    levels = np.asarray(image, np.float32) / 255
    ink, paper = (np.median(levels[m], axis=0) for m in (mask, ~mask))
    is_dark = bool(ink.mean() < paper.mean())
    if not is_dark:
        levels, paper = 1 - levels, 1 - paper
    return _Ink(mask, True, is_dark, _on_white(levels, paper, mask))


def _coverage(
    page: Image.Image, image_size: tuple[int, int], stroke: float
) -> np.ndarray:
    """Returns levels `[H, W, 1]`; strokes keep the width of a pixel."""
    coverage = np.asarray(resized(page, image_size), np.float32) / 255
    pixel = max(page.width / image_size[1], page.height / image_size[0])
    threshold = min(0.5, 0.45 * stroke / pixel)
    return _uint8(np.minimum(coverage * (0.5 / threshold), 1))


def _found(
    image: Image.Image, image_size: tuple[int, int], invert: bool | None
) -> Drawing:
    ink = _find_ink(image, invert)
    if ink is None or not ink.page_is_even:
        ink = _ink_of_two_levels(image, invert) or ink
    if ink is None:
        raise _nothing_in(image)
    height, width = image_size
    aspect = (image.width * height) / (image.height * width)
    keeps_frame = ink.page_is_even and abs(aspect - 1) < 0.1
    if ink.side < _LEAST_INK_SIDE:
        keeps_frame = False
        ink = _find_ink(image.crop(_around(ink, image)), ink.is_dark) or ink
    page = _image_of(ink.mask)
    if not keeps_frame:
        page = page.crop(_frame(ink.box, width / height))
    levels = _coverage(page, image_size, _stroke_width(ink.mask))
    return Drawing(levels, ink.colour)


def _as_it_is(image: Image.Image, invert: bool | None) -> Drawing:
    levels = np.asarray(image.convert("L"), np.float32) / 255
    low, high = levels.min(), levels.max()
    if high - low < _LEAST_DARKNESS:
        raise _nothing_in(image)
    levels = (levels - low) / (high - low)
    if invert is None:
        found = found_polarity(levels[np.newaxis, :, :, np.newaxis])
        invert = not found.page_is_dark
    drawn = _uint8(1 - levels if invert else levels)
    pixels = np.asarray(image, np.float32) / 255
    pixels = pixels if invert else 1 - pixels
    mask = drawn[..., 0] >= 128
    paper = np.median(pixels[~mask], axis=0)
    return Drawing(drawn, _on_white(pixels, paper, mask))


def _nothing_in(image: Image.Image) -> NothingShownError:
    low, high = image.convert("L").getextrema()
    return NothingShownError(
        f"an image of {image.width}x{image.height} pixels in {low}..{high}, "
        "of 0..255"
    )


def _uint8(levels: np.ndarray) -> np.ndarray:
    """Returns levels in 0..1 as uint8, `[..., 1]`; one half becomes 128."""
    return np.floor(255 * levels + 0.5).astype(np.uint8)[..., np.newaxis]


def _find_ink(image: Image.Image, invert: bool | None) -> _Ink | None:
    size = _scaled((image.height, image.width), _SIDE)
    page = resized(image, size).filter(ImageFilter.GaussianBlur(0.7))
    levels = np.asarray(page, np.float32) / 255  # [h, w, 3]
    is_even = _is_even(_border(levels).mean(axis=1))
    if invert is None:
        invert, is_even = _ink_is_dark(page, levels, is_even)
    if not invert:
        levels = 1 - levels
    of_page = _border(levels) if is_even else levels.reshape(-1, 3)
    paper = np.median(of_page, axis=0)
    darkness = _darkness(levels, paper)
    if not is_even:
        lightness = 1 - darkness
        darkness = 1 - lightness / np.maximum(_closed(lightness), 0.02)
    plain = darkness
    if is_even and np.median(darkness) > _LEAST_DARKNESS:
        plain = _border(darkness)  # more ink than paper
    base = float(np.median(plain))
    noise = 1.4826 * float(np.median(np.abs(plain - base)))
    mask = darkness > base + max(_LEAST_DARKNESS, 4 * noise)
    if not is_even:
        mask = _without_border(mask)
    mask = _without_specks(mask)
    if not mask.any():
        return None
    # Weighted by itself: ink counts more than grains of the paper.
    above = darkness[mask] - base
    mask &= darkness > base + 0.5 * (above**3).sum() / (above**2).sum()
    return _Ink(mask, is_even, invert, _on_white(levels, paper, mask))


def _scaled(size: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = longest / max(size)
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _border(values: np.ndarray) -> np.ndarray:
    """Returns the outermost pixels, in a row."""
    return np.concatenate(
        [values[0], values[-1], values[1:-1, 0], values[1:-1, -1]]
    )


def _is_even(border: np.ndarray) -> bool:
    """Returns whether levels along the border are of paper without shadows.

    Those of a digital page are equal but for ink that touches the border.
    """
    low, middle, high = np.quantile(border, [0.1, 0.5, 0.9])
    is_equal = np.abs(border - middle) < 1.5 / 255
    return bool(high - low < 0.06 or is_equal.mean() > 0.6)


def _darkness(levels: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """Returns how much darker than paper pixels are, at most 1, `[h, w]`.

    In the channel that shows it most: ink of any colour is dark in one. A
    channel that the paper hardly has counts less.
    """
    scale = np.maximum(paper, 0.5 * paper.max())
    return ((paper - levels) / np.maximum(scale, 0.02)).max(axis=2)


def _on_white(
    levels: np.ndarray, paper: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Returns the colour of ink as it would be on white paper, `[3]`."""
    seen = levels / np.maximum(paper, 0.02)
    return np.clip(np.median(seen[mask], axis=0), 0, 1).astype(np.float32)


def _ink_is_dark(
    page: Image.Image, levels: np.ndarray, is_even: bool
) -> tuple[bool, bool]:
    """Returns whether ink is dark, and whether the border is paper."""
    if is_even:
        below = np.median(_border(levels), axis=0) - levels
        is_inked = np.abs(below).max(axis=2) > _LEAST_DARKNESS
        is_dark = bool((below**3).sum() >= 0)
        # Else it may be light paper on a dark table.
        if is_dark or is_inked.mean() < 0.5:
            return is_dark, True
    small = resized(page, _scaled((page.height, page.width), _SMALL_SIDE))
    paper = small.filter(ImageFilter.MedianFilter(_SMALL_SIDE // 4 + 1))
    darker = np.asarray(paper, np.float64) - np.asarray(small, np.float64)
    return bool((darker**3).sum() >= 0), False


def _closed(lightness: np.ndarray) -> np.ndarray:
    """Returns the lightness of the paper around each pixel, `[h, w]`.

    The closing of the page: strokes that are narrower than its window vanish.
    """
    for extreme in (np.maximum, np.minimum):
        lightness = _slid(_slid(lightness, extreme).T, extreme).T
    return lightness


def _slid(values: np.ndarray, extreme: Callable[..., np.ndarray]) -> np.ndarray:
    """Returns the extremes of windows along the first axis."""
    half = _WINDOW // 2
    values = np.pad(values, [(half, half), (0, 0)], mode="edge")
    span = 1
    while span < _WINDOW:
        step = min(span, _WINDOW - span)
        values = extreme(values[:-step], values[step:])
        span += step
    return values


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
    # Pillow repeats the pixels of the edge.
    padded = _image_of(np.pad(mask, 3)).filter(ImageFilter.BoxBlur(3))
    around = np.asarray(padded)[3:-3, 3:-3]
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
