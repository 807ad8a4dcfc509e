"""Grouped images: where they come from and how episodes are sampled."""

from vhe_tf._utils import backend  # noqa: F401
from vhe_tf.data.augmentation import Augmentation
from vhe_tf.data.datasets import DatasetSpec
from vhe_tf.data.datasets import DataSplits
from vhe_tf.data.datasets import Folder
from vhe_tf.data.datasets import Glyphs
from vhe_tf.data.datasets import Omniglot
from vhe_tf.data.datasets import Records
from vhe_tf.data.datasets import Styles
from vhe_tf.data.datasets import YouTubeFaces
from vhe_tf.data.datasets import hold_out_groups
from vhe_tf.data.datasets import ready
from vhe_tf.data.datasets.folder import read_image_folder
from vhe_tf.data.datasets.glyphs import generate_glyphs
from vhe_tf.data.datasets.label_table import check_nested
from vhe_tf.data.datasets.label_table import from_columns
from vhe_tf.data.datasets.label_table import read_label_table
from vhe_tf.data.datasets.records import CorruptRecordsError
from vhe_tf.data.datasets.records import RecordedImages
from vhe_tf.data.datasets.records import write_records
from vhe_tf.data.episodes import Episodes
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.data.grouped_images import GroupedImages

__all__ = [
    "MISSING",
    "Augmentation",
    "CorruptRecordsError",
    "DataSplits",
    "DatasetSpec",
    "Episodes",
    "Folder",
    "Glyphs",
    "GroupedData",
    "GroupedImages",
    "Omniglot",
    "RecordedImages",
    "Records",
    "Styles",
    "YouTubeFaces",
    "check_nested",
    "from_columns",
    "generate_glyphs",
    "hold_out_groups",
    "read_image_folder",
    "read_label_table",
    "ready",
    "write_records",
]
