import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.conftest import assert_equal_to_rounding
from vhe_tf import random
from vhe_tf.distributions import LowRankGaussian
from vhe_tf.distributions import tempered
from vhe_tf.distributions.low_rank_gaussian import fit_low_rank

SHAPE = (2, 3)
RNG = np.random.default_rng(0)
LOC = RNG.normal(size=SHAPE)
FACTORS = RNG.normal(size=(2, *SHAPE))
SCALE = RNG.uniform(0.2, 1.0, size=SHAPE)


def covariance(factors=FACTORS, scale=SCALE):
    flat = factors.reshape(len(factors), -1)
    return flat.T @ flat + np.diag(np.square(scale).ravel())


def gaussian():
    return LowRankGaussian(
        *(tf.constant(v, tf.float32) for v in (LOC, FACTORS, SCALE))
    )


def test_the_density_is_that_of_scipy():
    values = np.random.default_rng(1).normal(size=(20, *SHAPE))
    wanted = scipy.stats.multivariate_normal(LOC.ravel(), covariance())
    np.testing.assert_allclose(
        gaussian().log_prob(tf.constant(values, tf.float32)),
        wanted.logpdf(values.reshape(20, -1)),
        rtol=1e-4,
    )


def test_a_temperature_is_a_power_of_the_density():
    values = np.random.default_rng(2).normal(size=(9, *SHAPE))
    values = tf.constant(values, tf.float32)
    cold = tempered(gaussian(), 0.5)
    # Equal but for the constant that normalises.
    np.testing.assert_allclose(
        np.diff(cold.log_prob(values)),
        2.0 * np.diff(gaussian().log_prob(values)),
        rtol=1e-3,
        atol=1e-3,
    )


def test_samples_have_the_moments():
    count = 20_000
    seeds = random.fold_in(0, tf.range(count))
    samples = random.sample(gaussian(), [count], seed=seeds)
    flat = samples.numpy().reshape(count, -1)
    np.testing.assert_allclose(flat.mean(axis=0), LOC.ravel(), atol=0.06)
    np.testing.assert_allclose(np.cov(flat.T), covariance(), atol=0.2)


def test_each_row_is_decided_by_its_own_seed():
    seeds = random.fold_in(0, tf.range(4))
    np.testing.assert_array_equal(
        random.sample(gaussian(), [3, 4], seed=seeds)[:, 2:],
        random.sample(gaussian(), [3, 2], seed=seeds[2:]),
    )


def test_shapes_are_those_of_the_mean():
    assert gaussian().event_shape == SHAPE
    assert gaussian().batch_shape == []


def test_the_covariance_of_means_of_low_rank_is_found():
    rng = np.random.default_rng(3)
    means = LOC + np.einsum("mr,r...->m...", rng.normal(size=(50, 2)), FACTORS)
    scale = rng.uniform(0.1, 0.5, size=(50, *SHAPE))
    found = fit_low_rank(means, scale, rank=2)
    flat = means.reshape(50, -1)
    assert_equal_to_rounding(found.loc.ravel(), flat.mean(0))
    np.testing.assert_allclose(
        covariance(found.factors, found.scale_diag),
        np.cov(flat.T, bias=True)
        + np.diag(np.square(scale).mean(axis=0).ravel()),
        rtol=1e-3,
        atol=1e-4,
    )


@pytest.mark.parametrize("rank", [1, 3])
def test_variances_are_those_of_the_mixture_at_any_rank(rank):
    rng = np.random.default_rng(4)
    means = rng.normal(size=(40, *SHAPE))
    scale = rng.uniform(0.1, 0.5, size=(40, *SHAPE))
    found = fit_low_rank(means, scale, rank=rank)
    np.testing.assert_allclose(
        np.diag(covariance(found.factors, found.scale_diag)),
        (means.var(axis=0) + np.square(scale).mean(axis=0)).ravel(),
        rtol=1e-4,
    )
    # The factors are the first principal components.
    flat = means.reshape(40, -1)
    explained = np.linalg.eigvalsh(np.cov(flat.T, bias=True))[-rank:]
    np.testing.assert_allclose(
        np.square(found.factors).sum(axis=(1, 2)), explained, rtol=1e-4
    )


def test_equal_means_leave_a_positive_diagonal():
    found = fit_low_rank(np.ones((5, 2)), np.zeros((5, 2)), rank=1)
    assert (found.scale_diag > 0.0).all()


@pytest.mark.parametrize("rank", [0, 5])
def test_the_rank_is_below_the_number_of_gaussians(rank):
    with pytest.raises(ValueError, match=f"rank={rank} for 5"):
        fit_low_rank(np.ones((5, 2)), np.ones((5, 2)), rank=rank)
