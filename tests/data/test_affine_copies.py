import itertools

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf

from tests.data.conftest import as_set
from tests.data.conftest import noise
from tests.data.conftest import queries
from tests.data.conftest import sampler_of_one_group as sampler_of
from vhe_tf.data import augmentation as augmentation_lib
from vhe_tf.data.augmentation import affine_table
from vhe_tf.data.augmentation import transform

# Affine copies ---------------------------------------------------------------


def square_table(num_images, num_copies, size=28, seed=0):
    return affine_table(
        num_images,
        num_copies,
        stored_size=(size, size),
        image_size=(size, size),
        seed=seed,
    )


def scipy_affine(image, row, size, order, mode="grid-constant"):
    """Resamples `image[H0, W0]` by one row of a table."""
    xx, xy, x, yx, yy, y = row[:6].astype(np.float64)
    return scipy.ndimage.affine_transform(
        image.astype(np.float64),
        [[yy, yx], [xy, xx]],
        offset=[y, x],
        output_shape=size,
        order=order,
        mode=mode,
        cval=0.0,
    )


def test_the_first_copy_is_the_image_itself():
    images = noise(5, 28, 28, 3)
    table = square_table(5, 4)
    identity = np.tile([1, 0, 0, 0, 1, 0, 0, 0], (5, 1))
    np.testing.assert_array_equal(table[:, 0], identity)
    copies = transform(tf.constant(images), table[:, 0], image_size=(28, 28))
    np.testing.assert_array_equal(copies, images)


@pytest.mark.parametrize(
    ("repeat_edges", "mode"), [(False, "grid-constant"), (True, "nearest")]
)
@pytest.mark.parametrize(("height", "width"), [(28, 28), (20, 31)])
def test_affine_copies_agree_with_scipy(height, width, repeat_edges, mode):
    images = noise(20, height, width, 1)
    size = (height, width)
    table = affine_table(20, 2, stored_size=size, image_size=size, seed=4)
    copies = transform(
        tf.constant(images),
        table[:, 1],
        image_size=size,
        repeat_edges=repeat_edges,
    ).numpy()
    for image, row, copy in zip(images, table[:, 1], copies, strict=True):
        expected = scipy_affine(image[..., 0], row, size, order=1, mode=mode)
        # Coordinates up to 31 in float32 are off by 1e-5 at most, and pixels
        # in 0..1 change by at most 2 a pixel's distance.
        np.testing.assert_allclose(copy[..., 0], expected, atol=1e-4)


def test_maps_are_shift_rotation_shear_and_scale_around_the_centre():
    size = 28
    table = square_table(4000, 2, size)[:, 1].astype(np.float64)
    linear = table[:, [0, 1, 3, 4]].reshape(-1, 2, 2)
    angle = np.arctan2(linear[:, 1, 0], linear[:, 0, 0])
    scale_x = np.hypot(linear[:, 0, 0], linear[:, 1, 0])
    scale_y = np.linalg.det(linear) / scale_x
    cosine, sine = np.cos(angle), np.sin(angle)
    shear = (linear[:, 0, 1] * cosine + linear[:, 1, 1] * sine) / scale_y
    centre = np.full(2, (size - 1) / 2)
    shift = (table[:, [2, 5]] + linear @ centre - centre) / size
    recovered = {
        "angle": (angle, augmentation_lib._MAX_ROTATION),
        "shear": (shear, augmentation_lib._MAX_SHEAR),
        "log scale x": (np.log(scale_x), augmentation_lib._MAX_LOG_SCALE),
        "log scale y": (np.log(scale_y), augmentation_lib._MAX_LOG_SCALE),
        "shift x": (shift[:, 0], augmentation_lib._MAX_SHIFT),
        "shift y": (shift[:, 1], augmentation_lib._MAX_SHIFT),
    }
    for name, (values, limit) in recovered.items():
        # In another order of composition, the shear or the shifts would leave
        # their range. Table entries are float32: 1e-6 of their size.
        assert np.abs(values).max() <= limit + 1e-5, name
        # Uniform: six tests, each failing by chance one time in 10**8.
        uniform = scipy.stats.uniform(-limit, 2 * limit)
        assert scipy.stats.kstest(values, uniform.cdf).pvalue > 1e-8, name
    # No two depend on each other: 15 correlations of 4000 pairs, each beyond
    # 6.5 / sqrt(4000) one time in 10**10.
    correlations = np.corrcoef([values for values, _ in recovered.values()])
    assert np.abs(np.triu(correlations, 1)).max() < 6.5 / np.sqrt(4000)


def test_every_copy_of_every_image_has_a_map_of_its_own():
    rows = square_table(50, 20).reshape(-1, 8)
    # The identity is shared by the 50 first copies.
    assert len(np.unique(rows, axis=0)) == 50 * 19 + 1


def test_copies_differ_from_each_other_and_from_the_original():
    image = scipy.ndimage.gaussian_filter(noise(1, 28, 28, 1), [0, 2, 2, 0])
    image = (image - image.min()) / np.ptp(image)
    drawn = queries(sampler_of(image, affine_copies=20, binarization="none"))
    assert len(drawn) == 20
    assert image[0].tobytes() in as_set(drawn)
    for one, other in itertools.combinations(drawn, 2):
        assert np.abs(one - other).max() > 0.05


def test_maps_are_decided_by_the_seed():
    np.testing.assert_array_equal(square_table(3, 4), square_table(3, 4))
    other = square_table(3, 4, seed=1)
    assert np.all(np.any(square_table(3, 4)[:, 1:] != other[:, 1:], axis=-1))


def test_a_sampler_keeps_the_same_copies_throughout_a_run():
    sampler = sampler_of(
        noise(2, 7, 7, 1), affine_copies=5, binarization="none"
    )
    assert as_set(queries(sampler, 0)) == as_set(queries(sampler, 17))


def test_maps_reach_beyond_the_border_into_zeros():
    table = np.array([[1, 0, 100, 0, 1, 0, 0, 0]], np.float32)
    moved = transform(tf.ones([1, 28, 28, 1]), table, image_size=(28, 28))
    np.testing.assert_array_equal(moved, np.zeros((1, 28, 28, 1)))


@pytest.mark.parametrize(("repeat_edges", "darkest"), [(False, 0), (True, 1)])
def test_copies_of_a_white_image_are_white_where_edges_are_repeated(
    repeat_edges, darkest
):
    sampler = sampler_of(
        np.ones((1, 9, 9, 3), np.float32),
        affine_copies=20,
        repeat_edges=repeat_edges,
        binarization="none",
    )
    assert queries(sampler).min() == pytest.approx(darkest, abs=1e-6)


# Decimation ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ((105, 105), (28, 28)),
        ((56, 56), (28, 28)),
        ((100, 100), (28, 28)),
        ((30, 30), (20, 20)),
        ((29, 29), (28, 28)),
        ((250, 250), (99, 99)),
        ((105, 60), (28, 31)),
        ((40, 28), (17, 28)),
    ],
)
def test_decimation_takes_the_pixel_at_floor_of_k_stored_over_wanted(
    stored, wanted
):
    images = noise(3, *stored, 2)
    rows, columns = (
        np.arange(new) * old // new
        for old, new in zip(stored, wanted, strict=True)
    )
    sampler = sampler_of(images, image_size=wanted, binarization="none")
    assert sampler.image_shape == (*wanted, 2)
    assert as_set(queries(sampler)) == {
        image[rows][:, columns].tobytes() for image in images
    }


@pytest.mark.parametrize(
    ("repeat_edges", "mode"), [(False, "grid-constant"), (True, "nearest")]
)
def test_decimated_affine_copies_agree_with_scipy(repeat_edges, mode):
    images = noise(20, 105, 105, 1)
    table = affine_table(
        20, 2, stored_size=(105, 105), image_size=(28, 28), seed=2
    )[:, 1]
    copies = transform(
        tf.constant(images),
        table,
        image_size=(28, 28),
        repeat_edges=repeat_edges,
    ).numpy()
    x, y = np.meshgrid(np.arange(28.0), np.arange(28.0))
    for image, row, copy in zip(images, table, copies, strict=True):
        expected = scipy_affine(
            image[..., 0], row, (28, 28), order=0, mode=mode
        )
        where = np.stack([row[0] * x + row[1] * y + row[2],
                          row[3] * x + row[4] * y + row[5]])  # fmt: skip
        # Float32 decides coordinates close to halfway either way.
        clear = np.all(np.abs(where % 1 - 0.5) > 1e-3, axis=0)
        assert clear.mean() > 0.9
        np.testing.assert_allclose(
            copy[..., 0][clear], expected[clear], atol=1e-6
        )


def test_a_binary_original_stays_binary_in_decimated_copies():
    images = 255 * (noise(4, 105, 105, 1) < 0.1).astype(np.uint8)
    drawn = queries(
        sampler_of(
            images,
            image_size=(28, 28),
            affine_copies=20,
            symmetries=8,
            binarization="none",
        )
    )
    assert len(as_set(drawn)) == 4 * 20 * 8
    np.testing.assert_array_equal(np.unique(drawn), [0.0, 1.0])
