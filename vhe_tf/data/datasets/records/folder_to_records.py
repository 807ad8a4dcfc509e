r"""Makes a folder of records of a folder of images, one image at a time.

    python -m vhe_tf.data.datasets.records.folder_to_records \
        --from_folder=DIR --to=DIR

Images are read from `from_folder/<class>/` as by `read_image_folder`:
photographs in colour with --channels=3, drawings without. Ink is 255 in the
records, whether the page is light or dark; --invert or --no-invert decides.
For `trainers/own_images.py --dataset=records` the grouping is `character`, and
`person` with `--pixels=colour`.
"""

import argparse
import pathlib
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from vhe_tf.data.datasets.folder import class_files
from vhe_tf.data.datasets.image_file import check_image_size
from vhe_tf.data.datasets.image_file import read_image
from vhe_tf.data.datasets.records.writer import Example
from vhe_tf.data.datasets.records.writer import write_records
from vhe_tf.data.polarity import with_ink_high

__all__ = ["main"]

_GROUPINGS = {1: "character", 3: "person"}
_MAX_SAMPLE = 200  # images by which to tell light pages from dark ones


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
    def read(path: pathlib.Path) -> np.ndarray:
        return read_image(path, flags.image_size, flags.channels)

    inverts = flags.invert
    if inverts is None and flags.channels == 1:
        every = [path for paths in files.values() for path in paths]
        step = -(-len(every) // _MAX_SAMPLE)
        sample = np.stack([read(path) for path in every[::step]])
        as_ink = with_ink_high(sample, source=str(flags.from_folder))
        inverts = as_ink is not sample
    for group, paths in enumerate(files.values()):
        for path in paths:
            image = read(path)
            yield 255 - image if inverts else image, {grouping: group}


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
        "by default as the borders of drawings tell, photographs never",
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
