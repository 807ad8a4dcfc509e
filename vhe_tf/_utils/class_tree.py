"""The tree of class folders, as it is on disk. Does not read images."""

import logging
import os
import pathlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from vhe_tf._utils.listing import listed
from vhe_tf._utils.spelling import is_missing
from vhe_tf._utils.split_names import side_of

__all__ = ["IMAGE_SUFFIXES", "Folder", "check_num_groups", "find_class_folders"]

# The usual formats first, since they are tried in the order of loading.
Image.preinit()

# Pillow knows these by name alone.
_UNREADABLE = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
IMAGE_SUFFIXES = frozenset(
    suffix
    for suffix, kind in Image.registered_extensions().items()
    if kind in Image.OPEN and kind not in _UNREADABLE
)
"""The suffixes of files that Pillow reads, in lower case."""

# Folders of operating systems and storage servers, in lower case.
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


_MIN_GROUPS = 5


class Folder(NamedTuple):
    """A folder of images.

    Attributes:
        parts: Tuple of strings. The names from the root on.
        files: List of paths. The images, sorted by name.
    """

    parts: tuple[str, ...]
    files: list[pathlib.Path]


def find_class_folders(
    root: pathlib.Path, *, warn: bool = True
) -> tuple[list[int] | None, list[Folder]]:
    """Returns the folders of images below a root, and what they are for.

    Args:
        root: Path. The folder.
        warn: Boolean. Whether to warn of what is ignored. Defaults to True.

    Returns:
        For each folder 0 to train, 1 to validate, 2 to test on, or None if the
        tree does not say it; and the folders, without these levels.

    Raises:
        ValueError, OSError: As `read_image_folder`.

    Example:
    >>> sides, folders = find_class_folders(pathlib.Path(folder))
    >>> sides, folders[0].parts
    (None, ('a',))
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
    if warn:
        walk.warn()
    sides, folders = _take_sides(root, folders)
    if warn:
        _warn_of_ignored_split(root, folders)
    _check_depths(root, folders)
    return sides, folders


def check_num_groups(
    total: int, *, group: str, place: str | os.PathLike[str]
) -> None:
    """Checks that there are groups to hold out, besides those to train on.

    Args:
        total: Integer. Number of groups.
        group: String. The grouping whose groups are held out.
        place: Path. Where they are from.

    Raises:
        ValueError: If there are too few.

    Example:
    >>> check_num_groups(5, group="character", place=folder)
    """
    if total < _MIN_GROUPS:
        raise ValueError(
            f"Training needs at least {_MIN_GROUPS} groups of {group!r}, "
            "to hold some for validation and testing; `final` trains on "
            "all, and then nothing is measured on unseen ones. "
            f"Received: {total} in {os.fspath(place)!r}."
        )


class _Walk:
    """Finds the folders of images below a root."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._ignored: list[str] = []
        self._system: list[str] = []
        self._nameless: list[str] = []
        self._empty: list[str] = []

    def folders(self) -> list[Folder]:
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
        found = [
            below
            for folder in folders
            for below in self._below(folder, (), [self._root.resolve()])
        ]
        if self._empty:
            count = len(self._empty)
            received = f"{self._empty[0]!r}, without images."
            if count > 1:
                received = f"{count:,} without images:{listed(self._empty)}"
            raise ValueError(
                "Class folders, and folders within them, must hold images; "
                f"add some, or remove them. Received: {received}"
            )
        return found

    def warn(self) -> None:
        """Warns of what is ignored."""
        for found, nouns, why in (
            (
                self._ignored,
                ("entry", "entries"),
                "only images in class folders are read",
            ),
            (
                self._system,
                ("folder", "folders"),
                "made by the operating system",
            ),
            (
                self._nameless,
                ("folder", "folders"),
                "named as a missing value is; a class needs another name",
            ),
        ):
            if found:
                _logger.warning(
                    "Ignored %d %s of %r: " + why + "; for example %r.",
                    len(found),
                    nouns[len(found) > 1],
                    str(self._root),
                    found[0],
                )

    def _below(
        self,
        folder: os.DirEntry[str],
        above: tuple[str, ...],
        real: Sequence[pathlib.Path],
    ) -> Iterator[Folder]:
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
            yield Folder(parts, [pathlib.Path(entry) for entry in images])
        elif not folders:
            self._empty.append(folder.path)
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
    root: pathlib.Path, folders: list[Folder]
) -> tuple[list[int] | None, list[Folder]]:
    """Returns what each folder is for, and the folders below these."""
    sides = [side_of(folder.parts[0]) for folder in folders]
    known = [side for side in sides if side is not None]
    if not sides or len(known) < len(sides):
        return None, folders
    flat = [folder.parts[0] for folder in folders if len(folder.parts) == 1]
    if flat:
        raise ValueError(
            f"{str(root)!r} needs a folder for each class in {flat[0]!r}: "
            f"{flat[0]}/<class>/<image>.png. Received: images directly in it."
        )
    inner = [Folder(folder.parts[1:], folder.files) for folder in folders]
    return known if len(set(known)) > 1 else None, inner


def _warn_of_ignored_split(
    root: pathlib.Path, folders: Sequence[Folder]
) -> None:
    """Warns of classes and groups that are named as a split is."""
    for folder in folders:
        named = [n for n in folder.parts if side_of(n) is not None]
        if named:
            _logger.warning(
                "%r has groups or classes named as a split is, for example %r "
                "in %r. They do not split the data. If they should, %s.",
                str(root),
                named[0],
                "/".join(folder.parts),
                _way_to_split(root, folders),
            )
            return


def _way_to_split(root: pathlib.Path, folders: Sequence[Folder]) -> str:
    """Returns what makes folders a split."""
    first = folders[0].parts
    for depth in range(1, min(len(folder.parts) for folder in folders) - 1):
        below = {folder.parts[depth] for folder in folders}
        if any(folder.parts[:depth] != first[:depth] for folder in folders):
            break
        if len(below) > 1 and None not in map(side_of, below):
            return f"give {str(root.joinpath(*first[:depth]))!r} in its place"
    return (
        "keep no other folders beside them, outermost: train/<class>/ and "
        "test/<class>/"
    )


def _check_depths(root: pathlib.Path, folders: Sequence[Folder]) -> None:
    by_depth = {len(folder.parts): folder for folder in folders}
    if not by_depth:
        raise ValueError(
            f"{str(root)!r} has no class folders. Make one folder for each "
            "class, whose name is not that of a missing value, and move its "
            "images there. Received: none of another name."
        )
    if len(by_depth) > 1:
        few, many = (by_depth[use(by_depth)] for use in (min, max))
        raise ValueError(
            f"The class folders of {str(root)!r} must be equally deep; move "
            f"some, or give the folder around the others. Received: images in "
            f"{'/'.join(few.parts)!r} and in {'/'.join(many.parts)!r}."
        )
