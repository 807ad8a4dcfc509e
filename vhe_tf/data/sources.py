"""The data sets that the trainers know, split and ready to use."""

import math
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np

from vhe_tf.data.grouped_images import GroupedImages

__all__ = [
    "Source",
    "hold_out_groups",
    "load_again",
    "load_photo_source",
    "load_source",
    "load_styled_source",
    "ready",
]

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
        group: The grouping whose groups are the classes.
        ink: Whether 1 is ink and 0 paper, to be shown as black on white. In
            photographs 1 is bright.
    """

    train: GroupedImages
    validation: GroupedImages | None
    test: GroupedImages
    image_size: tuple[int, int]
    binarization: str
    group: str = "character"
    ink: bool = True


def load_source(
    dataset: str,
    *,
    data_dir: str | None = None,
    split: str = "lake",
    images: str = "binary",
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
) -> Source:
    """Loads a data set of drawings by name.

    Args:
        dataset: `"omniglot"`, `"glyphs"` (embedded), or `"folder"`, a folder
            `data_dir/class/*.png` of dark ink on a light page.
        data_dir: Where it is, for omniglot and folder.
        split: For omniglot, see `load_omniglot`. Of glyphs the last 8
            alphabets are for testing, of a folder a random fifth of the
            classes, at least two.
        images: `"binary"` for fixed binary images (Tables 3 and 4), `"grey"`
            for grey ones that are binarised at each draw (Tables 1 and 2).
        image_size: For folder, the `(H, W)` to resize to; 28x28 by default.
        seed: Decides random splits.

    Returns:
        The data set.

    Raises:
        ValueError: If a name is unknown, a folder has too few classes, or
            `image_size` is given for other data.
        FileNotFoundError: If the data are not there and cannot be fetched.
    """
    _check_recipe(images, IMAGES)
    if image_size is not None and dataset != "folder":
        raise ValueError(
            "`image_size` is for dataset='folder': the recipes of the others "
            "are of 28x28 pixels; leave it off. "
            f"Received: image_size={image_size!r}, dataset={dataset!r}."
        )
    image_size = image_size or _IMAGE_SIZE
    if dataset == "omniglot":
        train, validation, test = _omniglot(split, images, data_dir, seed)
    elif dataset == "glyphs":
        train, validation, test = _glyphs()
    elif dataset == "folder":
        train, validation, test = _folder(
            data_dir, "character", seed, image_size=image_size, invert=True
        )
    else:
        raise ValueError(
            "`dataset` must be 'omniglot', 'glyphs' or 'folder'. "
            f"Received: dataset={dataset!r}."
        )
    return Source(
        train=train,
        validation=validation,
        test=ready(test, images, seed=seed),
        image_size=image_size,
        binarization="threshold" if images == "binary" else "dynamic",
    )


def load_styled_source(
    dataset: str,
    *,
    data_dir: str | None = None,
    split: str = "lake",
    num_styles: int = 30,
    copies: int = 8,
    seed: int = 0,
) -> Source:
    """Loads drawings of characters in random styles (Section 4.3).

    All parts have the same styles, the grouping `"style"`; the characters of
    the test set are unseen.

    Args:
        dataset: `"omniglot"` or `"glyphs"` (embedded).
        data_dir: Where Omniglot is.
        split: For omniglot, see `load_omniglot`.
        num_styles: How many styles there are.
        copies: In how many different styles each image is drawn, the first of
            them as it is, the others as small affine maps of it; those of the
            test set in one.
        seed: Decides the styles, which image has which, and random splits.

    Returns:
        The data set, images `[M, 28, 28, 3]`, paper 0 and an ink of colour c
        255 - c (see `styled`), 1 - c / 255 in the test set.

    Raises:
        ValueError: If a name is unknown or a number out of range.
        FileNotFoundError: If the data are not there and cannot be fetched.
    """
    from vhe_tf.data.styles import styled

    train: GroupedImages
    validation: GroupedImages | None
    if dataset == "omniglot":
        train, validation, test = _omniglot_originals(split, data_dir, seed)
    elif dataset == "glyphs":
        train, validation, test = _glyphs()
    else:
        raise ValueError(
            "`dataset` must be 'omniglot' or 'glyphs', drawings whose strokes "
            f"can be drawn anew. Received: dataset={dataset!r}."
        )

    def drawn(data: GroupedImages, copies: int) -> GroupedImages:
        return styled(
            data,
            num_styles=num_styles,
            copies=copies,
            affine=True,
            image_size=_IMAGE_SIZE,
            seed=seed,
        )

    return Source(
        train=drawn(train, copies),
        validation=None if validation is None else drawn(validation, copies),
        # Once: a query must not be its support in another ink.
        test=ready(drawn(test, 1), "colour"),
        image_size=_IMAGE_SIZE,
        binarization="none",
    )


def load_photo_source(
    dataset: str,
    *,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    image_size: tuple[int, int] = (40, 40),
    skip_unreadable: bool = False,
    seed: int = 0,
) -> Source:
    """Loads photographs in colour, of faces or of anything (Section 4.2).

    Args:
        dataset: `"youtube_faces"`, or `"folder"`, a folder
            `data_dir/class/*.jpg`.
        data_dir: Where youtube_faces is prepared, or the folder.
        manual_dir: For youtube_faces, see `load_youtube_faces`.
        image_size: `(H, W)` to resize to.
        skip_unreadable: For youtube_faces, see there.
        seed: Decides which fifth of the classes of a folder, at least two,
            are for testing.

    Returns:
        The data set, images `[M, H, W, 3]`, bright 255 as stored and 1 in the
        test set; the classes are the grouping `"person"`.

    Raises:
        ValueError: If `dataset` is unknown, or a folder has too few classes.
        FileNotFoundError: If the data are not there.
    """
    group = "person"
    if dataset == "youtube_faces":
        from vhe_tf.data.youtube_faces import load_youtube_faces

        train, test = load_youtube_faces(
            data_dir=data_dir,
            manual_dir=manual_dir,
            image_size=image_size,
            skip_unreadable=skip_unreadable,
        )
    elif dataset == "folder":
        train, _, test = _folder(
            data_dir, group, seed, image_size=image_size, channels=3
        )
    else:
        raise ValueError(
            "`dataset` must be 'youtube_faces' or 'folder', photographs in "
            f"colour. Received: dataset={dataset!r}."
        )
    return Source(
        train=train,
        validation=None,
        test=ready(test, "colour"),
        image_size=image_size,
        binarization="none",
        group=group,
        ink=False,
    )


def load_again(
    settings: Mapping[str, Any], *, data_dir: str | None = None
) -> Source:
    """Loads the data set of a run.

    Args:
        settings: What `vhe_tf.training.data_settings` says of the run.
        data_dir: Where the data are.

    Returns:
        The data set.

    Raises:
        ValueError: As the function that loaded it for the run.
        FileNotFoundError: If the data are not there and cannot be fetched.
    """
    if "num_styles" in settings:
        return load_styled_source(data_dir=data_dir, **settings)
    if "skip_unreadable" in settings:
        return load_photo_source(data_dir=data_dir, **settings)
    return load_source(data_dir=data_dir, **settings)


def ready(data: GroupedImages, images: str, *, seed: int = 0) -> GroupedImages:
    """Returns images as a model sees them: float32 and, if so, binarised.

    Args:
        data: The images as stored, of the model's size.
        images: `"binary"` to threshold at one half, `"grey"` to draw each
            pixel once from a Bernoulli of its value, `"colour"` to keep the
            values.
        seed: Decides that draw.

    Returns:
        The same images with the same labels, 0 or 1 each pixel unless they
        are `"colour"`: then 0..1.

    Raises:
        ValueError: If `images` is unknown.
    """
    _check_recipe(images, (*IMAGES, "colour"))
    intensities = data.images.astype(np.float32)
    if data.images.dtype == np.uint8:
        intensities /= 255.0
    if images == "colour":
        return GroupedImages(intensities, data.labels, data.group_names)
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


def _check_recipe(images: str, known: tuple[str, ...]) -> None:
    if images not in known:
        raise ValueError(
            f"`images` must be one of {known}. Received: images={images!r}."
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


def _omniglot_originals(
    split: str, data_dir: str | None, seed: int
) -> tuple[GroupedImages, GroupedImages | None, GroupedImages]:
    from vhe_tf.data.omniglot import load_omniglot

    return load_omniglot(split, recipe="original", data_dir=data_dir, seed=seed)


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
    data_dir: str | None, group: str, seed: int, **options: Any
) -> tuple[GroupedImages, None, GroupedImages]:
    from vhe_tf.data.image_folder import image_folder

    if data_dir is None:
        raise ValueError(
            "dataset='folder' needs `data_dir`, a folder with one folder of "
            "images a class. Received: data_dir=None."
        )
    data = image_folder(data_dir, label_name=group, **options)
    num_classes = len(data.group_ids(group))
    if num_classes < _MIN_CLASSES:
        raise ValueError(
            f"Training needs at least {_MIN_CLASSES} classes, to hold some for "
            f"validation and testing. Received: {num_classes} in {data_dir}."
        )
    # One class alone could not be told from another.
    num_test = max(2, math.floor(_TEST_FRACTION * num_classes))
    train, test = hold_out_groups(data, group, num_test, seed=seed)
    return train, None, test
