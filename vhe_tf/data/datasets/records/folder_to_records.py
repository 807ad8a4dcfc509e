r"""Converts an image folder to TFRecord files.

    python -m vhe_tf.data.datasets.records.folder_to_records \
        --from_folder=DIR --to=DIR

Images are read from `from_folder/<class>/` as by `read_image_folder`:
photographs in colour with --channels=3, drawings (`drawings=True`) without. Ink
is high in the records, whether the page is light or dark; --invert or
--no-invert decides.
For `trainers/own_images.py --dataset=records` the grouping is `character`, and
`person` with `--pixels=colour`.
"""

import argparse
import pathlib
import re
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from vhe_tf._utils.interrupt import exit_on_interrupt
from vhe_tf._utils.validation import check_image_size
from vhe_tf._utils.warning_texts import reworded_warnings
from vhe_tf.data.datasets.class_folders import ClassFolders
from vhe_tf.data.datasets.class_folders import class_folders
from vhe_tf.data.datasets.copies import Copies
from vhe_tf.data.datasets.drawing_file import drawing_levels
from vhe_tf.data.datasets.image_file import read_images
from vhe_tf.data.datasets.records.index import RecordIndex
from vhe_tf.data.datasets.records.index import read_index
from vhe_tf.data.datasets.records.writer import Example
from vhe_tf.data.datasets.records.writer import write_settled_records

__all__ = ["main"]

_GROUPINGS = {1: "character", 3: "person"}
_NAMED = re.compile("`(image_size|invert)(=True|=False)?`")


@exit_on_interrupt()
def main(argv: Sequence[str] | None = None) -> None:
    """Reads and writes."""
    flags = _parser().parse_args(argv)
    grouping = flags.grouping or _GROUPINGS[flags.channels]
    try:
        check_image_size(flags.image_size)
        folders = class_folders(flags.from_folder, label_name=grouping)
        copies = Copies(folders.paths)

        def settle(index: RecordIndex) -> RecordIndex:
            labels, keep = copies.resolve(folders.labels, folders.group_names)
            merged = folders.split_by_class(labels, grouping)
            return index._replace(
                labels=merged.labels, group_names=merged.group_names
            ).where(keep)

        with reworded_warnings(_in_flags):
            write_settled_records(
                flags.to, _examples(folders, flags, copies), settle=settle
            )
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {_in_flags(str(error))}") from error
    written = read_index(flags.to).labels[grouping]
    print(
        f"{len(written):,} images of {len(np.unique(written)):,} classes "
        f"written to {flags.to}"
    )


def _in_flags(message: str) -> str:
    """Returns a message with flags in place of arguments."""
    return _NAMED.sub(
        lambda m: f"--{'no-' * (m[2] == '=False')}{m[1]}", message
    )


def _examples(
    folders: ClassFolders, flags: argparse.Namespace, copies: Copies
) -> Iterator[Example]:
    for index, image in enumerate(copies.watch(_images(folders.paths, flags))):
        ids = {name: int(ids[index]) for name, ids in folders.labels.items()}
        yield image, ids


def _images(
    paths: Sequence[pathlib.Path], flags: argparse.Namespace
) -> Iterator[np.ndarray]:
    size = flags.image_size
    if flags.channels == 1:
        yield from drawing_levels(
            paths,
            image_size=size,
            invert=flags.invert,
            source=flags.from_folder,
        )
        return
    for image in read_images(paths, image_size=size, channels=flags.channels):
        yield 255 - image if flags.invert else image


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vhe_tf.data.datasets.records.folder_to_records",
        description=__doc__.splitlines()[0],
    )
    add = parser.add_argument
    add("--from_folder", type=pathlib.Path, required=True)
    add("--to", type=pathlib.Path, required=True)
    add(
        "--image_size",
        type=_size,
        default=(28, 28),
        help="HEIGHTxWIDTH to resize to; default 28x28",
    )
    add("--channels", type=int, choices=_GROUPINGS, default=1)
    add(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="ink is dark; by default the images decide; photographs become "
        "their negatives",
    )
    add(
        "--grouping",
        help="what the classes are; default character, in colour person",
    )
    return parser


def _size(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split("x"))


if __name__ == "__main__":
    main()
