"""Grouped images: where they come from and how episodes are drawn."""

from vhe_tf.data.augmentation import Augmentation
from vhe_tf.data.episodes import EpisodeSampler
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.label_table import check_nested
from vhe_tf.data.label_table import from_columns
from vhe_tf.data.label_table import read_label_table

__all__ = [
    "MISSING",
    "Augmentation",
    "EpisodeSampler",
    "GroupedImages",
    "check_nested",
    "from_columns",
    "read_label_table",
]
