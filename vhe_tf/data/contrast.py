"""Checks that images show something: each of them, and each class."""

import logging
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = [
    "check_classes",
    "check_contrast",
    "faint_images",
    "shows_something",
    "warn_of_faint",
]

# Photographs whose darkest and brightest pixels are closer show nothing. Pixels
# of 4 bits that are read as 8 bits lie in 15 / 255.
_LEAST_SPREAD = 1 / 16

# Half of fewer images may be faint by chance.
_LEAST_TO_HALVE = 8

_MAX_LISTED = 20

_SCALE = (
    "Pixels are uint8 in 0..255 or floating point in 0..1; spread them over "
    "this range"
)

_logger = logging.getLogger(__name__)


def check_contrast(
    images: np.ndarray,
    name: str,
    *,
    binary: bool,
    constant: bool = False,
    warns: bool = True,
) -> None:
    """Raises a `ValueError` for images that are all blank or all ink.

    Most often they are on another scale: 0 and 1 in uint8, 4 bits in 8, 12
    bits in 16, or divided by 255 twice. If less than half of them are faint
    (see `faint_images`), or not all of fewer than eight, a warning names these.

    Args:
        images: `[..., H, W, C]`, uint8 in 0..255 or floating point in 0..1.
            Arrays with fewer axes count as one image.
        name: String. What they are, for the error.
        binary: Boolean. Whether they become binary at one half.
        constant: Boolean. Whether images with one value throughout are
            allowed. Defaults to False.
        warns: Boolean. Whether to warn of some that are faint. Defaults to
            True.

    Raises:
        ValueError: If no pixel, or every pixel, is ink, or the values span
            less than a sixteenth of the scale; or if half of the images, of
            fewer than eight all, are faint. The message has their range.

    Example:
    >>> check_contrast(np.array([[0, 255]], np.uint8), "images", binary=True)
    """
    scale = 255 if images.dtype == np.uint8 else 1
    lows, highs = _ranges(images)
    low, high = float(lows.min()), float(highs.max())
    if constant and low == high:
        return
    received = f"Received: {images.dtype} pixels in {low:g}..{high:g}"
    if not shows_something(low / scale, high / scale, binary=binary):
        shown = "of one shade"
        if binary:
            shown = "blank" if high < scale / 2 else "ink"
        raise ValueError(
            f"All of {name!r} is {shown}; is it on another scale? {_SCALE}. "
            f"{received}."
        )
    faint = _faint(lows / scale, highs / scale, binary=binary)
    count = int(faint.sum())
    few = faint.size < _LEAST_TO_HALVE
    if count == faint.size or (2 * count >= faint.size and not few):
        worst = f"{lows[faint].min():g}..{highs[faint].max():g}"
        raise ValueError(
            f"Half of {name!r} or more becomes blank, ink or of one shade; are "
            f"these images on another scale than the others? {_SCALE}. "
            f"{received}; {count:,} such images of {faint.size:,} with pixels "
            f"in {worst}: {_listed(faint, _place)}."
        )
    if warns:
        warn_of_faint(faint, name)


def faint_images(images: np.ndarray, *, binary: bool) -> np.ndarray:
    """Returns which images have a drawing that is not seen at this scale.

    Images of one value throughout are blank by themselves, and not faint.

    Args:
        images: As in `check_contrast`.
        binary: Boolean. As in `check_contrast`.

    Returns:
        `[...]` bool.

    Example:
    >>> images = np.zeros((3, 8, 8, 1), np.uint8)
    >>> images[1:, 2:5, 2] = [[[1]], [[255]]]
    >>> faint_images(images, binary=True)
    array([False,  True, False])
    """
    scale = 255 if images.dtype == np.uint8 else 1
    lows, highs = _ranges(images)
    return _faint(lows / scale, highs / scale, binary=binary)


def warn_of_faint(
    faint: np.ndarray,
    name: str,
    *,
    describe: Callable[[tuple[int, ...]], str] | None = None,
) -> None:
    """Warns of some images that are faint, the first twenty by their names.

    Args:
        faint: `[...]` bool, which images are faint, from `faint_images`.
        name: String. What they are.
        describe: Callable. Returns the name of an image from its index.
            Defaults to None, the index itself.

    Example:
    >>> warn_of_faint(np.array([False, False]), "images")
    """
    if faint.any():
        _logger.warning(
            "%d of %d images of %r become blank, ink or of one shade; are they "
            "on another scale than the others? %s, or remove them: %s.",
            faint.sum(),
            faint.size,
            name,
            _SCALE,
            _listed(faint, describe or _place),
        )


def check_classes(
    images: np.ndarray,
    labels: Mapping[str, np.ndarray],
    *,
    names: Mapping[str, Mapping[int, str]],
    binary: bool,
    sampled: bool = False,
) -> None:
    """Raises a `ValueError` if many groups have faint images alone.

    One group may be of blank pages. A second one could not be distinguished
    from it, and is warned of. Two or more that are a tenth of the groups are an
    error. Groups of a single image may be faint once in a while.

    Args:
        images: `[M, H, W, C]`, as in `check_contrast`.
        labels: Mapping of strings to arrays. By grouping, `[M]` ids, negative
            where there is none.
        names: Mapping of strings. By grouping, the names of the groups, by id.
        binary: Boolean. As in `check_contrast`.
        sampled: Boolean. Whether the groups may have other images, so that
            these are only warned of. Defaults to False.

    Raises:
        ValueError: If there are so many such groups. The message names twenty.

    Example:
    >>> images = np.full((4, 8, 8, 1), 255, np.uint8)
    >>> ids = {"character": np.array([0, 0, 1, 1])}
    >>> check_classes(images, ids, names={}, binary=True)
    """
    lows, highs = _ranges(images)
    scale = 255 if images.dtype == np.uint8 else 1
    faint = _faint(lows / scale, highs / scale, binary=binary)
    if not faint.any():
        return
    seen = ~faint & (lows < highs)
    for grouping, ids in labels.items():
        groups, inverse = np.unique(ids, return_inverse=True)
        num_seen, num_faint = (
            np.bincount(inverse, weights=which, minlength=len(groups))
            for which in (seen, faint)
        )
        blank = (num_seen == 0) & (num_faint > 1) & (groups >= 0)
        if blank.sum() > 1:
            known = names.get(grouping, {})
            shown: dict[tuple[int, ...], str] = {
                (index,): repr(known.get(group, group))
                for index, group in enumerate(groups.tolist())
            }
            count, total = int(blank.sum()), int((groups >= 0).sum())
            message = (
                f"Groups of {grouping!r} become blank, ink or of one shade; "
                f"are they on another scale than the others? {_SCALE}, or "
                f"remove them. Received: {count} such groups of {total}: "
                f"{_listed(blank, shown.__getitem__)}."
            )
            if 10 * count >= total and not sampled:
                raise ValueError(message)
            _logger.warning("%s", message)


def _ranges(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the smallest and the largest pixel of each image."""
    lead = images.shape[:-3] if images.ndim > 3 else ()
    flat = images.reshape(*lead, -1)
    return flat.min(axis=-1), flat.max(axis=-1)


def _faint(lows: Any, highs: Any, *, binary: bool) -> np.ndarray:
    return np.asarray(
        (lows < highs) & ~shows_something(lows, highs, binary=binary)
    )


def _place(place: tuple[int, ...]) -> str:
    return f"index {place[0] if len(place) == 1 else place}"


def _listed(
    chosen: np.ndarray, describe: Callable[[tuple[int, ...]], str]
) -> str:
    places = np.argwhere(chosen)
    some = [describe(tuple(place.tolist())) for place in places[:_MAX_LISTED]]
    more = len(places) - len(some)
    return ", ".join(some) + (f" and {more:,} more" if more else "")


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
