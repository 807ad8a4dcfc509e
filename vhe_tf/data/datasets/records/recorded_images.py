r"""Grouped images on disk, in TFRecord files, read as episodes need them.

    write_records("DIR", examples)      # streams: (pixels, group ids) each
    data = RecordedImages("DIR")        # in place of GroupedImages

Labels are in memory; pixels are read when sampled, and their checksums
verified. Episodes are those of the same images in memory, bit for bit.

A folder of images becomes a folder of records by

    python -m vhe_tf.data.datasets.records.folder_to_records \
        --from_folder=DIR --to=DIR
"""

import contextlib
import copy
import math
import pathlib
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from os import PathLike
from typing import NamedTuple
from typing import Self
from typing import TypeVar

import numpy as np
import tensorflow as tf

from vhe_tf.data.datasets.records import index as record_index
from vhe_tf.data.datasets.records.index import compact
from vhe_tf.data.datasets.records.index import shard_name
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.grouped_images import check_labels

__all__ = [
    "CorruptRecordsError",
    "RecordedImages",
    "name_corrupt_records",
    "read_whole",
]

_Batch = TypeVar("_Batch")

# At once, for one batch: most of the time goes by in waiting.
_NUM_PARALLEL_READS = 32

# How many images to load at a time: some MiB of them.
_CHUNK_BYTES, _MAX_CHUNK = 2**22, 1024

_WAY_OUT = "restore its file from a copy, or write the records again."


class CorruptRecordsError(OSError):
    """Records cannot be read as they were written.

    Example:
    >>> import tempfile
    >>> from vhe_tf.data import write_records
    >>> records = pathlib.Path(tempfile.mkdtemp(), "records")
    >>> image = np.full((8, 8, 1), 255, np.uint8)
    >>> write_records(records, [(image, {"character": 7})])
    >>> next(records.glob("*.tfrecord*")).unlink()
    >>> try:
    ...     RecordedImages(records)
    ... except CorruptRecordsError as error:
    ...     print(error)
    '...' must be a file of ... bytes; ... Received: no file.
    """


class RecordedImages(GroupedData):
    """Images in TFRecord files, and the groups that they are in.

    Args:
        folder: As `write_records` wrote it.

    Raises:
        FileNotFoundError: If the folder has no index.
        ValueError: If its index is broken or of another version.
        CorruptRecordsError: If a file is missing or of another size.

    Example:
    >>> import tempfile
    >>> from vhe_tf.data import write_records
    >>> records = pathlib.Path(tempfile.mkdtemp(), "records")
    >>> image = np.full((8, 8, 1), 255, np.uint8)
    >>> write_records(records, [(image, {"character": 7})])
    >>> RecordedImages(records).labels["character"].tolist()
    [7]
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = pathlib.Path(folder)
        self._index = record_index.read_index(self.folder)
        # Which of all records the images are.
        self._numbers = compact(np.arange(len(self._index.offsets)))
        self.labels = self._index.labels
        self.group_names = self._index.group_names
        self._check_sizes()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """`(H, W, C)` of the stored images."""
        return self._index.image_shape

    def where(self, keep: np.ndarray) -> Self:
        """Returns the images for which the boolean mask `keep` holds.

        Raises:
            ValueError: If there are none, or none with a label.
        """
        some = copy.copy(self)
        some._numbers = self._numbers[keep]
        if not len(some._numbers):
            raise ValueError(
                "At least one image must be left. "
                f"Received: none of {len(self):,} in {str(self.folder)!r}."
            )
        some.labels = {name: ids[keep] for name, ids in self.labels.items()}
        for name, ids in some.labels.items():
            check_labels(ids, len(some), name=name)
        return some

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns what reads images; see `GroupedData.reader`.

        A record that cannot be read raises an `InvalidArgumentError` with its
        file and number; see `name_corrupt_records`.
        """
        places = self._places()

        def read(indices: tf.Tensor) -> tf.Tensor:
            found, records = places.read(indices)
            good = tf.size(found) == tf.size(indices)
            # The numbers ascend: those before the first gap stand for
            # themselves.
            gap = tf.math.count_nonzero(
                found == tf.range(tf.size(found)), dtype=tf.int32
            )
            first_lost = indices[tf.minimum(gap, tf.size(indices) - 1)]
            text = places.describe(first_lost)
            with tf.control_dependencies([tf.debugging.Assert(good, [text])]):
                records = tf.identity(records)
            return self._pixels(records)

        return read

    def load(self) -> GroupedImages:
        """Returns the images in memory.

        Raises:
            CorruptRecordsError: If a record cannot be read.
            MemoryError: If there is not enough of it.
        """
        images = np.empty((len(self), *self.image_shape), np.uint8)
        size = max(_CHUNK_BYTES // math.prod(self.image_shape), 1)
        indices = tf.data.Dataset.range(len(self)).batch(min(size, _MAX_CHUNK))
        chunks = indices.map(self.reader(), num_parallel_calls=tf.data.AUTOTUNE)
        done = 0
        with name_corrupt_records():
            for chunk in chunks:
                images[done : done + len(chunk)] = chunk
                done += len(chunk)
        return GroupedImages(images, self.labels, self.group_names)

    def _pixels(self, records: tf.Tensor) -> tf.Tensor:
        examples = tf.io.parse_example(
            records, {"image": tf.io.FixedLenFeature([], tf.string)}
        )
        pixels = tf.io.decode_raw(examples["image"], tf.uint8)
        return tf.reshape(pixels, [-1, *self.image_shape])

    def _places(self) -> "_Places":
        starts = self._index.shard_starts
        shards = np.searchsorted(starts, self._numbers, side="right") - 1
        numbers = self._numbers - starts[shards]
        with tf.device("CPU:0"):
            return _Places(
                paths=tf.constant([str(path) for path in self._paths()]),
                shards=tf.constant(shards, tf.int32),
                numbers=tf.constant(numbers, tf.int32),
                offsets=tf.constant(self._index.offsets[self._numbers]),
            )

    def _paths(self) -> list[pathlib.Path]:
        count = len(self._index.shard_sizes)
        return [self.folder / shard_name(shard) for shard in range(count)]

    def _check_sizes(self) -> None:
        sizes = self._index.shard_sizes
        for path, size in zip(self._paths(), sizes, strict=True):
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                received = "no file" if found is None else f"{found:,} bytes"
                raise CorruptRecordsError(
                    f"{str(path)!r} must be a file of {size:,} bytes; "
                    f"{_WAY_OUT} Received: {received}."
                )


class _Places(NamedTuple):
    """The places of the records of images, as TensorFlow reads them.

    Attributes:
        paths: `[S]` string, the files.
        shards: `[M]` int32, which of them.
        numbers: `[M]` int32, which record there.
        offsets: `[M]` int64, at which byte it begins.
    """

    paths: tf.Tensor
    shards: tf.Tensor
    numbers: tf.Tensor
    offsets: tf.Tensor

    def read(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads records, and leaves out those that cannot be read.

        Args:
            indices: `[K]` int, the numbers of the images to read.

        Returns:
            `[F]` int32, ascending, which of the K were read; and `[F]`
            string, the records.
        """
        count = tf.size(indices)
        wanted = tf.data.Dataset.from_tensor_slices(
            (
                tf.range(count),
                tf.gather(self.paths, tf.gather(self.shards, indices)),
                tf.gather(self.offsets, indices),
            )
        )
        read = wanted.map(
            lambda place, path, offset: (place, _read(path, offset)),
            num_parallel_calls=_NUM_PARALLEL_READS,
        )
        # A data set of nothing has no single batch.
        one = tf.data.Dataset.from_tensors((-1, b""))
        found, records = (
            one.concatenate(read.ignore_errors())
            .batch(tf.cast(count, tf.int64) + 1)
            .get_single_element()
        )
        return found[1:], records[1:]

    def describe(self, index: tf.Tensor) -> tf.Tensor:
        """Returns what to say of a record that cannot be read."""
        return tf.strings.join(
            [
                "Record ",
                tf.strings.as_string(self.numbers[index]),
                " of ",
                self.paths[self.shards[index]],
                f" cannot be read: {_WAY_OUT}",
            ]
        )


def _read(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Reads the record of a file that begins at a byte."""
    records = tf.data.experimental.from_variant(
        tf.raw_ops.TFRecordDatasetV2(
            filenames=path,
            compression_type="",
            buffer_size=0,  # Nothing but the record is wanted.
            byte_offsets=offset,
        ),
        tf.TensorSpec([], tf.string),
    )
    return records.take(1).get_single_element()


@contextlib.contextmanager
def name_corrupt_records() -> Iterator[None]:
    """Raises a CorruptRecordsError where a record could not be read."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(
            f"Record .* cannot be read: {re.escape(_WAY_OUT)}", error.message
        )
        if not found:
            raise
        # Assertions put backslashes before quotes and backslashes.
        text = re.sub(r"\\(.)", r"\1", found[0])
        raise CorruptRecordsError(text) from error


def read_whole(batches: Iterable[_Batch], place: object) -> Iterator[_Batch]:
    """Yields what TensorFlow Datasets reads of a data set that it prepared.

    Args:
        batches: Iterable of batches. The batches to read.
        place: Path. The folder of the data set.

    Raises:
        CorruptRecordsError: If a file there is corrupt or missing.
    """
    try:
        yield from batches
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        if isinstance(error, tf.errors.NotFoundError) and (
            "No such file" not in error.message
        ):
            raise  # another thing that was not found
        # Without the names of the operations that found it.
        what = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", error.message)
        raise CorruptRecordsError(
            f"A file in {place} is corrupt or missing ({what}). "
            "Delete that folder, and the data set is prepared again; or put "
            "back a copy."
        ) from error
