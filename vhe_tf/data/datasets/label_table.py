"""Loads grouped images from a CSV file."""

import math
import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from vhe_tf._utils.label_rows import file_column
from vhe_tf._utils.label_rows import image_files
from vhe_tf._utils.label_rows import read_table
from vhe_tf._utils.spelling import unified_names
from vhe_tf._utils.split_names import split_column
from vhe_tf._utils.validation import check_choice
from vhe_tf._utils.validation import check_image_size
from vhe_tf.data.datasets.copies import Copies
from vhe_tf.data.datasets.drawing_file import drawing_levels
from vhe_tf.data.datasets.image_file import read_images
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.polarity import with_ink_high

__all__ = ["check_nested", "from_columns", "read_label_table"]

# What pandas has for values that are missing.
_MISSING_TYPES = ("NAType", "NaTType")


def read_label_table(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] = (28, 28),
    channels: int = 1,
    invert: bool | None = False,
    drawings: bool = False,
) -> GroupedImages:
    """Reads the images that a CSV file lists, with their labels.

    One row per image, cells separated by commas, in UTF-8:

        image,alphabet,character,drawer
        scans/0001.png,Greek,alpha,Ann
        scans/0002.png,Greek,beta,

    The column `image`, or else the first one, holds the file names, relative
    to the table's own folder. Every other column is a grouping and its cells
    are the names of groups; where one is empty or a usual spelling of a
    missing value (`NaN`, `NA`, `None`, `null`, `#VALUE!` and so on), the image
    has no label in that grouping. Names that look alike are one group (`1` and
    `1.0`, Unicode normal forms, full width, runs of spaces, characters without
    a width), with a warning. Another one tells of doubtful groups (`?`,
    `unknown`, `01` beside `1`).
    Surrounding whitespace and blank rows are ignored. Images are read as by
    `read_image_folder`. `vhe-tf train` and `Table` take a column `split` for
    what the images are for.

    Args:
        path: Path. The CSV file.
        image_size: `(H, W)`, both positive.
        channels: Integer. 1 for grey or 3 for RGB images.
        invert: Boolean or None. As in `read_image_folder`. Defaults to False.
        drawings: Boolean. As in `read_image_folder`. Defaults to False.

    Returns:
        The images, `[M, H, W, channels]` uint8, in the order of the rows; see
        `from_columns` for their labels. Groups of the same images are read as
        one, with a warning.

    Raises:
        ValueError: If an argument is not valid, the table is not as described,
            a column has no label at all, images cannot be read or have two
            labels, or most drawings are blank.
        FileNotFoundError: If the table, or an image that it lists, does not
            exist.

    Example:
    >>> table = pathlib.Path(folder) / "labels.csv"
    >>> rows = ["image,letter,hand", "a/0.png,a,Ann", "b/0.png,b,"]
    >>> _ = table.write_text(os.linesep.join(rows))
    >>> read_label_table(table, image_size=(8, 8)).labels["hand"]
    array([ 0, -1])
    >>> table.unlink()
    """
    check_image_size(image_size)
    check_choice((1,) if drawings else (1, 3), channels=channels)
    path = pathlib.Path(path)
    header, rows = read_table(path)
    of_files = file_column(header)
    files = image_files(path, rows, column=of_files)
    columns = {
        name: [row.cells[index] for row in rows]
        for index, name in enumerate(header)
        if index != of_files
    }
    # Before the images, which take long.
    labels, names = _labels_and_names(columns, len(rows))
    copies = Copies(files)
    images = (
        drawing_levels(files, image_size=image_size, invert=invert, source=path)
        if drawings
        else read_images(files, image_size=image_size, channels=channels)
    )
    pixels = np.stack(list(copies.watch(images)))
    # One image can be for training and for testing: its groups decide.
    split = split_column(labels)
    groups = {name: ids for name, ids in labels.items() if name != split}
    resolved, keep = copies.resolve(groups, names)
    labels |= resolved
    if not keep.all():
        pixels = pixels[keep]
    if invert is not False and not drawings:
        pixels = with_ink_high(pixels, invert=invert, source=str(path))
    return GroupedImages(
        pixels,
        {name: ids[keep] for name, ids in labels.items()},
        names,
    )


def from_columns(
    images: np.ndarray, columns: Mapping[str, Sequence[Any]]
) -> GroupedImages:
    """Groups images in memory by columns of names.

    Args:
        images: `[M, H, W, C]`, as in `GroupedImages`.
        columns: Mapping from strings to sequences. By the name of a grouping, M
            strings or ints, the names of the groups; None, NaN or a usual
            spelling of a missing value for an image without a label in that
            grouping. Names that look alike are one group; see
            `read_label_table`.

    Returns:
        The images, with ids 0, 1, ... of the groups in the order of their
        sorted names (ints in that of their decimal strings), the id -1
        (`MISSING`) where there is no label, and the names as `group_names`.

    Raises:
        ValueError: If a column is not as described or has no label at all.

    Example:
    >>> images = np.zeros((3, 28, 28, 1), np.uint8)
    >>> data = from_columns(images, {"character": ["b", "a", None]})
    >>> data.labels["character"]
    array([ 1,  0, -1])
    """
    labels, names = _labels_and_names(columns, len(images))
    return GroupedImages(images, labels, names)


def check_nested(data: GroupedData, child: str, *, parent: str) -> None:
    """Makes sure that each group of one grouping is within one of another.

    A hierarchy of latents, such as of characters in alphabets, takes it for
    granted. A group may be without a label in `parent`, but then all of its
    images must be. Images without a label in `child` are of no concern.

    Args:
        data: `GroupedData`. The images.
        child: String. The finer grouping, for example `"character"`.
        parent: String. The coarser one, for example `"alphabet"`.

    Raises:
        ValueError: If a group of `child` has images in two groups of
            `parent`, or some with and some without a label there, or if a
            grouping is unknown.

    Example:
    >>> images = np.zeros((2, 28, 28, 1), np.uint8)
    >>> columns = {"letter": ["a", "b"], "alphabet": ["Latin", "Latin"]}
    >>> check_nested(from_columns(images, columns), "letter", parent="alphabet")
    """
    for name in (child, parent):
        if name not in data.labels:
            raise ValueError(
                f"The data need a grouping {name!r}. "
                f"Received: groupings {sorted(data.labels)}."
            )
    pairs = np.stack([data.labels[child], data.labels[parent]], axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != MISSING], axis=0)
    ids, num_parents = np.unique(pairs[:, 0], return_counts=True)
    split = ids[num_parents > 1]
    if not len(split):
        return
    places = [
        "no group at all"
        if parent_id == MISSING
        else data.describe_group(parent, int(parent_id))
        for parent_id in pairs[pairs[:, 0] == split[0], 1]
    ]
    raise ValueError(
        f"Each group of {child!r} must lie in one group of {parent!r}. Give "
        "groups that merely share a name different names (such as 'Greek/1' "
        f"and 'Latin/1'), correct the labels, or declare no hierarchy of "
        f"{child!r} and {parent!r}. Received: {child} "
        f"{data.describe_group(child, int(split[0]))} with images in "
        f"{parent} {' and in '.join(places[:2])} ({len(split)} such groups)."
    )


def _labels_and_names(
    columns: Mapping[str, Sequence[Any]], num_images: int
) -> tuple[dict[str, np.ndarray], dict[str, dict[int, str]]]:
    labels, names = {}, {}
    for column, values in columns.items():
        if len(values) != num_images:
            raise ValueError(
                f"The column {column!r} must have one value per image. "
                f"Received: {len(values)} values for {num_images} images."
            )
        groups = unified_names(
            [
                _group_name(column, index, value)
                for index, value in enumerate(values)
            ],
            grouping=f"Column {column!r}",
        )
        known = sorted({name for name in groups if name})
        if not known:
            raise ValueError(
                f"The column {column!r} must have a label of at least one "
                "image; fill some in or leave the column out. "
                f"Received: {num_images} empty values."
            )
        ids = {name: index for index, name in enumerate(known)} | {"": MISSING}
        labels[column] = np.array([ids[name] for name in groups])
        names[column] = dict(enumerate(known))
    return labels, names


def _group_name(column: str, index: int, value: Any) -> str:
    """Returns the name that a value stands for, empty for no label."""
    if isinstance(value, str):
        return value
    if value is None or type(value).__name__ in _MISSING_TYPES:
        return ""
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return ""
        # A column of ints with gaps is one of floats in most libraries.
        if value.is_integer():
            return str(int(value))
    if isinstance(value, (int, np.integer)):
        return str(value)
    raise ValueError(
        f"The values of column {column!r} must be strings or ints, or None "
        f"where there is no label. Received: {value!r} at index {index}."
    )
