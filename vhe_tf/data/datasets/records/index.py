"""The index of a folder of records, which makes it a data set.

It is written last and whole, so that a folder without it is none.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import Self

import numpy as np

from vhe_tf._utils import atomic_io

__all__ = [
    "NAME",
    "RecordIndex",
    "compact",
    "read_index",
    "shard_name",
    "write_index",
]

NAME = "index.npz"

_VERSION = 1


class RecordIndex(NamedTuple):
    """The place of each image, and its groups.

    Images are numbered as they were written, shard after shard.

    Attributes:
        image_shape: `(H, W, C)` of each image.
        offsets: `[M]` int64, at which byte of its shard each record begins.
        shard_starts: `[S]`, the number of the first image of each shard.
        shard_sizes: `[S]`, the size of each shard in bytes.
        labels: As in `GroupedImages`.
        group_names: As in `GroupedImages`.
    """

    image_shape: tuple[int, int, int]
    offsets: np.ndarray
    shard_starts: np.ndarray
    shard_sizes: np.ndarray
    labels: Mapping[str, np.ndarray]
    group_names: Mapping[str, Mapping[int, str]]

    def where(self, keep: np.ndarray) -> Self:
        """Returns the index without some images, whose records stay."""
        before = np.concatenate([[0], np.cumsum(keep)])
        return self._replace(
            offsets=self.offsets[keep],
            shard_starts=before[self.shard_starts],
            labels={name: ids[keep] for name, ids in self.labels.items()},
        )


def shard_name(shard: int) -> str:
    """Returns the file name of a shard."""
    return f"images-{shard:05}.tfrecord"


def compact(values: np.ndarray) -> np.ndarray:
    """Returns integers in 32 bits where they fit."""
    fits = values.max() <= np.iinfo(np.int32).max
    return values.astype(np.int32) if fits else values


def write_index(folder: pathlib.Path, index: RecordIndex) -> None:
    """Writes the index of a folder, whole or not at all."""
    about = {
        "version": _VERSION,
        "image_shape": index.image_shape,
        "groupings": list(index.labels),
        "group_names": {
            name: [[int(group), text] for group, text in names.items()]
            for name, names in index.group_names.items()
        },
    }
    arrays: dict[str, Any] = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "offsets": index.offsets,
        "shard_starts": index.shard_starts,
        "shard_sizes": index.shard_sizes,
    }
    for place, ids in enumerate(index.labels.values()):
        arrays[f"labels_{place}"] = compact(ids)
    with atomic_io.beside(folder / NAME) as path:
        np.savez(path, **arrays)


def read_index(folder: pathlib.Path) -> RecordIndex:
    """Reads the index of a folder.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another version, or no index at all.
    """
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"A folder of records needs an {NAME}, which is written last: give "
            "the folder that `write_records` wrote, or write it again if that "
            f"was interrupted. Received: {str(folder)!r}."
        )
    with path.open("rb") as file:
        # NumPy, zip and JSON raise all kinds of errors for broken files.
        try:
            archive = np.load(file, allow_pickle=False)
            about = json.loads(archive["about"].tobytes())
            if about["version"] != _VERSION:
                raise ValueError(f"version {about['version']!r}")
            return _index(about, archive)
        except Exception as error:
            raise ValueError(
                f"{str(path)!r} is not an intact index of records; restore it, "
                "or write the records again. "
                f"Received: {type(error).__name__}: {error}"
            ) from error


def _index(
    about: Mapping[str, Any], archive: Mapping[str, np.ndarray]
) -> RecordIndex:
    height, width, channels = about["image_shape"]
    return RecordIndex(
        image_shape=(height, width, channels),
        offsets=archive["offsets"],
        shard_starts=archive["shard_starts"],
        shard_sizes=archive["shard_sizes"],
        labels={
            name: archive[f"labels_{place}"]
            for place, name in enumerate(about["groupings"])
        },
        group_names={
            name: dict(map(tuple, names))
            for name, names in about["group_names"].items()
        },
    )
