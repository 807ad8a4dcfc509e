"""Data sets as models use them: training, validation and test groups."""

import abc
import dataclasses
import json
import math
import zlib
from typing import Any
from typing import ClassVar
from typing import NamedTuple
from typing import TypeVar

import numpy as np

from vhe_tf._utils.validation import check_choice
from vhe_tf.data.augmentation import Augmentation
from vhe_tf.data.augmentation import rounded
from vhe_tf.data.contrast import check_contrast
from vhe_tf.data.datasets.given_split import given_split
from vhe_tf.data.datasets.given_split import without_split
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.data.grouped_images import GroupedImages

__all__ = [
    "NUM_LEVELS",
    "DataSplits",
    "DatasetSpec",
    "check_num_levels",
    "drawings",
    "hold_out_groups",
    "photographs",
    "ready",
    "split_classes",
]

_Images = TypeVar("_Images", bound=GroupedData)

NUM_LEVELS = 256  # of photographs as they are stored

_RECIPES = ("binary", "grey", "colour")
_TEST_FRACTION = 0.2
_MIN_CLASSES = 5


class DataSplits(NamedTuple):
    """Training, validation and test images of disjoint groups.

    Attributes:
        train: `GroupedData`. Images as stored. Augmentation and binarization
            happen when an episode is sampled.
        validation: `GroupedData` or None. Images of held-out groups, as stored.
            None if the data set has no canonical validation set.
        test: `GroupedImages`. Images of unseen groups, ready for a model.
        image_size: `(H, W)` of the images that a model sees.
        binarization: String. How training images become binary; see
            `Augmentation`.
        group: String. The grouping whose groups are the classes.
        ink: Boolean. Whether 1 is ink and 0 paper, to be shown as black on
            white. In photographs 1 is bright.
        caveat: String or None. What must stand beside numbers measured on it.
        num_levels: Integer or None. Levels of each channel to which images are
            rounded. None means no rounding.

    Example:
    >>> splits = drawings(data, data, images="binary", image_size=(8, 8))
    >>> train, validation = splits.training_parts("character", 1, seed=0)
    >>> len(train), len(validation)
    (35, 7)
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
        """Returns the images to train on, and those to select a model by.

        Args:
            held_out: String. The grouping of which some groups are for
                validation, if the data have no validation set of their own.
            num_groups: Integer. How many groups; at most a quarter of all.
            seed: Integer. Selects the groups.

        Raises:
            ValueError: If there is only one group.
        """
        if self.validation is not None:
            return self.train, self.validation
        most = max(1, len(self.train.group_ids(held_out)) // 4)
        return hold_out_groups(
            self.train, held_out, num_groups=min(num_groups, most), seed=seed
        )

    def groups_checksum(self) -> str:
        """Returns a checksum of the classes that are not for testing.

        It depends on their names, or on their ids where they have no names.
        Images may be added to and removed from a class.
        """
        names = {
            str(data.group_names.get(self.group, {}).get(i, i))
            for data in (self.train, self.validation)
            if data is not None
            for i in data.group_ids(self.group).tolist()
        }
        text = json.dumps(sorted(names))
        return f"{zlib.crc32(text.encode('utf-8')):08x}"


@dataclasses.dataclass(frozen=True)
class DatasetSpec(abc.ABC):
    """Names a data set and all that decides its images and its splits.

    Two equal specs load equal splits from the same files.

    Example:
    >>> from vhe_tf.data import Omniglot
    >>> isinstance(Omniglot(), DatasetSpec), Omniglot().get_config()["dataset"]
    (True, 'omniglot')
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def load(self, data_dir: str | None = None) -> DataSplits:
        """Loads the splits.

        Args:
            data_dir: String. Folder of the data. Defaults to that of
                TensorFlow Datasets, where the data set is one of these.

        Raises:
            FileNotFoundError: If the data are not there.
        """

    @property
    def drawn(self) -> "DatasetSpec":
        """The spec that decides which classes are for testing."""
        return self

    def trains_on_test_classes_of(self, tested: "DatasetSpec") -> bool:
        """Returns whether training on these splits sees classes of a test set.

        Data sets of different kinds are assumed to have no class in common,
        and two folders, or two folders of records, to be the same one
        (`DataSplits.groups_checksum` distinguishes them). Different archives of
        YouTube Faces cannot be distinguished.

        Args:
            tested: `DatasetSpec`. The spec whose test set is used.
        """
        mine, other = self.drawn, tested.drawn
        return isinstance(other, type(mine)) and mine._sees_test_of(other)

    def _sees_test_of(self, tested: Any) -> bool:
        return False

    def get_config(self) -> dict[str, Any]:
        """Returns the name and the fields, ready for JSON."""
        config: dict[str, Any] = {"dataset": self.name}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, DatasetSpec):
                value = value.get_config()
            config[field.name] = (
                list(value) if isinstance(value, tuple) else value
            )
        return config


def drawings(
    train: GroupedData,
    test: GroupedData,
    *,
    validation: GroupedData | None = None,
    images: str,
    image_size: tuple[int, int],
    group: str = "character",
    seed: int = 0,
) -> DataSplits:
    """Returns the splits of black and white drawings.

    Args:
        train: `GroupedData`. Images as stored.
        test: `GroupedData`. Images as stored, of the model's size.
        validation: `GroupedData` or None. Images as stored.
        images: String, `"binary"` or `"grey"`; see `ready`.
        image_size: `(H, W)` of the images that a model sees.
        group: String. The grouping whose groups are the classes.
        seed: Integer. Seed of the binarization of grey test images.
    """
    return DataSplits(
        train=train,
        validation=validation,
        test=ready(test, images, seed=seed),
        image_size=image_size,
        binarization="threshold" if images == "binary" else "dynamic",
        group=group,
    )


def photographs(
    train: GroupedData,
    test: GroupedData,
    *,
    validation: GroupedData | None = None,
    image_size: tuple[int, int],
    group: str,
    num_levels: int = NUM_LEVELS,
    caveat: str | None = None,
) -> DataSplits:
    """Returns the splits of photographs in colour.

    Args:
        train: `GroupedData`. Images as stored.
        test: `GroupedData`. Images as stored, of the model's size.
        validation: `GroupedData` or None. Images as stored.
        image_size: `(H, W)` of the images that a model sees.
        group: String. The grouping whose groups are the classes.
        num_levels: Integer. Levels of each channel to which images are
            rounded. Defaults to 256, the 8 bits of photographs.
        caveat: String or None. A caveat of the data.
    """
    caveats = [caveat] if caveat else []
    if num_levels < NUM_LEVELS:
        caveats.append(f"pixels of {num_levels} levels, not {NUM_LEVELS}")
    test = ready(test, "colour")
    return DataSplits(
        train=train,
        validation=validation,
        test=GroupedImages(
            rounded(test.images, num_levels).numpy(),
            test.labels,
            test.group_names,
        ),
        image_size=image_size,
        binarization="none",
        group=group,
        ink=False,
        caveat="; ".join(caveats) or None,
        num_levels=num_levels,
    )


def ready(data: GroupedData, images: str, *, seed: int = 0) -> GroupedImages:
    """Returns images as a model sees them: float32, binarized if asked for.

    They are in memory from then on.

    Args:
        data: `GroupedData`. The images as stored, of the model's size.
        images: String. `"binary"` thresholds at one half, `"grey"` samples
            each pixel once from a Bernoulli of its value, `"colour"` keeps
            the values.
        seed: Integer. Seed of these samples. Defaults to 0.

    Returns:
        The same images with the same labels. Pixels are 0 or 1, or in 0..1
        for `"colour"`.

    Raises:
        ValueError: If `images` is unknown.

    Example:
    >>> images = 255 * np.eye(28, dtype=np.uint8)[None, :, :, None]
    >>> data = GroupedImages(images, {"character": np.array([0])})
    >>> float(ready(data, "binary").images.max())
    1.0
    """
    check_choice(_RECIPES, images=images)
    data = data.load()
    intensities = data.images.astype(np.float32)
    if data.images.dtype == np.uint8:
        intensities /= 255.0
    if images == "colour":
        check_contrast(data.images, "images", binary=False)
        return GroupedImages(intensities, data.labels, data.group_names)
    check_contrast(data.images, "images", binary=images == "binary")
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
    data: _Images, name: str, *, num_groups: int, seed: int = 0
) -> tuple[_Images, _Images]:
    """Splits off a random selection of groups.

    A group of one image has no query beside its support. It is held out only
    if there are too few others.

    Args:
        data: `GroupedData`. The images.
        name: String. The grouping.
        num_groups: Integer. How many groups to hold out.
        seed: Integer. Selects the groups. Defaults to 0.

    Returns:
        The rest, and the images of the held-out groups.

    Raises:
        ValueError: If not at least one group would be left on each side.

    Example:
    >>> images = np.zeros((6, 28, 28, 1), np.uint8)
    >>> data = GroupedImages(images, {"character": np.repeat([0, 1, 2], 2)})
    >>> rest, held_out = hold_out_groups(data, "character", num_groups=1)
    >>> len(rest), len(held_out)
    (4, 2)
    """
    ids = data.group_ids(name)
    if not 0 < num_groups < len(ids):
        raise ValueError(
            f"Can hold out 1 to {len(ids) - 1} of {len(ids)} groups of "
            f"{name!r}. Received: {num_groups}."
        )
    sizes = np.array([len(each) for each in data.members(name).values()])
    if (sizes > 1).sum() > num_groups:
        ids = ids[sizes > 1]
    chosen = np.random.default_rng(seed).choice(ids, num_groups, replace=False)
    held_out = np.isin(data.labels[name], chosen)
    return data.where(~held_out), data.where(held_out)


def split_classes(
    data: _Images,
    group: str,
    *,
    data_dir: str,
    seed: int,
    most: int | None = None,
) -> tuple[_Images, _Images | None, _Images]:
    """Returns the images of the training, validation and test classes.

    Args:
        data: `GroupedData`. The images. A grouping `"split"` decides, see
            `given_split`; else the seed does.
        group: String. The grouping whose groups are the classes.
        data_dir: String. Where the data are, for errors.
        seed: Integer. Selects a fifth of the classes for testing.
        most: Integer or None. The largest number of them. None means no limit.

    Raises:
        ValueError: If there are too few classes.
    """
    num_classes = len(data.group_ids(group))
    if num_classes < _MIN_CLASSES:
        raise ValueError(
            f"Training needs at least {_MIN_CLASSES} classes, to hold some for "
            f"validation and testing. Received: {num_classes} in {data_dir}."
        )
    given = given_split(data, [group], place=data_dir)
    if given is not None:
        return given
    # One class alone cannot be distinguished from another.
    num_test = max(2, math.floor(_TEST_FRACTION * num_classes))
    train, test = hold_out_groups(
        without_split(data),
        group,
        num_groups=min(num_test, most or num_test),
        seed=seed,
    )
    return train, None, test


def check_num_levels(num_levels: int, images: str) -> None:
    """Raises a `ValueError` unless `num_levels` suits a recipe of images."""
    if not 2 <= num_levels <= NUM_LEVELS:
        raise ValueError(
            f"`num_levels` must be between 2 and {NUM_LEVELS}. "
            f"Received: num_levels={num_levels!r}."
        )
    if num_levels < NUM_LEVELS and images != "colour":
        raise ValueError(
            "`num_levels` is for photographs, images='colour'; leave it off. "
            f"Received: num_levels={num_levels!r}, images={images!r}."
        )
