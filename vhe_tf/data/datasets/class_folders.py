"""Folders of images, one for each class, and the groupings that they are."""

import logging
import os
import pathlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vhe_tf.data.datasets.image_file import IMAGE_SUFFIXES
from vhe_tf.data.datasets.spelling import is_missing
from vhe_tf.data.datasets.spelling import unified_names
from vhe_tf.data.datasets.splits import SPLIT

__all__ = ["SIDES", "ClassFolders", "class_files", "class_folders"]

SIDES = ("train", "validation", "test")
"""What classes can be for."""

# The names of such folders, the last ones in Omniglot's archives.
_SIDE_OF_NAME = {
    "train": 0,
    "training": 0,
    "images_background": 0,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "test": 2,
    "testing": 2,
    "images_evaluation": 2,
}

# Of operating systems and storage servers, in lower case.
_SYSTEM_FOLDERS = {
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "@eadir",
    "@recycle",
    "__macosx",
    "__pycache__",
    "lost+found",
    "system volume information",
}

_logger = logging.getLogger(__name__)


class ClassFolders(NamedTuple):
    """The images in folders, and the groups that the folders are.

    Attributes:
        paths: `M` files, sorted by class and name.
        labels: By grouping, the outermost first, `[M]` ids.
        group_names: By grouping, the names of the folders by id.
        sides: `[M]` indices in `SIDES`, which of these folders each image is
            in, or None where there are none.
    """

    paths: list[pathlib.Path]
    labels: dict[str, np.ndarray]
    group_names: dict[str, dict[int, str]]
    sides: np.ndarray | None

    def split_by_class(
        self, labels: dict[str, np.ndarray], label_name: str
    ) -> "ClassFolders":
        """Returns the same with what each class is for, as a grouping.

        A class in two folders is for testing, with a warning: models must be
        tested on other classes than those that they are trained on. If no
        class is left for training, there is no such grouping.

        Args:
            labels: Dictionary of strings to arrays. By grouping, `[M]` ids, in
                place of those of the folders.
            label_name: String. The grouping whose groups are the classes.
        """
        split = self._replace(labels=labels, sides=None)
        if self.sides is None:
            return split
        classes = labels[label_name]
        side_of_class = np.zeros(classes.max() + 1, np.int64)
        np.maximum.at(side_of_class, classes, self.sides)
        sides = side_of_class[classes]
        torn = np.unique(classes[sides != self.sides]).tolist()
        if torn:
            names = [self.group_names[label_name][group] for group in torn]
            usable = 0 in sides
            _logger.warning(
                "%d classes are in folders for training and for testing, for "
                "example %r. Models must be tested on other classes than those "
                "that they are trained on: %s.",
                len(torn),
                names[0],
                "these are for testing alone"
                if usable
                else "the folders are ignored, and random classes are for "
                "testing",
            )
            if not usable:
                return split
        return split._replace(
            labels=labels | {SPLIT: sides},
            group_names=self.group_names | {SPLIT: dict(enumerate(SIDES))},
        )


class _Folder(NamedTuple):
    parts: tuple[str, ...]  # The names from the root on.
    files: list[pathlib.Path]


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
    if not root.exists():
        raise FileNotFoundError(
            "`root` must be an existing folder with one folder of images for "
            f"each class. Received: root={str(root)!r}."
        )
    if not root.is_dir():
        raise NotADirectoryError(
            "`root` must be a folder with one folder of images for each "
            f"class, not a file; unpack an archive first. "
            f"Received: root={str(root)!r}."
        )
    walk = _Walk(root)
    folders = walk.folders()
    walk.warn()
    sides, folders = _take_sides(root, folders)
    _warn_of_ignored_split(root, folders)
    _check_depths(root, folders)
    return _grouped(root, folders, label_name, sides)


class _Walk:
    """Finds the folders of images below a root."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._ignored: list[str] = []
        self._system: list[str] = []
        self._nameless: list[str] = []

    def folders(self) -> list[_Folder]:
        """Returns the folders of images, sorted."""
        folders, images = self._entries(self._root)
        if not folders:
            raise ValueError(
                f"{str(self._root)!r} has no class folders. Make one folder "
                "for each class and move its images there: "
                f"{self._root}/<class>/<image>.png. Received: {len(images)} "
                "images directly in it."
            )
        self._ignored += [entry.path for entry in images]
        return [
            found
            for folder in folders
            for found in self._below(folder, (), [self._root.resolve()])
        ]

    def warn(self) -> None:
        """Warns of what is ignored."""
        for found, what in (
            (self._ignored, "entries of %r that are not images in a class"),
            (self._system, "folders of %r, made by the operating system"),
            (
                self._nameless,
                "folders of %r named as a missing value is. Give them another "
                "name if they are classes",
            ),
        ):
            if found:
                _logger.warning(
                    "Ignored %d " + what + "; for example %r.",
                    len(found),
                    str(self._root),
                    found[0],
                )

    def _below(
        self,
        folder: os.DirEntry[str],
        above: tuple[str, ...],
        real: Sequence[pathlib.Path],
    ) -> Iterator[_Folder]:
        place = pathlib.Path(folder).resolve()
        if place in real:
            raise ValueError(
                "A folder cannot be in itself; remove the link. Received: "
                f"{folder.path!r}, which is {str(place)!r}."
            )
        if is_missing(folder.name):
            self._nameless.append(folder.path)
            return
        folders, images = self._entries(folder)
        parts = (*above, folder.name)
        if images:
            self._ignored += [entry.path for entry in folders]
            yield _Folder(parts, [pathlib.Path(entry) for entry in images])
        elif not folders:
            raise ValueError(
                f"The folder {folder.path!r} has no images; add some, or "
                "remove it."
            )
        for inner in [] if images else folders:
            yield from self._below(inner, parts, [*real, place])

    def _entries(
        self, folder: pathlib.Path | os.DirEntry[str]
    ) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
        """Returns the folders and the images in a folder, sorted by name."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except PermissionError as error:
            raise PermissionError(
                f"The folder {os.fspath(folder)!r} may not be read; change its "
                "permissions, or run as a user who may read it."
            ) from error
        folders, images = [], []
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.name.lower() in _SYSTEM_FOLDERS:
                    self._system.append(entry.path)
                else:
                    folders.append(entry)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                images.append(entry)
            else:
                self._ignored.append(entry.path)
        return folders, images


def _take_sides(
    root: pathlib.Path, folders: list[_Folder]
) -> tuple[list[int] | None, list[_Folder]]:
    """Returns what each folder is for, and the folders below these."""
    outer = {folder.parts[0] for folder in folders}
    if not outer or not all(name.lower() in _SIDE_OF_NAME for name in outer):
        return None, folders
    flat = [folder.parts[0] for folder in folders if len(folder.parts) == 1]
    if flat:
        raise ValueError(
            f"{str(root)!r} needs a folder for each class in {flat[0]!r}: "
            f"{flat[0]}/<class>/<image>.png. Received: images directly in it."
        )
    sides = [_SIDE_OF_NAME[folder.parts[0].lower()] for folder in folders]
    if 2 not in sides:  # Test classes by another name.
        sides = [2 if side == 1 else side for side in sides]
    inner = [_Folder(folder.parts[1:], folder.files) for folder in folders]
    return sides if {0, 2} <= set(sides) else None, inner


def _warn_of_ignored_split(
    root: pathlib.Path, folders: Sequence[_Folder]
) -> None:
    """Warns of classes and groups that are named as a split is."""
    for folder in folders:
        named = [name for name in folder.parts if name.lower() in _SIDE_OF_NAME]
        if named:
            _logger.warning(
                "%r has groups or classes named as a split is, for example %r "
                "in %r. They do not split the data. If they should, keep no "
                "other folders beside them, outermost: train/<class>/ and "
                "test/<class>/.",
                str(root),
                named[0],
                "/".join(folder.parts),
            )
            return


def _check_depths(root: pathlib.Path, folders: Sequence[_Folder]) -> None:
    by_depth = {len(folder.parts): folder for folder in folders}
    if not by_depth:
        raise ValueError(
            f"{str(root)!r} has no class folders. Make one folder for each "
            "class, not named as a missing value is, and move its images "
            "there. Received: none of another name."
        )
    if len(by_depth) > 1:
        few, many = (by_depth[use(by_depth)] for use in (min, max))
        raise ValueError(
            f"The class folders of {str(root)!r} must be equally deep; move "
            f"some, or give the folder around the others. Received: images in "
            f"{'/'.join(few.parts)!r} and in {'/'.join(many.parts)!r}."
        )


def _grouped(
    root: pathlib.Path,
    folders: list[_Folder],
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
