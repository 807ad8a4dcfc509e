"""Depth upscaling beside naive computations in NumPy."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.conftest import assert_distribution_shape
from tests.conftest import assert_equal_to_rounding
from vhe_tf import random
from vhe_tf.distributions import DepthUpscaled
from vhe_tf.distributions import PixelCNN
from vhe_tf.distributions import pixel_cnn
from vhe_tf.distributions import pixels_of
from vhe_tf.distributions import tempered
from vhe_tf.distributions.depth_upscaling import guided
from vhe_tf.distributions.discretized import pixel_levels
from vhe_tf.distributions.domain import Domain
from vhe_tf.layers.pixel_cnn import GatedPixelCNN

SHAPE = (2, 1, 1)
# Levels of the high and of the low image; images of 2 levels are Bernoulli.
LEVELS = [(3, 2), (2, 3)]


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _part(num_levels, shape, conditioning, seed):
    """Makes a PixelCNN of random weights, conditioned on `[..., L]`."""
    pixels = pixels_of(num_levels, 2)
    network = GatedPixelCNN(
        pixels.num_parameters(shape[2]),
        filters=4,
        num_blocks=2,
        first_kernel_size=3,
        conditioning_filters=(3,),
    )
    network.build(
        (None, None, None, shape[2]), (None, None, None, conditioning)
    )
    network.set_weights(
        [
            0.7 * _random(*w.shape, seed=seed + i)
            for i, w in enumerate(network.weights)
        ]
    )
    return PixelCNN(network, pixels, shape)


def _distribution(levels=(3, 2), shape=SHAPE, batch=()):
    high, low = levels
    c = 2.0 * _random(*batch, *shape[:2], 2, seed=9)
    return DepthUpscaled(
        _part(high, shape, 2, seed=0).copy(conditioning=c),
        _part(low, shape, shape[2], seed=50),
    )


def _every_image(num_levels):
    """Returns the levels of all images of two pixels, `[L * L, 2, 1, 1]`."""
    return np.stack(
        list(itertools.product(range(num_levels), repeat=2))
    ).reshape(-1, *SHAPE)


def _log_probs(part, conditioning, levels, temperature):
    """Adds up log p(pixel | pixels before), each normalised over its levels.

    Conditioning and levels are those of N images.
    """
    rows, count = len(levels), pixel_levels(part)
    total = np.zeros(rows)
    for place in range(2):
        images = np.zeros((rows, count, *SHAPE))  # later pixels are 0
        images[:, :, :place] = levels[:, np.newaxis, :place]
        images[:, :, place, 0, 0] = np.arange(count)
        images = tf.constant(images.reshape(-1, *SHAPE) / (count - 1.0))
        images = tf.cast(images, tf.float32)
        log_probs = part.pixels.log_prob(
            part.network(images, tf.repeat(conditioning, count, axis=0)),
            images,
            temperature=tf.constant(1.0),
        )
        p = np.exp(np.float64(log_probs)[:, place, 0, 0]).reshape(rows, count)
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)
        p = p ** (1.0 / temperature)
        chosen = p[np.arange(rows), levels[:, place, 0, 0]]
        total += np.log(chosen / p.sum(axis=1))
    return total


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("levels", LEVELS)
def test_images_have_the_products_of_naive_conditionals(levels, temperature):
    d = _distribution(levels)
    images = _every_image(6)
    high, low = np.divmod(images, levels[1])
    c = tf.repeat(d.high.conditioning[tf.newaxis], len(images), axis=0)
    shown = tf.constant(high / (levels[0] - 1.0), tf.float32)
    expected = _log_probs(d.high, c, high, temperature)
    expected += _log_probs(d.low, shown, low, temperature)
    log_probs = tempered(d, temperature).log_prob(np.float32(images / 5.0))
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4)
    np.testing.assert_allclose(np.exp(expected).sum(), 1.0, rtol=1e-5)
    assert np.ptp(expected) > 1.0


def test_the_images_of_two_channels_have_the_mass_one():
    d = _distribution(shape=(2, 1, 2))
    images = np.stack(list(itertools.product(range(6), repeat=4)))
    images = images.reshape(-1, 2, 1, 2).astype(np.float32) / 5.0
    log_probs = np.float64(d.log_prob(images))
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("levels", LEVELS)
def test_samples_have_the_frequencies_of_their_probabilities(levels, by_rows):
    d = _distribution(levels)
    if by_rows:
        seeds = random.fold_in(3, tf.range(4000))
        images = random.sample(d, [4000], seed=seeds)
    else:
        images = d.sample(4000, seed=(3, 4))
    found = np.rint(5.0 * images.numpy()).astype(int)
    np.testing.assert_allclose(images, found / 5.0, atol=1e-6)
    counts = np.bincount(6 * found[:, 0, 0, 0] + found[:, 1, 0, 0])
    p = np.exp(np.float64(d.log_prob(np.float32(_every_image(6) / 5.0))))
    expected = 4000 * p / p.sum()
    counts = np.pad(counts, (0, 36 - len(counts)))
    rare = expected < 5.0
    _, p_value = scipy.stats.chisquare(
        [*counts[~rare], counts[rare].sum()],
        [*expected[~rare], expected[rare].sum()],
    )
    assert p_value > 1e-4


def test_a_row_has_the_samples_of_its_own_seed():
    d = _distribution(shape=(2, 3, 2), batch=(3,))
    seeds = random.fold_in(5, tf.range(3))
    images = random.sample(d, [2], seed=seeds)  # [2, 3, H, W, C]
    high = d.high.copy(conditioning=d.high.conditioning[1:2])
    alone = random.sample(d.copy(high=high), [2], seed=seeds[1:2])
    np.testing.assert_array_equal(alone[:, 0], images[:, 1])


def test_gradients_of_the_conditioning_come_from_the_high_image_alone():
    d = _distribution(shape=(3, 4, 3), batch=(2,))
    image = d.sample(seed=(1, 2))
    c = tf.Variable(d.high.conditioning)
    high = tf.floor(tf.round(5.0 * image) / 2.0) / 2.0
    with tf.GradientTape(persistent=True) as tape:
        part = d.high.copy(conditioning=tf.convert_to_tensor(c))
        log_prob = d.copy(high=part).log_prob(image)
        of_high = part.log_prob(high)
    expected = tape.gradient(of_high, c)
    assert_equal_to_rounding(tape.gradient(log_prob, c), expected)
    assert np.all(expected)
    for part in (d.high, d.low):
        for weight in part.network.weights:
            assert np.any(tape.gradient(log_prob, weight)), weight.path
    for weight in d.low.network.weights:
        assert tape.gradient(of_high, weight) is None


def test_it_has_the_shapes_of_a_pixel_cnn_of_all_levels():
    d = _distribution(shape=(3, 4, 3), batch=(2, 5))
    assert_distribution_shape(d, batch=[2, 5], event=[3, 4, 3])
    images = d.sample([7], seed=(0, 1))
    assert d.log_prob(images).shape == [7, 2, 5]
    assert d.log_prob(images[0, 0, 0]).shape == [2, 5]
    assert d.num_levels == pixel_levels(d) == 6
    assert Domain.of(d) == Domain(0.0, 1.0)


@pytest.mark.parametrize("levels", LEVELS)
def test_guidance_is_that_of_the_high_image(levels):
    """The mean over contrasts is of probabilities, as in `pixel_cnn.guided`."""
    d = _distribution(levels, batch=(1,))
    others = d.high.copy(conditioning=2.0 * _random(2, 1, 2, 1, 2, seed=33))
    g = guided(d, d.copy(high=others), guidance=0.7)
    images = _every_image(6)
    high = images // levels[1]
    high_images = np.float32(high / (levels[0] - 1.0))[:, np.newaxis]
    images = np.float32(images / 5.0)[:, np.newaxis]
    of_low = d.log_prob(images) - d.high.log_prob(high_images)
    of_high = pixel_cnn.guided(d.high, others, guidance=0.7).log_prob(
        high_images
    )
    np.testing.assert_allclose(
        g.log_prob(images), of_high + of_low, rtol=1e-4, atol=1e-4
    )
    total = np.exp(np.float64(g.log_prob(images))).sum()
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    assert np.abs(g.log_prob(images) - d.log_prob(images)).max() > 0.1
    assert guided(d, d, guidance=0.0) is d


def test_other_values_are_the_nearest_level_and_nan_stays():
    d = _distribution()
    near = d.log_prob(np.float32([0.41, -0.3]).reshape(SHAPE))
    level = d.log_prob(np.float32([0.4, 0.0]).reshape(SHAPE))
    np.testing.assert_array_equal(near, level)
    assert np.isnan(d.log_prob(np.float32([0.4, np.nan]).reshape(SHAPE)))
