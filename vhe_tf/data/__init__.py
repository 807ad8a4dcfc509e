"""Grouped images: where they come from and how episodes are drawn."""

from vhe_tf.data.augmentation import Augmentation
from vhe_tf.data.episodes import EpisodeSampler
from vhe_tf.data.grouped_images import GroupedImages

__all__ = ["Augmentation", "EpisodeSampler", "GroupedImages"]
