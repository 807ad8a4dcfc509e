import re

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.data.conftest import as_set
from tests.data.conftest import noise
from tests.data.conftest import queries
from tests.data.conftest import sampler_of_one_group as sampler_of
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.data.augmentation import binarize
from vhe_tf.data.augmentation import mirrored
from vhe_tf.data.augmentation import symmetry

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
    sampler = Episodes(
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


# Binarisation ----------------------------------------------------------------

SEEDS = tf.constant([[3, 5], [3, 6]])


@pytest.mark.parametrize("value", [0.02, 0.25, 0.5, 0.9])
def test_dynamic_binarisation_is_ink_as_often_as_the_pixel_says(value):
    num_draws = 40_000
    grey = tf.fill([2, num_draws // 2], value)
    drawn = binarize(grey, "dynamic", seeds=SEEDS).numpy()
    np.testing.assert_array_equal(np.unique(drawn), [0.0, 1.0])
    # Fails by chance one time in 10**8.
    ones = int(drawn.sum())
    assert scipy.stats.binomtest(ones, num_draws, value).pvalue > 1e-8


def test_dynamic_binarisation_keeps_black_and_white():
    images = tf.constant([[0.0, 1.0] * 10_000] * 2)
    drawn = binarize(images, "dynamic", seeds=SEEDS)
    np.testing.assert_array_equal(drawn, images)


def test_dynamic_binarisation_draws_pixels_independently():
    drawn = binarize(tf.fill([2, 20_000], 0.5), "dynamic", seeds=SEEDS).numpy()
    # Correlations of independent samples have a standard error of
    # 1 / sqrt(20,000); beyond 6 of them one time in 10**8.
    limit = 6 / np.sqrt(20_000)
    assert abs(np.corrcoef(drawn)[0, 1]) < limit
    assert abs(np.corrcoef(drawn[0, 1:], drawn[0, :-1])[0, 1]) < limit


def test_a_row_is_binarised_by_its_own_seed():
    grey = tf.fill([2, 3, 50], 0.5)
    together = binarize(grey, "dynamic", seeds=SEEDS)
    alone = binarize(grey[1:], "dynamic", seeds=SEEDS[1:])
    np.testing.assert_array_equal(alone[0], together[1])
    assert np.any(together[0] != together[1])


def test_every_draw_of_an_image_is_binarised_anew():
    grey = np.full((1, 16, 16, 1), 0.5, np.float32)
    sampler = Episodes(
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
    # 200 samples of 256 fair bits: two are equal with probability 2**-241.
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
    drawn = binarize(values, "threshold", seeds=SEEDS)
    np.testing.assert_array_equal(drawn, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert drawn.dtype == tf.float32


def test_threshold_of_bytes_parts_127_from_128():
    images = np.array([127, 128], np.uint8)[:, None, None, None]
    drawn = queries(sampler_of(images, binarization="threshold"))
    assert sorted(drawn.ravel()) == [0.0, 1.0]


def test_no_binarisation_keeps_grey_values():
    values = tf.constant(noise(50))
    np.testing.assert_array_equal(binarize(values, "none", seeds=SEEDS), values)


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


@pytest.mark.parametrize("num_levels", [2, 8, 256])
def test_pixels_are_rounded_to_the_nearest_level(num_levels):
    image = noise(1, 9, 9, 3)
    [drawn] = queries(
        sampler_of(image, num_levels=num_levels, binarization="none")
    )
    levels = np.linspace(0, 1, num_levels)
    distances = np.abs(image[0][..., np.newaxis] - levels)
    nearest = levels[distances.argmin(axis=-1)]
    np.testing.assert_allclose(drawn, nearest, atol=1e-6)


def test_bytes_are_256_levels_already():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    options = {"binarization": "none"}
    np.testing.assert_array_equal(
        queries(sampler_of(image, num_levels=256, **options)),
        queries(sampler_of(image, **options)),
    )


def test_affine_copies_are_rounded_too():
    drawn = queries(
        sampler_of(
            noise(2, 9, 9, 3),
            affine_copies=5,
            num_levels=8,
            binarization="none",
        )
    )
    np.testing.assert_allclose(7 * drawn, np.rint(7 * drawn), atol=1e-5)


# Options ---------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"binarization": "threshold"}])
def test_images_are_not_both_binarised_and_rounded_to_levels(options):
    with pytest.raises(ValueError, match=r"binarised or rounded.*num_levels=6"):
        Augmentation(num_levels=6, **options)


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
        {"num_levels": 1},
        {"num_levels": 8.0},
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
