"""Data sets of a user's own images: how they are split and prepared."""

import abc
import dataclasses
import os
from typing import ClassVar
from typing import Self

from vhe_tf._utils.class_tree import check_num_groups
from vhe_tf._utils.validation import check_choice
from vhe_tf._utils.validation import check_image_size
from vhe_tf.data.contrast import check_classes
from vhe_tf.data.datasets.given_split import given_split
from vhe_tf.data.datasets.given_split import without_split
from vhe_tf.data.datasets.label_table import check_nested
from vhe_tf.data.datasets.label_table import read_label_table
from vhe_tf.data.datasets.splits import NUM_LEVELS
from vhe_tf.data.datasets.splits import DatasetSpec
from vhe_tf.data.datasets.splits import DataSplits
from vhe_tf.data.datasets.splits import check_num_levels
from vhe_tf.data.datasets.splits import drawings
from vhe_tf.data.datasets.splits import hold_out_groups
from vhe_tf.data.datasets.splits import photographs
from vhe_tf.data.grouped_images import GroupedImages

__all__ = ["OwnImages", "Table"]


@dataclasses.dataclass(frozen=True)
class OwnImages(DatasetSpec):
    """A user's own drawings or photographs, with one grouping or two.

    Args:
        images: String. `"binary"` or `"grey"` for drawings, `"colour"` for
            photographs. Defaults to `"binary"`.
        image_size: `(H, W)` to resize to. Defaults to 28x28.
        groupings: Tuple of strings. The grouping by classes; or two, the
            outer one first, whose groups are then held out. Defaults to
            `("character",)`.
        num_levels: Integer. Levels of each channel of photographs to which
            images are rounded. Defaults to 256.
        seed: Integer. Selects the test groups, and is the seed of the
            binarization of grey test images. Defaults to 0.
        invert: Boolean or None. For drawings: whether to swap light and dark;
            see `read_image_folder`. Defaults to None.
        shares: Three integers that sum to 100. The percentages of groups to
            train, to validate and to test on. Defaults to `(60, 20, 20)`.
        final: Boolean. Whether all groups are for training, validation and
            testing. Defaults to False.
    """

    images: str = "binary"
    image_size: tuple[int, int] = (28, 28)
    groupings: tuple[str, ...] = ("character",)
    num_levels: int = NUM_LEVELS
    seed: int = 0
    invert: bool | None = None
    shares: tuple[int, ...] = (60, 20, 20)
    final: bool = False

    def __post_init__(self) -> None:
        check_choice(("binary", "grey", "colour"), images=self.images)
        check_image_size(self.image_size)
        check_num_levels(self.num_levels, self.images)

    @abc.abstractmethod
    def _read(
        self, path: str, *, channels: int, invert: bool | None
    ) -> GroupedImages:
        """Reads the images with their labels."""

    def load(self, data_dir: str | None = None) -> DataSplits:
        """See base class."""
        if data_dir is None:
            raise ValueError(
                f"dataset={self.name!r} needs `data_dir`, where the images "
                "are. Received: data_dir=None."
            )
        path = os.path.expanduser(data_dir)
        is_colour = self.images == "colour"
        data = self._read(
            path,
            channels=3 if is_colour else 1,
            invert=bool(self.invert) if is_colour else self.invert,
        )
        self._check_groupings(data, path)
        check_classes(
            data.images,
            {name: data.labels[name] for name in self.groupings},
            names=data.group_names,
            binary=self.images == "binary",
        )
        train, validation, test = self._split(data, path)
        group = self.groupings[-1]
        if is_colour:
            splits = photographs(
                train,
                test,
                image_size=self.image_size,
                group=group,
                num_levels=self.num_levels,
            )
        else:
            splits = drawings(
                train,
                test,
                images=self.images,
                image_size=self.image_size,
                group=group,
                seed=self.seed,
            )
        splits = splits._replace(validation=validation)
        if self.final:
            caveats = ["measured on classes that were trained on"]
            caveats += [splits.caveat] if splits.caveat else []
            splits = splits._replace(caveat="; ".join(caveats))
        return splits

    def _check_groupings(self, data: GroupedImages, path: str) -> None:
        unknown = set(self.groupings).difference(data.labels)
        if unknown:
            raise ValueError(
                f"`groupings` must be among {sorted(data.labels)} of {path!r}. "
                f"Received: groupings={self.groupings}."
            )
        if len(self.groupings) > 1:
            parent, child = self.groupings
            check_nested(data, child, parent=parent)

    def _split(
        self, data: GroupedImages, path: str
    ) -> tuple[GroupedImages, GroupedImages, GroupedImages]:
        """Returns the images to train, to validate and to test on."""
        if self.final:
            data = without_split(data)
            return data, data, data
        group = self.groupings[0]
        given = given_split(data, self.groupings, place=path)
        if given is not None:
            train, known, test = given
            if known is not None:
                return train, known, test
            count = len(train.group_ids(group)) * self.shares[1] // 100
            rest, validation = hold_out_groups(
                train, group, num_groups=max(1, count), seed=self.seed
            )
            return rest, validation, test
        data = without_split(data)
        total = len(data.group_ids(group))
        check_num_groups(total, group=group, place=path)
        _, share, test_share = self.shares
        # One class alone cannot be distinguished from another.
        num_test = max(2, total * test_share // 100)
        num_validation = max(1, total * share // 100)
        num_test = min(num_test, total - num_validation - 1)
        rest, test = hold_out_groups(
            data, group, num_groups=num_test, seed=self.seed
        )
        train, validation = hold_out_groups(
            rest, group, num_groups=num_validation, seed=self.seed
        )
        return train, validation, test

    def _sees_test_of(self, tested: Self) -> bool:
        chosen = (self.groupings[0], self.seed, self.shares, self.final)
        return self.final or chosen != (
            tested.groupings[0],
            tested.seed,
            tested.shares,
            tested.final,
        )


@dataclasses.dataclass(frozen=True)
class Table(OwnImages):
    """The images that a CSV file lists, with their labels.

    `data_dir` is the file; see `read_label_table`. The arguments are those of
    `OwnImages`; `groupings` are columns of the table. A column `split` with
    `train`, `test` and perhaps `validation` is the split; see
    `docs/own_images.md`.

    Example:
    >>> spec = Table(groupings=("alphabet", "letter"))
    >>> spec.get_config()["groupings"]
    ['alphabet', 'letter']
    """

    name: ClassVar[str] = "table"

    def _read(
        self, path: str, *, channels: int, invert: bool | None
    ) -> GroupedImages:
        return read_label_table(
            path,
            image_size=self.image_size,
            channels=channels,
            invert=invert,
            drawings=self.images == "binary",
        )
