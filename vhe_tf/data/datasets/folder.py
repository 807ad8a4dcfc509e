"""A folder of images with one sub-folder per class."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from vhe_tf.data.datasets.image_file import check_channels
from vhe_tf.data.datasets.image_file import check_image_size
from vhe_tf.data.datasets.image_file import read_image
from vhe_tf.data.datasets.own_images import OwnImages
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.polarity import with_ink_high

__all__ = ["Folder", "class_files", "read_image_folder"]

_SUFFIXES = (".png", ".jpg", ".jpeg")

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Folder(OwnImages):
    """A folder `data_dir/class/*.png` of drawings or photographs.

    The arguments are those of `OwnImages`; the last of `groupings` is what to
    call the grouping by folders.
    """

    name: ClassVar[str] = "folder"

    def _read(
        self, path: str, *, channels: int, invert: bool | None
    ) -> GroupedImages:
        return read_image_folder(
            path,
            image_size=self.image_size,
            channels=channels,
            invert=invert,
            label_name=self.groupings[-1],
        )


def read_image_folder(
    root: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] = (28, 28),
    channels: int = 1,
    invert: bool | None = False,
    label_name: str = "character",
) -> GroupedImages:
    """Reads all PNG and JPEG files in `root/<class>/`.

    Each image is turned upright (EXIF), flattened on white where transparent,
    made grey or RGB and resized to `image_size`, by area averages along an
    axis that shrinks and linearly along one that grows; its proportions are
    not kept. Hidden files and folders are skipped, and other files too, with
    one warning that counts them.

    Args:
        root: A folder with one sub-folder for each class. The classes get
            the ids 0, 1, ... in the order of the folders' names.
        image_size: `(H, W)`, both positive.
        channels: 1 for grey or 3 for RGB images.
        invert: Boolean or None. Whether to replace each pixel by 255 minus
            it, as for dark ink on light pages: ink is 255 in this package.
            None decides by the border and the mean of the images, and warns
            unless all pages are light. Defaults to False.
        label_name: The name to give to this grouping of the images.

    Returns:
        The images, `[M, H, W, channels]` uint8, sorted by class and file
        name, with `labels[label_name]` and the folders' names as
        `group_names[label_name]`.

    Raises:
        ValueError: If `image_size` or `channels` is not valid, if `root` has
            no class folders, if a class folder has no images, or if an image
            cannot be read.
        FileNotFoundError: If `root` does not exist.
        NotADirectoryError: If `root` is not a folder.
        PermissionError: If a folder may not be read.
    """
    check_image_size(image_size)
    check_channels(channels)
    files = class_files(pathlib.Path(root))
    pixels = np.stack(
        [
            read_image(path, image_size, channels)
            for paths in files.values()
            for path in paths
        ]
    )
    sizes = [len(paths) for paths in files.values()]
    if invert is not False:
        pixels = with_ink_high(pixels, invert=invert, source=str(root))
    return GroupedImages(
        pixels,
        {label_name: np.repeat(np.arange(len(files)), sizes)},
        {label_name: dict(enumerate(files))},
    )


def class_files(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the sorted image files of each class, by class name.

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
    entries = _visible(root)
    folders = [entry for entry in entries if entry.is_dir()]
    if not folders:
        raise ValueError(
            f"{str(root)!r} has no class folders. Make one folder for each "
            "class and move its images there: root/<class>/<image>.png. "
            f"Received: {_count_images(entries)} images directly in `root`."
        )
    ignored = [entry for entry in entries if not entry.is_dir()]
    files = {}
    for folder in folders:
        inside = _visible(folder)
        files[folder.name] = [path for path in inside if _is_image(path)]
        ignored += [path for path in inside if not _is_image(path)]
        if not files[folder.name]:
            raise ValueError(_no_images(folder, inside))
    if ignored:
        _logger.warning(
            "Ignored %d entries of %r that are not PNG or JPEG files in a "
            "class folder, for example %r.",
            len(ignored),
            str(root),
            str(ignored[0]),
        )
    return files


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except PermissionError as error:
        raise PermissionError(
            f"The folder {str(folder)!r} may not be read; change its "
            "permissions, or run as a user who may read it."
        ) from error
    return [entry for entry in entries if not entry.name.startswith(".")]


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.is_dir()


def _count_images(paths: Iterable[pathlib.Path]) -> int:
    return sum(map(_is_image, paths))


def _no_images(folder: pathlib.Path, inside: list[pathlib.Path]) -> str:
    num_folders = sum(path.is_dir() for path in inside)
    return (
        f"The class folder {str(folder)!r} has no PNG or JPEG files; add "
        "images, directly in it and not in folders below it, or remove it. "
        f"Received: {num_folders} folders and {len(inside) - num_folders} "
        "other files."
    )
