import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tests.conftest import assert_equal_to_rounding
from vhe_tf import random
from vhe_tf.distributions import tempered
from vhe_tf.distributions.gaussian_mixture import GaussianMixture
from vhe_tf.distributions.gaussian_mixture import fit_mixture

WEIGHTS = np.array([0.5, 0.3, 0.2])
LOC = np.array([[-4.0, 0.0], [3.0, 3.0], [4.0, -4.0]])
SCALE = np.array(
    [[[1.0, 0.0], [0.8, 0.6]], [[0.5, 0.0], [0.0, 1.5]], [[1.0, 0.0], [-1, 1]]]
)
COVARIANCE = SCALE @ SCALE.transpose(0, 2, 1)


def _mixture():
    return GaussianMixture(
        *(tf.constant(v, tf.float32) for v in (np.log(WEIGHTS), LOC, SCALE))
    )


def _log_density(values, weights=WEIGHTS, covariance=COVARIANCE):
    return scipy.special.logsumexp(
        [
            np.log(weight)
            + scipy.stats.multivariate_normal(mean, matrix).logpdf(values)
            for weight, mean, matrix in zip(
                weights, LOC, covariance, strict=True
            )
        ],
        axis=0,
    )


def _samples(count):
    """Returns samples by NumPy alone."""
    rng = np.random.default_rng(3)
    index = rng.choice(3, size=count, p=WEIGHTS)
    noise = rng.normal(size=(count, 2))
    return LOC[index] + np.einsum("nij,nj->ni", SCALE[index], noise)


def test_the_density_is_that_of_scipy():
    values = np.random.default_rng(0).normal(0.0, 4.0, (20, 2))
    np.testing.assert_allclose(
        _mixture().log_prob(tf.constant(values, tf.float32)),
        _log_density(values),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_temperature_acts_on_the_components_and_on_each_of_them():
    values = np.random.default_rng(1).normal(0.0, 4.0, (20, 2))
    weights = WEIGHTS**2 / np.sum(WEIGHTS**2)
    np.testing.assert_allclose(
        tempered(_mixture(), 0.5).log_prob(tf.constant(values, tf.float32)),
        _log_density(values, weights, 0.5 * COVARIANCE),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("by_row", [False, True])
def test_samples_have_the_moments_of_the_mixture(by_row):
    count = 20_000
    if by_row:
        seeds = random.fold_in(5, tf.range(count))
        values = random.sample(_mixture(), [count], seed=seeds).numpy()
    else:
        values = _mixture().sample(count, seed=5).numpy()
    mean = WEIGHTS @ LOC
    second = np.einsum(
        "k,kij->ij", WEIGHTS, COVARIANCE + LOC[:, :, None] * LOC[:, None]
    )
    # Five standard errors: standard deviations below 4 and 20.
    np.testing.assert_allclose(values.mean(axis=0), mean, atol=0.15)
    np.testing.assert_allclose(values.T @ values / count, second, atol=0.75)


def test_a_row_depends_on_its_seed_alone():
    seeds = random.fold_in(5, tf.range(4))
    assert_equal_to_rounding(
        random.sample(_mixture(), [3, 4], seed=seeds)[:, 2:],
        random.sample(_mixture(), [3, 2], seed=seeds[2:]),
    )


def test_a_fit_recovers_the_mixture():
    # Standard errors: 0.005 of weights, 0.03 of means, 0.06 of covariances.
    logits, loc, scale = fit_mixture(_samples(10_000), 3)
    order = np.argsort(-logits)
    np.testing.assert_allclose(np.exp(logits[order]), WEIGHTS, atol=0.025)
    np.testing.assert_allclose(loc[order], LOC, atol=0.15)
    covariance = scale @ scale.transpose(0, 2, 1)
    np.testing.assert_allclose(covariance[order], COVARIANCE, atol=0.3)


def test_one_component_has_the_moments_of_the_vectors():
    values = _samples(500)
    logits, loc, scale = fit_mixture(values, 1)
    assert logits == 0.0
    np.testing.assert_allclose(loc[0], values.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(
        scale[0] @ scale[0].T, np.cov(values.T, bias=True), rtol=1e-4
    )


def test_few_vectors_are_enough_for_full_covariances():
    values = np.random.default_rng(4).normal(size=(12, 30))
    _, _, scale = fit_mixture(values, 3)
    assert np.isfinite(scale).all()
    assert np.all(np.linalg.eigvalsh(scale @ scale.transpose(0, 2, 1)) > 0)


def test_too_many_components_are_rejected():
    with pytest.raises(ValueError, match="3 vectors, num_components=2"):
        fit_mixture(np.zeros([3, 2]), 2)
