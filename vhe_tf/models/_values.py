"""Checks that episodes hold what the likelihood of a model models."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from vhe_tf._utils.validation import is_image_shape
from vhe_tf.data.contrast import check_classes
from vhe_tf.data.contrast import check_contrast
from vhe_tf.data.contrast import shows_something
from vhe_tf.data.datasets.records.recorded_images import name_corrupt_records
from vhe_tf.data.episodes import Episodes
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.polarity import warn_if_paper_is_ink

__all__ = ["check_prepared", "with_checked_values"]

# Images on disk that are read to be checked, or checked at a time.
_MAX_CHECKED = 1000

# Of fewer groups in a batch, all may be faint by chance.
_LEAST_GROUPS = 4


def check_prepared(model: Any, episodes: Episodes) -> None:
    """Rejects images whose prepared values the likelihood does not model."""
    data, how = episodes.data, episodes.augmentation
    step = 1
    if isinstance(data, GroupedImages):
        images = data.images
    else:
        step = -(-len(data) // _MAX_CHECKED)
        with name_corrupt_records():
            images = data.reader()(tf.range(0, len(data), step)).numpy()
    are_images = is_image_shape(model.event_shape)
    if are_images and model.domain.is_bounded:
        binary = model.domain.binary and how.binarization != "dynamic"
        check_contrast(images, "images", binary=binary)
        check_classes(
            images,
            {name: ids[::step] for name, ids in data.labels.items()},
            names=data.group_names,
            binary=binary,
            sampled=step > 1,
        )
        if model.domain.binary:
            step = -(-len(images) // _MAX_CHECKED)
            warn_if_paper_is_ink(images[::step], "images")
    if how.binarization != "none" or (are_images and not model.domain.integer):
        return
    if how.affine_copies > 1 and data.event_shape == episodes.event_shape:
        raise ValueError(
            "Affine copies of images of the same size have grey pixels; this "
            "model has binary ones. Pass "
            "`Augmentation(binarization='threshold')` or 'dynamic'. Received: "
            f"affine_copies={how.affine_copies}, binarization='none'."
        )
    for start in range(0, len(images), _MAX_CHECKED):
        some = images[start : start + _MAX_CHECKED]
        scale = 255 if are_images and some.dtype == np.uint8 else 1
        model.domain.check(
            "images",
            some / np.float32(scale),
            event_rank=len(model.event_shape),
        )


def with_checked_values(model: Any, data: tf.data.Dataset) -> tf.data.Dataset:
    """Returns episodes that end in an error where values are not modelled."""

    def checked(episode: Any) -> Any:
        images = {"query": episode["query"], **episode["support"]}
        checks = []
        for name, value in images.items():
            if value.dtype.is_floating:
                checks.append(model.domain.assertion(name, value))
            if is_image_shape(model.event_shape) and model.domain.is_bounded:
                checks.append(_contrast(name, value, model.domain.binary))
        with tf.control_dependencies(checks):
            return tf.nest.map_structure(tf.identity, episode)

    spec = data.element_spec
    if not isinstance(spec, Mapping) or not {"query", "support"} <= set(spec):
        return data
    return data.map(checked, num_parallel_calls=tf.data.AUTOTUNE)


def _contrast(name: str, images: tf.Tensor, binary: bool) -> tf.Operation:
    """Returns what fails in a graph where `check_contrast` raises."""
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    few = tf.shape(images)[0] < _LEAST_GROUPS
    scale = 255.0 if images.dtype == tf.uint8 else 1.0
    ends = [tf.cast(value, tf.float32) / scale for value in (low, high)]
    return tf.debugging.Assert(
        few | tf.equal(low, high) | shows_something(*ends, binary=binary),
        [
            "All images are blank, ink or of one shade, as if on another "
            "scale. Pixels are uint8 in 0..255 or floating point in 0..1; "
            f"spread them over this range. Received: `{name}` of "
            f"{images.dtype.name} pixels in",
            low,
            high,
        ],
    )
