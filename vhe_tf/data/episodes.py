"""From grouped images to a `tf.data.Dataset` of training episodes.

The images are in memory (`GroupedImages`) or on disk (`RecordedImages`).

Resampling lives here (Eq. 14): an episode is an element x and, for each group
latent, a support D sampled without replacement from the group of x. Where the
objective resamples, D is independent of x, so now and then it holds x: that
independence is what makes Eq. 14 a bound on log p(X). Where it does not, x is
a member of D, its first. A grey element is binarised each time that it is
sampled, so that x and the same element in D differ in the noise.

Row r of step t is a pure function of (seed, t, r): nothing has hidden state, so
a run that resumes at step t sees exactly what it would have seen, on any number
of replicas. All is vectorised TensorFlow; the input path holds no Python.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any
from typing import Self

import numpy as np
import tensorflow as tf

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf._utils.validation import is_image_shape
from vhe_tf.data import augmentation as augmentation_lib
from vhe_tf.data.augmentation import Augmentation
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.data.sampling import permuted
from vhe_tf.data.sampling import sample_without_replacement

__all__ = ["Episodes"]

# Independent streams of random numbers: of a step, and of a row of it.
_ROWS, _SIZE = range(2)
_SUPPORT, _RENDER, _MODEL = range(3)

_MAX_SEED = 2**63 - 1

# Beyond so many elements, images share affine maps: 32 bytes each.
_MAX_MAPS = 2**20


@dataclasses.dataclass(frozen=True)
class _Groups:
    """The places of the members of each group of one grouping.

    Images without a label are members of no group; `start`, `size` and `rank`
    are 0 for them.

    Attributes:
        members: `[L]` int, indices of the labelled images, sorted by group.
        start: `[M]`, for each image the position in `members` at which its
            group begins.
        size: `[M]`, for each image the number of images in its group.
        rank: `[M]`, for each image its own place within its group.
        complete: Whether all images have a label.
    """

    members: tf.Tensor
    start: tf.Tensor
    size: tf.Tensor
    rank: tf.Tensor
    complete: bool


class Episodes:
    """Samples batches of episodes, each a pure function of seed and step.

    An *element* is a stored image under one symmetry and one affine map; it
    belongs to the group (group of the image, symmetry). Groupings may cross
    each other, and an image may lack a label in some of them (`MISSING`).

    Args:
        data: `GroupedImages` or `RecordedImages`. The images and their groups.
        batch_size: Integer, B. Episodes per step.
        support_size: Integer, N, or a pair (low, high) from which N is sampled
            for each batch.
        resamples: Boolean. Whether D is independent of x
            (`Objective.resamples`). If False, D contains x.
        group_latents: Strings. The groupings that have supports. Defaults to
            all groupings of the data.
        augmentation: `Augmentation`, for images alone. Defaults to
            `Augmentation()`.
        seed: Integer in 0..2**63-1. The only source of randomness. Defaults
            to 0.

    Raises:
        ValueError: If a group has too few elements for the support, a
            grouping is unknown, or an argument is out of range.

    Example:
    >>> from vhe_tf.data import GroupedImages
    >>> images = np.zeros([6, 8, 8, 1], np.uint8)
    >>> data = GroupedImages(images, {"character": [0, 0, 0, 1, 1, 1]})
    >>> episodes = Episodes(data, batch_size=4, support_size=2, resamples=True)
    >>> episode = next(iter(episodes.dataset()))
    >>> episode["support"]["character"].shape
    TensorShape([4, 2, 8, 8, 1])
    """

    def __init__(
        self,
        data: GroupedData,
        *,
        batch_size: int,
        support_size: int | tuple[int, int],
        resamples: bool,
        group_latents: Sequence[str] | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.batch_size = validation.positive("batch_size", batch_size)
        self.support_size = support_size
        self.min_support, self.max_support = _support_range(support_size)
        self.resamples = resamples
        self.seed = _checked_seed(seed)
        self.data = data
        self.augmentation = augmentation_lib.augmentation_of(
            data.event_shape, augmentation
        )
        names = tuple(data.labels if group_latents is None else group_latents)
        # The input path runs on the CPU, wherever the model does.
        with tf.device("CPU:0"):
            self._groups = {name: self._index_groups(name) for name in names}
            self._read = data.reader()
        self._size = self._image_size()
        with tf.device("CPU:0"):
            self._maps = self._affine_maps()
        self._traced: dict[range, Any] = {}

    @classmethod
    def for_model(
        cls,
        model: Any,
        data: GroupedData,
        *,
        batch_size: int = 32,
        support_size: int | tuple[int, int] = (1, 5),
        augmentation: Augmentation | None = None,
        seed: int = 0,
        validation: bool = False,
    ) -> Self:
        """Makes the episodes that a model is trained on.

        Its objective decides whether D is independent of x, its latents which
        groupings have supports.

        Args:
            model: `VHE`. The model to train.
            data: `GroupedImages` or `RecordedImages`.
            batch_size: Integer. Episodes per step. Defaults to 32.
            support_size: Integer, or a pair (low, high) from which the size of
                D is sampled for each batch. Defaults to (1, 5).
            augmentation: `Augmentation` or None. What is done to each image. By
                default images of a model of binary pixels are binarised at one
                half, and images of a model of levels rounded to these.
            seed: Integer. Decides all randomness. Defaults to 0.
            validation: Boolean. Whether the episodes are to validate. The ELBO
                on those of Rescale, which is not a bound in training, is the
                VHE bound. Defaults to False.
        """
        objective = model.objective
        if augmentation is None and is_image_shape(data.event_shape):
            levels = model.num_levels
            augmentation = Augmentation(
                binarization="threshold" if levels == 2 else "none",
                num_levels=levels if levels and levels > 2 else None,
            )
        return cls(
            data,
            batch_size=batch_size,
            support_size=support_size,
            resamples=objective.validates_resampled
            if validation
            else objective.resamples,
            group_latents=[v.name for v in model.latents if not v.per_element],
            augmentation=augmentation,
            seed=seed,
        )

    @property
    def group_latents(self) -> tuple[str, ...]:
        """The groupings that episodes have supports for."""
        return tuple(self._groups)

    def settings(self) -> dict[str, Any]:
        """Returns all but the data that decides the episodes."""
        return {
            "batch_size": self.batch_size,
            "support_size": [self.min_support, self.max_support],
            "resamples": self.resamples,
            "group_latents": list(self._groups),
            "augmentation": dataclasses.asdict(self.augmentation),
            "seed": self.seed,
        }

    @property
    def num_elements(self) -> int:
        """The number of elements: stored images times augmented copies."""
        return len(self.data) * self.augmentation.multiplicity

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps after which every element has been a query."""
        return math.ceil(self.num_elements / self.batch_size)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of an element, `(H, W, C)` of the images in episodes."""
        if self._size is None:
            return self.data.event_shape
        return (*self._size, self.data.image_shape[2])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`; a `ValueError` if the elements are not images."""
        return validation.image_shape_of(self.event_shape)

    def dataset(
        self, first_step: int = 0, *, part: int = 0, num_parts: int = 1
    ) -> tf.data.Dataset:
        """Returns the endless data set of episodes from `first_step` on.

        Each element is a mapping with `query` `[B, H, W, C]` float32;
        `support`, by group latent `[B, N, H, W, C]`; `group_size`, by group
        latent `[B]` int32; and `seed` `[B, 2]` int32, the seed of each row.

        If an element has no label, its `group_size` is 0 and its `support` is
        N copies of the element itself, which are not used. If that occurs at
        all, a further mapping `has_label` has a `[B]` bool for each
        group latent that some image has no label of: whether each element has
        a label.

        A part has its rows of the whole batch; the images of other rows are
        not read.

        Args:
            first_step: Integer. The step to begin at.
            part: Integer. Which part of every batch to make, from 0.
            num_parts: Integer. Number of parts of equal size.

        Raises:
            ValueError: If a batch has no such part.
        """
        if self.batch_size % num_parts or not 0 <= part < num_parts:
            raise ValueError(
                "A batch is split into parts of as many rows each, numbered "
                f"from 0. Received: part={part}, num_parts={num_parts} with "
                f"batch_size={self.batch_size}."
            )
        count = self.batch_size // num_parts
        rows = range(part * count, (part + 1) * count)
        steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
        if rows not in self._traced:
            self._traced[rows] = tf.function(
                lambda step: self._rows(step, rows), autograph=False
            )
        made = steps.map(
            self._traced[rows], num_parallel_calls=tf.data.AUTOTUNE
        ).prefetch(tf.data.AUTOTUNE)
        made.episodes = self  # for `fit` to check
        return made

    def episode(self, step: tf.Tensor) -> dict[str, Any]:
        """Returns the batch of episodes of one step; see `dataset`."""
        return self._rows(step, range(self.batch_size))

    def _rows(self, step: tf.Tensor, rows: range) -> dict[str, Any]:
        """Returns successive rows of the batch of episodes of one step."""
        step = tf.cast(step, tf.int64)
        seed = random.fold_in(self.seed, step)
        size = self._support_size(seed)
        numbers = tf.range(rows.start, rows.stop, dtype=tf.int64)
        seeds = random.fold_in(random.fold_in(seed, _ROWS), numbers)  # [B, 2]
        query = self._query_elements(step * self.batch_size + numbers)
        support_seeds = random.fold_in(seeds, _SUPPORT)
        supports = [
            self._support_elements(
                groups, query, random.fold_in(support_seeds, index)
            )[:, :size]
            for index, groups in enumerate(self._groups.values())
        ]  # [B, N] each
        images = self._render(
            tf.concat([query[:, None], *supports], axis=1),
            random.fold_in(seeds, _RENDER),
        )
        support = {}
        for index, name in enumerate(self._groups):
            begin = 1 + index * size
            support[name] = images[:, begin : begin + size]
            support[name].set_shape(
                [len(rows), self._static_support, *self.event_shape]
            )
        episode: dict[str, Any] = {
            "query": images[:, 0],
            "support": support,
            "group_size": self._group_sizes(query),
            "seed": random.fold_in(seeds, _MODEL),
        }
        if not all(groups.complete for groups in self._groups.values()):
            episode["has_label"] = self._has_label(query)
        return episode

    @property
    def _static_support(self) -> int | None:
        fixed = self.min_support == self.max_support
        return self.max_support if fixed else None

    def _index_groups(self, name: str) -> _Groups:
        if name not in self.data.labels:
            raise ValueError(
                f"The data need a grouping {name!r}. "
                f"Received: groupings {sorted(self.data.labels)}."
            )
        labels = self.data.labels[name]
        labelled = np.flatnonzero(labels != MISSING)
        ids, group, size = np.unique(
            labels[labelled], return_inverse=True, return_counts=True
        )
        self._check_sizes(name, ids, size)
        order = np.argsort(group, kind="stable")
        start = np.cumsum(size) - size
        rank = np.empty(len(group), np.int64)
        rank[order] = np.arange(len(group)) - start[group[order]]
        # Half the memory: no number is larger than that of images.
        small = len(labels) <= np.iinfo(np.int32).max
        dtype = np.int32 if small else np.int64

        def of_each_image(values: np.ndarray) -> tf.Tensor:
            whole = np.zeros(len(labels), dtype)
            whole[labelled] = values
            return tf.constant(whole)

        return _Groups(
            members=tf.constant(labelled[order].astype(dtype)),
            start=of_each_image(start[group]),
            size=of_each_image(size[group]),
            rank=of_each_image(rank),
            complete=len(labelled) == len(labels),
        )

    def _check_sizes(
        self, name: str, ids: np.ndarray, size: np.ndarray
    ) -> None:
        needed = self.max_support
        elements = size * self.augmentation.affine_copies
        smallest = int(elements.argmin())
        if elements[smallest] >= needed:
            return
        group = self.data.describe_group(name, int(ids[smallest]))
        raise ValueError(
            f"Every group of {name!r} needs at least {needed} elements for "
            f"support sets of {self.max_support}; use a smaller support, more "
            "`affine_copies`, drop such groups, or leave the label "
            f"{name!r} of their images empty (id {MISSING}). "
            f"Received: group {group} with {elements[smallest]} elements "
            f"({int((elements < needed).sum())} such groups)."
        )

    def _image_size(self) -> tuple[int, int] | None:
        """Returns `(H, W)` of images, None of other elements."""
        if not validation.is_image_shape(self.data.event_shape):
            return None
        height, width, _ = self.data.image_shape
        size = self.augmentation.image_size or (height, width)
        if size[0] > height or size[1] > width:
            raise ValueError(
                "`Augmentation.image_size` can only shrink the stored images; "
                "enlarge these beforehand. "
                f"Received: image_size={size!r} for images of "
                f"{height}x{width} pixels."
            )
        if self.augmentation.symmetries > 2 and size[0] != size[1]:
            raise ValueError(
                "Quarter turns need square images; pass symmetries=2, to "
                "mirror only, or 1, or make the images square. "
                f"Received: images of {size[0]}x{size[1]} pixels "
                f"with symmetries={self.augmentation.symmetries}."
            )
        return size

    def _affine_maps(self) -> tf.Tensor | None:
        if self._size is None:
            return None
        stored = self.data.image_shape[:2]
        if self.augmentation.affine_copies == 1 and self._size == stored:
            return None
        copies = self.augmentation.affine_copies
        return tf.constant(
            augmentation_lib.affine_table(
                min(len(self.data), max(1, _MAX_MAPS // copies)),
                copies,
                stored_size=stored,
                image_size=self._size,
                seed=self.seed,
            )
        )

    def _query_elements(self, position: tf.Tensor) -> tf.Tensor:
        """Returns the elements at positions of the whole run, `[B]`."""
        count = self.num_elements
        key = permuted(
            position // count,
            tf.constant(self.seed, tf.int64),
            max_index=2**62 - 1,
            rounds=32,
        )
        return permuted(position % count, key, max_index=count - 1, rounds=16)

    def _decompose(
        self, elements: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Splits elements into image, symmetry and affine copy."""
        copies = self.augmentation.affine_copies
        copy = elements % copies
        symmetry = elements // copies % self.augmentation.symmetries
        return elements // self.augmentation.multiplicity, symmetry, copy

    def _group_sizes(self, query: tf.Tensor) -> dict[str, tf.Tensor]:
        image, _, _ = self._decompose(query)
        return {
            name: tf.cast(
                _gather(groups.size, image) * self.augmentation.affine_copies,
                tf.int32,
            )
            for name, groups in self._groups.items()
        }

    def _has_label(self, query: tf.Tensor) -> dict[str, tf.Tensor]:
        image, _, _ = self._decompose(query)
        return {
            name: tf.gather(groups.size, image) > 0
            for name, groups in self._groups.items()
            if not groups.complete
        }

    def _support_elements(
        self, groups: _Groups, query: tf.Tensor, seeds: tf.Tensor
    ) -> tf.Tensor:
        """Returns elements for the support of each query, `[B, N max]`.

        Any first few columns are a support set as well.
        """
        copies = self.augmentation.affine_copies
        image, symmetry, copy = self._decompose(query)
        population = _gather(groups.size, image) * copies
        if not groups.complete:
            # Without a label, any places will do: they are not used.
            population = tf.maximum(population, self.max_support)
        if self.resamples:
            places = sample_without_replacement(
                population, self.max_support, seeds=seeds
            )
        else:
            own = (_gather(groups.rank, image) * copies + copy)[:, None]
            others = sample_without_replacement(
                population - 1, self.max_support - 1, seeds=seeds
            )
            others += tf.cast(others >= own, tf.int64)
            places = tf.concat([own, others], axis=1)
        member = _gather(groups.start, image)[:, None] + places // copies
        elements = (
            _gather(groups.members, member) * self.augmentation.symmetries
            + symmetry[:, None]
        ) * copies + places % copies
        if groups.complete:
            return elements
        known = tf.gather(groups.size, image)[:, None] > 0
        return tf.where(known, elements, query[:, None])

    def _support_size(self, seed: tf.Tensor) -> tf.Tensor | int:
        if self._static_support is not None:
            return self._static_support
        count = self.max_support + 1 - self.min_support
        number = random.bits([], random.fold_in(seed, _SIZE)[tf.newaxis])[0]
        return self.min_support + tf.cast(number % count, tf.int32)

    def _render(self, elements: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Makes the images of elements `[B, K]`, `[B, K, H, W, C]` float32."""
        event_shape = tf.constant(self.event_shape, tf.int32)
        shape = tf.concat([tf.shape(elements), event_shape], axis=0)
        elements = tf.reshape(elements, [-1])
        image, symmetry, copy = self._decompose(elements)
        stored = self._read(image)
        if self._size is None:
            return tf.reshape(tf.cast(stored, tf.float32), shape)
        pixels = _intensities(stored)
        if self._maps is not None:
            place = image % self._maps.shape[0]
            maps = tf.gather_nd(self._maps, tf.stack([place, copy], axis=1))
            pixels = augmentation_lib.transform(
                pixels,
                maps,
                image_size=self._size,
                repeat_edges=self.augmentation.repeat_edges,
            )
        if self.augmentation.symmetries == 2:
            pixels = augmentation_lib.mirrored(pixels, symmetry == 1)
        elif self.augmentation.symmetries > 2:
            pixels = augmentation_lib.symmetry(pixels, symmetry)
        pixels = augmentation_lib.binarize(
            tf.reshape(pixels, shape),
            self.augmentation.binarization,
            seeds=seeds,
        )
        if self.augmentation.num_levels is not None:
            pixels = augmentation_lib.rounded(
                pixels, self.augmentation.num_levels
            )
        return pixels


def _gather(table: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.gather(table, indices), tf.int64)


def _intensities(images: tf.Tensor) -> tf.Tensor:
    scale = 255.0 if images.dtype == tf.uint8 else 1.0
    return tf.cast(images, tf.float32) / scale


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed <= _MAX_SEED:
        raise ValueError(
            f"`seed` must be an int in 0..{_MAX_SEED}. Received: seed={seed!r}."
        )
    return int(seed)


def _support_range(support_size: int | tuple[int, int]) -> tuple[int, int]:
    sizes = (
        support_size
        if isinstance(support_size, Sequence)
        else (support_size, support_size)
    )
    if not (
        len(sizes) == 2
        and all(map(validation.is_positive_int, sizes))
        and sizes[0] <= sizes[1]
    ):
        raise ValueError(
            "`support_size` must be a positive int or a pair low <= high of "
            f"them. Received: support_size={support_size!r}."
        )
    return int(sizes[0]), int(sizes[1])
