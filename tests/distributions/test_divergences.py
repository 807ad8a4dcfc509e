import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.distributions.divergences import kl_from_sample

Q = tfd.MultivariateNormalDiag([[0.5, -1.0], [0.0, 2.0]], [[0.7, 1.5]] * 2)
P = tfd.MultivariateNormalDiag(tf.zeros(2), [1.0, 2.0])


def _closed_form():
    """Returns KL[Q || P] in float64."""
    m, s = np.array([[0.5, -1.0], [0.0, 2.0]]), np.array([0.7, 1.5])
    t = np.array([1.0, 2.0])
    return np.sum(np.log(t / s) + (s**2 + m**2) / (2.0 * t**2) - 0.5, axis=-1)


def test_closed_form_kl_equals_numpy_in_float64():
    np.testing.assert_allclose(
        tfd.kl_divergence(Q, P), _closed_form(), rtol=1e-6
    )


def test_one_sample_kl_is_the_difference_of_log_densities():
    sample = Q.sample(seed=(1, 2))
    np.testing.assert_allclose(
        kl_from_sample(Q, P, sample=sample),
        Q.log_prob(sample) - P.log_prob(sample),
        rtol=1e-6,
    )


def test_one_sample_kl_is_unbiased():
    num_samples = 40_000
    estimates = kl_from_sample(Q, P, sample=Q.sample(num_samples, seed=(3, 4)))
    assert estimates.shape == (num_samples, 2)
    # Five standard errors of the mean: misses once in 2 million.
    error = 5.0 * np.std(estimates, axis=0) / np.sqrt(num_samples)
    assert np.all(error < 0.05)
    difference = np.mean(estimates, axis=0) - _closed_form()
    assert np.all(np.abs(difference) < error)


def test_one_sample_kl_of_equals_is_zero_for_every_draw():
    np.testing.assert_array_equal(
        kl_from_sample(Q, Q, sample=Q.sample(9, seed=(5, 6))), np.zeros((9, 2))
    )
