import re

import numpy as np
import pytest

from vhe_tf.data import MISSING
from vhe_tf.data import GroupedImages


def small(**labels):
    """Six images whose pixels all hold their index."""
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None]
    return GroupedImages(
        np.tile(pixels, (1, 3, 2, 1)),
        labels or {"character": np.array([9, 4, 9, 4, 9, 70])},
        {"character": {4: "four", 9: "nine", 70: "seventy"}},
    )


def kept(data):
    return list(data.images[:, 0, 0, 0])


def test_length_and_shape_are_those_of_the_images():
    assert len(small()) == 6
    assert small().image_shape == (3, 2, 1)


def test_group_ids_are_sorted_and_need_not_be_consecutive():
    np.testing.assert_array_equal(small().group_ids("character"), [4, 9, 70])


def test_where_keeps_images_labels_of_every_grouping_and_names():
    data = small(
        character=np.array([9, 4, 9, 4, 9, 70]),
        alphabet=np.array([1, 2, 1, 2, 1, 5]),
    )
    part = data.where(np.array([True, False, False, True, False, True]))
    assert kept(part) == [0, 3, 5]
    np.testing.assert_array_equal(part.labels["character"], [9, 4, 70])
    np.testing.assert_array_equal(part.labels["alphabet"], [1, 2, 5])
    assert part.group_names == data.group_names
    assert kept(data) == [0, 1, 2, 3, 4, 5]


def test_with_groups_keeps_the_given_groups_in_the_order_of_storage():
    part = small().with_groups("character", [70, 4])
    assert kept(part) == [1, 3, 5]
    np.testing.assert_array_equal(part.labels["character"], [4, 4, 70])


def test_with_groups_of_no_image_says_that_images_are_needed():
    with pytest.raises(ValueError, match="at least one image") as error:
        small().with_groups("character", [5])
    assert "images.shape=(0, 3, 2, 1)" in str(error.value)


def test_labels_may_be_lists():
    part = small(character=[9, 4, 9, 4, 9, 70]).with_groups("character", [9])
    assert kept(part) == [0, 2, 4]
    np.testing.assert_array_equal(part.labels["character"], [9, 9, 9])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_images_may_span_0_to_1(dtype):
    images = np.array([0.0, 0.5, 1.0], dtype)[:, None, None, None]
    data = GroupedImages(images, {"character": np.array([3, 3, 8])})
    assert data.images is images


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_labels_may_be_of_any_integer_type(dtype):
    ids = np.array([200, 200, 7, 7, 7, 7], dtype)
    np.testing.assert_array_equal(
        small(character=ids).group_ids("character"), [7, 200]
    )


def test_images_without_a_label_are_in_no_group():
    data = small(character=[9, MISSING, 9, 4, MISSING, 70])
    np.testing.assert_array_equal(data.group_ids("character"), [4, 9, 70])
    part = data.with_groups("character", [9, 70])
    assert kept(part) == [0, 2, 5]
    part = data.where(np.array([True, True, False, False, False, False]))
    np.testing.assert_array_equal(part.labels["character"], [9, -1])


def test_a_group_is_described_by_its_id_and_its_name_if_any():
    assert small().describe_group("character", 9) == "9 ('nine')"
    assert small().describe_group("character", 5) == "5"
    assert small().describe_group("alphabet", 5) == "5"
    assert small().describe_group("character", np.int64(4)) == "4 ('four')"


def _with_pixel(value, dtype=np.float32):
    images = np.full((4, 3, 2, 1), 0.25, dtype)
    images[2, 1, 1, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (np.zeros(()), "Received: ()."),
        ([[[[0.0]]]], "Received: list."),
        (np.zeros((0, 3, 2, 1)), "Received: images.shape=(0, 3, 2, 1)."),
        (np.zeros((4, 0, 2, 1)), "Received: images.shape=(4, 0, 2, 1)."),
        (np.zeros((4, 3, 2, 1), int), "Received: images.dtype=int64."),
        (np.zeros((4, 3, 2, 1), bool), "Received: images.dtype=bool."),
        (np.zeros((4, 3, 2, 1), complex), "Received: images.dtype=complex128."),
        (_with_pixel(np.nan), "first at index 2."),
        (_with_pixel(-np.inf), "first at index 2."),
        (_with_pixel(-0.5), "Received: pixels in -0.5..0.25."),
        (_with_pixel(254.5), "Received: pixels in 0.25..254.5."),
    ],
)
def test_bad_images_are_refused(images, received):
    with pytest.raises(ValueError, match=re.escape(received)):
        GroupedImages(images, {"character": np.array([11, 11, 12, 12])})


@pytest.mark.parametrize(
    ("ids", "received"),
    [
        ([9, 4, 9], "Received: 6 images and labels of shape (3,)."),
        ([[9, 4, 9, 4, 9, 4]], "6 images and labels of shape (1, 6)."),
        (7, "Received: 6 images and labels of shape ()."),
        ([9.0, 4.0, 9.0, 4.0, 9.0, 4.0], "Received: dtype float64."),
        ([True, False] * 3, "Received: dtype bool."),
        (["b", "a"] * 3, "Received: dtype <U1."),
        ([9, 4, 9, -3, -1, 70], "Received: -3 at index 3."),
        ([-1] * 6, "Received: -1 for all 6 images."),
    ],
)
def test_bad_labels_are_refused_by_name(ids, received):
    with pytest.raises(ValueError, match=re.escape(received)) as error:
        small(alphabet=np.zeros(6, int), character=np.array(ids))
    assert "`labels['character']`" in str(error.value)


def test_images_without_any_grouping_are_refused():
    with pytest.raises(ValueError, match=re.escape("Received: labels={}.")):
        GroupedImages(np.zeros((4, 3, 2, 1)), {})


def test_the_members_of_a_group_are_its_images_in_order():
    data = small(character=[9, MISSING, 9, 4, MISSING, 70])
    members = data.members("character")
    assert list(members) == [4, 9, 70]
    assert [indices.tolist() for indices in members.values()] == [
        [3],
        [0, 2],
        [5],
    ]
