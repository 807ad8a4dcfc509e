"""Writes grouped images to TFRecord files, one after the other."""

import contextlib
import pathlib
from array import array
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from os import PathLike

import numpy as np
import tensorflow as tf

from vhe_tf._utils import atomic_io
from vhe_tf._utils.progress import status_line
from vhe_tf.data.datasets.records import index as record_index
from vhe_tf.data.datasets.records.index import RecordIndex
from vhe_tf.data.datasets.records.index import shard_name
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.grouped_images import check_labels

__all__ = ["write_records", "write_settled_records"]

Example = tuple[np.ndarray, Mapping[str, int]]
"""`[H, W, C]` uint8, and by grouping the id of a group or `MISSING`."""

# Around the data of a record: its length, and a checksum of each.
_FRAME_BYTES = 16


def write_records(
    folder: str | PathLike[str],
    examples: Iterable[Example] | GroupedImages,
    *,
    group_names: Mapping[str, Mapping[int, str]] | None = None,
    max_shard_bytes: int = 2**28,
) -> None:
    """Writes grouped images to a folder, one after the other.

    A folder is a data set from the moment when its index is there, after
    everything else.

    Args:
        folder: Path. Made where it is missing. Records without an index, left
            by what was interrupted, are deleted.
        examples: `([H, W, C] uint8, {grouping: group id})` each, the id
            `MISSING` where there is no label; all of one shape and with the
            same groupings. They are consumed as they are written.
        group_names: As in `GroupedImages`, whose own are the default.
        max_shard_bytes: Integer. Largest size of a shard in bytes. A single
            larger image makes a larger shard.

    Raises:
        FileExistsError: If the folder holds records already.
        ValueError: If there are no examples, one is not as described, or a
            grouping has no label at all.
        NotWrittenError: If something cannot be written, as on a full disk.

    Example:
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> image = np.zeros((28, 28, 1), np.uint8)
    >>> write_records(folder, [(image, {"character": 7})])
    >>> record_index.read_index(pathlib.Path(folder)).image_shape
    (28, 28, 1)
    """
    if isinstance(examples, GroupedImages):
        if group_names is None:
            group_names = examples.group_names
        examples = _examples_of(examples)
    write_settled_records(
        folder,
        examples,
        settle=lambda index: index._replace(group_names=group_names or {}),
        max_shard_bytes=max_shard_bytes,
    )


def write_settled_records(
    folder: str | PathLike[str],
    examples: Iterable[Example],
    *,
    settle: Callable[[RecordIndex], RecordIndex],
    max_shard_bytes: int = 2**28,
) -> None:
    """Writes grouped images whose groups are known once all are read.

    Args:
        folder: As in `write_records`.
        examples: As in `write_records`.
        settle: Callable. Returns the index to write, given that of all
            examples.
        max_shard_bytes: As in `write_records`.

    Raises:
        FileExistsError, ValueError, NotWrittenError: As `write_records`.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / record_index.NAME).exists():
        raise FileExistsError(
            "Records are written to a folder of their own; name another one, "
            f"or delete this one first. Received: {str(folder)!r}, which has "
            f"an {record_index.NAME}."
        )
    for left in folder.iterdir():
        if left.match("images-*.tfrecord") or atomic_io.is_partial(left):
            left.unlink()
    writer = _ShardWriter(folder, max_shard_bytes)
    with status_line() as show, contextlib.closing(writer):
        for number, (image, ids) in enumerate(examples, 1):
            writer.write(image, ids)
            if not number % 1000:
                show(f"{number:,} images written to {folder}")
    record_index.write_index(folder, settle(writer.index()))


def _examples_of(data: GroupedImages) -> Iterator[Example]:
    if data.images.dtype != np.uint8:
        raise ValueError(
            "Records hold images of uint8 in 0..255; multiply others by 255 "
            f"and round them. Received: images.dtype={data.images.dtype}."
        )
    for index, image in enumerate(data.images):
        yield image, {name: ids[index] for name, ids in data.labels.items()}


class _ShardWriter:
    """Writes records, a new file each time that one is full."""

    def __init__(self, folder: pathlib.Path, max_shard_bytes: int) -> None:
        self._folder = folder
        self._max_shard_bytes = max_shard_bytes
        self._file: tf.io.TFRecordWriter | None = None
        self._shape: tuple[int, ...] | None = None
        # Machine numbers, not objects: 8 bytes each.
        self._offsets = array("q")
        self._shard_starts = array("q")
        self._shard_sizes = array("q")
        self._labels: dict[str, array[int]] = {}

    def write(self, image: np.ndarray, ids: Mapping[str, int]) -> None:
        """Writes one image."""
        self._check(image, ids)
        record = _record(image, ids)
        with atomic_io.translate_write_errors(self._folder):
            self._file_for(len(record) + _FRAME_BYTES).write(record)
        self._offsets.append(self._shard_sizes[-1])
        self._shard_sizes[-1] += len(record) + _FRAME_BYTES
        for name, values in self._labels.items():
            values.append(int(ids[name]))

    def close(self) -> None:
        """Closes the last file."""
        if self._file is None:
            return
        path = self._folder / shard_name(len(self._shard_sizes) - 1)
        file, self._file = self._file, None
        with atomic_io.translate_write_errors(path):
            file.close()
        size = path.stat().st_size
        if size != self._shard_sizes[-1]:
            raise atomic_io.NotWrittenError(
                f"{str(path)!r} must be of {self._shard_sizes[-1]:,} bytes; "
                "look whether something else writes there, and write again. "
                f"Received: {size:,} bytes."
            )

    def index(self) -> RecordIndex:
        """Returns where all is that was written, once it is closed."""
        if self._shape is None:
            raise ValueError(
                "`examples` must yield at least one image. Received: none."
            )
        labels = {name: np.asarray(ids) for name, ids in self._labels.items()}
        for name, ids in labels.items():
            check_labels(ids, len(self._offsets), name=name)
        height, width, channels = self._shape
        return RecordIndex(
            (height, width, channels),
            offsets=np.asarray(self._offsets),
            shard_starts=np.asarray(self._shard_starts),
            shard_sizes=np.asarray(self._shard_sizes),
            labels=labels,
            group_names={},
        )

    def _file_for(self, size: int) -> tf.io.TFRecordWriter:
        """Returns the file that takes so many more bytes."""
        if self._file is None or (
            self._shard_sizes[-1] + size > self._max_shard_bytes
        ):
            self.close()
            path = self._folder / shard_name(len(self._shard_sizes))
            self._file = tf.io.TFRecordWriter(str(path))
            self._shard_starts.append(len(self._offsets))
            self._shard_sizes.append(0)
        return self._file

    def _check(self, image: np.ndarray, ids: Mapping[str, int]) -> None:
        number = len(self._offsets)
        if self._shape is None:
            _check_first(image, ids)
            self._shape = image.shape
            self._labels = {name: array("q") for name in ids}
        if image.dtype != np.uint8 or image.shape != self._shape:
            raise ValueError(
                f"All images must be uint8 of one shape, {self._shape} as the "
                f"first; resize or convert them. Received: {image.dtype} of "
                f"shape {image.shape} as image {number}."
            )
        if ids.keys() != self._labels.keys():
            raise ValueError(
                "All images must have ids in the same groupings, "
                f"{sorted(self._labels)}; give {MISSING} where there is no "
                f"label. Received: {sorted(ids)} with image {number}."
            )
        for name, group in ids.items():
            if not _is_id(group):
                raise ValueError(
                    f"The id in {name!r} must be a non-negative int, or "
                    f"{MISSING} where there is no label. "
                    f"Received: {group!r} with image {number}."
                )


def _check_first(image: np.ndarray, ids: Mapping[str, int]) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or not image.size:
        shape = getattr(image, "shape", type(image).__name__)
        raise ValueError(
            "An image must be an array of shape [H, W, C]; a grey one of shape "
            "[H, W] takes a last axis of size 1 (`image[..., None]`). "
            f"Received: {shape}."
        )
    if not ids:
        raise ValueError(
            "Each image needs an id in at least one grouping, for example "
            "{'character': 7}. Received: {}."
        )


def _is_id(group: object) -> bool:
    return isinstance(group, (int, np.integer)) and bool(
        MISSING <= group < 2**63
    )


def _record(image: np.ndarray, ids: Mapping[str, int]) -> bytes:
    pixels = tf.train.BytesList(value=[image.tobytes()])
    features = {"image": tf.train.Feature(bytes_list=pixels)}
    for name, group in ids.items():
        label = tf.train.Int64List(value=[int(group)])
        features[f"label/{name}"] = tf.train.Feature(int64_list=label)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString())
