"""Reads image files as arrays."""

import logging
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from PIL import Image
from PIL import ImageOps
from PIL.PngImagePlugin import PngImageFile

from vhe_tf._utils.listing import listed
from vhe_tf.data.contrast import faint_images
from vhe_tf.data.contrast import warn_of_faint

__all__ = [
    "NothingShownError",
    "listing",
    "no_drawing",
    "open_image",
    "read_each",
    "read_images",
    "resized",
]

_MODES = {1: "L", 3: "RGB"}

# Their further frames are previews, maps or layers of the one image.
_ONE_IMAGE = ("MPO", "PSD")

# The transparent value of a PNG file has the file's bits, pixels have 8 bits.
_PNG_SCALES = {"L;2": 255 / 3, "L;4": 255 / 15, "RGB;16B": 1 / 256}

# A tag of TIFF files, and one of its values.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0

# Pillow's limit, beyond which an image is suspicious; and pixels per byte, of
# which photographs have about ten.
_MANY_PIXELS, _MAX_RATIO = 89_478_485, 100

_Path = str | os.PathLike[str]
_Prepared = TypeVar("_Prepared")

_logger = logging.getLogger(__name__)


def read_images(
    paths: Iterable[_Path], *, image_size: tuple[int, int], channels: int
) -> Iterator[np.ndarray]:
    """Yields images of any format that Pillow reads.

    Each is turned upright (EXIF), flattened on white where transparent, made
    grey or RGB and resized, by area averages along an axis that shrinks and
    linearly along one that grows; its proportions are not kept. If a file has
    several frames or pages, the first one is read. At the end a warning lists
    such files, and another one images of nearly one shade.

    Args:
        paths: Iterable of paths. The files.
        image_size: `(H, W)`, both positive.
        channels: Integer. 1 for grey or 3 for RGB images.

    Yields:
        `[H, W, channels]` uint8 for each file.

    Raises:
        ValueError: If files cannot be read; after all of them were tried, so
            that the error lists the first twenty and how many there are.
    """

    def prepared(image: Image.Image) -> np.ndarray:
        image = resized(image.convert(_MODES[channels]), image_size)
        return np.asarray(image).reshape(*image_size, channels)

    paths = list(paths)
    faint = np.zeros(len(paths), bool)
    for index, image in enumerate(read_each(paths, prepared)):
        faint[index] = faint_images(image, binary=False)
        yield image
    warn_of_faint(
        faint, "files", describe=lambda at: repr(os.fspath(paths[at[0]]))
    )


class NothingShownError(ValueError):
    """An image that shows no drawing; the message is what was received."""


def read_each(
    paths: Iterable[_Path], prepare: Callable[[Image.Image], _Prepared]
) -> Iterator[_Prepared]:
    """Yields what is prepared of each image; see `read_images` for the errors.

    Args:
        paths: Iterable of paths. The files.
        prepare: Callable. Is given an image as `open_image` returns it. Raises
            `NothingShownError` if it shows no drawing.

    Raises:
        ValueError: If files cannot be read or show no drawing.
    """
    unreadable = {}
    blank = {}
    frames = {}
    for path in paths:
        try:
            image, num_frames = _read(path)
            ready = prepare(image)
        except NothingShownError as error:
            blank[os.fspath(path)] = str(error)
            continue
        # Pillow's decoders raise OSError, SyntaxError, ValueError and more for
        # broken files.
        except Exception as error:
            unreadable[os.fspath(path)] = f"{type(error).__name__}: {error}"
            continue
        if num_frames > 1:
            frames[os.fspath(path)] = f"{num_frames} frames"
        if not (unreadable or blank):
            yield ready
    if unreadable:
        raise ValueError(_not_readable(unreadable))
    if blank:
        raise ValueError(no_drawing(blank))
    if frames:
        _logger.warning(
            "Read the first frame or page alone of %d files that have several. "
            "Save the others as files of their own if they are images too:%s",
            len(frames),
            listing(frames),
        )


def open_image(path: _Path) -> Image.Image:
    """Opens an image, turned upright, opaque and of 8 bits per channel.

    Args:
        path: Path. A file of any format that Pillow knows.

    Returns:
        A grey or RGB image.

    Raises:
        ValueError: If the file cannot be read.
    """
    try:
        return _read(path)[0]
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(_not_readable({os.fspath(path): reason})) from error


def listing(reasons: Mapping[str, str]) -> str:
    """Returns lines of the first twenty names, each with a reason.

    Args:
        reasons: Mapping of strings. By name, what there is to say of it.

    Example:
    >>> print(listing({"b.png": "empty", "a.png": "cut"}))
    <BLANKLINE>
      b.png (empty)
      a.png (cut)
    """
    return listed([f"{name} ({why})" for name, why in reasons.items()])


def resized(image: Image.Image, image_size: tuple[int, int]) -> Image.Image:
    """Resizes an image by area averages, and linearly where it grows.

    Args:
        image: `PIL.Image.Image`. A grey or RGB image.
        image_size: `(H, W)`, both positive.

    Returns:
        An image of that size; its proportions are not kept.
    """
    height, width = image_size
    image = _resized_along_one_axis(image, (width, image.height))
    return _resized_along_one_axis(image, (width, height))


def _not_readable(reasons: Mapping[str, str]) -> str:
    if len(reasons) == 1:
        ((name, why),) = reasons.items()
        return (
            f"The image {name!r} cannot be read; replace or remove it. "
            f"Received: {why}"
        )
    return (
        "All images must be readable; replace or remove those that are not. "
        f"Received: {len(reasons):,} that cannot be read:{listing(reasons)}"
    )


def no_drawing(reasons: Mapping[str, str]) -> str:
    """Returns the message about images that show no drawing.

    Args:
        reasons: Mapping of strings. By name, what was received.

    Example:
    >>> no_drawing({"a.png": "a blank image"}).partition(":")[0]
    "'a.png' shows no drawing"
    """
    what = "clearly darker, or clearly lighter, than the rest"
    if len(reasons) == 1:
        ((name, why),) = reasons.items()
        return (
            f"{name!r} shows no drawing: nothing in it is {what}. Remove it, "
            "or decide by `invert` whether ink is dark. "
            f"Received: {why}."
        )
    return (
        f"All images must show a drawing, something that is {what}. Remove "
        "those that do not, or decide by `invert` whether ink is dark. To "
        "train on photographs use `vhe-tf train own_photographs --images=DIR`. "
        f"Received: {len(reasons):,} that show none:{listing(reasons)}"
    )


def _read(path: _Path) -> tuple[Image.Image, int]:
    """Returns an image, and how many the file has."""
    with Image.open(path) as file:
        _check_size(file, path)
        _scale_transparency(file)
        num_frames = getattr(file, "n_frames", 1)
        ImageOps.exif_transpose(file, in_place=True)
        return _flattened(file), 1 if file.format in _ONE_IMAGE else num_frames


def _check_size(file: Image.Image, path: _Path) -> None:
    """Rejects small files of huge images, before they are unpacked."""
    pixels = file.width * file.height
    if pixels > _MANY_PIXELS and pixels > _MAX_RATIO * os.path.getsize(path):
        raise ValueError(
            f"it unpacks to {pixels:,} pixels; save it with less than "
            f"{_MANY_PIXELS:,}"
        )


def _scale_transparency(file: Image.Image) -> None:
    """Gives the transparent level of a PNG file the 8 bits of its pixels."""
    value = file.info.get("transparency")
    # Pillow forgets how many bits there were when it loads the pixels.
    if isinstance(file, PngImageFile) and value is not None and file.tile:
        scale = _PNG_SCALES.get(str(file.tile[0].args))
        if scale and file.mode == "RGB":
            file.info["transparency"] = tuple(int(v * scale) for v in value)
        elif scale:
            file.info["transparency"] = round(value * scale)


def _flattened(image: Image.Image) -> Image.Image:
    """Returns an opaque 8-bit image, on white paper where transparent."""
    if image.mode == "I" and image.format == "PPM":  # a PGM file of 16 bits
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            "its numbers have no known range; save it with 8 or 16 bits per "
            f"channel (Pillow calls it mode {image.mode})"
        )
    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip 16-bit values to 255, and forget
        # which of them is transparent or white.
        levels = np.asarray(image)
        grey = (levels // 257).astype(np.uint8)
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 255 - grey
        grey[levels == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey)
    if not image.has_transparency_data:
        return image if image.mode == "L" else image.convert("RGB")
    image = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image)


def _resized_along_one_axis(
    image: Image.Image, size: tuple[int, int]
) -> Image.Image:
    """Resizes along the one axis, or none, on which `size` differs."""
    if size == image.size:
        return image
    shrinks = size[0] < image.width or size[1] < image.height
    resample = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return image.resize(size, resample)
