"""Grouped images: where they come from and how episodes are drawn."""

from vhe_tf.data.augmentation import Augmentation
from vhe_tf.data.episodes import Episodes
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.label_table import check_nested
from vhe_tf.data.label_table import from_columns
from vhe_tf.data.label_table import read_label_table
from vhe_tf.data.record_writer import write_records
from vhe_tf.data.records import RecordedImages

__all__ = [
    "MISSING",
    "Augmentation",
    "Episodes",
    "GroupedData",
    "GroupedImages",
    "RecordedImages",
    "check_nested",
    "from_columns",
    "read_label_table",
    "write_records",
]
