from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conftest import assert_equal_to_rounding
from tests.conftest import tiny_episode
from tests.conftest import tiny_vhe
from tests.evaluation.conftest import NUM_ERRORS
from tests.evaluation.conftest import GaussianWorld
from tests.evaluation.conftest import uniform_data
from vhe_tf import random
from vhe_tf.evaluation.likelihood import JointScorer
from vhe_tf.evaluation.likelihood import joint_nll
from vhe_tf.evaluation.refinement import refined


def scorer_of(world, num_steps, **settings):
    return JointScorer(
        world.model, group="character", refinement_steps=num_steps, **settings
    )


@pytest.fixture(scope="module")
def world():
    """A posterior that is off by several deviations, and too wide."""
    return GaussianWorld(2, width=2.0, shift=1.0)


@pytest.fixture(scope="module")
def encoder(world):
    return scorer_of(world, 0)


@pytest.fixture(scope="module")
def refining(world):
    return scorer_of(world, 60)


def character(data, index):
    return data.images[data.labels["character"] == index]


def test_a_refined_posterior_is_the_affine_map_of_its_samples():
    rng = np.random.default_rng(0)
    mean, shift, stretch = rng.normal(size=(3, 1, 4)).astype(np.float32)
    deviations = np.float32([[0.5, 1.0, 2.0, 3.0]])
    posterior = tfd.MultivariateNormalDiag(mean, deviations)
    moved = refined({"c": posterior}, {"c": (shift, stretch)})["c"]
    wanted = tfd.MultivariateNormalDiag(
        mean + deviations * shift, deviations * np.exp(stretch)
    )
    seed = (1, 2)
    value = moved.sample(5, seed=seed)
    assert_equal_to_rounding(value, wanted.sample(5, seed=seed))
    np.testing.assert_allclose(
        moved.log_prob(value), wanted.log_prob(value), rtol=1e-4
    )


def check_bound(world, scorer, *, gap):
    for index, images in enumerate(
        character(uniform_data(), i) for i in (0, 1)
    ):
        log_weights = scorer(images, 50, seed=(1, index))
        # The mean of log weights is below the evidence, but for its error.
        error = NUM_ERRORS * log_weights.std() / np.sqrt(50)
        above = log_weights.mean() - world.log_evidence(images)
        assert -gap < above < error + 1e-3


def test_refinement_moves_a_bad_bound_to_the_evidence(world, refining):
    check_bound(world, refining, gap=0.01)


def test_some_images_at_a_step_are_enough(world):
    check_bound(world, scorer_of(world, 60, max_decoded=3), gap=0.5)


def test_the_bound_of_a_refined_proposal_is_the_nll(world, encoder, refining):
    data = uniform_data((6,) * 4)
    expected = -np.mean(
        [world.log_evidence(character(data, index)) for index in range(4)]
    )
    at_first = joint_nll(encoder, data, num_samples=10)
    assert 6 * at_first.mean > expected + 3.0
    found = joint_nll(refining, data, num_samples=10)
    assert found.effective_sample_size > 9.9
    # As in `test_the_joint_nll_is_minus_the_evidence_per_image`, of 4 groups.
    error = np.sqrt((1.0 / found.effective_sample_size - 0.1) / 4)
    assert abs(6 * found.mean - expected) < NUM_ERRORS * error + 1e-3


def test_weights_of_a_few_steps_have_the_mean_of_the_evidence():
    # The proposal is not that of the encoder, and depends on the seed.
    world = GaussianWorld(2, width=1.5, shift=0.1)
    images = character(uniform_data(), 0)
    scorer = scorer_of(world, 2)
    log_weights = [scorer(images, 50, seed=(seed, 3)) for seed in range(100)]
    ratios = np.exp(np.array(log_weights) - world.log_evidence(images))
    error = ratios.mean(axis=1).std() / 10.0  # of 100 seeds
    assert NUM_ERRORS * error < 0.3
    assert abs(ratios.mean() - 1.0) < NUM_ERRORS * error


def test_a_first_step_that_is_far_too_long_is_limited():
    world = GaussianWorld(2, noise=0.01, width=30.0, shift=3.0)
    images = character(uniform_data(), 0)
    log_weights = scorer_of(world, 20)(images, 5, seed=(0, 0))
    assert np.all(np.isfinite(log_weights))


def test_samples_are_independent_of_the_seeds_that_refine():
    seeds = []
    sample = random.sample

    def spy(distribution, sample_shape=(), *, seed, **options):
        seeds.append(tuple(np.array(seed).tolist()))
        return sample(distribution, sample_shape, seed=seed, **options)

    world = GaussianWorld(2, 1)
    images = character(uniform_data(), 0)
    tf.config.run_functions_eagerly(True)
    try:
        with mock.patch.object(random, "sample", spy):
            scorer_of(world, 3, max_decoded=12)(images, 6, seed=(1, 2))
            refined_seeds = list(seeds)
            seeds.clear()
            scorer_of(world, 0, max_decoded=12)(images, 6, seed=(1, 2))
    finally:
        tf.config.run_functions_eagerly(False)
    assert len(refined_seeds) == len(set(refined_seeds))
    assert refined_seeds[-len(seeds) :] == seeds
    assert len(refined_seeds) == len(seeds) + 3 * 2  # c and z at each step


def test_equal_seeds_refine_alike(refining):
    images = character(uniform_data(), 0)
    weights = refining(images, 5, seed=(1, 2))
    np.testing.assert_array_equal(weights, refining(images, 5, seed=(1, 2)))
    assert np.all(weights != refining(images, 5, seed=(2, 2)))


def test_the_latents_above_a_group_are_refined_too():
    model = tiny_vhe("hierarchical")
    images = tiny_episode(batch_size=4)["query"].numpy()
    at_first, at_last = (
        JointScorer(model, group="character", refinement_steps=num_steps)(
            images, 200, seed=(1, 2)
        ).mean()
        for num_steps in (0, 30)
    )
    assert at_last > at_first


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="Received: refinement_steps=-1"):
        scorer_of(GaussianWorld(), -1)


def test_a_posterior_that_is_not_over_all_numbers_is_refused(world):
    scorer = scorer_of(world, 1)
    positive = tfd.Independent(tfd.LogNormal(tf.zeros([1, 2]), 1.0), 1)
    with (
        mock.patch.object(
            type(world.model), "encode", return_value={"character": positive}
        ),
        pytest.raises(ValueError, match=r"all real numbers.*'character'"),
    ):
        scorer(np.zeros([3, *world.model.event_shape]), 2, seed=(0, 1))
