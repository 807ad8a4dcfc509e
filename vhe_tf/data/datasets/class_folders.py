"""Folders of images, one for each class, and the groupings that they are."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vhe_tf._utils.class_tree import Folder
from vhe_tf._utils.class_tree import find_class_folders
from vhe_tf._utils.spelling import unified_names
from vhe_tf._utils.split_names import SIDES
from vhe_tf._utils.split_names import SPLIT
from vhe_tf.data.datasets.given_split import on_one_side

__all__ = ["ClassFolders", "class_files", "class_folders"]


class ClassFolders(NamedTuple):
    """The images in folders, and the groups that the folders are.

    Attributes:
        paths: List of M paths. The files, sorted by class and name.
        labels: Dictionary of strings to integer arrays of shape `[M]`. By
            grouping, the outermost first, the ids.
        group_names: Dictionary of strings to dictionaries. By grouping, the
            names of the folders by id.
        sides: Integer array of shape `[M]`, or None. The index in `SIDES` of
            the folder that each image is in. None if there are no such folders.
    """

    paths: list[pathlib.Path]
    labels: dict[str, np.ndarray]
    group_names: dict[str, dict[int, str]]
    sides: np.ndarray | None

    def split_by_class(
        self, labels: dict[str, np.ndarray], label_name: str
    ) -> "ClassFolders":
        """Returns the same with what each class is for, as a grouping.

        A class in two folders is for testing, with a warning; see
        `on_one_side`. If no class is left for training, there is no such
        grouping.

        Args:
            labels: Dictionary of strings to arrays. By grouping, `[M]` ids, in
                place of those of the folders.
            label_name: String. The grouping whose groups are the classes.
        """
        split = self._replace(labels=labels, sides=None)
        if self.sides is None:
            return split
        classes = {label_name: labels[label_name]}
        sides = on_one_side(self.sides, classes, names=self.group_names)
        if sides is None:
            return split
        return split._replace(
            labels=labels | {SPLIT: sides},
            group_names=self.group_names | {SPLIT: dict(enumerate(SIDES))},
        )


def class_files(
    root: pathlib.Path, *, label_name: str = "character"
) -> dict[str, list[pathlib.Path]]:
    """Returns the sorted image files of each class, by class name.

    Raises:
        ValueError, OSError: As `read_image_folder`.
    """
    folders = class_folders(root, label_name=label_name)
    names = folders.group_names[label_name]
    files: dict[str, list[pathlib.Path]] = {name: [] for name in names.values()}
    for path, group in zip(
        folders.paths, folders.labels[label_name].tolist(), strict=True
    ):
        files[names[group]].append(path)
    return files


def class_folders(root: pathlib.Path, *, label_name: str) -> ClassFolders:
    """Returns the images in the folders of a root.

    Args:
        root: Path. The folder.
        label_name: String. The name of the innermost grouping.

    Raises:
        ValueError, OSError: As `read_image_folder`.
    """
    sides, folders = find_class_folders(root)
    return _grouped(root, folders, label_name, sides)


def _grouped(
    root: pathlib.Path,
    folders: list[Folder],
    label_name: str,
    sides: Sequence[int] | None,
) -> ClassFolders:
    outer = [f"level_{level + 1}" for level in range(len(folders[0].parts) - 1)]
    if outer == ["level_1"] and label_name == "character":
        outer = ["alphabet"]
    names = [""] * len(folders)
    columns = {}
    for level, grouping in enumerate([*outer, label_name]):
        names = _names_below(root, names, [f.parts[level] for f in folders])
        columns[grouping] = names
    order = sorted(range(len(folders)), key=names.__getitem__)
    sizes = [len(folders[index].files) for index in order]
    labels, group_names = {}, {}
    for grouping, names in columns.items():
        ids = {name: group for group, name in enumerate(sorted(set(names)))}
        labels[grouping] = np.repeat([ids[names[i]] for i in order], sizes)
        group_names[grouping] = {group: name for name, group in ids.items()}
    paths = [path for index in order for path in folders[index].files]
    if sides is None:
        return ClassFolders(paths, labels, group_names, None)
    return ClassFolders(
        paths,
        labels,
        group_names,
        np.repeat([sides[index] for index in order], sizes),
    )


def _names_below(
    root: pathlib.Path, above: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Returns one name for folders in one folder that look alike."""
    members: dict[str, list[int]] = {}
    for index, parent in enumerate(above):
        members.setdefault(parent, []).append(index)
    paths = [""] * len(names)
    for parent, indices in members.items():
        unified = unified_names(
            [names[index] for index in indices],
            grouping=f"Folders in {str(root / parent)!r}",
        )
        for index, name in zip(indices, unified, strict=True):
            paths[index] = f"{parent}/{name}" if parent else name
    return paths
