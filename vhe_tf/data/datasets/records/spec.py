"""The spec of a folder of records."""

import dataclasses
import math
import os
from typing import ClassVar

import numpy as np

from vhe_tf._utils.validation import check_choice
from vhe_tf.data.datasets.records.recorded_images import RecordedImages
from vhe_tf.data.datasets.splits import NUM_LEVELS
from vhe_tf.data.datasets.splits import DatasetSpec
from vhe_tf.data.datasets.splits import DataSplits
from vhe_tf.data.datasets.splits import check_num_levels
from vhe_tf.data.datasets.splits import drawings
from vhe_tf.data.datasets.splits import hold_out_groups
from vhe_tf.data.datasets.splits import photographs
from vhe_tf.data.datasets.splits import split_classes
from vhe_tf.data.grouped_images import GroupedData

__all__ = ["Records"]

# The test set is in memory, as float32, even where the others are not.
_MAX_TEST_GROUPS = 1000
_MAX_TEST_BYTES = 2**28
_MIN_TEST_IMAGES_PER_GROUP = 20


@dataclasses.dataclass(frozen=True)
class Records(DatasetSpec):
    """Records of drawings or photographs, of the size at which they are stored.

    A random fifth of the classes is for testing: at least 2, at most 1,000,
    and no more images than 256 MiB have room for, but 20 of two classes.

    Args:
        images: String. `"binary"` or `"grey"` for drawings of one channel,
            `"colour"` for photographs of three. Defaults to `"binary"`.
        group: String. The grouping whose groups are the classes. Defaults to
            `"character"`.
        num_levels: Integer. Levels of each channel of photographs to which
            images are rounded. Defaults to 256.
        seed: Integer. Selects the test classes, and is the seed of the
            binarization of grey test images. Defaults to 0.

    Example:
    >>> Records(images="colour", num_levels=32).get_config()["num_levels"]
    32
    """

    name: ClassVar[str] = "records"

    images: str = "binary"
    group: str = "character"
    num_levels: int = NUM_LEVELS
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(("binary", "grey", "colour"), images=self.images)
        check_num_levels(self.num_levels, self.images)

    def load(self, data_dir: str | None = None) -> DataSplits:
        """See base class."""
        if data_dir is None:
            raise ValueError(
                "dataset='records' needs `data_dir`, the folder that "
                "`vhe_tf.data.datasets.records.folder_to_records` or "
                "`write_records` wrote. Received: data_dir=None."
            )
        data_dir = os.path.expanduser(data_dir)
        data = RecordedImages(data_dir)
        channels = 3 if self.images == "colour" else 1
        if data.image_shape[2] != channels or self.group not in data.labels:
            raise ValueError(
                f"These records must be of images of {channels} channels in "
                f"the grouping {self.group!r}; use the other trainer, or write "
                f"them again. Received: images of shape {data.image_shape} in "
                f"{sorted(data.labels)} in {data_dir}."
            )
        train, validation, test = split_classes(
            data,
            self.group,
            data_dir=data_dir,
            seed=self.seed,
            most=_MAX_TEST_GROUPS,
        )
        fitting = _that_fits(test, self.group, self.seed)
        image_size = data.image_shape[:2]
        if self.images == "colour":
            return photographs(
                train,
                fitting,
                validation=validation,
                image_size=image_size,
                group=self.group,
                num_levels=self.num_levels,
            )
        return drawings(
            train,
            fitting,
            validation=validation,
            images=self.images,
            image_size=image_size,
            group=self.group,
            seed=self.seed,
        )

    def _sees_test_of(self, tested: "Records") -> bool:
        return self.seed != tested.seed


def _that_fits(data: RecordedImages, group: str, seed: int) -> GroupedData:
    """Returns a random selection of as many test images as there is room for.

    The groups are as many as may have `_MIN_TEST_IMAGES_PER_GROUP` images
    each, but at least two.
    """
    room = _MAX_TEST_BYTES // (4 * math.prod(data.image_shape))
    ids = data.group_ids(group)
    num_groups = max(2, room // _MIN_TEST_IMAGES_PER_GROUP)
    if num_groups < len(ids):
        data, _ = hold_out_groups(
            data, group, num_groups=len(ids) - num_groups, seed=seed + 1
        )
        ids = data.group_ids(group)
    most = max(_MIN_TEST_IMAGES_PER_GROUP, room // len(ids))
    order_of_images = np.random.default_rng(seed).random(len(data))
    order = np.lexsort([order_of_images, data.labels[group]])
    _, starts, counts = np.unique(
        data.labels[group][order], return_index=True, return_counts=True
    )
    rank = np.empty(len(data), np.int64)
    rank[order] = np.arange(len(data)) - starts.repeat(counts)
    return data.where(rank < most)
