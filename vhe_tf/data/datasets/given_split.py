"""Splits that the data themselves give: whole groups, on one side each."""

import logging
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from vhe_tf._utils.split_names import SIDES
from vhe_tf._utils.split_names import side_of
from vhe_tf._utils.split_names import split_column
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedData

__all__ = ["given_split", "on_one_side", "without_split"]

_Images = TypeVar("_Images", bound=GroupedData)

_TRAIN, _VALIDATION, _TEST = range(3)
# Models need some to compare, and one cannot be distinguished from another.
_LEAST = {_TRAIN: 3, _TEST: 2}

_logger = logging.getLogger(__name__)


def given_split(
    data: _Images, groupings: Sequence[str], *, place: str
) -> tuple[_Images, _Images | None, _Images] | None:
    """Returns the images to train, to validate and to test on.

    The grouping `"split"` gives them, in folders, tables and records alike.
    Its groups are called `train`, `validation` or `test`, or by another usual
    name of these. Each group of `groupings` is kept on one side, with a
    warning. Images without a side have that of their group; others are left
    out, with a warning.

    Args:
        data: `GroupedData`. The images.
        groupings: Strings. Those that matter, the outermost first; its groups
            are held out.
        place: String. Where the data are, for errors.

    Returns:
        The three, the second one None where there is none; or None if the data
        give no split, or none that can be used, which is warned of.

    Raises:
        ValueError: If some groups of `"split"` are sides and others have
            another name, or a side has too few groups.

    Example:
    >>> given_split(data, ["character"], place="DIR") is None
    True
    """
    column = split_column(data.labels)
    if column is None:
        return None
    if column in groupings:
        raise ValueError(
            f"The grouping {column!r} says what images are for, and cannot be "
            f"that of the classes; rename it. Received: {place!r}."
        )
    sides = _sides(data, column, place=place)
    if sides is None:
        return None
    sides = on_one_side(
        sides,
        {name: data.labels[name] for name in groupings},
        names=data.group_names,
    )
    if sides is None:
        return None
    data = without_split(data)
    _check_sizes(data.labels[groupings[0]], sides, groupings[0], place=place)
    _warn_of_left_out(sides == MISSING, place=place)
    return (
        data.where(sides == _TRAIN),
        data.where(sides == _VALIDATION) if _VALIDATION in sides else None,
        data.where(sides == _TEST),
    )


def without_split(data: _Images) -> _Images:
    """Returns the images without the grouping that is their split."""
    column = split_column(data.labels)
    return data if column is None else data.without(column)


def on_one_side(
    sides: np.ndarray,
    labels: Mapping[str, np.ndarray],
    *,
    names: Mapping[str, Mapping[int, str]],
) -> np.ndarray | None:
    """Returns sides that are the same for all images of a group.

    A group on two sides is for testing, or else for validation, with a
    warning: models must be tested on other groups than those that they are
    trained on. A set for validation is for testing where no other one is.

    Args:
        sides: `[M]`, for each image the index of its side in `SIDES`, or
            `MISSING`.
        labels: Mapping of strings to arrays. By grouping, the outermost first,
            `[M]` ids of groups.
        names: Mapping of strings. By grouping, the names of the groups, by id.

    Returns:
        The sides, or None if none is left for training or for testing; a
        warning says that the split is ignored.

    Example:
    >>> on_one_side(np.array([0, 2, -1]), {"a": np.array([7, 8, 8])}, names={})
    array([0, 2, 2])
    """
    if _TEST not in sides:
        sides = np.where(sides == _VALIDATION, _TEST, sides)
    torn = {}
    for grouping, ids in labels.items():
        known = np.flatnonzero(ids != MISSING)
        groups, inverse = np.unique(ids[known], return_inverse=True)
        side_of_group = np.full(len(groups), MISSING)
        np.maximum.at(side_of_group, inverse, sides[known])
        before, after = sides[known], side_of_group[inverse]
        clash = np.unique(ids[known][(before != MISSING) & (before != after)])
        if len(clash):
            torn[grouping] = clash
        sides = sides.copy()
        sides[known] = after
    usable = {_TRAIN, _TEST} <= set(np.unique(sides).tolist())
    for grouping, clash in torn.items():
        first = int(clash[0])
        _logger.warning(
            "Groups of %r on both sides of the split: %d, for example %r. "
            "Models must be tested on other groups than those that they are "
            "trained on: %s.",
            grouping,
            len(clash),
            names.get(grouping, {}).get(first, first),
            "all images of these are for testing, or else for validation"
            if usable
            else "the split is ignored, and random groups are for testing",
        )
    if not usable and not torn:
        _logger.warning(
            "The split has no images to train on or none to test on. It is "
            "ignored, and random groups are for testing."
        )
    return sides if usable else None


def _sides(data: GroupedData, column: str, *, place: str) -> np.ndarray | None:
    """Returns the side of each image or `MISSING`; None if none is a side."""
    ids = data.labels[column]
    names = data.group_names.get(column, {})
    sides = np.full(len(data), MISSING)
    unknown = []
    for group in data.group_ids(column).tolist():
        name = str(names.get(group, group))
        side = side_of(name)
        if side is None:
            unknown.append(name)
        else:
            sides[ids == group] = side
    if unknown and (sides == MISSING).all():
        _logger.warning(
            "The grouping %r of %r has none of the names %s, for example %r. "
            "It is read as no split, and ignored; random groups are for "
            "testing.",
            column,
            place,
            ", ".join(map(repr, SIDES)),
            unknown[0],
        )
        return None
    if unknown:
        raise ValueError(
            f"The grouping {column!r} of {place!r} says what images are for: "
            f"{', '.join(map(repr, SIDES))}, or empty. Correct its names, or "
            f"rename it if it is another grouping. Received: {len(unknown)} "
            f"others, for example {unknown[0]!r}."
        )
    return sides


def _check_sizes(
    ids: np.ndarray, sides: np.ndarray, group: str, *, place: str
) -> None:
    for side, least in _LEAST.items():
        found = np.unique(ids[sides == side])
        num = int((found != MISSING).sum())
        if num < least:
            raise ValueError(
                f"The side {SIDES[side]!r} of the split of {place!r} needs at "
                f"least {least} groups of {group!r} that are on it alone; add "
                "some, or leave the split out: put all class folders in one "
                "folder, or delete the column 'split'. "
                f"Received: {num}."
            )


def _warn_of_left_out(left_out: np.ndarray, *, place: str) -> None:
    indices = np.flatnonzero(left_out)
    if len(indices):
        _logger.warning(
            "Left out %d images of %r that no split is given for, nor for "
            "another image of their group; the first one is number %d. Fill "
            "in the column 'split'.",
            len(indices),
            place,
            indices[0] + 1,
        )
