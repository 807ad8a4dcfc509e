r"""Converts an image folder to TFRecord files.

    python -m vhe_tf.data.datasets.records.folder_to_records \
        --from_folder=DIR --to=DIR

Images are read from `from_folder/<class>/` as by `read_image_folder`:
photographs in colour with --channels=3, drawings without. Ink is 255 in the
records, whether the page is light or dark; --invert or --no-invert decides.
For `trainers/own_images.py --dataset=records` the grouping is `character`, and
`person` with `--pixels=colour`.
"""

import argparse
import contextlib
import pathlib
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from vhe_tf._utils.interrupt import exit_on_interrupt
from vhe_tf._utils.validation import check_image_size
from vhe_tf.data.contrast import faint_images
from vhe_tf.data.contrast import warn_of_faint
from vhe_tf.data.datasets.class_folders import ClassFolders
from vhe_tf.data.datasets.class_folders import class_folders
from vhe_tf.data.datasets.copies import Copies
from vhe_tf.data.datasets.image_file import open_image
from vhe_tf.data.datasets.image_file import read_images
from vhe_tf.data.datasets.image_file import resized
from vhe_tf.data.datasets.records.index import RecordIndex
from vhe_tf.data.datasets.records.index import read_index
from vhe_tf.data.datasets.records.writer import Example
from vhe_tf.data.datasets.records.writer import write_settled_records
from vhe_tf.data.polarity import with_ink_high

__all__ = ["main"]

_GROUPINGS = {1: "character", 3: "person"}
_MAX_SAMPLE = 200  # images by which to distinguish light pages from dark ones


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

        write_settled_records(
            flags.to, _examples(folders, flags, copies), settle=settle
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    written = read_index(flags.to).labels[grouping]
    print(
        f"{len(written):,} images of {len(np.unique(written)):,} classes "
        f"written to {flags.to}"
    )


def _examples(
    folders: ClassFolders, flags: argparse.Namespace, copies: Copies
) -> Iterator[Example]:
    inverts = flags.invert
    if inverts is None and flags.channels == 1:
        inverts = _ink_is_dark(folders.paths, flags)
    images = read_images(
        folders.paths, image_size=flags.image_size, channels=flags.channels
    )
    faint = np.zeros(len(folders.paths), bool)
    for index, image in enumerate(copies.watch(images)):
        faint[index] = faint_images(image, binary=False)
        ids = {name: int(ids[index]) for name, ids in folders.labels.items()}
        yield 255 - image if inverts else image, ids
    warn_of_faint(
        faint,
        str(flags.from_folder),
        describe=lambda index: repr(str(folders.paths[index[0]])),
    )


def _ink_is_dark(
    paths: Sequence[pathlib.Path], flags: argparse.Namespace
) -> bool:
    """Returns whether some drawings are dark ink on a light page."""
    some = []
    for path in paths[:: -(-len(paths) // _MAX_SAMPLE)]:
        with contextlib.suppress(ValueError):  # reported with all others
            image = resized(open_image(path).convert("L"), flags.image_size)
            some.append(np.asarray(image)[..., np.newaxis])
    if not some:
        return False
    sample = np.stack(some)
    return with_ink_high(sample, source=str(flags.from_folder)) is not sample


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
        help="replace each pixel by 255 minus it: ink is 255 in this package; "
        "by default detected by the borders of drawings; never for photographs",
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
