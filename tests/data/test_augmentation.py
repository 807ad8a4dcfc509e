import itertools
import re

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf

from vhe_tf.data import Augmentation
from vhe_tf.data import EpisodeSampler
from vhe_tf.data import GroupedImages
from vhe_tf.data import augmentation as augmentation_lib
from vhe_tf.data.augmentation import affine_table
from vhe_tf.data.augmentation import binarize
from vhe_tf.data.augmentation import mirrored
from vhe_tf.data.augmentation import symmetry
from vhe_tf.data.augmentation import transform

SEED = tf.constant([3, 5])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def sampler_of(images, *, batch_size=None, seed=0, **augmentation):
    """A sampler whose first step draws every element of one group once."""
    copies = Augmentation(**augmentation)
    return EpisodeSampler(
        GroupedImages(images, {"character": np.full(len(images), 6)}),
        batch_size=batch_size or len(images) * copies.multiplicity,
        support_size=1,
        resamples=True,
        augmentation=copies,
        seed=seed,
    )


def queries(sampler, step=0):
    return sampler.episode(step)["query"].numpy()


def as_set(images):
    return {image.tobytes() for image in images}


# Symmetries ------------------------------------------------------------------


def all_symmetries(image):
    return symmetry(tf.stack([image] * 8), tf.range(8)).numpy()


def oracle(image, index):
    transposed = image.transpose(1, 0, 2) if index >= 4 else image
    return np.rot90(transposed, index % 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_symmetries_are_quarter_turns_after_a_transposition(channels):
    image = noise(5, 5, channels)
    for index, turned in enumerate(all_symmetries(image)):
        np.testing.assert_array_equal(turned, oracle(image, index))


def test_the_eight_symmetries_are_distinct():
    assert len(as_set(all_symmetries(noise(4, 4, 1)))) == 8


def test_symmetries_form_the_dihedral_group():
    image = noise(4, 4, 1)
    names = {
        turned.tobytes(): index
        for index, turned in enumerate(all_symmetries(image))
    }
    table = np.array(
        [
            [names[twice.tobytes()] for twice in all_symmetries(turned)]
            for turned in all_symmetries(image)
        ]
    )
    # A Latin square with a neutral element: a group. Of the groups of eight
    # elements, only the dihedral one has five elements of order two.
    for line in (*table, *table.T):
        assert sorted(line) == list(range(8))
    np.testing.assert_array_equal(table[0], range(8))
    np.testing.assert_array_equal(table[:, 0], range(8))
    assert np.sum(np.diag(table) == 0) == 1 + 5


def test_each_image_is_turned_by_its_own_symmetry():
    images = noise(6, 3, 3, 1)
    index = [5, 0, 2, 7, 1, 5]
    turned = symmetry(tf.constant(images), tf.constant(index, tf.int64)).numpy()
    for image, one, k in zip(images, turned, index, strict=True):
        np.testing.assert_array_equal(one, oracle(image, k))


@pytest.mark.parametrize("symmetries", [1, 4, 8])
def test_a_sampler_draws_the_first_symmetries_of_every_image(symmetries):
    images = noise(3, 4, 4, 1)
    drawn = queries(
        sampler_of(images, symmetries=symmetries, binarization="none")
    )
    assert as_set(drawn) == {
        oracle(image, index).tobytes()
        for image in images
        for index in range(symmetries)
    }


def test_four_symmetries_are_the_rotations():
    image = noise(1, 4, 4, 1)
    drawn = queries(sampler_of(image, symmetries=4, binarization="none"))
    assert as_set(drawn) == {np.rot90(image[0], k).tobytes() for k in range(4)}


@pytest.mark.parametrize("size", [(4, 4), (4, 7)])
def test_some_images_are_mirrored_left_to_right(size):
    images = noise(3, *size, 3)
    drawn = mirrored(tf.constant(images), tf.constant([True, False, True]))
    expected = [np.fliplr(images[0]), images[1], np.fliplr(images[2])]
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("size", [(4, 4), (6, 3), (3, 6)])
def test_two_symmetries_are_the_image_and_its_mirror_image(size):
    images = noise(3, *size, 3)
    sampler = sampler_of(images, symmetries=2, binarization="none")
    assert sampler.num_elements == 6
    assert as_set(queries(sampler)) == {
        turned.tobytes()
        for image in images
        for turned in (image, np.fliplr(image))
    }


def test_a_mirrored_group_is_another_group():
    images = noise(2, 5, 3, 1)
    sampler = EpisodeSampler(
        GroupedImages(images, {"person": np.array([7, 7])}),
        batch_size=4,
        support_size=2,
        resamples=True,
        augmentation=Augmentation(symmetries=2, binarization="none"),
    )
    episode = sampler.episode(0)
    np.testing.assert_array_equal(episode["group_size"]["person"], [2] * 4)
    groups = {False: as_set(images), True: as_set(images[:, :, ::-1])}
    seen = []
    for query, support in zip(
        episode["query"].numpy(),
        episode["support"]["person"].numpy(),
        strict=True,
    ):
        seen.append(query.tobytes() in groups[True])
        assert as_set(support) == groups[seen[-1]]
    assert sorted(seen) == [False, False, True, True]


def test_a_symmetry_of_an_affine_copy_is_the_copy_of_a_symmetry():
    image = noise(1, 6, 6, 1)
    options = {"affine_copies": 3, "binarization": "none"}
    upright = queries(sampler_of(image, **options))
    drawn = queries(sampler_of(image, symmetries=8, **options))
    assert as_set(drawn) == {
        oracle(copy, index).tobytes() for copy in upright for index in range(8)
    }


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
    """Resamples `image[H0, W0]` by one row of a table; zeros beyond it."""
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
    copies = transform(tf.constant(images), table[:, 0], (28, 28))
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
        tf.constant(images), table[:, 1], size, repeat_edges=repeat_edges
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
    moved = transform(tf.ones([1, 28, 28, 1]), table, (28, 28))
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


def test_decimated_affine_copies_agree_with_scipy():
    images = noise(20, 105, 105, 1)
    table = affine_table(
        20, 2, stored_size=(105, 105), image_size=(28, 28), seed=2
    )[:, 1]
    copies = transform(tf.constant(images), table, (28, 28)).numpy()
    x, y = np.meshgrid(np.arange(28.0), np.arange(28.0))
    for image, row, copy in zip(images, table, copies, strict=True):
        expected = scipy_affine(image[..., 0], row, (28, 28), order=0)
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


# Binarisation ----------------------------------------------------------------


@pytest.mark.parametrize("value", [0.02, 0.25, 0.5, 0.9])
def test_dynamic_binarisation_is_ink_as_often_as_the_pixel_says(value):
    num_draws = 40_000
    drawn = binarize(tf.fill([num_draws], value), "dynamic", seed=SEED).numpy()
    np.testing.assert_array_equal(np.unique(drawn), [0.0, 1.0])
    # Fails by chance one time in 10**8.
    ones = int(drawn.sum())
    assert scipy.stats.binomtest(ones, num_draws, value).pvalue > 1e-8


def test_dynamic_binarisation_keeps_black_and_white():
    images = tf.constant([0.0, 1.0] * 10_000)
    drawn = binarize(images, "dynamic", seed=SEED)
    np.testing.assert_array_equal(drawn, images)


def test_dynamic_binarisation_draws_pixels_independently():
    drawn = binarize(tf.fill([2, 20_000], 0.5), "dynamic", seed=SEED).numpy()
    # Correlations of independent draws have a standard error of
    # 1 / sqrt(20,000); beyond 6 of them one time in 10**8.
    limit = 6 / np.sqrt(20_000)
    assert abs(np.corrcoef(drawn)[0, 1]) < limit
    assert abs(np.corrcoef(drawn[0, 1:], drawn[0, :-1])[0, 1]) < limit


def test_every_draw_of_an_image_is_binarised_anew():
    grey = np.full((1, 16, 16, 1), 0.5, np.float32)
    sampler = EpisodeSampler(
        GroupedImages(grey, {"character": np.array([5])}),
        batch_size=10,
        support_size=1,
        resamples=True,
    )
    drawn = [
        images
        for step in range(10)
        for episode in [sampler.episode(step)]
        for images in (episode["query"], episode["support"]["character"][:, 0])
    ]
    # 200 draws of 256 fair bits: equal ones by chance in 2**-241.
    assert len(as_set(np.concatenate(drawn))) == 200


def test_images_are_binarised_after_all_else():
    sampler = sampler_of(
        noise(3, 12, 12, 1), symmetries=8, affine_copies=4, seed=1
    )
    drawn = queries(sampler)
    np.testing.assert_array_equal(np.unique(drawn), [0.0, 1.0])
    assert drawn.dtype == np.float32


def test_threshold_is_one_half_and_needs_no_chance():
    values = tf.constant([0.0, 0.25, 0.49999, 0.5, 0.75, 1.0])
    drawn = binarize(values, "threshold", seed=SEED)
    np.testing.assert_array_equal(drawn, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert drawn.dtype == tf.float32


def test_threshold_of_bytes_parts_127_from_128():
    images = np.array([127, 128], np.uint8)[:, None, None, None]
    drawn = queries(sampler_of(images, binarization="threshold"))
    assert sorted(drawn.ravel()) == [0.0, 1.0]


def test_no_binarisation_keeps_grey_values():
    values = tf.constant(noise(50))
    np.testing.assert_array_equal(binarize(values, "none", seed=SEED), values)


@pytest.mark.parametrize("binarization", ["dynamic", "threshold", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_and_floating_point_images_give_the_same_episodes(
    dtype, binarization
):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 1), np.uint8)
    options = {
        "symmetries": 8, "affine_copies": 3, "binarization": binarization,
    }  # fmt: skip
    from_bytes = queries(sampler_of(pixels, **options))
    floats = (pixels / 255.0).astype(dtype)
    np.testing.assert_array_equal(
        queries(sampler_of(floats, **options)), from_bytes
    )


# Options ---------------------------------------------------------------------


def test_multiplicity_counts_symmetries_and_copies():
    assert Augmentation(symmetries=8, affine_copies=20).multiplicity == 160
    assert Augmentation().multiplicity == 1


@pytest.mark.parametrize(
    "options",
    [
        {"symmetries": 3},
        {"symmetries": 0},
        {"affine_copies": 0},
        {"affine_copies": -4},
        {"affine_copies": 2.5},
        {"binarization": "bernoulli"},
        {"binarization": None},
        {"image_size": (0, 28)},
        {"image_size": (28, -1)},
        {"image_size": (28.0, 28.0)},
        {"image_size": (28,)},
        {"image_size": (28, 28, 1)},
        {"image_size": 28},
        {"image_size": "28"},
    ],
)
def test_a_bad_option_is_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(
        ValueError, match=re.escape(f"Received: {name}={value!r}.")
    ):
        Augmentation(**options)


@pytest.mark.parametrize("options", [{"symmetries": 4}, {"symmetries": 8}])
def test_quarter_turns_of_images_that_are_not_square_are_refused(options):
    with pytest.raises(
        ValueError,
        match=r"symmetries=2, to mirror only.*Received: images of 6x4 pixels",
    ):
        sampler_of(noise(2, 6, 4, 1), **options)
    with pytest.raises(ValueError, match="Received: images of 5x3 pixels"):
        sampler_of(noise(2, 6, 6, 1), image_size=(5, 3), **options)


def test_images_made_square_by_decimation_can_be_turned():
    images = noise(2, 6, 4, 1)
    drawn = queries(
        sampler_of(images, image_size=(2, 2), symmetries=8, binarization="none")
    )
    assert as_set(drawn) == {
        oracle(image[::3, ::2], index).tobytes()
        for image in images
        for index in range(8)
    }


@pytest.mark.parametrize("wanted", [(29, 28), (28, 29), (105, 105)])
def test_making_images_larger_than_stored_is_refused(wanted):
    received = f"Received: image_size={wanted} for images of 28x28 pixels."
    with pytest.raises(ValueError, match=re.escape(received)):
        sampler_of(noise(2, 28, 28, 1), image_size=wanted)


def test_decimating_to_the_stored_size_changes_nothing():
    images = noise(3, 9, 9, 1)
    drawn = queries(sampler_of(images, image_size=(9, 9), binarization="none"))
    assert as_set(drawn) == as_set(images)
