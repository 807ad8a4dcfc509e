import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conftest import assert_distribution_shape
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.distributions.tempering import tempered
from vhe_tf.layers.pixel_cnn import GatedPixelCNN

TEMPERATURES = [0.3, 1.0, 2.0]
GRID = np.linspace(-15.0, 15.0, 6001)


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _power(log_prob, temperature, total):
    """Returns p to the power 1 / temperature, normalised by brute force."""
    power = np.exp(np.float64(log_prob) / temperature)
    return power / total(power)


def _integral(density):
    return scipy.integrate.simpson(density, x=GRID, axis=0)


def _assert_tempered_on_the_grid(d, temperature, grid):
    """Checks independent densities, one of each grid `[G, ...]`."""
    grid = tf.constant(grid, tf.float32)
    np.testing.assert_allclose(
        np.exp(tempered(d, temperature).log_prob(grid)),
        _power(d.log_prob(grid), temperature, _integral),
        rtol=1e-3,
        atol=1e-6,
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("parameter", ["logits", "probs"])
def test_a_bernoulli_equals_enumeration(parameter, temperature):
    value = {"logits": 3.0 * _random(5), "probs": tf.sigmoid(_random(5))}
    d = tfd.Bernoulli(**{parameter: value[parameter]}, dtype=tf.float32)
    outcomes = np.array([[0.0], [1.0]], np.float32)
    result = tempered(d, temperature)
    assert_distribution_shape(result, batch=[5], event=[])
    np.testing.assert_allclose(
        np.exp(result.log_prob(outcomes)),
        _power(d.log_prob(outcomes), temperature, lambda p: p.sum(axis=0)),
        rtol=1e-4,
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_normal_equals_quadrature(temperature):
    d = tfd.Normal(_random(5), tf.exp(0.3 * _random(5, seed=1)))
    assert_distribution_shape(tempered(d, temperature), batch=[5], event=[])
    _assert_tempered_on_the_grid(d, temperature, GRID[:, np.newaxis])


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_diagonal_normal_equals_quadrature_along_each_axis(temperature):
    loc, scale = _random(4, 2), tf.exp(0.3 * _random(4, 2, seed=1))
    d = tfd.MultivariateNormalDiag(loc, scale)
    result = tempered(d, temperature)
    assert_distribution_shape(result, batch=[4], event=[2])
    value = tf.constant(
        np.random.default_rng(2).choice(GRID[2500:3500], [4, 2])
    )
    expected = np.ones(4)
    for axis in range(2):
        along = tfd.Normal(loc[:, axis], scale[:, axis])
        on_grid = along.log_prob(tf.cast(GRID[:, np.newaxis], tf.float32))
        power = np.exp(np.float64(on_grid) / temperature)
        at_value = along.log_prob(tf.cast(value[:, axis], tf.float32))
        expected *= np.exp(np.float64(at_value) / temperature)
        expected /= _integral(power)
    np.testing.assert_allclose(
        np.exp(result.log_prob(tf.cast(value, tf.float32))), expected, rtol=1e-3
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_an_independent_equals_enumeration(temperature):
    logits = 2.0 * _random(3, 2, 2, 1)
    d = tfd.Independent(
        tfd.Bernoulli(logits=logits, dtype=tf.float32),
        reinterpreted_batch_ndims=3,
    )
    images = np.indices((2,) * 4).reshape(4, 16).T.reshape(16, 1, 2, 2, 1)
    images = images.astype(np.float32)
    result = tempered(d, temperature)
    assert_distribution_shape(result, batch=[3], event=[2, 2, 1])
    np.testing.assert_allclose(
        np.exp(result.log_prob(images)),
        _power(d.log_prob(images), temperature, lambda p: p.sum(axis=0)),
        rtol=1e-4,
    )


def test_an_independent_normal_is_one_of_tempered_normals():
    normal = tfd.Normal(_random(3, 2, 2, 1), 1.5)
    result = tempered(tfd.Independent(normal, 3), 0.3)
    assert_distribution_shape(result, batch=[3], event=[2, 2, 1])
    value = _random(3, 2, 2, 1, seed=1)
    np.testing.assert_allclose(
        result.log_prob(value),
        np.sum(tempered(normal, 0.3).log_prob(value), axis=(1, 2, 3)),
        rtol=1e-4,
    )


def _pixel_cnn():
    network = GatedPixelCNN(1, filters=4, num_blocks=1, first_kernel_size=3)
    network.build((None, None, None, 1))
    network.set_weights(
        [_random(*w.shape, seed=i) for i, w in enumerate(network.weights)]
    )
    return PixelCNN(network, BernoulliPixels(), (1, 2, 1))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_pixel_cnn_equals_enumeration_of_each_conditional(temperature):
    d = _pixel_cnn()
    images = np.indices((2, 2)).reshape(2, 4).T.reshape(2, 2, 1, 2, 1)
    images = images.astype(np.float32)  # [first pixel, second, H, W, C]
    joint = np.exp(np.float64(d.log_prob(images)))
    first = joint.sum(axis=1, keepdims=True)
    expected = _power(np.log(first), temperature, np.sum) * _power(
        np.log(joint / first),
        temperature,
        lambda p: p.sum(axis=1, keepdims=True),
    )
    np.testing.assert_allclose(
        np.exp(tempered(d, temperature).log_prob(images)), expected, rtol=1e-4
    )


def test_temperatures_of_a_pixel_cnn_multiply():
    twice = tempered(tempered(_pixel_cnn(), 0.5), 0.6)
    np.testing.assert_allclose(twice.temperature, 0.3, rtol=1e-6)


def test_any_distribution_stays_itself_at_the_temperature_one():
    d = tfd.Gamma(1.0, 2.0)
    assert tempered(d, 1) is d
    assert tempered(d, 1.0) is d


def test_a_temperature_can_be_a_tensor_of_a_compiled_graph():
    d = tfd.Independent(tfd.Normal(_random(5), 2.0), 1)
    compiled = tf.function(
        lambda temperature: tempered(d, temperature).log_prob(tf.zeros(5)),
        jit_compile=True,
    )
    for temperature in TEMPERATURES:
        np.testing.assert_allclose(
            compiled(tf.constant(temperature)),
            tempered(d, temperature).log_prob(tf.zeros(5)),
            rtol=1e-5,
        )


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature}"):
        tempered(tfd.Normal(0.0, 1.0), temperature)


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: tfd.Independent(d, 1)])
def test_another_distribution_is_refused_by_its_name(wrap):
    with pytest.raises(TypeError, match="Received: Gamma"):
        tempered(wrap(tfd.Gamma([1.0], [2.0])), 0.5)
