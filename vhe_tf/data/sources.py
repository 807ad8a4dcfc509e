"""The data sets that the trainers know, split and ready to use."""

import math
from typing import NamedTuple

import numpy as np

from vhe_tf.data.grouped_images import GroupedImages

__all__ = ["Source", "hold_out_groups", "load_source", "ready"]

IMAGES = ("binary", "grey")

_IMAGE_SIZE = (28, 28)
_TEST_FRACTION = 0.2
_MIN_CLASSES = 5
# Enough of them to see sharing within an alphabet on unseen alphabets.
_NUM_TEST_ALPHABETS = 8


class Source(NamedTuple):
    """A data set, its test groups apart.

    Attributes:
        train: Images as stored, to be augmented and binarised when drawn.
        validation: The same of held-out groups where the data set has a
            canonical validation set, or None.
        test: Images of unseen groups, ready for a model.
        image_size: `(H, W)` of the images that a model sees.
        binarization: How they become binary when drawn; see `Augmentation`.
    """

    train: GroupedImages
    validation: GroupedImages | None
    test: GroupedImages
    image_size: tuple[int, int]
    binarization: str


def load_source(
    dataset: str,
    *,
    data_dir: str | None = None,
    split: str = "lake",
    images: str = "binary",
    seed: int = 0,
) -> Source:
    """Loads a data set by name.

    Args:
        dataset: `"omniglot"`, `"glyphs"` (embedded), or `"folder"`, a folder
            `data_dir/class/*.png` of dark ink on a light page.
        data_dir: Where it is, for omniglot and folder.
        split: For omniglot, see `load_omniglot`. Of glyphs the last 8
            alphabets are for testing, of a folder a random fifth of the
            classes, at least two.
        images: `"binary"` for fixed binary images (Tables 3 and 4), `"grey"`
            for grey ones that are binarised at each draw (Tables 1 and 2).
        seed: Decides random splits.

    Returns:
        The data set.

    Raises:
        ValueError: If a name is unknown, or a folder has too few classes.
        FileNotFoundError: If the data are not there and cannot be fetched.
    """
    _check_recipe(images)
    if dataset == "omniglot":
        train, validation, test = _omniglot(split, images, data_dir, seed)
    elif dataset == "glyphs":
        train, validation, test = _glyphs()
    elif dataset == "folder":
        train, validation, test = _folder(data_dir, seed)
    else:
        raise ValueError(
            "`dataset` must be 'omniglot', 'glyphs' or 'folder'. "
            f"Received: dataset={dataset!r}."
        )
    return Source(
        train=train,
        validation=validation,
        test=ready(test, images, seed=seed),
        image_size=_IMAGE_SIZE,
        binarization="threshold" if images == "binary" else "dynamic",
    )


def ready(data: GroupedImages, images: str, *, seed: int = 0) -> GroupedImages:
    """Returns images as a model sees them: float32, binarised once.

    Args:
        data: The images as stored, of the model's size.
        images: `"binary"` to threshold at one half, `"grey"` to draw each
            pixel once from a Bernoulli of its value.
        seed: Decides that draw.

    Returns:
        The same images with the same labels, 0 or 1 each pixel.

    Raises:
        ValueError: If `images` is unknown.
    """
    _check_recipe(images)
    intensities = data.images.astype(np.float32)
    if data.images.dtype == np.uint8:
        intensities /= 255.0
    threshold = (
        np.float32(0.5)
        if images == "binary"
        else np.random.default_rng(seed).random(
            intensities.shape, dtype=np.float32
        )
    )
    binary = (intensities >= threshold) & (intensities > 0)
    return GroupedImages(
        binary.astype(np.float32), data.labels, data.group_names
    )


def hold_out_groups(
    data: GroupedImages, name: str, num_groups: int, *, seed: int = 0
) -> tuple[GroupedImages, GroupedImages]:
    """Splits off a random choice of groups.

    Args:
        data: The images.
        name: The grouping.
        num_groups: How many groups to hold out.
        seed: Decides which.

    Returns:
        The rest, and the images of the held-out groups.

    Raises:
        ValueError: If not at least one group would be left on each side.
    """
    ids = data.group_ids(name)
    if not 0 < num_groups < len(ids):
        raise ValueError(
            f"Can hold out 1 to {len(ids) - 1} of {len(ids)} groups of "
            f"{name!r}. Received: {num_groups}."
        )
    chosen = np.random.default_rng(seed).choice(ids, num_groups, replace=False)
    held_out = np.isin(data.labels[name], chosen)
    return data.where(~held_out), data.where(held_out)


def _check_recipe(images: str) -> None:
    if images not in IMAGES:
        raise ValueError(
            f"`images` must be one of {IMAGES}. Received: images={images!r}."
        )


def _omniglot(
    split: str, images: str, data_dir: str | None, seed: int
) -> tuple[GroupedImages, GroupedImages | None, GroupedImages]:
    from vhe_tf.data.omniglot import load_omniglot

    # Binary copies are warped at full resolution and then subsampled, so that
    # they have the pixel statistics of the recipe itself.
    stored = "original" if images == "binary" else "grey"
    train = load_omniglot(split, recipe=stored, data_dir=data_dir, seed=seed)
    test = load_omniglot(split, recipe=images, data_dir=data_dir, seed=seed)
    return train.train, train.validation, test.test


def _glyphs() -> tuple[GroupedImages, None, GroupedImages]:
    from vhe_tf.data.glyphs import glyphs

    data = glyphs()
    alphabets = data.group_ids("alphabet").tolist()
    return (
        data.with_groups("alphabet", alphabets[:-_NUM_TEST_ALPHABETS]),
        None,
        data.with_groups("alphabet", alphabets[-_NUM_TEST_ALPHABETS:]),
    )


def _folder(
    data_dir: str | None, seed: int
) -> tuple[GroupedImages, None, GroupedImages]:
    from vhe_tf.data.image_folder import image_folder

    if data_dir is None:
        raise ValueError(
            "dataset='folder' needs `data_dir`, a folder with one folder of "
            "images a class. Received: data_dir=None."
        )
    data = image_folder(data_dir, image_size=_IMAGE_SIZE, invert=True)
    num_classes = len(data.group_ids("character"))
    if num_classes < _MIN_CLASSES:
        raise ValueError(
            f"Training needs at least {_MIN_CLASSES} classes, to hold some for "
            f"validation and testing. Received: {num_classes} in {data_dir}."
        )
    # One class alone could not be told from another.
    num_test = max(2, math.floor(_TEST_FRACTION * num_classes))
    train, test = hold_out_groups(data, "character", num_test, seed=seed)
    return train, None, test
