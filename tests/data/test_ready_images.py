import numpy as np
import pytest

from tests.data.conftest import data_of
from vhe_tf.data import datasets
from vhe_tf.data.grouped_images import GroupedImages


@pytest.mark.parametrize("images", ["binary", "grey"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_full_ink_is_always_ink_and_paper_never(images, dtype):
    full = 255 if dtype == np.uint8 else 1.0
    stored = np.zeros((40, 100, 100, 1), dtype)
    stored[20:] = full
    binary = datasets.ready(data_of(stored), images).images
    assert binary.dtype == np.float32
    assert np.all(binary[:20] == 0.0)
    assert np.all(binary[20:] == 1.0)


def test_binary_images_have_their_threshold_at_one_half():
    values = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    stored = values.reshape(6, 1, 1, 1)
    ink = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    np.testing.assert_array_equal(
        datasets.ready(data_of(stored), "binary").images.ravel(), ink
    )
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(
            datasets.ready(
                data_of((stored / 255).astype(dtype)), "binary"
            ).images.ravel(),
            ink,
        )


def test_a_grey_pixel_is_ink_as_often_as_it_is_dark():
    values = np.array([1, 64, 127, 200, 254], np.uint8)
    stored = np.tile(values.reshape(5, 1, 1, 1), (1, 300, 300, 1))
    binary = datasets.ready(data_of(stored), "grey", seed=1).images
    assert set(np.unique(binary)) == {0.0, 1.0}
    p = values / 255
    # Five standard errors of a mean of 90000 Bernoulli draws.
    error = np.sqrt(p * (1 - p) / 300**2)
    assert np.all(np.abs(binary.mean(axis=(1, 2, 3)) - p) < 5.0 * error)


def test_grey_pixels_are_drawn_once_by_the_seed():
    grey = np.full((2, 20, 20, 1), 0.5, np.float32)
    grey[0, 0, :2, 0] = 0.0, 1.0
    data = data_of(grey)

    def drawn(seed):
        return datasets.ready(data, "grey", seed=seed).images

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert np.any(drawn(1) != drawn(2))
    assert np.any(drawn(1)[0] != drawn(1)[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_colours_stay_as_they_are(dtype):
    values = np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3) * 20
    stored = values if dtype == np.uint8 else (values / 255).astype(dtype)
    ready = datasets.ready(data_of(stored, style=[4, -1]), "colour")
    assert ready.images.dtype == np.float32
    np.testing.assert_array_equal(
        ready.images, values.astype(np.float32) / np.float32(255)
    )
    np.testing.assert_array_equal(ready.labels["style"], [4, -1])


def test_ready_images_keep_their_labels_and_leave_the_stored_ones_alone():
    labels = {"character": np.array([4, 9]), "alphabet": np.array([1, 1])}
    stored = np.full((2, 3, 3, 1), 100, np.uint8)
    stored[0, 0, 0] = 200
    stored.setflags(write=False)
    data = GroupedImages(stored, labels, {"alphabet": {1: "Greek"}})
    ready = datasets.ready(data, "grey")
    for name, ids in labels.items():
        np.testing.assert_array_equal(ready.labels[name], ids)
    assert ready.group_names == {"alphabet": {1: "Greek"}}
    np.testing.assert_array_equal(data.images, stored)
