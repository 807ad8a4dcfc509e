"""K-way N-shot tasks: which images are supports, which are queries."""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vhe_tf._utils import validation
from vhe_tf._utils.validation import is_image_shape
from vhe_tf.data.contrast import check_contrast
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.grouped_images import group_members
from vhe_tf.models.vhe import VHE

__all__ = [
    "Task",
    "TaskDesign",
    "check_ready",
    "check_shape",
    "check_values",
    "checked_latent",
    "few_shot_tasks",
    "lowered_shots",
    "most_classes",
    "most_shots",
]


class Task(NamedTuple):
    """One K-way N-shot task.

    Attributes:
        support: `[K, N, H, W, C]`, N images of each class.
        queries: `[Q, H, W, C]`, the images to classify.
        labels: `[Q]`, for each query its class, in 0..K-1.
    """

    support: np.ndarray
    queries: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class TaskDesign:
    """The shape of K-way N-shot tasks, and which classes share a task.

    >>> TaskDesign(num_ways=20, num_shots=5, within="alphabet").num_ways
    20

    Args:
        num_ways: Integer. K, classes in a task.
        num_shots: Integer. N, support images per class.
        queries_per_class: Integer. Queries of each class in a task. Defaults
            to 1.
        num_queries: Integer or None. If given, a task has a random selection
            of so many of these.
        within: String or None. A coarser grouping (`"alphabet"`). All classes
            of a task are of one of its groups. None selects from all classes.
        spread: String or None. Another grouping (`"character"` if alphabets
            are the classes): the images of a class in a task, support and
            queries, are of different groups of it.
    """

    num_ways: int
    num_shots: int
    queries_per_class: int = 1
    num_queries: int | None = None
    within: str | None = None
    spread: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_ways", "num_shots", "queries_per_class"):
            validation.positive(name, getattr(self, name))
        most = self.num_ways * self.queries_per_class
        if self.num_queries is not None and self.num_queries > most:
            raise ValueError(
                f"{self.num_ways}-way tasks have {most} queries to select "
                "from; give more `queries_per_class`. "
                f"Received: num_queries={self.num_queries}."
            )


def few_shot_tasks(
    data: GroupedImages,
    design: TaskDesign,
    *,
    group: str,
    num_tasks: int,
    seed: int = 0,
) -> Iterator[Task]:
    """Samples few-shot tasks; support and queries never overlap.

    Args:
        data: `GroupedImages`. Images ready for the model: floating point, of
            its size.
        design: `TaskDesign`. The shape of the tasks.
        group: String. The grouping whose groups are the classes.
        num_tasks: Integer. The number of tasks.
        seed: Integer. Seed of the selection. Defaults to 0.

    Yields:
        The tasks.

    Raises:
        ValueError: If there are too few classes, or a class has too few
            images, for such tasks; if `num_tasks` is not positive, or the data
            have no such grouping.

    Example:
    >>> images = np.zeros((9, 28, 28, 1), np.float32)
    >>> data = GroupedImages(images, {"character": np.repeat([0, 1, 2], 3)})
    >>> design = TaskDesign(num_ways=2, num_shots=1)
    >>> [task] = few_shot_tasks(data, design, group="character", num_tasks=1)
    >>> task.support.shape
    (2, 1, 28, 28, 1)
    """
    within, spread = design.within, design.spread
    check_ready(data, groupings=[group, within, spread])
    validation.positive("num_tasks", num_tasks)
    generator = np.random.default_rng(seed)
    members = _members(data, group, spread)
    pools = _pools(data, group, within, design.num_ways)
    _check_sizes(data, design, group=group, members=members, pools=pools)
    for _ in range(num_tasks):
        pool = pools[generator.integers(len(pools))]
        classes = generator.choice(pool, design.num_ways, replace=False)
        chosen = np.stack(
            [
                _spread_choice(
                    members[int(i)],
                    data.labels[spread] if spread else None,
                    design.num_shots + design.queries_per_class,
                    generator,
                )
                for i in classes
            ]
        )
        queries = chosen[:, design.num_shots :].reshape(-1)
        labels = np.repeat(np.arange(design.num_ways), design.queries_per_class)
        if design.num_queries is not None:
            kept = generator.choice(
                len(labels), design.num_queries, replace=False
            )
            queries, labels = queries[kept], labels[kept]
        yield Task(
            support=data.images[chosen[:, : design.num_shots]],
            queries=data.images[queries],
            labels=labels,
        )


def lowered_shots(shots: Sequence[int], most: int) -> list[int]:
    """Clips the requested shots to what the smallest class allows.

    Args:
        shots: Sequence of integers. Numbers of support images.
        most: Integer. The largest number that leaves a query of every class.

    Returns:
        List of integers. The distinct numbers, none above `most`. Empty if
        `most` is 0.
    """
    return sorted({min(num_shots, most) for num_shots in shots if most > 0})


def most_shots(
    data: GroupedImages, group: str, *, spread: str | None = None
) -> int:
    """Returns the number of shots that leaves one query of every class.

    Args:
        data: `GroupedImages`. The images.
        group: String. The grouping whose groups are the classes.
        spread: String or None. As in `TaskDesign`: shots and query are of
            different groups of this grouping.

    Returns:
        At least 0; -1 if a class has no image with a label of `spread`.
    """
    labels = data.labels[group]
    if spread:
        pairs = np.stack([labels, data.labels[spread]], axis=1)
        labels = np.unique(pairs[pairs[:, 1] != MISSING], axis=0)[:, 0]
    ids = data.group_ids(group)
    labels = labels[labels != MISSING]
    counts = np.bincount(np.searchsorted(ids, labels), minlength=len(ids))
    return int(counts.min()) - 1


def most_classes(
    data: GroupedImages, group: str, *, within: str | None = None
) -> int:
    """Returns the largest number of classes that a task can have.

    Args:
        data: `GroupedImages`. The images.
        group: String. The grouping whose groups are the classes.
        within: String or None. As in `TaskDesign`.
    """
    return max(map(len, _classes_within(data, group, within)))


def check_ready(
    data: GroupedImages,
    model: VHE | None = None,
    *,
    groupings: Sequence[str | None] = (),
) -> None:
    """Raises a ValueError for data that cannot be evaluated.

    Args:
        data: `GroupedImages`. Stored images are rejected: they are not ready
            for a model.
        model: `VHE` or None. The model whose shape the images must have.
        groupings: Strings or None. The groupings that the data must have; None
            is passed over.
    """
    for name in groupings:
        if name is not None and name not in data.labels:
            raise ValueError(
                f"The data have the groupings {sorted(data.labels)}. "
                f"Received: {name!r}."
            )
    if model is not None:
        check_shape(model, data.event_shape)
        check_values(model, "images", values=data.images)
    if data.images.dtype != np.float32:
        raise ValueError(
            "Evaluation needs images as a model sees them, float32; see "
            "`vhe_tf.data.ready`. "
            f"Received: images of dtype {data.images.dtype}."
        )


def check_shape(model: VHE, event_shape: Sequence[int]) -> None:
    """Raises a ValueError for images of another shape than the model's."""
    if tuple(event_shape) != model.event_shape:
        raise ValueError(
            "Images must have the shape that the model was made for, "
            f"{model.event_shape}. Received: {tuple(event_shape)}."
        )


def check_values(model: VHE, name: str, *, values: np.ndarray) -> None:
    """Raises a ValueError for values that the likelihood does not model."""
    model.domain.check(name, values, event_rank=len(model.event_shape))
    if is_image_shape(model.event_shape) and model.domain.is_bounded:
        check_contrast(
            values,
            name,
            binary=model.domain.binary,
            constant=True,
            warns=False,  # of what was warned of when it was made ready
        )


def checked_latent(model: VHE, group: str) -> str:
    """Returns the name of a group latent; a ValueError for any other."""
    known = [v.name for v in model.latents if not v.per_element]
    if group not in known:
        raise ValueError(
            f"`group` must be a group latent of the model, one of {known}. "
            f"Received: group={group!r}."
        )
    return group


def _members(
    data: GroupedImages, group: str, spread: str | None
) -> dict[int, np.ndarray]:
    """Returns the indices of the usable images of each class."""
    members = data.members(group)
    if not spread:
        return members
    usable = data.labels[spread] != MISSING
    return {i: indices[usable[indices]] for i, indices in members.items()}


def _classes_within(
    data: GroupedImages, group: str, within: str | None
) -> list[np.ndarray]:
    """Returns the classes of each coarser group, or one set of all."""
    if within is None:
        return [data.group_ids(group)]
    pairs = np.stack([data.labels[within], data.labels[group]], axis=1)
    pairs = np.unique(pairs[(pairs != MISSING).all(axis=1)], axis=0)
    of_group = group_members(pairs[:, 0])
    none = np.zeros(0, np.int64)
    return [
        pairs[of_group.get(i, none), 1] for i in data.group_ids(within).tolist()
    ]


def _check_sizes(
    data: GroupedImages,
    design: TaskDesign,
    *,
    group: str,
    members: dict[int, np.ndarray],
    pools: list[np.ndarray],
) -> None:
    """Raises a ValueError if a class has too few images for the tasks."""
    spread = design.spread
    needed = design.num_shots + design.queries_per_class
    what = f"images of different {spread}s" if spread else "images"
    for class_id in {int(i) for pool in pools for i in pool}:
        available = members[class_id]
        if spread:
            available = np.unique(data.labels[spread][available])
        if len(available) < needed:
            raise ValueError(
                f"{design.num_shots}-shot tasks with "
                f"{design.queries_per_class} queries need {needed} {what} per "
                f"class; ask for fewer shots. Received: {group} {class_id} "
                f"with {len(available)} {what}."
            )


def _spread_choice(
    members: np.ndarray,
    labels: np.ndarray | None,
    count: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Chooses images of a class, of different groups where labels say which."""
    if labels is None:
        return generator.choice(members, count, replace=False)
    groups = generator.choice(np.unique(labels[members]), count, replace=False)
    return np.stack(
        [generator.choice(members[labels[members] == g]) for g in groups]
    )


def _pools(
    data: GroupedImages, group: str, within: str | None, num_ways: int
) -> list[np.ndarray]:
    """Returns the sets from which the classes of a task are chosen."""
    pools = _classes_within(data, group, within)
    large = [pool for pool in pools if len(pool) >= num_ways]
    if not large:
        raise ValueError(
            f"{num_ways}-way tasks need {num_ways} classes"
            f"{f' in one {within}' if within else ''}. Received: at most "
            f"{max(len(pool) for pool in pools)}."
        )
    return large
