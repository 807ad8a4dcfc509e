"""Drawings in random styles: inks of many colours and pens of many shapes.

Section 4.3 extends Omniglot "by assigning each image to one of 30 randomly
generated styles (independent of its character class), modifying both the
colour and pen stroke characteristics of each image". A style here is an ink
and an elliptical nib. The centre line of each stroke is found by thinning [1]
and stroked again with the nib, so that the width of a stroke depends on the
style and not on whose hand drew it.

References:
    [1] Guo and Hall. Parallel Thinning with Two-Subiteration Algorithms.
        Communications of the ACM 32(3), 1989.
"""

import colorsys
import dataclasses
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from vhe_tf._utils import validation
from vhe_tf._utils.validation import check_image_size
from vhe_tf.data.augmentation import affine_table
from vhe_tf.data.augmentation import transform
from vhe_tf.data.datasets.glyphs.spec import Glyphs
from vhe_tf.data.datasets.glyphs.spec import glyph_parts
from vhe_tf.data.datasets.omniglot import Omniglot
from vhe_tf.data.datasets.omniglot import load_omniglot
from vhe_tf.data.datasets.splits import DatasetSpec
from vhe_tf.data.datasets.splits import DataSplits
from vhe_tf.data.datasets.splits import ready
from vhe_tf.data.grouped_images import GroupedImages

__all__ = ["INK_LEVELS", "PenStyle", "Styles", "pen_styles", "styled"]

INK_LEVELS = 6
"""How many levels a channel of an image in styles has: 0, 51, ... 255."""

_IMAGE_SIZE = (28, 28)
# Nibs are given for images of this height.
_REFERENCE_SIZE = 28
# Thinner strokes would break; broader ones, other than those of a flat nib,
# fill the loops of characters.
_MIN_WIDTH, _MAX_WIDTH, _MAX_FLAT_WIDTH = 1.3, 2.6, 4.0
_MIN_SATURATION, _MIN_VALUE = 0.7, 0.45
# Lighter inks, such as pure yellow, are hard to see on white paper.
_MAX_LUMA = 0.55
_LUMA = (0.299, 0.587, 0.114)

_CANDIDATES_PER_STYLE = 50
# Strokes are drawn at this multiple of the wanted size.
_OVERSAMPLING = 4
_BATCH_SIZE = 128
# From the north clockwise, (row, column).
_NEIGHBOURS = (
    (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Styles(DatasetSpec):
    """Drawings of characters in random styles (Section 4.3).

    All parts have the same styles, the grouping `"style"`; the characters of
    the test set are unseen. Images are `[M, 28, 28, 3]`: paper is 0 and an ink
    of colour c is 255 - c (see `styled`), 1 - c / 255 in the test set.

    Args:
        base: `Omniglot` or `Glyphs`. The spec of the drawings. Its `images` are
            not used: styles are drawn along the original strokes. Its `seed`
            also decides the styles and which image has which. Defaults to
            `Omniglot()`.
        num_styles: Integer. Number of styles. Defaults to 30.
        copies: Integer. Number of different styles in which each training
            image is drawn: the first without a change, the others as small
            affine maps of it. Test images are drawn in one. Defaults to 8.

    Example:
    >>> Styles(num_styles=10, copies=2).drawn
    Omniglot(split='lake', images='binary', seed=0)
    """

    name: ClassVar[str] = "styles"

    base: Omniglot | Glyphs = Omniglot()  # noqa: RUF009
    num_styles: int = 30
    copies: int = 8

    def __post_init__(self) -> None:
        if not isinstance(self.base, Omniglot | Glyphs):
            raise ValueError(
                "`base` must be `Omniglot` or `Glyphs`, drawings whose strokes "
                f"have a centre line. Received: base={self.base!r}."
            )
        _check_copies(self.num_styles, self.copies)

    @property
    def drawn(self) -> DatasetSpec:
        """See base class."""
        return self.base

    @property
    def seed(self) -> int:
        """The seed of `base`."""
        return self.base.seed

    def load(self, data_dir: str | None = None) -> DataSplits:
        """See base class."""
        validation = None
        if isinstance(self.base, Omniglot):
            train, validation, test = load_omniglot(
                self.base.split,
                recipe="original",
                data_dir=data_dir,
                seed=self.seed,
            )
        else:
            train, test = glyph_parts()
        return DataSplits(
            train=self._styled(train, self.copies),
            validation=None
            if validation is None
            else self._styled(validation, self.copies),
            # Once: a query must not be its support in another ink.
            test=ready(self._styled(test, 1), "colour"),
            image_size=_IMAGE_SIZE,
            binarization="none",
        )

    def _styled(self, data: GroupedImages, copies: int) -> GroupedImages:
        return styled(
            data,
            num_styles=self.num_styles,
            copies=copies,
            affine=True,
            image_size=_IMAGE_SIZE,
            seed=self.seed,
        )


@dataclasses.dataclass(frozen=True)
class PenStyle:
    """An ink and the elliptical nib of a pen.

    Attributes:
        ink: `(red, green, blue)` in 0..255, to be seen on white paper.
        width: Float. The longer axis of the nib, pixels of a 28x28 image;
            larger images have wider strokes, smaller ones the same.
        aspect: Float. The shorter axis over the longer one; 1 is a round nib.
        angle: Float. The direction of the longer axis, radians
            counter-clockwise from the horizontal, in 0..pi.
    """

    ink: tuple[int, int, int]
    width: float
    aspect: float
    angle: float


def pen_styles(num_styles: int = 30, seed: int = 0) -> tuple[PenStyle, ...]:
    """Returns random styles that are easy to distinguish.

    Inks and nibs are spread out over what is possible, each on their own, and
    then paired at random.

    Args:
        num_styles: Integer. How many.
        seed: Non-negative integer. Equal seeds give equal styles.

    Returns:
        The styles, by id.

    Raises:
        ValueError: If `num_styles` is not positive or `seed` is negative.
    """
    validation.at_least(1, num_styles=num_styles)
    validation.at_least(0, seed=seed)
    generator = np.random.default_rng(seed)
    inks = _spread_inks(generator, num_styles).tolist()
    nibs = generator.permutation(_spread_nibs(generator, num_styles)).tolist()
    return tuple(
        PenStyle((red, green, blue), *nib)
        for (red, green, blue), nib in zip(inks, nibs, strict=True)
    )


def styled(
    data: GroupedImages,
    *,
    num_styles: int = 30,
    copies: int = 1,
    affine: bool = False,
    image_size: tuple[int, int] = (28, 28),
    seed: int = 0,
) -> GroupedImages:
    """Redraws each image in a random style, independent of its groups.

    Paper is 0 and an ink of colour c is 255 - c, so that ink is high here as
    elsewhere: `255 - images` is what a person would see. Each pixel is either
    paper or exactly the ink. Blends of the two would be a colour of their own
    in each style and at each edge: with them no likelihood could be sharp and
    no colour could be recognised exactly.

    Args:
        data: `GroupedImages`. Grey or binary drawings, `[M, H0, W0, 1]`, ink
            255 or 1. Finer ones, as the recipe `"original"` of Omniglot has,
            are drawn more faithfully.
        num_styles: Integer. How many styles there are; see `pen_styles`.
        copies: Integer. In how many different styles each image is drawn.
        affine: Boolean. Whether each copy of an image but the first is a small
            random affine map of it (Section 4.1), with strokes as wide as ever.
        image_size: `(H, W)` to draw at. The proportions are not kept.
        seed: Non-negative integer. Decides the styles, and which each image
            has.

    Returns:
        Images `[M * copies, H, W, 3]` uint8, the copies of an image one after
        the other, with the labels of the data and `"style"`, the index in
        `pen_styles(num_styles, seed)`.

    Raises:
        ValueError: If the data are not grey or have styles already, if there
            are fewer styles than copies, or if an argument is out of range.
    """
    _check_styled(data, num_styles, copies, image_size)
    styles = pen_styles(num_styles, seed)
    # A stream of its own: that of `pen_styles` depends on how many they are.
    generator = np.random.default_rng([seed, 1])
    style = generator.random((len(data), num_styles)).argsort(axis=1)[
        :, :copies
    ]
    height, width = image_size
    fine_size = (_OVERSAMPLING * height, _OVERSAMPLING * width)
    maps = affine_table(
        len(data),
        copies,
        stored_size=fine_size,
        image_size=fine_size,
        seed=seed,
    )
    drawn = np.empty((*style.shape, *image_size, 3), np.uint8)
    for first in range(0, len(data), _BATCH_SIZE):
        batch = slice(first, first + _BATCH_SIZE)
        fine = _fine(data.images[batch], fine_size)
        lines = _thinned(fine >= 0.5)
        for copy in range(copies):
            if affine and copy:
                lines = _thinned(_warped(fine, maps[batch, copy]) >= 0.5)
            for index, pen in enumerate(styles):
                image = np.flatnonzero(style[batch, copy] == index)
                drawn[first + image, copy] = _drawn(lines[image], pen)
    labels = {name: np.repeat(ids, copies) for name, ids in data.labels.items()}
    names = {index: f"style {index:02d}" for index in range(num_styles)}
    return GroupedImages(
        drawn.reshape(-1, *image_size, 3),
        {**labels, "style": style.ravel()},
        {**data.group_names, "style": names},
    )


def _check_styled(
    data: GroupedImages,
    num_styles: int,
    copies: int,
    image_size: tuple[int, int],
) -> None:
    if data.image_shape[2] != 1:
        raise ValueError(
            "Only grey or binary drawings, [M, H, W, 1], can be drawn in "
            f"styles. Received: images of shape {data.images.shape}."
        )
    if "style" in data.labels:
        raise ValueError(
            "The images have styles already; rename that grouping to draw "
            f"them in others. Received: labels {sorted(data.labels)}."
        )
    check_image_size(image_size)
    _check_copies(num_styles, copies)


def _check_copies(num_styles: int, copies: int) -> None:
    validation.at_least(1, copies=copies)
    validation.at_least(1, num_styles=num_styles)
    if copies > num_styles:
        raise ValueError(
            "The copies of an image are in different styles; use more "
            "`num_styles` or fewer `copies`. "
            f"Received: num_styles={num_styles}, copies={copies}."
        )


def _spread_inks(generator: np.random.Generator, num: int) -> np.ndarray:
    """Returns saturated, dark colours, `[num, 3]`, multiples of 51."""
    low = (0.0, _MIN_SATURATION, _MIN_VALUE)
    hsv = generator.uniform(low, 1.0, (_CANDIDATES_PER_STYLE * num, 3))
    rgb = np.array([colorsys.hsv_to_rgb(*colour) for colour in hsv])
    luma = rgb @ _LUMA
    rgb *= np.minimum(1.0, _MAX_LUMA / luma)[:, np.newaxis]
    last = INK_LEVELS - 1
    # Down, so that none becomes lighter.
    inks = 255 // last * np.floor(last * rgb + 1e-6).astype(int)
    return inks[_spread(inks, num)]


def _spread_nibs(generator: np.random.Generator, num: int) -> np.ndarray:
    """Returns width, aspect and angle of different nibs, `[num, 3]`."""
    low, middle, high = np.log([_MIN_WIDTH, _MAX_WIDTH, _MAX_FLAT_WIDTH])
    longer = generator.uniform(low, high, _CANDIDATES_PER_STYLE * num)
    shorter = generator.uniform(low, np.minimum(longer, middle))
    angle = generator.uniform(0.0, math.pi, len(longer))
    # The logarithm of the ellipse's matrix: the rounder a nib, the less does
    # its angle count.
    mean, half = (longer + shorter) / 2, (longer - shorter) / 2
    matrix = np.stack(
        [mean, half * np.cos(2 * angle), half * np.sin(2 * angle)], axis=1
    )
    nibs = np.stack([np.exp(longer), np.exp(shorter - longer), angle], axis=1)
    return nibs[_spread(matrix, num)]


def _spread(points: np.ndarray, num: int) -> np.ndarray:
    """Chooses points, each the farthest from those before, `[num]`."""
    chosen = [0]
    distance = np.full(len(points), np.inf)
    for _ in range(num - 1):
        step = np.linalg.norm(points - points[chosen[-1]], axis=1)
        distance = np.minimum(distance, step)
        chosen.append(int(distance.argmax()))
    return np.array(chosen)


def _fine(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns how much ink there is at the size of drawing, `[B, H4, W4]`."""
    with tf.device("CPU:0"):
        fine = tf.image.resize(images, size, "bicubic", antialias=True)
    return fine.numpy()[..., 0] / (255 if images.dtype == np.uint8 else 1)


def _warped(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Applies one affine map an image, `[B, H, W]`."""
    with tf.device("CPU:0"):
        warped = transform(
            images[..., np.newaxis], maps, image_size=images.shape[1:]
        )
    return warped.numpy()[..., 0]


def _thinned(ink: np.ndarray) -> np.ndarray:
    """Returns the centre lines, one pixel wide, of ink `[B, H, W]` [1]."""
    padded = np.pad(ink, [(0, 0), (1, 1), (1, 1)])
    flat = padded.reshape(-1)
    around = np.array(
        [row * padded.shape[2] + column for row, column in _NEIGHBOURS]
    )
    points = np.flatnonzero(flat)
    count = -1
    while count != (count := len(points)):
        for removable in _REMOVABLE:
            neighbours = flat[points[:, np.newaxis] + around]
            code = np.packbits(neighbours, axis=1, bitorder="little")[:, 0]
            gone = removable[code]
            flat[points[gone]] = False
            points = points[~gone]
    return padded[:, 1:-1, 1:-1]


def _removable() -> np.ndarray:
    """Returns whether the centre of each neighbourhood goes, `[2, 256]`.

    The two tables of [1] are for alternating steps: one takes from the south
    and the west, the other from the north and the east.
    """
    bits = np.arange(256) >> np.arange(8)[:, np.newaxis] & 1
    bits = bits.astype(bool)
    n, ne, e, se, s, sw, w, nw = bits
    sides, corners = bits[0::2], bits[1::2]
    next_sides = np.roll(sides, -1, axis=0)
    num_parts = (~sides & (corners | next_sides)).sum(axis=0)
    num_pairs = np.minimum(
        (sides | corners).sum(axis=0), (corners | next_sides).sum(axis=0)
    )
    may_go = (num_parts == 1) & (num_pairs >= 2) & (num_pairs <= 3)
    keep = [(s | sw | ~nw) & w, (n | ne | ~se) & e]
    return may_go & ~np.array(keep)


_REMOVABLE = _removable()


def _drawn(lines: np.ndarray, pen: PenStyle) -> np.ndarray:
    """Draws along fine lines `[B, 4H, 4W]`; returns `[B, H, W, 3]`."""
    strokes = _stroked(lines, pen)
    num, height, width = strokes.shape
    blocks = strokes.reshape(
        num,
        height // _OVERSAMPLING,
        _OVERSAMPLING,
        width // _OVERSAMPLING,
        _OVERSAMPLING,
    )
    ink = blocks.mean(axis=(2, 4)) >= 0.5  # [B, H, W]
    return ink[..., np.newaxis] * (255 - np.array(pen.ink, np.uint8))


def _stroked(lines: np.ndarray, pen: PenStyle) -> np.ndarray:
    """Moves the nib along the lines, `[B, H, W]`."""
    rows, columns = _nib(pen, lines.shape[1])
    reach = max(rows.max(), columns.max())
    margin = [(0, 0), (reach, reach), (reach, reach)]
    padded = np.pad(lines, margin)
    strokes = np.zeros_like(padded)
    offsets = rows * padded.shape[2] + columns
    points = np.flatnonzero(padded)
    strokes.reshape(-1)[points[:, np.newaxis] + offsets] = True
    _, height, width = lines.shape
    return strokes[:, reach : reach + height, reach : reach + width]


def _nib(pen: PenStyle, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of the nib, (rows, columns) from its centre."""
    longer = pen.width * max(height / _REFERENCE_SIZE, _OVERSAMPLING) / 2
    reach = int(longer)
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = column * math.cos(pen.angle) - row * math.sin(pen.angle)
    across = column * math.sin(pen.angle) + row * math.cos(pen.angle)
    inside = along**2 + (across / pen.aspect) ** 2 <= longer**2
    return row[inside], column[inside]
