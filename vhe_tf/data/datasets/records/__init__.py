"""Records: grouped images on disk, read while training runs."""

from vhe_tf.data.datasets.records.recorded_images import CorruptRecordsError
from vhe_tf.data.datasets.records.recorded_images import RecordedImages
from vhe_tf.data.datasets.records.spec import Records
from vhe_tf.data.datasets.records.writer import write_records

__all__ = ["CorruptRecordsError", "RecordedImages", "Records", "write_records"]
