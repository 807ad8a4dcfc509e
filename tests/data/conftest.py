import numpy as np


def assert_same_images(one, other):
    assert one.images.dtype == other.images.dtype
    np.testing.assert_array_equal(one.images, other.images)
    assert_same_labels(one, other)


def assert_same_labels(one, other):
    assert list(one.labels) == list(other.labels)
    for name, ids in one.labels.items():
        np.testing.assert_array_equal(ids, other.labels[name])
    assert one.group_names == other.group_names
    assert one.image_shape == other.image_shape
    assert len(one) == len(other)
