"""Images with the groups they belong to, as plain arrays in memory."""

import abc
import copy
import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Self

import numpy as np
import tensorflow as tf

from vhe_tf._utils import validation

__all__ = [
    "MISSING",
    "GroupedData",
    "GroupedImages",
    "check_labels",
    "group_members",
]

MISSING = -1
"""The id of an image that has no label in a grouping."""


class GroupedData(abc.ABC):
    """Images and the groups that they are in, wherever their pixels are.

    Attributes:
        labels: Mapping from the name of a group latent to `[M]` integers, as in
            `GroupedImages`.
        group_names: Mapping of strings to mappings. For some or all keys of
            `labels`, the name of each group for a human reader, by id.

    Example:
    >>> data.with_groups("character", [0, 1]).members("character")[1]
    array([ 7,  8,  9, 10, 11, 12, 13])
    """

    labels: Mapping[str, np.ndarray]
    group_names: Mapping[str, Mapping[int, str]]

    @property
    @abc.abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """The shape of an element, `(H, W, C)` of the stored images."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`; a `ValueError` if the elements are not images."""
        return validation.image_shape_of(self.event_shape)

    @abc.abstractmethod
    def where(self, keep: np.ndarray) -> Self:
        """Returns the images for which the boolean mask `keep` holds."""

    @abc.abstractmethod
    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns what reads images, of TensorFlow's own operations.

        It takes indices, `[K]` int, and gives `[K, H, W, C]`, uint8 in 0..255
        or floating point in 0..1; or other elements, `[K, ...]`.
        """

    @abc.abstractmethod
    def load(self) -> "GroupedImages":
        """Returns the images in memory."""

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    def group_ids(self, name: str) -> np.ndarray:
        """Returns the sorted ids of the groups of one grouping."""
        ids = np.unique(self.labels[name])
        return ids[ids != MISSING]

    def members(self, name: str) -> dict[int, np.ndarray]:
        """Returns the indices of the images of each group, by its id.

        Args:
            name: String. The grouping. Images without a label are left out.

        Returns:
            Mapping from the ids, in order, to indices, in order. One sort
            finds them all, however many groups there are.
        """
        return group_members(self.labels[name])

    def describe_group(self, name: str, group_id: int) -> str:
        """Returns the id of a group, and its name where it has one."""
        names = self.group_names.get(name, {})
        if group_id not in names:
            return str(group_id)
        return f"{group_id} ({names[group_id]!r})"

    def without(self, name: str) -> Self:
        """Returns the images without one of their groupings."""
        other = copy.copy(self)
        labels = {key: ids for key, ids in self.labels.items() if key != name}
        object.__setattr__(other, "labels", labels)  # Some are frozen.
        return other

    def with_groups(self, name: str, ids: Sequence[int]) -> Self:
        """Returns the images of the given groups of one grouping."""
        return self.where(np.isin(self.labels[name], np.asarray(ids)))


@dataclasses.dataclass(frozen=True)
class GroupedImages(GroupedData):
    """Images and, for each group latent, the group that each image is in.

    Attributes:
        images: `[M, H, W, C]`, either uint8 in 0..255 or floating point in
            0..1. In binary and grey images 1 (or 255) is ink. Elements that
            are not images have any other shape, `[M, ...]`, and any numbers.
        labels: Mapping from the name of a group latent (`"character"`,
            `"alphabet"`) to `[M]` integers: the id of the group of each image,
            or -1 (`MISSING`) where it is not known. Ids are any non-negative
            integers, not necessarily 0..n-1.
        group_names: Mapping of strings to mappings. For some or all keys of
            `labels`, the name of each group for a human reader, by id.

    Raises:
        ValueError: If `images` has a wrong dtype or range or holds NaN,
            or if some labels are not one integer of at least -1 per image, or
            -1 throughout.

    Example:
    >>> images = np.zeros((4, 28, 28, 1), np.uint8)
    >>> data = GroupedImages(images, {"character": np.array([7, 7, 9, 9])})
    >>> data.group_ids("character")
    array([7, 9])
    """

    images: np.ndarray
    labels: Mapping[str, np.ndarray]
    group_names: Mapping[str, Mapping[int, str]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        _check_images(self.images)
        if not self.labels:
            raise ValueError(
                "`labels` must name at least one grouping of the images, for "
                "example {'character': ids}. Received: labels={}."
            )
        labels = {name: np.asarray(ids) for name, ids in self.labels.items()}
        for name, ids in labels.items():
            check_labels(ids, len(self.images), name=name)
        object.__setattr__(self, "labels", labels)  # The class is frozen.

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of an element, `(H, W, C)` of the stored images."""
        return self.images.shape[1:]

    def where(self, keep: np.ndarray) -> Self:
        """Returns the images for which the boolean mask `keep` holds."""
        return dataclasses.replace(
            self,
            images=self.images[keep],
            labels={name: ids[keep] for name, ids in self.labels.items()},
        )

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns what reads images; see `GroupedData.reader`."""
        images = tf.constant(self.images)
        return lambda indices: tf.gather(images, indices)

    def load(self) -> "GroupedImages":
        """Returns the images themselves, which are in memory."""
        return self


def _check_images(images: np.ndarray) -> None:
    if not isinstance(images, np.ndarray) or images.ndim == 0:
        shape = getattr(images, "shape", type(images).__name__)
        raise ValueError(
            "`images` must be an array, [M, H, W, C] of images or [M, ...] of "
            f"other elements. Received: {shape}."
        )
    if 0 in images.shape:
        raise ValueError(
            "`images` must hold at least one image of at least one pixel. "
            f"Received: images.shape={images.shape}."
        )
    are_images = validation.is_image_shape(images.shape[1:])
    if are_images and images.dtype == np.uint8:
        return
    kinds = "f" if are_images else "fiub"
    if images.dtype.kind not in kinds:
        raise ValueError(
            "`images` must be uint8 in 0..255 or floating point in 0..1, and "
            "other elements numbers. "
            f"Received: images.dtype={images.dtype}."
        )
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(
            "`images` must be finite; drop or repair the images with NaN or "
            f"infinite pixels. Received: {len(bad)} such images, the first at "
            f"index {bad[0]}."
        )
    if not are_images:
        return
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0:
        raise ValueError(
            "Floating point `images` must lie in 0..1; divide pixels in "
            f"0..255 by 255. Received: pixels in {low:g}..{high:g}."
        )


def group_members(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Returns the indices of the members of each group.

    Args:
        labels: Integer array of shape `[M]`. Negative ids are left out.

    Returns:
        Dictionary from integers to int64 arrays. For each group id, the sorted
        indices of its members.

    Example:
    >>> group_members(np.array([7, -1, 2, 7]))[7]
    array([0, 3])
    """
    order = np.argsort(labels, kind="stable")
    ids, starts = np.unique(labels[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {int(i): part for i, part in zip(ids, parts, strict=True) if i >= 0}


def check_labels(ids: np.ndarray, num_images: int, *, name: str) -> None:
    """Raises a `ValueError` if `ids` are not valid labels of one grouping.

    Args:
        ids: Array of group ids.
        num_images: Integer. Number of images.
        name: String. Name of the grouping, for the error.

    Example:
    >>> check_labels(np.array([0, 0, 1]), 3, name="character")
    """
    if ids.shape != (num_images,):
        raise ValueError(
            f"`labels[{name!r}]` must hold one group id per image. "
            f"Received: {num_images} images and labels of shape {ids.shape}."
        )
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"`labels[{name!r}]` must be integers; map names to ids with "
            f"`np.unique(names, return_inverse=True)`. Received: dtype "
            f"{ids.dtype}."
        )
    if ids.min() < MISSING:
        raise ValueError(
            f"`labels[{name!r}]` must be non-negative, or {MISSING} for images "
            f"without a label. Received: {ids.min()} at index "
            f"{int(ids.argmin())}."
        )
    if ids.max() == MISSING:
        raise ValueError(
            f"`labels[{name!r}]` must hold a label of at least one image; "
            f"leave this grouping out. Received: {MISSING} for all "
            f"{num_images} images."
        )
