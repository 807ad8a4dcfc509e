"""The data sets that the trainers know, split and ready to use."""

import json
import math
import os
import zlib
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import TypeVar

import numpy as np

from vhe_tf.data.augmentation import Augmentation
from vhe_tf.data.augmentation import rounded
from vhe_tf.data.grouped_images import GroupedData
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

_Images = TypeVar("_Images", bound=GroupedData)

IMAGES = ("binary", "grey")

NUM_LEVELS = 256  # of photographs as they are stored

_IMAGE_SIZE = (28, 28)
_PHOTO_SIZE = (40, 40)
_TEST_FRACTION = 0.2
_MIN_CLASSES = 5
# Enough of them to see sharing within an alphabet on unseen alphabets.
_NUM_TEST_ALPHABETS = 8
# The test set is in memory, as float32, even where the others are not.
_MAX_TEST_GROUPS_OF_RECORDS = 1000
_MAX_TEST_BYTES_OF_RECORDS = 2**28
_MIN_TEST_IMAGES_A_GROUP = 20


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
        caveat: What must stand beside numbers measured on it, if anything.
        num_levels: Of each channel, to which images are rounded; None where
            they are not.
    """

    train: GroupedData
    validation: GroupedData | None
    test: GroupedImages
    image_size: tuple[int, int]
    binarization: str
    group: str = "character"
    ink: bool = True
    caveat: str | None = None
    num_levels: int | None = None

    def augmentation(
        self, *, symmetries: int, affine_copies: int
    ) -> Augmentation:
        """Returns what is done to training images; see `Augmentation`."""
        return Augmentation(
            symmetries=symmetries,
            affine_copies=affine_copies,
            binarization=self.binarization,
            image_size=self.image_size,
            repeat_edges=not self.ink,
            num_levels=self.num_levels,
        )

    def training_parts(
        self, held_out: str, num_groups: int, *, seed: int
    ) -> tuple[GroupedData, GroupedData]:
        """Returns the images to train on, and those to choose the best by.

        Args:
            held_out: The grouping of which some groups are for validation,
                where the data have no validation set of their own.
            num_groups: How many; a quarter of all at most.
            seed: Decides which.

        Raises:
            ValueError: If there is only one group.
        """
        if self.validation is not None:
            return self.train, self.validation
        most = max(1, len(self.train.group_ids(held_out)) // 4)
        return hold_out_groups(
            self.train, held_out, min(num_groups, most), seed=seed
        )

    def groups_checksum(self) -> str:
        """Returns what tells the classes that are not for testing from others.

        By their names, by their ids where they have none; images may come and
        go within classes.
        """
        names = {
            str(data.group_names.get(self.group, {}).get(i, i))
            for data in (self.train, self.validation)
            if data is not None
            for i in data.group_ids(self.group).tolist()
        }
        text = json.dumps(sorted(names))
        return f"{zlib.crc32(text.encode('utf-8')):08x}"


def load_source(
    dataset: str,
    *,
    data_dir: str | None = None,
    split: str = "lake",
    images: str = "binary",
    image_size: tuple[int, int] | None = None,
    skip_corrupt: bool = False,
    seed: int = 0,
) -> Source:
    """Loads a data set of drawings by name.

    Args:
        dataset: `"omniglot"`, `"glyphs"` (embedded), `"folder"`, a folder
            `data_dir/class/*.png` of dark ink on a light page, or
            `"records"`, see `RecordedImages`.
        data_dir: Where it is, for all but glyphs.
        split: For omniglot, see `load_omniglot`. Of glyphs the last 8
            alphabets are for testing, of a folder a random fifth of the
            classes, at least two, of records at most 1,000 (and no more
            images than 256 MiB have room for, but 20 of two classes).
        images: `"binary"` for fixed binary images (Tables 3 and 4), `"grey"`
            for grey ones that are binarised at each draw (Tables 1 and 2).
        image_size: For folder, the `(H, W)` to resize to; 28x28 by default.
        skip_corrupt: For records, see `RecordedImages`.
        seed: Decides random splits.

    Returns:
        The data set.

    Raises:
        ValueError: If a name is unknown, a folder has too few classes,
            records are of colour images, or `image_size` or `skip_corrupt` is
            given for other data.
        DamagedRecordsError: As `RecordedImages`.
        FileNotFoundError: If the data are not there and cannot be fetched.
    """
    _check_recipe(images, IMAGES)
    if image_size is not None and dataset != "folder":
        raise ValueError(
            "`image_size` is for dataset='folder': records are of the size at "
            "which they are stored and the others of 28x28 pixels; leave it "
            f"off. Received: image_size={image_size!r}, dataset={dataset!r}."
        )
    _check_skip_corrupt(dataset, skip_corrupt)
    image_size = image_size or _IMAGE_SIZE
    train: GroupedData
    validation: GroupedData | None
    test: GroupedData
    if dataset == "omniglot":
        train, validation, test = _omniglot(split, images, data_dir, seed)
    elif dataset == "glyphs":
        train, validation, test = _glyphs()
    elif dataset == "folder":
        train, validation, test = _folder(
            data_dir, "character", seed, image_size=image_size, invert=True
        )
    elif dataset == "records":
        train, validation, test = _records(
            data_dir, "character", seed, channels=1, skip_corrupt=skip_corrupt
        )
        image_size = train.image_shape[:2]
    else:
        raise ValueError(
            "`dataset` must be 'omniglot', 'glyphs', 'folder' or 'records'. "
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
    image_size: tuple[int, int] | None = None,
    group: str = "person",
    num_levels: int = NUM_LEVELS,
    skip_unreadable: bool = False,
    skip_corrupt: bool = False,
    seed: int = 0,
) -> Source:
    """Loads photographs in colour, of faces or of anything (Section 4.2).

    Args:
        dataset: `"youtube_faces"`, `"folder"`, a folder
            `data_dir/class/*.jpg`, or `"records"`, see `RecordedImages`.
        data_dir: Where youtube_faces is prepared, or the folder.
        manual_dir: For youtube_faces, see `load_youtube_faces`.
        image_size: `(H, W)` to resize to, 40x40 by default; records have the
            size at which they are stored.
        group: The grouping whose groups are the classes: `"person"`, or, of
            youtube_faces, `"video"`, in which one image says far more of
            another; people are apart all the same.
        num_levels: Of each channel, to which images are rounded: 256 keeps
            the 8 bits of photographs. The noise of the lower bits is most of
            what a PixelCNN learns; without it the rest is learned far sooner.
        skip_unreadable: For youtube_faces, see there.
        skip_corrupt: For records, see `RecordedImages`.
        seed: Decides which fifth of the classes of a folder, at least two,
            are for testing; of records at most 1,000 (and no more
            images than 256 MiB have room for, but 20 of two classes).

    Returns:
        The data set, images `[M, H, W, 3]`, bright 255 as stored and 1 in the
        test set.

    Raises:
        ValueError: If `dataset` is unknown or has no such `group`,
            `num_levels` is not between 2 and 256, a folder has too few
            classes, records are of grey images, or `image_size` is given for
            them, or `skip_corrupt` for other data.
        DamagedRecordsError: As `RecordedImages`.
        FileNotFoundError: If the data are not there.
    """
    groups = ["person"] + ["video"] * (dataset == "youtube_faces")
    if group not in groups:
        raise ValueError(
            f"`group` must be one of {groups} for dataset={dataset!r}: only "
            f"YouTube Faces has videos. Received: group={group!r}."
        )
    if not 2 <= num_levels <= NUM_LEVELS:
        raise ValueError(
            f"`num_levels` must be between 2 and {NUM_LEVELS}. "
            f"Received: num_levels={num_levels!r}."
        )
    _check_skip_corrupt(dataset, skip_corrupt)
    if image_size is not None and dataset == "records":
        raise ValueError(
            "Records are of the size at which they are stored: leave "
            "`image_size` off, or write them again. "
            f"Received: image_size={image_size!r}, dataset='records'."
        )
    image_size = image_size or _PHOTO_SIZE
    caveats = []
    train: GroupedData
    test: GroupedData
    if dataset == "youtube_faces":
        from vhe_tf.data.youtube_faces import load_youtube_faces

        train, test, is_complete = load_youtube_faces(
            data_dir=data_dir,
            manual_dir=manual_dir,
            image_size=image_size,
            skip_unreadable=skip_unreadable,
        )
        if not is_complete:
            caveats.append(
                "a subset of YouTube Faces, not comparable with Table 5"
            )
    elif dataset == "folder":
        train, _, test = _folder(
            data_dir, group, seed, image_size=image_size, channels=3
        )
    elif dataset == "records":
        train, _, test = _records(
            data_dir, group, seed, channels=3, skip_corrupt=skip_corrupt
        )
        image_size = train.image_shape[:2]
    else:
        raise ValueError(
            "`dataset` must be 'youtube_faces', 'folder' or 'records', "
            f"photographs in colour. Received: dataset={dataset!r}."
        )
    if num_levels < NUM_LEVELS:
        caveats.append(f"pixels of {num_levels} levels, not {NUM_LEVELS}")
    test = ready(test, "colour")
    images = rounded(test.images, num_levels).numpy()
    return Source(
        train=train,
        validation=None,
        test=GroupedImages(images, test.labels, test.group_names),
        image_size=image_size,
        binarization="none",
        group=group,
        ink=False,
        caveat="; ".join(caveats) or None,
        num_levels=num_levels,
    )


def load_again(
    settings: Mapping[str, Any],
    *,
    data_dir: str | None = None,
    skip_corrupt: bool = False,
) -> Source:
    """Loads the data set of a run.

    Args:
        settings: What `vhe_tf.training.data_settings` says of the run.
        data_dir: Where the data are.
        skip_corrupt: For records, see `RecordedImages`.

    Returns:
        The data set.

    Raises:
        ValueError: As the function that loaded it for the run.
        FileNotFoundError: If the data are not there and cannot be fetched.
    """
    _check_skip_corrupt(settings["dataset"], skip_corrupt)
    if "num_styles" in settings:
        return load_styled_source(data_dir=data_dir, **settings)
    load = load_photo_source if "skip_unreadable" in settings else load_source
    return load(data_dir=data_dir, skip_corrupt=skip_corrupt, **settings)


def trained_on_test_classes(
    trained: Mapping[str, Any], tested: Mapping[str, Any]
) -> bool:
    """Whether a run has trained on classes that another is tested on.

    Data sets of other names are taken to have no class in common, and two
    folders, or records, to be the same one (`Source.groups_checksum` tells
    others). What cannot be told: another archive of YouTube Faces.

    Args:
        trained: `dataset`, `split` (of omniglot) and `seed` of the run that
            has trained; other keys are ignored.
        tested: The same of the run that is tested.

    Returns:
        True if the random choice of classes, or Omniglot's split, is another
        and the training set of the one has classes of the other's test set.
    """
    dataset = trained["dataset"]
    if dataset != tested["dataset"]:
        return False
    same_seed: bool = trained["seed"] == tested["seed"]
    if dataset in ("folder", "records"):
        return not same_seed
    if dataset != "omniglot":
        return False
    split = tested["split"]
    if trained["split"].startswith("lake"):
        # The test characters of vinyals are of Lake's evaluation set.
        return bool(split == "random1200")
    if trained["split"] == split:
        return split == "random1200" and not same_seed
    return True


def ready(data: GroupedData, images: str, *, seed: int = 0) -> GroupedImages:
    """Returns images as a model sees them: float32 and, if so, binarised.

    They are in memory from then on.

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
    data = data.load()
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
    data: _Images, name: str, num_groups: int, *, seed: int = 0
) -> tuple[_Images, _Images]:
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


def _check_skip_corrupt(dataset: str, skip_corrupt: bool) -> None:
    if skip_corrupt and dataset != "records":
        raise ValueError(
            "`skip_corrupt` is for dataset='records'; leave it off. "
            f"Received: skip_corrupt=True, dataset={dataset!r}."
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
    data_dir = os.path.expanduser(data_dir)
    data = image_folder(data_dir, label_name=group, **options)
    num_test = _num_test_groups(data, group, data_dir)
    train, test = hold_out_groups(data, group, num_test, seed=seed)
    return train, None, test


def _records(
    data_dir: str | None,
    group: str,
    seed: int,
    *,
    channels: int,
    skip_corrupt: bool,
) -> tuple[GroupedData, None, GroupedData]:
    from vhe_tf.data.records import RecordedImages

    if data_dir is None:
        raise ValueError(
            "dataset='records' needs `data_dir`, the folder that "
            "`vhe_tf.data.folder_to_records` or `write_records` wrote. "
            "Received: data_dir=None."
        )
    data_dir = os.path.expanduser(data_dir)
    data = RecordedImages(data_dir, skip_corrupt=skip_corrupt)
    if data.image_shape[2] != channels or group not in data.labels:
        raise ValueError(
            f"These records must be of images of {channels} channels in the "
            f"grouping {group!r}; use the other trainer, or write them again. "
            f"Received: images of shape {data.image_shape} in "
            f"{sorted(data.labels)} in {data_dir}."
        )
    num_test = min(
        _num_test_groups(data, group, data_dir), _MAX_TEST_GROUPS_OF_RECORDS
    )
    train, test = hold_out_groups(data, group, num_test, seed=seed)
    return train, None, _that_fits(test, group, seed)


def _that_fits(data: GroupedData, group: str, seed: int) -> GroupedData:
    """Returns as many images for testing as there is room for, any of them.

    Of as many groups as may have `_MIN_TEST_IMAGES_A_GROUP` each, if not two.
    """
    room = _MAX_TEST_BYTES_OF_RECORDS // (4 * math.prod(data.image_shape))
    ids = data.group_ids(group)
    num_groups = max(2, room // _MIN_TEST_IMAGES_A_GROUP)
    if num_groups < len(ids):
        data, _ = hold_out_groups(
            data, group, len(ids) - num_groups, seed=seed + 1
        )
        ids = data.group_ids(group)
    most = max(_MIN_TEST_IMAGES_A_GROUP, room // len(ids))
    chance = np.random.default_rng(seed).random(len(data))
    order = np.lexsort([chance, data.labels[group]])
    _, starts, counts = np.unique(
        data.labels[group][order], return_index=True, return_counts=True
    )
    rank = np.empty(len(data), np.int64)
    rank[order] = np.arange(len(data)) - starts.repeat(counts)
    return data.where(rank < most)


def _num_test_groups(data: GroupedData, group: str, data_dir: str) -> int:
    """Returns how many classes of a folder are for testing."""
    num_classes = len(data.group_ids(group))
    if num_classes < _MIN_CLASSES:
        raise ValueError(
            f"Training needs at least {_MIN_CLASSES} classes, to hold some for "
            f"validation and testing. Received: {num_classes} in {data_dir}."
        )
    # One class alone could not be told from another.
    return max(2, math.floor(_TEST_FRACTION * num_classes))
