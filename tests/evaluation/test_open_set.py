"""Queries of none of the given classes."""

import itertools
import re
import types
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import tiny_vhe
from tests.evaluation.conftest import NUM_ERRORS
from tests.evaluation.conftest import GaussianWorld
from tests.evaluation.conftest import OneByOne
from tests.evaluation.conftest import grouped
from tests.evaluation.conftest import uniform_data
from vhe_tf.distributions.domain import Domain
from vhe_tf.evaluation import open_set as evaluation
from vhe_tf.evaluation.classification import ClassScorer
from vhe_tf.evaluation.open_set import NoveltyScorer
from vhe_tf.evaluation.open_set import OpenSet
from vhe_tf.layers.spatial_inference import PoseLikelihood
from vhe_tf.models import open_set

SEED = (1, 2)
NUM_SAMPLES = 10_000


def _images(*leading):
    images = np.random.default_rng(3).uniform(size=(*leading, 2, 2, 1))
    return images.astype(np.float32)


def _naive(world, support, query):
    """Returns the score from closed forms, and its standard error."""

    def both(given, image):
        given, image = given.reshape(-1, 2, 2, 1), image[np.newaxis]
        return np.array(
            [
                world.log_predictive(given, image)[0],
                world.log_predictive_error(given, image, NUM_SAMPLES)[0],
            ]
        )

    scores = [both(images, query) for images in support]
    best = max(range(len(support)), key=lambda k: scores[k][0])
    crossed = scores[best].copy()
    own = both(query, query)
    for image in support[best]:
        crossed += both(query, image) / len(support[best])
        own += both(image, image) / len(support[best])
    log_odds = np.log(len(support)) - (
        open_set._SLOPE * (crossed[0] - open_set._OWN_WEIGHT * own[0])
        + open_set._OFFSET
    )
    # At worst, all errors have one direction.
    error = open_set._SLOPE * (crossed[1] + open_set._OWN_WEIGHT * own[1])
    return log_odds, error


@pytest.mark.parametrize("element_size", [0, 1])
def test_novelty_is_what_the_closed_forms_give(element_size, monkeypatch):
    monkeypatch.setattr(open_set, "_NUM_SAMPLES", NUM_SAMPLES)
    # The model's q is used, wherever the true posterior may be.
    world = GaussianWorld(2, element_size, width=1.5, shift=0.2)
    support, queries = _images(3, 2), _images(2)
    exact = [world.log_predictive(images, queries) for images in support]
    novelty = world.model.novelty(
        {"character": np.stack([support, support])},
        queries,
        seed=SEED,
        log_likelihood=np.float32(exact).T,
    )
    scorer = NoveltyScorer(
        world.model,
        group="character",
        num_samples=NUM_SAMPLES,
        max_decoded=10**9,
    )
    scores = scorer(support, queries, seed=SEED)
    assert scores.shape == (2, 4)
    for index, query in enumerate(queries):
        expected, error = _naive(world, support, query)
        assert NUM_ERRORS * error < 0.1
        assert abs(novelty[index] - expected) < NUM_ERRORS * error
        assert abs(scores[index, -1] - expected) < NUM_ERRORS * error


def test_novelty_ranks_like_the_exact_ratio_of_likelihoods():
    # Where log p(x) is known, p(x | D) / p(x) is the best possible score.
    world = GaussianWorld(2, noise=0.3)
    rng = np.random.default_rng(0)
    exact, ours, is_same = [], [], []
    for same in [True, False] * 300:
        first, second = rng.normal(size=(2, 2))
        c = np.stack([first, first if same else second])
        x, d = (c @ world.a + world.noise * rng.normal(size=(2, 4))).reshape(
            2, 1, 2, 2, 1
        )
        crossed = world.log_predictive(d, x) + world.log_predictive(x, d)
        own = world.log_predictive(x, x) + world.log_predictive(d, d)
        ours.append(float(open_set.log_odds(crossed, own, num_ways=1)[0]))
        exact.append(world.log_predictive(d, x)[0] - world.log_evidence(x))
        assert exact[-1] == pytest.approx(
            world.log_predictive(x, d)[0] - world.log_evidence(d)
        )
        is_same.append(same)
    exact, ours, is_same = map(np.array, (exact, ours, is_same))
    best = evaluation.auroc(exact[~is_same], exact[is_same])
    assert best > 0.9
    assert evaluation.auroc(-ours[~is_same], -ours[is_same]) > best - 0.03


def test_none_is_one_answer_among_any_number_of_classes():
    one = open_set.log_odds(-120.0, -100.0, num_ways=1)
    many = open_set.log_odds(-120.0, -100.0, num_ways=20)
    # Each of 20 classes has a twentieth of the prior probability.
    assert float(many - one) == pytest.approx(np.log(20))


def test_novelty_is_about_one_latent():
    support = {"character": _images(1, 3, 2), "style": _images(1, 3, 2)}
    with pytest.raises(ValueError, match=r"groups of one latent.*Received"):
        open_set.check_one_latent(support)


def _given_scores(scores, dtype=np.float32):
    world = GaussianWorld(2)
    support, queries = _images(1, 3, 2), _images(1)
    return world.model.novelty(
        {"character": support},
        queries,
        seed=SEED,
        log_likelihood=np.array(scores, dtype),
    )


def test_novelty_of_one_task_needs_no_batch_axis():
    world = GaussianWorld(2)
    scores = [-9.0, -4.0, -7.0]
    alone = world.model.novelty(
        {"character": _images(3, 2)},
        _images(),
        seed=SEED,
        log_likelihood=tf.constant(scores),
    )
    assert alone.shape == ()
    batch = world.model.novelty(
        {"character": _images(1, 3, 2)},
        _images(1),
        seed=SEED,
        log_likelihood=tf.constant([scores]),
    )
    np.testing.assert_allclose(alone, batch[0], rtol=1e-5)


def test_novelty_takes_scores_of_double_precision():
    scores = [[-9.0, -4.0, -7.0]]
    np.testing.assert_array_equal(
        _given_scores(scores, np.float64), _given_scores(scores)
    )


def test_novelty_takes_scores_of_its_queries_and_classes_alone():
    with pytest.raises(ValueError, match=r"Received: shape \(3, 1\) for "):
        _given_scores([[-9.0], [-4.0], [-7.0]])


def test_supports_of_two_latents_are_rejected_before_they_are_scored():
    model = tiny_vhe("hierarchical")
    images = np.zeros((1, 2, 1, *model.event_shape), np.float32)
    images[..., 0, 0, :] = 1.0
    with (
        mock.patch.object(type(model), "classify") as classify,
        pytest.raises(ValueError, match="groups of one latent"),
    ):
        model.novelty(
            {"alphabet": images, "character": images}, images[:, 0, 0], seed=0
        )
    assert not classify.called


@pytest.mark.parametrize(
    ("shape", "values", "num_groups", "expected"),
    [
        ((28, 28, 1), Domain(0.0, 1.0, integer=True), 1, True),
        ((28, 28, 1), Domain(0.0, 1.0, integer=True), 2, False),
        ((28, 28, 1), Domain(0.0, 1.0), 1, False),
        ((28, 28, 3), Domain(0.0, 1.0, integer=True), 1, False),
        ((105, 105, 1), Domain(0.0, 1.0, integer=True), 1, False),
    ],
)
def test_none_is_calibrated_for_binary_images_of_one_size(
    shape, values, num_groups, expected
):
    group = types.SimpleNamespace(name="character", per_element=False)
    pose = types.SimpleNamespace(name="pose", per_element=True)
    model = types.SimpleNamespace(
        event_shape=shape,
        domain=values,
        likelihood=mock.Mock(spec=PoseLikelihood),
        latents=[*[group] * num_groups, pose],
    )
    assert open_set.is_calibrated(model) is expected
    model.likelihood = object()
    assert not open_set.is_calibrated(model)


# OpenSet ----------------------------------------------------------------------


class Recorder(OneByOne):
    """Scores by distance to the one support, and keeps the tasks."""

    def __init__(self):
        self.tasks = []

    def __call__(self, support, queries, *, seed):
        self.tasks.append((support, queries))
        away = np.abs(queries[:, np.newaxis] - support[:, 0])
        scores = -away.sum(axis=(-3, -2, -1))
        return np.concatenate([scores, -scores.max(1, keepdims=True)], axis=1)


def _measured(evaluator, scorer):
    evaluator._scorers.get = lambda *args, **kwargs: scorer
    return {each.factor: each for each in evaluator(model=None)}


def test_half_of_the_queries_are_of_other_classes():
    # Every image tells its class.
    data = grouped([np.full((3, 4), k / 16) for k in range(16)])
    scorer = Recorder()
    evaluator = OpenSet(data, group="character", num_ways=8, num_tasks=4)
    found = _measured(evaluator, scorer)
    assert len(scorer.tasks) == 4
    for support, queries in scorer.tasks:
        given, asked = support[:, 0, 0, 0, 0], queries[:, 0, 0, 0]
        assert (len(given), len(asked)) == (8, 16)
        assert np.isin(asked, given).sum() == 8
        assert len(np.unique(asked)) == 16
    # All known queries are at distance 0, and no other is.
    assert found["auroc"].mean == 1.0
    assert found["accuracy"].mean == 1.0
    assert found["known_rejected"].mean == 0.0
    assert found["outside_rejected"].mean == 1.0
    assert found["accuracy_at_95"].mean == 1.0
    assert found["threshold_at_95"].mean == 0.0
    assert found["auroc"].interval == (1.0, 1.0)
    assert found["auroc"].num_queries == 64
    assert found["auroc"].key == "open_set.8way_1shot.auroc"


def test_measurements_are_those_of_all_queries():
    data = uniform_data((4,) * 9)
    scorer = Recorder()
    evaluator = OpenSet(data, group="character", num_ways=20, num_tasks=5)
    [line] = evaluator.left_out(None)
    assert re.findall(r"\d+-way|\d+ classes", line) == [
        "20-way",
        "9 classes",
        "4-way",
    ]
    found = _measured(evaluator, scorer)
    known, outside, right = [], [], []
    for index, (support, queries) in enumerate(list(scorer.tasks)):
        scores = scorer(support, queries, seed=(0, index))
        known += scores[:4, -1].tolist()
        outside += scores[4:, -1].tolist()
        right += (scores[:4, :-1].argmax(axis=1) == range(4)).tolist()
    wins = [
        (b > a) + (b == a) / 2 for a, b in itertools.product(known, outside)
    ]
    assert 0.5 < found["auroc"].mean < 1.0
    assert found["auroc"].mean == pytest.approx(np.mean(wins))
    low, high = found["auroc"].interval
    assert low < found["auroc"].mean < high
    threshold = np.quantile(known, 0.95)
    assert found["threshold_at_95"].mean == pytest.approx(threshold)
    answers = [
        ok and a <= threshold for ok, a in zip(right, known, strict=True)
    ]
    answers += [b > threshold for b in outside]
    assert found["accuracy_at_95"].mean == pytest.approx(np.mean(answers))
    assert found["accuracy"].mean == pytest.approx(np.mean(right))


def test_classes_are_scored_as_without_the_novelty():
    world = GaussianWorld()
    options = {"group": "character", "num_samples": 5}
    support, queries = _images(3, 2), _images(4)
    scores = NoveltyScorer(world.model, **options)(support, queries, seed=SEED)
    expected = ClassScorer(world.model, **options)(support, queries, seed=SEED)
    np.testing.assert_allclose(scores[:, :-1], expected, rtol=1e-6)
