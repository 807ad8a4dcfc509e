r"""Makes a folder of records of a folder of images, one image at a time.

    python -m vhe_tf.data.datasets.records.folder_to_records \
        --from_folder=DIR --to=DIR

Images are read from `from_folder/<class>/` as by `read_image_folder`: drawings,
dark ink on light paper, with --invert; photographs in colour with --channels=3.
For `trainers/own_images.py --dataset=records` the grouping is `character`, and
`person` with `--images=colour`.
"""

import argparse
import pathlib
from collections.abc import Iterator
from collections.abc import Sequence

from vhe_tf.data.datasets.folder import class_files
from vhe_tf.data.datasets.image_file import check_image_size
from vhe_tf.data.datasets.image_file import read_image
from vhe_tf.data.datasets.records.writer import Example
from vhe_tf.data.datasets.records.writer import write_records

__all__ = ["main"]

_GROUPINGS = {1: "character", 3: "person"}


def main(argv: Sequence[str] | None = None) -> None:
    """Reads and writes."""
    flags = _parser().parse_args(argv)
    grouping = flags.grouping or _GROUPINGS[flags.channels]
    try:
        check_image_size(flags.image_size)
        files = class_files(flags.from_folder)
        write_records(
            flags.to,
            _examples(files, grouping, flags),
            group_names={grouping: dict(enumerate(files))},
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    count = sum(map(len, files.values()))
    print(f"{count:,} images of {len(files):,} classes written to {flags.to}")


def _examples(
    files: dict[str, list[pathlib.Path]],
    grouping: str,
    flags: argparse.Namespace,
) -> Iterator[Example]:
    for group, paths in enumerate(files.values()):
        for path in paths:
            image = read_image(path, flags.image_size, flags.channels)
            yield 255 - image if flags.invert else image, {grouping: group}


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
        action="store_true",
        help="replace each pixel by 255 minus it: ink is 255 in this package",
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
