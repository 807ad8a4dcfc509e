"""Reads one image file as an array."""

import os

import numpy as np
from PIL import Image
from PIL import ImageOps

from vhe_tf._utils import validation

__all__ = [
    "check_channels",
    "check_image_size",
    "open_image",
    "read_image",
    "resized",
]

_MODES = {1: "L", 3: "RGB"}


def check_image_size(image_size: tuple[int, int]) -> None:
    """Raises ValueError unless `image_size` is two positive ints."""
    valid = isinstance(image_size, (tuple, list)) and len(image_size) == 2
    if not valid or not all(map(validation.is_positive_int, image_size)):
        raise ValueError(
            "`image_size` must be two positive ints, (height, width). "
            f"Received: image_size={image_size!r}."
        )


def check_channels(channels: int) -> None:
    """Raises ValueError unless images can have so many channels."""
    if channels not in _MODES:
        raise ValueError(
            "`channels` must be 1 (grey) or 3 (RGB). "
            f"Received: channels={channels!r}."
        )


def read_image(
    path: str | os.PathLike[str], image_size: tuple[int, int], channels: int
) -> np.ndarray:
    """Reads an image of any format that Pillow knows.

    It is turned upright (EXIF), flattened on white where transparent, made
    grey or RGB and resized, by area averages along an axis that shrinks and
    linearly along one that grows; its proportions are not kept.

    Args:
        path: The file.
        image_size: `(H, W)`, both positive.
        channels: 1 for grey or 3 for RGB images.

    Returns:
        `[H, W, channels]` uint8.

    Raises:
        ValueError: If the file cannot be read.
    """
    image = resized(open_image(path).convert(_MODES[channels]), image_size)
    return np.asarray(image).reshape(*image_size, channels)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Opens an image, turned upright, opaque and of 8 bits per channel.

    Args:
        path: A file of any format that Pillow knows.

    Returns:
        A grey or RGB image.

    Raises:
        ValueError: If the file cannot be read.
    """
    try:
        with Image.open(path) as file:
            return _flattened(ImageOps.exif_transpose(file))
    # Pillow's decoders raise OSError, SyntaxError, ValueError and more for
    # broken files.
    except Exception as error:
        raise ValueError(
            f"The image {os.fspath(path)!r} cannot be read; replace or remove "
            f"it. Received: {type(error).__name__}: {error}"
        ) from error


def resized(image: Image.Image, image_size: tuple[int, int]) -> Image.Image:
    """Resizes an image by area averages, and linearly where it grows.

    Args:
        image: A grey or RGB image.
        image_size: `(H, W)`, both positive.

    Returns:
        An image of that size; its proportions are not kept.
    """
    height, width = image_size
    image = _resized_along_one_axis(image, (width, image.height))
    return _resized_along_one_axis(image, (width, height))


def _flattened(image: Image.Image) -> Image.Image:
    """Returns an opaque 8-bit image, on white paper where transparent."""
    if image.mode in ("I", "F"):
        raise ValueError(
            "its numbers have no known range; save it with 8 or 16 bits a "
            f"channel (Pillow calls it mode {image.mode})"
        )
    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip 16-bit values to 255.
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB") if image.mode != "L" else image.copy()
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
