import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.distributions.by_row import fold_in
from vhe_tf.distributions.by_row import sample_by_row
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.layers.pixel_cnn import GatedPixelCNN

SEEDS = tf.constant([[1, 2], [3, 4], [5, -6]])
LOC = np.linspace(-1.0, 2.0, 12, dtype=np.float32).reshape(3, 4)
SCALE = np.linspace(0.5, 2.0, 12, dtype=np.float32).reshape(3, 4)

FAMILIES = {
    "normal": tfd.Independent(tfd.Normal(LOC, SCALE), 1),
    "multivariate": tfd.MultivariateNormalDiag(LOC, SCALE),
    "bernoulli": tfd.Independent(
        tfd.Bernoulli(logits=LOC, dtype=tf.float32), 1
    ),
}


@pytest.mark.parametrize("name", ["normal", "multivariate"])
def test_gaussian_draws_have_their_distribution(name):
    draws = sample_by_row(FAMILIES[name], [2000], SEEDS).numpy()
    assert draws.shape == (2000, 3, 4)
    for row in range(3):
        for column in range(4):
            test = scipy.stats.kstest(
                draws[:, row, column],
                scipy.stats.norm(LOC[row, column], SCALE[row, column]).cdf,
            )
            assert test.pvalue > 1e-4


def test_bernoulli_draws_have_their_distribution():
    draws = sample_by_row(FAMILIES["bernoulli"], [2000], SEEDS).numpy()
    assert set(np.unique(draws)) == {0.0, 1.0}
    expected = scipy.special.expit(LOC)
    error = np.sqrt(expected * (1.0 - expected) / 2000)
    assert np.all(np.abs(draws.mean(axis=0) - expected) < 4.0 * error)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_two_rows_or_draws_share_chance(name):
    # Equal rows and columns: whatever differs is chance.
    same = {
        "normal": tfd.Independent(tfd.Normal(np.zeros([3, 50], "f4"), 1.0), 1),
        "multivariate": tfd.MultivariateNormalDiag(np.zeros([3, 50], "f4")),
        "bernoulli": tfd.Independent(
            tfd.Bernoulli(logits=np.zeros([3, 50], "f4"), dtype=tf.float32), 1
        ),
    }[name]
    draws = sample_by_row(same, [2], SEEDS).numpy().reshape(6, 50)
    correlation = np.corrcoef(draws) - np.eye(6)
    assert np.abs(correlation).max() < 0.6  # 4 standard errors of 50


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_is_decided_by_its_seed_alone(name):
    together = sample_by_row(FAMILIES[name], [5], SEEDS)
    for row in range(3):
        alone = sample_by_row(
            FAMILIES[name][row : row + 1], [5], SEEDS[row : row + 1]
        )
        np.testing.assert_array_equal(alone[:, 0], together[:, row])
    again = sample_by_row(FAMILIES[name], [5], SEEDS)
    np.testing.assert_array_equal(again, together)


def test_sample_axes_of_the_distribution_are_kept():
    distribution = tfd.MultivariateNormalDiag(
        tf.zeros([2, 3, 4]) + tf.constant([0.0, 100.0])[:, None, None]
    )
    draws = sample_by_row(distribution, [], SEEDS).numpy()
    assert draws.shape == (2, 3, 4)
    np.testing.assert_array_equal(draws[1] > 50.0, np.ones([3, 4], bool))
    assert not np.allclose(draws[0], draws[1] - 100.0)


def test_a_prior_without_a_batch_is_drawn_once_a_row():
    draws = sample_by_row(
        tfd.MultivariateNormalDiag(tf.zeros(4)), [2, 3], SEEDS
    )
    assert draws.shape == (2, 3, 4)
    assert len(np.unique(draws)) == 24


def test_a_pixel_cnn_draws_what_it_would_draw_of_the_same_noise():
    keras.utils.set_random_seed(0)
    network = GatedPixelCNN(1, filters=4, num_blocks=1)
    conditioning = tf.random.stateless_normal([3, 5, 4, 2], [0, 1])
    distribution = PixelCNN(network, BernoulliPixels(), (5, 4, 1), conditioning)
    draws = sample_by_row(distribution, [2], SEEDS)
    for row in range(3):
        alone = PixelCNN(
            network, BernoulliPixels(), (5, 4, 1), conditioning[row][None]
        )
        noise = BernoulliPixels().noise([2, 5, 4, 1], SEEDS[row])
        np.testing.assert_array_equal(
            draws[:, row], alone.sample_from(noise[:, None])[:, 0]
        )


def test_other_families_are_refused():
    with pytest.raises(TypeError, match="Received: Gamma"):
        sample_by_row(tfd.Gamma([1.0], [1.0]), [], SEEDS[:1])


def test_fold_in_does_to_each_row_what_it_does_to_one_seed():
    folded = fold_in(SEEDS, 7)
    for row in range(3):
        np.testing.assert_array_equal(folded[row], fold_in(SEEDS[row], 7))
    assert not np.array_equal(folded, fold_in(SEEDS, 8))


@pytest.mark.parametrize("seed", [3, [1, 2, 3], [[1], [2]], [[[1, 2]]]])
def test_a_seed_of_another_shape_is_refused(seed):
    with pytest.raises(ValueError, match=r"Received: a seed of shape \("):
        fold_in(seed, 0)
