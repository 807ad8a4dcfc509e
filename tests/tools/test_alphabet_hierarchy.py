import dataclasses
from unittest import mock

import numpy as np
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tools import alphabet_hierarchy
from vhe_tf.data import GroupedImages

RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=4)
BETWEEN = np.diag([9.0, 4.0, 1.0, 0.25])
WITHIN = np.diag([1.0, 2.0, 0.5, 0.5])


def hierarchy(between=BETWEEN, within=WITHIN):
    return alphabet_hierarchy.Hierarchy(
        MEAN, np.eye(4), between, within, np.ones(4)
    )


def test_the_next_character_is_that_of_the_joint_gaussian():
    given = np.random.default_rng(1).normal(size=(3, 4))
    mean, covariance = hierarchy().next_character(given)
    # All four are jointly Gaussian, in blocks of four numbers.
    joint = np.kron(np.ones((4, 4)), BETWEEN) + np.kron(np.eye(4), WITHIN)
    gain = joint[12:, :12] @ np.linalg.inv(joint[:12, :12])
    np.testing.assert_allclose(mean, gain @ given.ravel(), rtol=1e-8)
    np.testing.assert_allclose(
        covariance, joint[12:, 12:] - gain @ joint[:12, 12:], atol=1e-8
    )


def test_guidance_takes_the_density_away_from_the_prior():
    given = np.random.default_rng(1).normal(size=(3, 4))
    values = np.random.default_rng(2).normal(size=(50, 4))
    prior = scipy.stats.multivariate_normal(np.zeros(4), BETWEEN + WITHIN)
    plain, guided = (
        scipy.stats.multivariate_normal(
            *hierarchy().next_character(given, guidance=w)
        ).logpdf(values)
        for w in (0.0, 1.5)
    )
    expected = 2.5 * plain - 1.5 * prior.logpdf(values)
    np.testing.assert_allclose(np.ptp(guided - expected), 0.0, atol=1e-9)
    assert np.ptp(plain - expected) > 1.0


def test_scores_are_log_densities_up_to_a_constant():
    values = np.random.default_rng(2).normal(size=(5, 4))
    found = alphabet_hierarchy._log_density(values, MEAN, WITHIN)
    wanted = scipy.stats.multivariate_normal(MEAN, WITHIN).logpdf(values)
    np.testing.assert_allclose(found - wanted, found[0] - wanted[0])


def test_a_fit_finds_the_moments_of_alphabets_and_characters():
    rng = np.random.default_rng(3)
    alphabets = np.repeat(np.arange(600), 20)
    shift = rng.multivariate_normal(np.zeros(4), BETWEEN, 600)
    noise = rng.multivariate_normal(np.zeros(4), WITHIN, len(alphabets))
    means = MEAN + shift[alphabets] + noise
    found = alphabet_hierarchy.fit(means, np.ones(4), alphabets, rank=4)

    def turned(matrix):
        return found.components.T @ matrix @ found.components

    np.testing.assert_allclose(found.mean, MEAN, atol=0.4)
    np.testing.assert_allclose(turned(found.within), WITHIN, atol=0.15)
    np.testing.assert_allclose(turned(found.between), BETWEEN, atol=1.5)
    np.testing.assert_allclose(
        found.project(means) @ found.components, means - found.mean
    )


def test_alphabets_far_apart_are_told_and_equal_ones_are_not():
    rng = np.random.default_rng(4)
    labels = {
        "alphabet": np.repeat(np.arange(6), 24),
        "character": np.arange(144) // 4,
    }
    data = GroupedImages(np.zeros((144, 2, 2, 1), np.float32), labels)
    settings = {"ways": 5, "shots": 2, "num_tasks": 40}
    for distance, low, high in ((50.0, 1.0, 1.0), (0.0, 0.05, 0.4)):
        values = rng.normal(size=(144, 4))
        values[:, 0] += distance * labels["alphabet"]
        found = alphabet_hierarchy.accuracy(
            hierarchy(between=np.diag([1e4, 1.0, 1.0, 1.0])),
            data,
            values,
            **settings,
        )
        assert low <= found.mean <= high
        assert found.key == "accuracy.5way_2shot_by_alphabet"
        assert found.num_queries == 200


class Flat:
    """A stand-in for a model whose c is an image of 2x2 pixels itself."""

    image_shape = event_shape = (2, 2, 1)
    domain = None

    def __init__(self):
        normal = tfd.Normal(tf.zeros([2, 2, 1]), 1.0)
        self.latents = [mock.Mock(prior=lambda: tfd.Independent(normal, 3))]

    def encode(self, support):
        images = support["character"]
        assert images.shape[1] == 1
        return {"character": tfd.Normal(images[:, 0], 0.5)}

    def render(self, samples, *, seed):
        assert seed.shape == [samples["character"].shape[0], 2]
        return samples["character"]


def test_new_characters_keep_the_mean_in_the_last_components(monkeypatch):
    monkeypatch.setattr(alphabet_hierarchy, "_DRAWN_RANK", 3)
    exact = dataclasses.replace(hierarchy(), scale=np.zeros(4))
    drawing = alphabet_hierarchy.Drawing(Flat(), exact)
    given = np.random.default_rng(5).normal(size=(3, 2, 2, 1))
    support = np.repeat(given[np.newaxis], 5, axis=0).astype(np.float32)
    seeds = np.stack([np.zeros(5, int), np.arange(5)], axis=1)
    new = drawing.sample({"alphabet": support}, seed=seeds).numpy()
    mean, _ = exact.next_character(
        given.reshape(3, 4) - MEAN, guidance=drawing.guidance
    )
    flat = new.reshape(5, 4)
    np.testing.assert_allclose(flat[:, 3], (MEAN + mean)[3], rtol=1e-4)
    assert np.all(np.std(flat[:, :3], axis=0) > 0.1)


def test_new_characters_have_the_moments_of_their_alphabet():
    within = np.diag([1.0, 2.0, 0.5, 0.5])
    drawing = alphabet_hierarchy.Drawing(Flat(), hierarchy(within=within))
    given = np.random.default_rng(5).normal(size=(3, 2, 2, 1))
    count = 3000
    support = np.repeat(given[np.newaxis], count, axis=0).astype(np.float32)
    seeds = np.stack([np.zeros(count, int), np.arange(count)], axis=1)
    new = drawing.sample({"alphabet": support}, seed=seeds).numpy()
    flat = new.reshape(count, 4)
    h = drawing.hierarchy
    assert drawing.guidance > 0.0
    mean, covariance = h.next_character(
        given.reshape(3, 4) - MEAN, guidance=drawing.guidance
    )
    # The noise of q(c; x) is added.
    np.testing.assert_allclose(flat.mean(axis=0), MEAN + mean, atol=0.15)
    np.testing.assert_allclose(
        np.cov(flat.T), covariance + np.eye(4), atol=0.35
    )
    again = drawing.sample({"alphabet": support[:2]}, seed=seeds[:2]).numpy()
    np.testing.assert_array_equal(again, new[:2])
