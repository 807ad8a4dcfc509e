import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conftest import assert_distribution_shape
from tests.conftest import assert_survives_round_trip
from vhe_tf.distributions.tempering import tempered
from vhe_tf.layers.heads import BernoulliImageHead
from vhe_tf.layers.heads import DiagonalNormalHead
from vhe_tf.layers.heads import NormalImageHead
from vhe_tf.layers.heads import StandardNormal


def _features(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


@pytest.fixture
def mixed_float16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(policy)


def _location_and_scale(head, features):
    """Returns what the head should compute, in float64."""
    kernel, bias = (np.float64(w) for w in head.get_weights())
    loc, raw = np.split(np.float64(features) @ kernel + bias, 2, axis=-1)
    return loc, np.log1p(np.exp(raw)) + 1e-5


def test_standard_normal_equals_scipy():
    d = StandardNormal(3)()
    assert_distribution_shape(d, batch=[], event=[3])
    value = _features(5, 3)
    np.testing.assert_allclose(
        d.log_prob(value),
        scipy.stats.norm.logpdf(value).sum(axis=-1),
        rtol=1e-5,
    )


def test_standard_normal_ignores_its_parents():
    d = StandardNormal(3)(_features(2, 4, 7), _features(2, 4, 5))
    assert_distribution_shape(d, batch=[], event=[3])


def test_diagonal_normal_equals_scipy():
    head = DiagonalNormalHead(3)
    features = _features(2, 4, 6)
    d = head(features)
    assert_distribution_shape(d, batch=[2, 4], event=[3])
    loc, scale = _location_and_scale(head, features)
    value = _features(2, 4, 3, seed=1)
    np.testing.assert_allclose(
        d.log_prob(value),
        scipy.stats.norm.logpdf(value, loc, scale).sum(axis=-1),
        rtol=1e-5,
    )


def test_kl_to_the_standard_normal_equals_numpy_in_float64():
    head = DiagonalNormalHead(3)
    features = _features(4, 6)
    posterior = head(features)
    loc, scale = _location_and_scale(head, features)
    expected = 0.5 * np.sum(
        loc**2 + scale**2 - 1.0 - 2.0 * np.log(scale), axis=-1
    )
    kl = tfd.kl_divergence(posterior, StandardNormal(3)())
    np.testing.assert_allclose(kl, expected, rtol=1e-5)


def test_scale_stays_positive_where_softplus_underflows():
    head = DiagonalNormalHead(2)
    head(_features(1, 2))
    head.set_weights([np.zeros((2, 4)), np.array([0.0, 0.0, -1e4, -1e4])])
    d = head(_features(1, 2))
    np.testing.assert_allclose(d.stddev(), [[1e-5, 1e-5]], rtol=1e-6)
    assert np.all(np.isfinite(d.log_prob([[0.0, 0.0]])))


def test_bernoulli_image_equals_scipy():
    logits = 3.0 * _features(2, 5, 4, 3, 2)
    d = BernoulliImageHead()(logits)
    assert_distribution_shape(d, batch=[2, 5], event=[4, 3, 2])
    image = np.random.default_rng(1).integers(0, 2, logits.shape)
    probability = 1.0 / (1.0 + np.exp(-np.float64(logits)))
    np.testing.assert_allclose(
        d.log_prob(tf.constant(image, tf.float32)),
        scipy.stats.bernoulli.logpmf(image, probability).sum(axis=(-3, -2, -1)),
        rtol=1e-5,
    )


def test_probabilities_of_all_2x2_images_sum_to_one():
    d = BernoulliImageHead()(_features(2, 2, 1))
    images = np.indices((2,) * 4).reshape(4, 16).T.reshape(16, 2, 2, 1)
    log_probs = d.log_prob(tf.constant(images, tf.float32))
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1.0, rtol=1e-5)


def test_normal_image_equals_scipy():
    features = 3.0 * _features(2, 5, 4, 3, 6)
    d = NormalImageHead()(features)
    assert_distribution_shape(d, batch=[2, 5], event=[4, 3, 3])
    raw_loc, raw_scale = np.split(np.float64(features), 2, axis=-1)
    loc = 1.0 / (1.0 + np.exp(-raw_loc))
    scale = np.log1p(np.exp(raw_scale - 1.25)) + 1.0 / 255.0
    image = np.random.default_rng(1).uniform(size=loc.shape)
    np.testing.assert_allclose(
        d.log_prob(tf.constant(image, tf.float32)),
        scipy.stats.norm.logpdf(255 * image, 255 * loc, 255 * scale).sum(
            axis=(-3, -2, -1)
        ),
        rtol=1e-4,
    )
    np.testing.assert_allclose(d.mean(), loc, rtol=1e-5)


def test_a_gaussian_pixel_is_never_narrower_than_a_level_of_8_bits():
    features = tf.constant([[[[1e4, -1e4]]], [[[-1e4, -1e4]]]])  # [2, 1, 1, 2]
    d = NormalImageHead()(features)
    np.testing.assert_allclose(np.ravel(d.mean()), [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(
        d.stddev(), np.full([2, 1, 1, 1], 1.0 / 255.0), rtol=1e-6
    )
    np.testing.assert_allclose(
        d.log_prob(tf.zeros([1, 1, 1])),
        scipy.stats.norm.logpdf([-255.0, 0.0]),
        rtol=1e-5,
    )


@pytest.mark.parametrize("num_levels", [20, 256])
def test_a_density_approximates_a_distribution_of_levels(num_levels):
    head = NormalImageHead(num_levels)
    d = head(tf.constant([[[0.0, 0.2]]]))  # a scale of 0.3
    levels = np.arange(-2 * num_levels, 3 * num_levels) / (num_levels - 1)
    levels = np.float32(levels).reshape(-1, 1, 1, 1)
    total = np.sum(np.exp(d.log_prob(levels)))
    np.testing.assert_allclose(total, 1.0, rtol=1e-4)


def test_a_gaussian_image_has_the_slices_of_a_distribution(recwarn):
    d = NormalImageHead()(_features(3, 4, 2, 6))
    image = np.zeros([4, 2, 3], np.float32)
    np.testing.assert_allclose(
        d[1].log_prob(image), d.log_prob(image)[1], rtol=1e-5
    )
    assert d.copy().batch_shape == d.batch_shape
    assert not recwarn.list


def test_temperature_and_entropy_of_a_gaussian_image_are_in_levels():
    d = NormalImageHead()(_features(2, 2, 6))
    loc, scale = (255.0 * np.float64(v) for v in (d.mean(), d.stddev()))
    image = np.full([2, 2, 3], 0.5, np.float32)
    np.testing.assert_allclose(
        tempered(d, 0.5).log_prob(image),
        scipy.stats.norm.logpdf(127.5, loc, scale * np.sqrt(0.5)).sum(),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        d.entropy(), scipy.stats.norm.entropy(loc, scale).sum(), rtol=1e-5
    )


@pytest.mark.parametrize("num_levels", [1, 0, 2.0, "256"])
def test_an_improper_number_of_levels_is_refused(num_levels):
    with pytest.raises(
        ValueError, match=rf"int of 2 or more.*num_levels={num_levels!r}"
    ):
        NormalImageHead(num_levels)


def test_every_feature_of_a_gaussian_image_gets_a_gradient():
    features = _features(2, 4, 3, 6)
    with tf.GradientTape() as tape:
        tape.watch(features)
        log_prob = NormalImageHead()(features).log_prob(tf.zeros([4, 3, 3]))
    gradient = tape.gradient(log_prob, features)
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient != 0.0)


@pytest.mark.usefixtures("mixed_float16")
def test_distributions_are_float32_under_mixed_float16():
    head = DiagonalNormalHead(3)
    assert head.compute_dtype == "float16"
    assert_distribution_shape(head(_features(2, 6)), batch=[2], event=[3])
    assert_distribution_shape(StandardNormal(3)(), batch=[], event=[3])
    assert_distribution_shape(
        BernoulliImageHead()(tf.cast(_features(2, 4, 4, 1), tf.float16)),
        batch=[2],
        event=[4, 4, 1],
    )
    assert_distribution_shape(
        NormalImageHead()(tf.cast(_features(2, 4, 4, 6), tf.float16)),
        batch=[2],
        event=[4, 4, 3],
    )


def test_heads_survive_a_round_trip():
    assert_survives_round_trip(StandardNormal(3))
    assert_survives_round_trip(DiagonalNormalHead(3), _features(2, 6))
    assert_survives_round_trip(BernoulliImageHead(), _features(2, 4, 4, 1))
    assert_survives_round_trip(NormalImageHead(9), _features(2, 4, 4, 6))


@pytest.mark.parametrize("head", [StandardNormal, DiagonalNormalHead])
@pytest.mark.parametrize("latent_size", [0, -7, 2.5, "3"])
def test_an_improper_latent_size_is_refused(head, latent_size):
    with pytest.raises(
        ValueError, match=f"Received: latent_size={latent_size!r}"
    ):
        head(latent_size)
