from unittest import mock

import numpy as np
import pytest
from tensorflow_probability import distributions as tfd

from tests.conftest import tiny_vhe
from tests.evaluation.conftest import GaussianWorld
from vhe_tf.data import GroupedImages
from vhe_tf.evaluation import FewShotClassification
from vhe_tf.evaluation import PosteriorScorer
from vhe_tf.evaluation import Report
from vhe_tf.evaluation import conditional_nll
from vhe_tf.evaluation import summary_lines


def test_posteriors_are_compared_by_their_divergence():
    world = GaussianWorld(2, 1, width=1.5, element_width=1.5)
    rng = np.random.default_rng(0)
    support = np.float32(rng.uniform(size=(3, 2, 2, 2, 1)))
    queries = np.float32(rng.uniform(size=(4, 2, 2, 1)))
    scorer = PosteriorScorer(world.model, group="character")
    found = scorer(support, queries, seed=(1, 2))
    posterior = world.model.latents[0].posterior
    of_class, of_query = posterior(support), posterior(queries[:, np.newaxis])
    means = np.float64(of_query.mean()), np.float64(of_class.mean())
    covariances = of_query.covariance().numpy(), of_class.covariance().numpy()
    expected = np.empty((4, 3))
    for q, k in np.ndindex(4, 3):
        precision = np.linalg.inv(covariances[0][q])
        product, gap = precision @ covariances[1][k], means[1][k] - means[0][q]
        logdet = np.linalg.slogdet(product)[1]
        kl = np.trace(product) + gap @ precision @ gap - len(gap) - logdet
        expected[q, k] = -0.5 * kl
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_neural_statistician_has_a_classifier_of_its_own():
    model = tiny_vhe(objective="neural_statistician")
    data = GroupedImages(
        np.zeros((12, 8, 8, 1), np.float32),
        {"character": np.arange(12) // 4},
    )
    evaluator = FewShotClassification(
        data, group="character", ways=[2], shots=[1], num_tasks=2
    )
    by_likelihood, by_posterior = evaluator(model)
    assert by_likelihood.key == "accuracy.2way_1shot"
    assert by_posterior.key == "accuracy.2way_1shot_by_posterior"
    assert by_posterior.num_samples is None
    assert "by posterior" in summary_lines(Report((by_posterior,)))[0]
    [alone] = evaluator(tiny_vhe())
    assert alone.factor is None


def test_posteriors_of_a_latent_with_parents_are_not_compared():
    with pytest.raises(ValueError, match=r"parents=\('alphabet',\)"):
        PosteriorScorer(tiny_vhe("hierarchical"), group="character")


def test_posteriors_without_a_divergence_are_not_compared():
    model = tiny_vhe(objective="neural_statistician")
    with (
        mock.patch.object(
            tfd, "kl_divergence", side_effect=NotImplementedError
        ),
        pytest.raises(ValueError, match="a KL in closed form"),
    ):
        PosteriorScorer(model, group="character")


def test_why_a_neural_statistician_has_no_such_classifier_is_said():
    labels = {"alphabet": np.arange(12) // 6, "character": np.arange(12) // 2}
    data = GroupedImages(np.zeros((12, 8, 8, 1), np.float32), labels)
    evaluator = FewShotClassification(
        data, group="character", ways=[2], shots=[1], num_tasks=1
    )
    statistician = tiny_vhe("hierarchical", objective="neural_statistician")
    [reason] = evaluator.left_out(statistician)
    assert "by posterior: Posteriors are compared of a latent with" in reason
    assert evaluator.left_out(tiny_vhe("hierarchical")) == []


def test_a_divergence_is_no_likelihood():
    scorer = PosteriorScorer(tiny_vhe(), group="character")
    data = GroupedImages(
        np.zeros((12, 8, 8, 1), np.float32), {"character": np.arange(12) // 4}
    )
    with pytest.raises(ValueError, match="PosteriorScorer"):
        conditional_nll(scorer, data, num_shots=1, num_queries=1)
