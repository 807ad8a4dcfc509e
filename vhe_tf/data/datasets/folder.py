"""A folder of images with one sub-folder per class."""

import dataclasses
import os
import pathlib
from typing import ClassVar

import numpy as np

from vhe_tf._utils.split_names import SPLIT
from vhe_tf._utils.validation import check_choice
from vhe_tf._utils.validation import check_image_size
from vhe_tf.data.datasets.class_folders import class_folders
from vhe_tf.data.datasets.copies import Copies
from vhe_tf.data.datasets.drawing_file import drawing_levels
from vhe_tf.data.datasets.image_file import read_images
from vhe_tf.data.datasets.own_images import OwnImages
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.polarity import with_ink_high

__all__ = ["Folder", "read_image_folder"]


@dataclasses.dataclass(frozen=True)
class Folder(OwnImages):
    """A folder `data_dir/class/*.png` of drawings or photographs.

    The arguments are those of `OwnImages`; `groupings` are what to call the
    levels of folders, the innermost last. If `data_dir` has folders `train` and
    `test`, these are the split; see `read_image_folder`.

    Example:
    >>> splits = Folder(image_size=(8, 8)).load(folder)
    >>> len(splits.test.group_ids("character"))
    2
    """

    name: ClassVar[str] = "folder"

    def _read(
        self, path: str, *, channels: int, invert: bool | None
    ) -> GroupedImages:
        data = read_image_folder(
            path,
            image_size=self.image_size,
            channels=channels,
            invert=invert,
            drawings=self.images == "binary",
            label_name=self.groupings[-1],
        )
        levels = [name for name in data.labels if name != SPLIT]
        names = {name: name for name in data.labels}
        names |= dict(
            zip(reversed(levels), reversed(self.groupings), strict=False)
        )
        return dataclasses.replace(
            data,
            labels={names[n]: ids for n, ids in data.labels.items()},
            group_names={names[n]: g for n, g in data.group_names.items()},
        )


def read_image_folder(
    root: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] = (28, 28),
    channels: int = 1,
    invert: bool | None = False,
    drawings: bool = False,
    label_name: str = "character",
) -> GroupedImages:
    """Reads all images in `root/<class>/`, of any format that Pillow reads.

    The folders may be nested: of `root/<alphabet>/<class>/`, alphabets are a
    grouping too, `"alphabet"` above `"character"` and otherwise `"level_1"`,
    `"level_2"` and so on from the outside. If the folders in `root` are called
    `train` and `test` (and `validation`; or as in Omniglot's archives), these
    are the grouping `"split"`, and classes in both are for testing.

    Each image is turned upright (EXIF), flattened on white where transparent,
    made grey or RGB and resized to `image_size`, by area averages along an
    axis that shrinks and linearly along one that grows; its proportions are
    not kept. Thin strokes of drawings become faint by that: by `drawings=True`
    they keep at least the width of a pixel. A drawing on a photograph is then
    cropped, and its proportions are kept.

    Hidden files and folders are skipped. A warning names other files, of
    folders of the operating system, of folders with a name that stands for a
    missing value (`nan`), of names that look alike (`1` and `1.0`) and of
    classes with the same images, which are read as one class.

    Args:
        root: Path. A folder with one sub-folder for each class. The classes get
            the ids 0, 1, ... in the order of the folders' names.
        image_size: `(H, W)`, both positive.
        channels: Integer. 1 for grey or 3 for RGB images.
        invert: Boolean or None. Whether to replace each pixel by 255 minus
            it, as for dark ink on light pages: ink is 255 in this package.
            None decides by the border and the mean of the images, and warns
            unless all pages are light. Defaults to False.
        drawings: Boolean. Whether images are drawings, for a model of binary
            ones; `channels` must be 1. Ink is then 128 to 255, and paper
            less. Defaults to False.
        label_name: String. The name to give to this grouping of the images.

    Returns:
        The images, `[M, H, W, channels]` uint8, sorted by class and file
        name, with `labels[label_name]` and the folders' names as
        `group_names[label_name]`.

    Raises:
        ValueError: If `image_size` or `channels` is not valid, if `root` has
            no class folders, if a class folder has no images, if images cannot
            be read, most drawings are blank, or an image is in two classes.
        FileNotFoundError: If `root` does not exist.
        NotADirectoryError: If `root` is not a folder.
        PermissionError: If a folder may not be read.

    Example:
    >>> images = read_image_folder(folder, image_size=(8, 8))
    >>> images.images.shape, images.group_names["character"][0]
    ((18, 8, 8, 1), 'a')
    """
    check_image_size(image_size)
    check_choice((1,) if drawings else (1, 3), channels=channels)
    folders = class_folders(pathlib.Path(root), label_name=label_name)
    copies = Copies(folders.paths)
    pixels = np.empty((len(folders.paths), *image_size, channels), np.uint8)
    images = (
        drawing_levels(
            folders.paths, image_size=image_size, invert=invert, source=root
        )
        if drawings
        else read_images(
            folders.paths, image_size=image_size, channels=channels
        )
    )
    for index, image in enumerate(copies.watch(images)):
        pixels[index] = image
    labels, keep = copies.resolve(folders.labels, folders.group_names)
    folders = folders.split_by_class(labels, label_name)
    if not keep.all():
        pixels = pixels[keep]
    if invert is not False and not drawings:
        pixels = with_ink_high(pixels, invert=invert, source=str(root))
    return GroupedImages(
        pixels,
        {name: ids[keep] for name, ids in folders.labels.items()},
        folders.group_names,
    )
