"""Guidance of pixels with levels, beside naive computations in NumPy."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from vhe_tf.distributions.discretized import DiscretizedLogisticPixels
from vhe_tf.distributions.discretized import GuidedDiscretizedPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.distributions.pixel_cnn import guided
from vhe_tf.layers.pixel_cnn import GatedPixelCNN

NUM_LEVELS = 4
SHAPE = (2, 3, 2)
BATCH, NUM_CONTRASTS = 3, 2
W = 0.8
ONE = tf.constant(1.0)


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _distributions(guidance=W, temperature=1.0):
    """Makes a distribution, two contrasts of it, and the guided one."""
    pixels = DiscretizedLogisticPixels(num_components=2, num_levels=NUM_LEVELS)
    count, channels = pixels.num_parameters(SHAPE[2]), SHAPE[2]
    network = GatedPixelCNN(count, filters=4, num_blocks=2, first_kernel_size=3)
    network.build((None, None, None, channels), (None, None, None, 2))
    network.set_weights(
        [0.7 * _random(*w.shape, seed=i) for i, w in enumerate(network.weights)]
    )
    plain = PixelCNN(
        network,
        pixels,
        SHAPE,
        2.0 * _random(BATCH, *SHAPE[:2], 2, seed=9),
        temperature,
    )
    contrast = plain.copy(
        conditioning=2.0 * _random(NUM_CONTRASTS, BATCH, *SHAPE[:2], 2, seed=17)
    )
    return plain, contrast, guided(plain, contrast, guidance=guidance)


def _probabilities(plain, contrast, images, place):
    """Returns p(level | what is before) at a pixel and channel, `[S, B, L]`.

    The sets S are the distribution and its contrasts.
    """
    conditionings = [plain.conditioning, *contrast.conditioning]
    every = np.tile(images, [len(conditionings), NUM_LEVELS, 1, 1, 1, 1])
    for level in range(NUM_LEVELS):
        every[(slice(None), level, slice(None), *place)] = level / (
            NUM_LEVELS - 1.0
        )
    folded = tf.constant(every.reshape(-1, *SHAPE))
    conditioning = tf.concat(
        [c for c in conditionings for _ in range(NUM_LEVELS)], axis=0
    )
    log_probs = plain.pixels.log_prob(
        plain.network(folded, conditioning), folded, temperature=ONE
    )
    found = np.float64(log_probs)[(slice(None), *place)]
    found = found.reshape(len(conditionings), NUM_LEVELS, BATCH)
    return np.exp(found.transpose(0, 2, 1))


def _guided_probabilities(plain, contrast, images, place):
    """Returns p^(1 + w) / m^w, normalised, and p, `[B, L]` each."""
    sets = _probabilities(plain, contrast, images, place)
    scores = sets[0] ** (1.0 + W) / np.mean(sets, axis=0) ** W
    temperature = float(plain.temperature)
    return scipy.special.softmax(np.log(scores) / temperature, axis=1), sets[0]


@pytest.fixture(scope="module", params=[1.0, 0.5])
def distributions(request):
    return _distributions(temperature=request.param)


def test_guided_probabilities_equal_those_of_a_naive_computation(
    distributions,
):
    plain, contrast, d = distributions
    levels = np.random.default_rng(3).integers(0, NUM_LEVELS, (BATCH, *SHAPE))
    images = np.float32(levels / (NUM_LEVELS - 1.0))
    expected = np.zeros(BATCH)
    for place in np.ndindex(SHAPE):
        p, _ = _guided_probabilities(plain, contrast, images, place)
        chosen = levels[(slice(None), *place)]
        expected += np.log(p[np.arange(BATCH), chosen])
    np.testing.assert_allclose(d.log_prob(images), expected, rtol=1e-4)
    assert np.all(np.abs(expected - plain.log_prob(images)) > 0.1)


def test_guided_samples_are_those_of_a_naive_sampler(distributions):
    plain, contrast, d = distributions
    noise = np.random.default_rng(4).uniform(size=(BATCH, *SHAPE))
    noise = noise.astype(np.float32)
    images = np.zeros((BATCH, *SHAPE), np.float32)
    near = False
    for place in np.ndindex(SHAPE):
        p, _ = _guided_probabilities(plain, contrast, images, place)
        cumulative = np.cumsum(p, axis=1)[:, :-1]
        u = noise[(slice(None), *place)][:, np.newaxis]
        near |= bool(np.any(np.abs(cumulative - u) < 1e-4))
        level = np.sum(cumulative <= u, axis=1)
        images[(slice(None), *place)] = level / (NUM_LEVELS - 1.0)
    assert not near  # rounding decides nothing
    made = d.sample_from(tf.constant(noise))
    np.testing.assert_allclose(made, images, atol=1e-6)
    assert np.any(images != plain.sample_from(tf.constant(noise)).numpy())


def test_no_improbable_level_becomes_probable():
    plain, contrast, _ = _distributions()
    images = np.zeros((BATCH, *SHAPE), np.float32)
    for place in np.ndindex(SHAPE):
        p, own = _guided_probabilities(plain, contrast, images, place)
        assert np.all(p <= own * (1 + NUM_CONTRASTS) ** W)


def test_contrasts_like_the_image_change_nothing():
    plain, _, _ = _distributions()
    same = plain.copy(conditioning=tf.stack([plain.conditioning] * 2))
    d = guided(plain, same, guidance=3.0)
    images = d.sample(seed=(1, 2))
    np.testing.assert_allclose(
        d.log_prob(images), plain.log_prob(images), rtol=1e-4
    )


def test_nan_stays_nan():
    _, _, d = _distributions()
    images = np.zeros((BATCH, *SHAPE), np.float32)
    images[1, 0, 0, 0] = np.nan
    assert np.isnan(d.log_prob(images)).tolist() == [False, True, False]


def test_a_guided_distribution_takes_no_more_guidance():
    _, contrast, d = _distributions()
    assert isinstance(d.pixels, GuidedDiscretizedPixels)
    with pytest.raises(ValueError, match=r"Received: guidance=0\.5"):
        guided(d, contrast, guidance=0.5)
