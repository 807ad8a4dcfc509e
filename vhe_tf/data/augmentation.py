"""New classes by symmetry, new elements by small affine maps, binarisation.

The recipe of Section 4.1: the 8 rotations and reflections of a class are 8
classes, 20 small random affine copies of an image are 20 elements of its
class, and pixels are binarised last, each time that an image is sampled.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vhe_tf import random
from vhe_tf._utils import validation

__all__ = [
    "Augmentation",
    "affine_table",
    "augmentation_of",
    "mirrored",
    "symmetry",
]

BINARIZATIONS = ("dynamic", "threshold", "none")
SYMMETRIES = (1, 2, 4, 8)

_MAX_ROTATION = math.radians(10)
_MAX_LOG_SCALE = math.log(1.15)
_MAX_SHEAR = 0.15
_MAX_SHIFT = 0.06  # of the width and height; 1.7 of 28 pixels


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of an image each time that it is used.

    Attributes:
        symmetries: Integer. 1 for none, 2 for the image and its mirror image, 4
            for the rotations by quarter turns, 8 for these and their
            reflections: each makes a group of its own. 4 and 8 need square
            images.
        affine_copies: Integer. The number of elements made of one image, itself
            included; the others are small random affine maps of it, the same
            ones throughout a run. They multiply the size of every group.
        binarization: String. `"dynamic"` samples each pixel from a Bernoulli of
            its value, `"threshold"` compares it with one half, `"none"` keeps
            it.
        image_size: Two integers `(H, W)` or None. The size to make of larger
            stored images, by taking the stored pixel at
            `floor(k * stored / wanted)`. None keeps the size.
        repeat_edges: Boolean. Whether affine copies extend beyond the border of
            an image with its last pixels, as photographs had better, instead of
            zeros, which are paper.
        num_levels: Integer or None. The number of levels, evenly spaced from 0
            to 1, to which each channel is rounded last of all. Only where
            `binarization` is `"none"`. None keeps it.

    Raises:
        ValueError: If a value is none of those named, or images were to be
            binarised and rounded.

    Example:
    >>> Augmentation(symmetries=8, affine_copies=20).affine_copies
    20
    """

    symmetries: int = 1
    affine_copies: int = 1
    binarization: str = "dynamic"
    image_size: tuple[int, int] | None = None
    repeat_edges: bool = False
    num_levels: int | None = None

    def __post_init__(self) -> None:
        validation.check_choice(SYMMETRIES, symmetries=self.symmetries)
        validation.positive("affine_copies", self.affine_copies)
        validation.check_choice(BINARIZATIONS, binarization=self.binarization)
        if self.num_levels is not None:
            validation.at_least(2, num_levels=self.num_levels)
            if self.binarization != "none":
                raise ValueError(
                    "Images are binarised or rounded to levels, not both: "
                    "pass binarization='none' for levels, or leave "
                    "`num_levels` out. Received: "
                    f"binarization={self.binarization!r}, "
                    f"num_levels={self.num_levels}."
                )
        if self.image_size is not None:
            validation.check_image_size(self.image_size)

    @property
    def multiplicity(self) -> int:
        """The number of elements that one stored image stands for."""
        return self.symmetries * self.affine_copies


def augmentation_of(
    event_shape: Sequence[int], augmentation: Augmentation | None
) -> Augmentation:
    """Returns the augmentation of elements; a `ValueError` if they have none.

    Args:
        event_shape: Integers. The shape of an element.
        augmentation: `Augmentation` or None. The one that was asked for, or
            None.

    Example:
    >>> augmentation_of((8, 8, 1), None).binarization
    'dynamic'
    """
    if validation.is_image_shape(event_shape):
        return augmentation or Augmentation()
    none = Augmentation(binarization="none")
    if augmentation not in (None, none):
        raise ValueError(
            "Augmentation is for images, elements of shape (H, W, C). Leave "
            f"`augmentation` out. Received: {augmentation} with elements of "
            f"shape {tuple(event_shape)}."
        )
    return none


def affine_table(
    num_images: int,
    num_copies: int,
    *,
    stored_size: tuple[int, int],
    image_size: tuple[int, int],
    seed: int,
) -> np.ndarray:
    """Samples the affine maps of every copy of every image.

    Args:
        num_images: Integer. The number of images.
        num_copies: Integer. The number of copies of each; the first is the
            identity.
        stored_size: `(H, W)` of the stored images.
        image_size: `(H, W)` of the images to make.
        seed: Integer. Random seed of the maps.

    Returns:
        `[num_images, num_copies, 8]` float32, projective transforms from
        pixels (x, y) of the image to make to those of the stored image.
    """
    generator = np.random.default_rng(seed)
    shape = (num_images, num_copies)

    def uniform(limit: float) -> np.ndarray:
        return generator.uniform(-limit, limit, shape)

    angle, shear = uniform(_MAX_ROTATION), uniform(_MAX_SHEAR)
    scale_x = np.exp(uniform(_MAX_LOG_SCALE))
    scale_y = np.exp(uniform(_MAX_LOG_SCALE))
    shift_x, shift_y = uniform(_MAX_SHIFT), uniform(_MAX_SHIFT)
    for value, identity in (
        (angle, 0), (shear, 0), (scale_x, 1), (scale_y, 1), (shift_x, 0),
        (shift_y, 0),
    ):  # fmt: skip
        value[:, 0] = identity
    cosine, sine = np.cos(angle), np.sin(angle)
    # Around the centre: rotation @ shear @ scale, then the shift.
    linear = np.empty((*shape, 2, 2))
    linear[..., 0, 0] = scale_x * cosine
    linear[..., 0, 1] = scale_y * (cosine * shear - sine)
    linear[..., 1, 0] = scale_x * sine
    linear[..., 1, 1] = scale_y * (sine * shear + cosine)
    step, offset = _sampling_grid(stored_size, image_size)
    size = np.array(image_size[::-1])
    centre = (size - 1) / 2
    shift = np.stack([shift_x, shift_y], axis=-1) * size
    constant = centre + shift - linear @ centre
    table = np.zeros((*shape, 8), np.float32)
    table[..., 0:2] = step[0] * linear[..., 0, :]
    table[..., 2] = step[0] * constant[..., 0] + offset[0]
    table[..., 3:5] = step[1] * linear[..., 1, :]
    table[..., 5] = step[1] * constant[..., 1] + offset[1]
    return table


def _sampling_grid(
    stored_size: tuple[int, int], image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns step and offset, (x, y), of the pixels to take.

    With this offset, rounding to the nearest stored pixel gives
    `floor(k * step)` exactly, and stays as far from ties as can be.
    """
    stored = np.array(stored_size[::-1])
    wanted = np.array(image_size[::-1])
    denominator = wanted // np.gcd(stored, wanted)
    return stored / wanted, -0.5 + 0.5 / denominator


def transform(
    images: tf.Tensor,
    maps: tf.Tensor,
    *,
    image_size: tuple[int, int],
    repeat_edges: bool = False,
) -> tf.Tensor:
    """Applies one projective map per image.

    The interpolation is bilinear if the size stays the same, and otherwise
    nearest-neighbour, so that binary images stay binary.

    Args:
        images: float32 tensor of shape `[B, H0, W0, C]`, the images as stored.
        maps: float32 tensor of shape `[B, 8]`, one map per image: rows of
            `affine_table`.
        image_size: `(H, W)` of the result.
        repeat_edges: Boolean. Whether to pad with the nearest border pixel
            instead of zeros. Defaults to False.

    Returns:
        float32 tensor of shape `[B, H, W, C]`.

    Example:
    >>> identity = tf.constant([[1.0, 0, 0, 0, 1, 0, 0, 0]])
    >>> images = tf.zeros([1, 8, 8, 1])
    >>> transform(images, identity, image_size=(4, 4)).shape
    TensorShape([1, 4, 4, 1])
    """
    same_size = tuple(images.shape[1:3]) == tuple(image_size)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=maps,
        output_shape=image_size,
        fill_value=0.0,
        fill_mode="NEAREST" if repeat_edges else "CONSTANT",
        interpolation="BILINEAR" if same_size else "NEAREST",
    )


def mirrored(images: tf.Tensor, mirror: tf.Tensor) -> tf.Tensor:
    """Swaps left and right, in some of the images.

    Args:
        images: `[B, H, W, C]`, the images.
        mirror: `[B]` bool, which images to mirror.

    Returns:
        `[B, H, W, C]`.
    """
    return tf.where(
        mirror[:, None, None, None], tf.reverse(images, [2]), images
    )


def symmetry(images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Turns and reflects each square image by its own symmetry.

    Args:
        images: `[B, H, H, C]`, square images.
        index: `[B]` int in 0..7: quarter turns (index mod 4), after a
            transposition where index is 4 or more.

    Returns:
        `[B, H, H, C]`.
    """
    index = tf.cast(index, tf.int32)

    def where(condition: tf.Tensor, changed: tf.Tensor) -> tf.Tensor:
        return tf.where(condition[:, None, None, None], changed, images)

    # A quarter turn is a transposition followed by a flip of the rows.
    turns = index % 4
    odd = turns % 2 == 1
    images = where(odd != (index >= 4), tf.transpose(images, [0, 2, 1, 3]))
    images = where((turns == 1) | (turns == 2), tf.reverse(images, [1]))
    return where((turns == 2) | (turns == 3), tf.reverse(images, [2]))


def rounded(images: tf.Tensor, num_levels: int) -> tf.Tensor:
    """Rounds intensities to levels.

    Args:
        images: Tensor. Intensities in 0..1, any shape.
        num_levels: Integer, L.

    Returns:
        The nearest of 0, 1 / (L - 1), ..., 1; float32 of the same shape.
    """
    return tf.round(images * (num_levels - 1.0)) / (num_levels - 1.0)


def binarize(
    images: tf.Tensor, binarization: str, *, seeds: tf.Tensor
) -> tf.Tensor:
    """Makes pixels binary, the last of all steps.

    Args:
        images: `[B, ...]`, intensities in 0..1.
        binarization: String. One of `BINARIZATIONS`.
        seeds: `[B, 2]` int32, one seed per row, used if `binarization` is
            `"dynamic"`.

    Returns:
        float32 of the same shape, in {0, 1} unless `binarization` is
        `"none"`.
    """
    if binarization == "none":
        return images
    if binarization == "threshold":
        return tf.cast(images >= 0.5, tf.float32)
    uniform = random.uniform(tf.shape(images)[1:], seeds)
    return tf.cast(uniform < images, tf.float32)
