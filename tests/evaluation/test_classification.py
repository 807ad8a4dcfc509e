import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tests.conftest import tiny_pixel_cnn_vhe
from tests.evaluation.conftest import NUM_ERRORS
from tests.evaluation.conftest import GaussianWorld
from tests.evaluation.conftest import NearestNeighbour
from tests.evaluation.conftest import OneByOne
from tests.evaluation.conftest import few_shot_accuracy
from tests.evaluation.conftest import few_shot_tasks
from tests.evaluation.conftest import grouped
from tests.evaluation.conftest import latents_seen
from tests.evaluation.conftest import pixel_cnn_log_weight
from tests.evaluation.conftest import uniform_data
from vhe_tf.data import GroupedImages
from vhe_tf.evaluation import tasks
from vhe_tf.evaluation.classification import ClassScorer
from vhe_tf.evaluation.tasks import TaskDesign
from vhe_tf.evaluation.tasks import most_shots
from vhe_tf.models import classification

SEED = (1, 2)


def task(num_ways=3, num_shots=2, num_queries=4):
    rng = np.random.default_rng(0)
    support = rng.uniform(size=(num_ways, num_shots, 2, 2, 1))
    queries = rng.uniform(size=(num_queries, 2, 2, 1))
    return support.astype(np.float32), queries.astype(np.float32)


# ClassScorer ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("element_size", "max_decoded"), [(0, 10**9), (1, 7000)]
)
def test_scores_are_the_expected_conditional_likelihood(
    element_size, max_decoded
):
    # Wider than the true posterior and off it: the expectation is under q.
    world = GaussianWorld(2, element_size, width=1.5, shift=0.2)
    support, queries = task()
    num_samples = 10_000
    scorer = ClassScorer(
        world.model,
        group="character",
        num_samples=num_samples,
        max_decoded=max_decoded,
    )
    scores = scorer(support, queries, seed=SEED)
    assert scores.shape == (4, 3)
    for index in range(3):
        error = world.log_predictive_error(support[index], queries, num_samples)
        assert np.all(NUM_ERRORS * error < 0.2)
        expected = world.log_predictive(support[index], queries)
        assert np.all(np.abs(scores[:, index] - expected) < NUM_ERRORS * error)


def test_scores_integrate_out_element_latents():
    # One pair (c, z) at a time is an unbiased estimate of E_q(c; D) p(x | c),
    # so the division of samples between c and z does not matter.
    world = GaussianWorld(2, 1, element_width=1.5)
    support, queries = task(num_ways=1)
    scores = []
    for num_samples, num_element_samples in [(20_000, 1), (4000, 10)]:
        scorer = ClassScorer(
            world.model,
            group="character",
            num_samples=num_samples,
            num_element_samples=num_element_samples,
            max_decoded=50_000,
        )
        scores.append(scorer(support, queries, seed=SEED)[:, 0])
    expected = world.log_predictive(support[0], queries)
    # Half again as wide in one dimension, z spreads the weights by less than
    # their mean, and so does c: sqrt(2 / 4000) = 0.022.
    np.testing.assert_allclose(scores[0], expected, atol=NUM_ERRORS * 0.022)
    np.testing.assert_allclose(scores[1], expected, atol=NUM_ERRORS * 0.022)


def test_scores_are_distributed_like_those_of_the_model():
    world = GaussianWorld(2, 1, width=1.5, element_width=1.5)
    support, queries = task(num_ways=1, num_queries=1)
    settings = {"num_samples": 2, "num_element_samples": 3}
    scorer = ClassScorer(world.model, group="character", **settings)
    ours = [scorer(support, queries, seed=(1, i))[0, 0] for i in range(1000)]
    # Independent samples of its score: each row has its own seed.
    likelihood = world.model.log_likelihood(
        np.repeat(support, 1000, axis=0),
        np.repeat(queries, 1000, axis=0),
        seed=tf.constant(SEED, tf.int32),
        **settings,
    )
    assert scipy.stats.ks_2samp(ours, likelihood).pvalue > 1e-6


def test_a_query_is_scored_by_the_same_chance_under_every_class():
    world = GaussianWorld(2, 1, width=1.5, element_width=1.5)
    support, queries = task(num_ways=2)
    twice = np.concatenate([support, support])
    settings = {"num_samples": 3, "num_element_samples": 2}
    scores = ClassScorer(
        world.model, group="character", max_decoded=5, **settings
    )(twice, queries, seed=SEED)
    # A class of other randomness would be off by far more than rounding.
    np.testing.assert_allclose(scores[:, :2], scores[:, 2:], rtol=1e-5)
    assert np.all(scores[:, 0] != scores[:, 1])
    classified = world.model.classify(
        np.repeat(twice[np.newaxis], len(queries), axis=0),
        queries,
        seed=tf.constant(SEED, tf.int32),
        **settings,
    )
    np.testing.assert_allclose(classified[:, :2], classified[:, 2:], rtol=1e-5)


def test_errors_of_scores_cancel_between_classes():
    # The difference of two classes of nearly equal supports has far less
    # variance than the scores have.
    world = GaussianWorld(2, 1, width=1.5, element_width=1.5)
    support, queries = task(num_ways=1, num_queries=1)
    near = np.concatenate([support, support + np.float32(0.01)])
    scorer = ClassScorer(world.model, group="character", num_samples=2)
    scores = np.array(
        [scorer(near, queries, seed=(1, i))[0] for i in range(100)]
    )
    assert np.std(scores[:, 0] - scores[:, 1]) < 0.1 * np.std(scores[:, 0])


@pytest.mark.parametrize(
    ("num_samples", "num_element_samples", "max_decoded"),
    [
        (7, 1, 10**6),
        (7, 2, 17),  # some samples at a time, with a remainder
        (5, 3, 1),  # less than one sample of one class
    ],
)
def test_no_more_images_are_decoded_at_once_than_allowed(
    num_samples, num_element_samples, max_decoded
):
    world = GaussianWorld(2, 1)
    support, queries = task(num_ways=3, num_queries=5)
    scorer = ClassScorer(
        world.model,
        group="character",
        num_samples=num_samples,
        num_element_samples=num_element_samples,
        max_decoded=max_decoded,
        max_error=0.0,
    )
    scorer(support, queries, seed=SEED)
    assert max(world.decoded) <= max(max_decoded, num_element_samples)
    assert sum(world.decoded) == num_samples * num_element_samples * 3 * 5


@pytest.fixture(scope="module")
def pixel_cnn():
    return tiny_pixel_cnn_vhe()


def binary_task(num_ways=3, num_shots=2, num_queries=4):
    rng = np.random.default_rng(0)
    shapes = [(num_ways, num_shots, 8, 8, 1), (num_queries, 8, 8, 1)]
    return [rng.integers(0, 2, s).astype(np.float32) for s in shapes]


@pytest.mark.parametrize("max_decoded", [10**6, 25, 7])
def test_a_pixel_cnn_scores_like_a_loop_over_its_draws(pixel_cnn, max_decoded):
    support, queries = binary_task()
    num_samples, num_element_samples = 3, 2
    scorer = ClassScorer(
        pixel_cnn,
        group="character",
        num_samples=num_samples,
        num_element_samples=num_element_samples,
        max_decoded=max_decoded,
    )
    with latents_seen(pixel_cnn) as seen:
        scores = scorer(support, queries, seed=SEED)
    decoded = [latents["pose"][..., 0].size for latents in seen]
    assert max(decoded) <= max(max_decoded, num_element_samples)
    assert sum(decoded) == num_samples * num_element_samples * 3 * 4
    # Query by query, sample by sample, class by class; [Q, S, K, T, E...].
    c, z = (
        np.concatenate(
            [np.moveaxis(latents[name], 0, 1) for latents in seen]
        ).reshape(
            4, num_samples, 3, num_element_samples, *seen[0][name].shape[2:]
        )
        for name in ("character", "pose")
    )
    weights = np.empty(z.shape[:4])
    for q, s, k, t in np.ndindex(weights.shape):
        weights[q, s, k, t] = pixel_cnn_log_weight(
            pixel_cnn, queries[q], c[q, s, k, t], z[q, s, k, t]
        )
    expected = scipy.special.logsumexp(weights, axis=(1, 3)) - np.log(
        num_samples * num_element_samples
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    # The templates are those of their classes, by the same noise in each.
    posterior = pixel_cnn.latents[0].posterior(support)
    mean, scale = posterior.mean().numpy(), posterior.stddev().numpy()
    noise = (c[0, :, :, 0] - mean) / scale  # [S, K, E...]
    np.testing.assert_allclose(noise[:, 0], noise[:, 2], atol=1e-3)
    # The mean square of 192 samples is further off once in 10^6 runs.
    assert np.all(np.square(noise).mean(axis=(2, 3, 4)) < 1.5)


def test_the_scores_of_a_pixel_cnn_repeat_with_their_seed(pixel_cnn):
    support, queries = binary_task(num_ways=2, num_queries=1)
    scorer = ClassScorer(pixel_cnn, group="character", num_samples=2)
    scores = scorer(support, queries, seed=SEED)
    np.testing.assert_array_equal(scores, scorer(support, queries, seed=SEED))
    assert np.any(scores != scorer(support, queries, seed=(3, 4)))


def test_the_accuracy_of_a_pixel_cnn_is_that_of_its_scores(pixel_cnn):
    rng = np.random.default_rng(0)
    data = GroupedImages(
        rng.integers(0, 2, (12, 8, 8, 1)).astype(np.float32),
        {"character": np.repeat([3, 5, 8], 4)},
    )
    scorer = ClassScorer(pixel_cnn, group="character", num_samples=2)
    settings = {"num_ways": 3, "num_shots": 1, "num_tasks": 3, "seed": 4}
    accuracy = few_shot_accuracy(scorer, data, **settings)
    tasks = few_shot_tasks(data, group="character", **settings)
    right = [
        np.argmax(scorer(t.support, t.queries, seed=(4, i)), axis=1) == t.labels
        for i, t in enumerate(tasks)
    ]
    np.testing.assert_allclose(accuracy.mean, np.mean(right), rtol=1e-6)


@pytest.mark.parametrize("max_decoded", [40, 9])
def test_a_model_without_chance_scores_the_same_in_any_pieces(max_decoded):
    world = GaussianWorld(2, 1, width=1e-6)
    support, queries = task(num_queries=5)
    scorer = ClassScorer(
        world.model, group="character", num_samples=7, max_decoded=max_decoded
    )
    scores = scorer(support, queries, seed=SEED)
    for index in range(3):
        np.testing.assert_allclose(
            scores[:, index],
            world.log_predictive(support[index], queries),
            rtol=1e-4,
            atol=1e-4,
        )


# Contenders -------------------------------------------------------------------


def still_in(log_likelihood, max_error):
    """The rule of `contenders`, by NumPy and SciPy in float64."""
    num_samples, num_ways = log_likelihood.shape
    scores = scipy.special.logsumexp(log_likelihood, axis=0)
    best = np.argmax(scores)
    without_one = np.stack(
        [
            scipy.special.logsumexp(np.delete(log_likelihood, s, 0), axis=0)
            for s in range(num_samples)
        ]
    )
    leads = without_one[:, [best]] - without_one
    variance = (num_samples - 1) * leads.var(axis=0)
    variance = np.maximum(variance, variance.sum() / (num_ways - 1))
    chance = scipy.stats.t.sf(
        (scores[best] - scores) / np.sqrt(variance),
        (num_samples - 1) * (num_ways - 1),
    )
    return (chance > max_error / (num_ways - 1)) | (scores == scores[best])


@pytest.mark.parametrize(("num_samples", "num_ways"), [(3, 2), (4, 20), (6, 5)])
@pytest.mark.parametrize("max_error", [1e-3, 0.05])
def test_contenders_are_those_by_students_t(num_samples, num_ways, max_error):
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(20):
        mean = -rng.exponential(10.0, num_ways)
        values = rng.normal(mean, 2.0, (num_samples, num_ways))
        actual = classification.contenders(
            tf.constant(values, tf.float32), max_error=max_error
        )
        np.testing.assert_array_equal(actual, still_in(values, max_error))
        sizes.append(np.sum(actual))
    assert min(sizes) < num_ways
    assert max(sizes) > 1


def test_the_best_class_is_lost_as_seldom_as_promised():
    # Of the best of all 20 samples, by the first four.
    rng = np.random.default_rng(0)
    lost, num_queries = 0, 2000
    for _ in range(num_queries):
        mean = -rng.exponential(4.0, 10)
        values = rng.normal(mean, 0.5, (20, 10)).astype(np.float32)
        best = np.argmax(scipy.special.logsumexp(values, axis=0))
        lost += not classification.contenders(values[:4], max_error=0.02)[best]
    assert lost < 0.02 * num_queries


@pytest.mark.parametrize("values", [np.zeros([4, 3]), np.full([4, 3], -np.inf)])
def test_classes_that_cannot_be_told_apart_all_stay(values):
    left = classification.contenders(
        tf.constant(values, tf.float32), max_error=0.01
    )
    assert np.all(left)


def test_only_contenders_are_scored_by_all_samples():
    world = GaussianWorld(4, noise=0.1, loadings=np.eye(4))
    support, queries = task(num_ways=4, num_shots=1, num_queries=3)
    queries = support[:3, 0] + np.float32(0.01)
    scores, decoded = {}, {}
    for max_error in (0.0, 0.001):
        world.decoded.clear()
        scores[max_error] = ClassScorer(
            world.model, group="character", max_error=max_error
        )(support, queries, seed=SEED)
        decoded[max_error] = sum(world.decoded)
    assert decoded[0.0] == 3 * 4 * 20
    assert 3 * (4 * 4 + 16) <= decoded[0.001] < decoded[0.0]
    full, fewer = scores[0.0], scores[0.001]
    # The samples of the contenders are the same.
    np.testing.assert_allclose(fewer.max(axis=1), full.max(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(fewer.argmax(axis=1), [0, 1, 2])
    np.testing.assert_array_equal(full.argmax(axis=1), [0, 1, 2])


@pytest.mark.parametrize("max_error", [-0.1, 1.0, float("nan")])
def test_a_max_error_that_is_no_probability_is_rejected(max_error):
    world = GaussianWorld(2)
    support, queries = task()
    for call in (
        lambda: ClassScorer(
            world.model, group="character", max_error=max_error
        ),
        lambda: world.model.classify(
            support[np.newaxis], queries[:1], seed=0, max_error=max_error
        ),
    ):
        with pytest.raises(
            ValueError, match=f"Received: max_error={max_error}"
        ):
            call()


# Pieces -----------------------------------------------------------------------


def test_equal_seeds_give_equal_scores_and_others_do_not():
    world = GaussianWorld(2, 1, element_width=2.0)
    support, queries = task()
    scorer = ClassScorer(world.model, group="character", max_decoded=30)
    scores = scorer(support, queries, seed=SEED)
    np.testing.assert_array_equal(scores, scorer(support, queries, seed=SEED))
    assert np.all(scores != scorer(support, queries, seed=(1, 3)))


def test_the_order_of_classes_queries_and_support_does_not_matter():
    world = GaussianWorld(2, 1, width=1e-6)
    support, queries = task()
    scorer = ClassScorer(world.model, group="character", num_samples=3)
    scores = scorer(support, queries, seed=SEED)
    reordered = scorer(support[::-1, ::-1], queries[[2, 0, 3, 1]], seed=SEED)
    np.testing.assert_allclose(
        reordered, scores[[2, 0, 3, 1], ::-1], rtol=1e-4, atol=1e-4
    )


def test_one_scorer_serves_any_number_of_shots_classes_and_queries():
    world = GaussianWorld(2, width=1e-6)
    scorer = ClassScorer(world.model, group="character", num_samples=2)
    for num_ways, num_shots, num_queries in [(2, 1, 3), (4, 5, 1), (1, 2, 2)]:
        support, queries = task(num_ways, num_shots, num_queries)
        scores = scorer(support, queries, seed=SEED)
        expected = [world.log_predictive(d, queries) for d in support]
        np.testing.assert_allclose(
            scores, np.transpose(expected), rtol=1e-4, atol=1e-4
        )


# Tasks ------------------------------------------------------------------------


def telling_data(sizes=(4,) * 6, ids=None, **labels):
    """Makes images that say which class they are of, and which image."""
    ids = np.arange(len(sizes)) if ids is None else np.asarray(ids)
    position = np.repeat(np.arange(len(sizes)), sizes)
    images = np.zeros((len(position), 2, 2, 1), np.float32)
    images[:, 0, 0, 0] = ids[position] / 1000.0
    images[:, 1, 1, 0] = np.arange(len(position)) / 1000.0
    return GroupedImages(
        images,
        {
            "character": ids[position],
            **{name: np.asarray(v)[position] for name, v in labels.items()},
        },
    )


def classes_of(images):
    return np.rint(1000 * images[..., 0, 0, 0]).astype(int)


def numbers_of(images):
    return np.rint(1000 * images[..., 1, 1, 0]).astype(int)


def drawn_tasks(data, **kwargs):
    settings = {"num_ways": 3, "num_shots": 2, "num_tasks": 50}
    return list(
        few_shot_tasks(data, group="character", **{**settings, **kwargs})
    )


def test_tasks_have_the_shapes_asked_for():
    tasks = drawn_tasks(telling_data(), num_tasks=4, queries_per_class=2)
    assert len(tasks) == 4
    for task in tasks:
        assert task.support.shape == (3, 2, 2, 2, 1)
        assert task.queries.shape == (6, 2, 2, 1)
        np.testing.assert_array_equal(task.labels, [0, 0, 1, 1, 2, 2])


def test_support_and_queries_share_no_image_and_labels_are_right():
    for task in drawn_tasks(telling_data(), queries_per_class=2):
        classes = classes_of(task.support)  # [K, N]
        assert np.all(classes == classes[:, :1])
        assert len(set(classes[:, 0])) == 3
        np.testing.assert_array_equal(
            classes[task.labels, 0], classes_of(task.queries)
        )
        used = [*numbers_of(task.support).ravel(), *numbers_of(task.queries)]
        assert len(set(used)) == len(used) == 12


def test_some_queries_of_a_task_are_a_random_choice_of_them():
    tasks = drawn_tasks(telling_data(), num_tasks=100, num_queries=2)
    seen = set()
    for task in tasks:
        assert task.support.shape[0] == 3
        assert len(task.queries) == len(task.labels) == 2
        classes = classes_of(task.support)[:, 0]
        np.testing.assert_array_equal(
            classes[task.labels], classes_of(task.queries)
        )
        seen.add(frozenset(task.labels.tolist()))
    # Each pair of the three classes; one missed by chance in (2 / 3) ** 100.
    assert seen == {frozenset(pair) for pair in ((0, 1), (0, 2), (1, 2))}


@pytest.mark.parametrize(
    "name", ["num_ways", "num_shots", "num_tasks", "queries_per_class"]
)
def test_tasks_of_nothing_are_refused(name):
    counts = {"num_ways": 2, "num_shots": 1, "num_tasks": 1, name: 0}
    with pytest.raises(ValueError, match=f"Received: {name}=0"):
        next(few_shot_tasks(uniform_data(), group="character", **counts))


@pytest.mark.parametrize("argument", ["group", "within", "spread"])
def test_a_grouping_that_the_data_lack_is_refused(argument):
    kwargs = {"num_ways": 2, "num_shots": 1, "num_tasks": 1}
    groupings = {"group": "character", argument: "alfabet"}
    with pytest.raises(ValueError, match=r"\['character'\].*'alfabet'"):
        next(few_shot_tasks(uniform_data(), **groupings, **kwargs))


@pytest.mark.parametrize(
    "name", ["num_samples", "num_element_samples", "max_decoded"]
)
def test_a_scorer_without_draws_is_refused(name):
    with pytest.raises(ValueError, match=f"Received: {name}=0"):
        ClassScorer(GaussianWorld().model, group="character", **{name: 0})


def test_a_scorer_is_of_a_group_latent_and_of_images_of_its_model():
    world = GaussianWorld(2, 1)
    for group in ("person", "element"):
        with pytest.raises(ValueError, match=rf"\['character'\].*'{group}'"):
            ClassScorer(world.model, group=group)
    scorer = ClassScorer(world.model, group="character")
    images = np.zeros((2, 3, 4, 4, 1), np.float32)
    with pytest.raises(
        ValueError, match=r"\(2, 2, 1\)\. Received: \(4, 4, 1\)"
    ):
        scorer(images, images[:, 0], seed=(0, 0))


def test_more_queries_than_a_task_has_are_refused():
    with pytest.raises(ValueError, match="Received: num_queries=4"):
        drawn_tasks(telling_data(), num_queries=4)


def test_accuracy_is_of_the_queries_asked_for():
    scorer = NearestNeighbour()
    few_shot_accuracy(
        scorer,
        telling_data(),
        num_ways=3,
        num_shots=1,
        num_tasks=5,
        num_queries=2,
    )
    assert scorer.num_scored == 5 * 2


def test_tasks_reach_every_class_and_every_image_in_both_parts():
    tasks = drawn_tasks(telling_data(), num_tasks=100)
    for images in ("support", "queries"):
        used = {
            int(number)
            for task in tasks
            for number in numbers_of(getattr(task, images)).ravel()
        }
        # Missed by chance: 24 * (1 - 3 / 24) ** 100 < 1e-4.
        assert used == set(range(24))


def test_equal_seeds_draw_equal_tasks():
    data = telling_data()

    def drawn(seed):
        return np.stack([t.support for t in drawn_tasks(data, seed=seed)])

    np.testing.assert_array_equal(drawn(3), drawn(3))
    assert np.any(drawn(3) != drawn(4))


def test_more_tasks_begin_with_the_same_ones():
    few, many = (drawn_tasks(telling_data(), num_tasks=n) for n in (2, 5))
    for one, other in zip(few, many[:2], strict=True):
        np.testing.assert_array_equal(one.support, other.support)


def test_within_draws_the_classes_of_a_task_from_one_alphabet():
    data = telling_data((4,) * 8, alphabet=[7, 7, 7, 2, 2, 2, 2, 5])
    seen = set()
    for task in drawn_tasks(data, within="alphabet"):
        classes = set(classes_of(task.support)[:, 0].tolist())
        # Alphabet 5 is too small for a task.
        assert classes <= {0, 1, 2} or classes <= {3, 4, 5, 6}
        seen |= classes
    assert seen == set(range(7))
    mixed = drawn_tasks(data)
    assert any(7 in classes_of(task.support) for task in mixed)


def test_too_few_classes_are_an_error():
    with pytest.raises(
        ValueError, match=r"7-way tasks need 7 classes.* most 6"
    ):
        drawn_tasks(telling_data(), num_ways=7)
    data = telling_data(alphabet=[0, 0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"5 classes in one alphabet.* most 4"):
        drawn_tasks(data, num_ways=5, within="alphabet")


def test_a_class_with_too_few_images_is_named_by_its_id():
    data = telling_data((4, 3, 4), ids=[10, 42, 11])
    drawn_tasks(data)
    with pytest.raises(ValueError, match="character 42 with 3 images"):
        drawn_tasks(data, num_shots=3)
    with pytest.raises(ValueError, match=r"3 queries need 5 images per class"):
        drawn_tasks(data, queries_per_class=3)


def test_a_class_of_which_no_task_is_drawn_may_be_small():
    data = telling_data((4, 4, 4, 1), alphabet=[0, 0, 0, 1])
    assert len(drawn_tasks(data, within="alphabet")) == 50


def spread_data(drawers, num_classes=3):
    """Makes classes with an image by each of some drawers."""
    data = telling_data((len(drawers),) * num_classes)
    labels = {**data.labels, "drawer": np.tile(drawers, num_classes)}
    return GroupedImages(data.images, labels)


@pytest.mark.parametrize(
    ("spread", "drawers", "most"),
    [
        (None, [0, 0, 0, 0], 3),
        ("drawer", [0, 0, 0, 0], 0),
        ("drawer", [7, 7, 2, 5], 2),
        ("drawer", [7, 2, 5, -1, -1, 5], 2),
    ],
)
def test_the_most_shots_leave_a_query_of_every_class(spread, drawers, most):
    data = spread_data(drawers)
    assert most_shots(data, "character", spread=spread) == most
    if most:
        drawn_tasks(data, spread=spread, num_shots=most)
    with pytest.raises(ValueError, match="ask for fewer shots"):
        drawn_tasks(data, spread=spread, num_shots=most + 1)


def test_the_smallest_class_decides_the_most_shots():
    ids = np.array([4, 4, 4, 9, 9, -1])
    data = GroupedImages(
        np.zeros((6, 2, 2, 1), np.float32),
        {"character": ids, "drawer": np.array([-1, -1, -1, 5, 5, 5])},
    )
    assert most_shots(data, "character") == 1
    assert most_shots(data, "character", spread="drawer") == -1


def test_spread_draws_the_images_of_a_class_from_different_drawers():
    data = spread_data([7, 7, 7, 7, 2, 5, -1, -1])
    seen = set()
    for task in drawn_tasks(data, spread="drawer"):
        support, queries = numbers_of(task.support), numbers_of(task.queries)
        used = np.concatenate([support, queries[:, np.newaxis]], axis=1)
        for row in data.labels["drawer"][used]:
            assert set(row) == {2, 5, 7}  # and none of unknown drawers
        np.testing.assert_array_equal(
            classes_of(task.support)[task.labels, 0],
            classes_of(task.queries),
        )
        seen |= set(used.ravel().tolist())
    assert len(seen) == 3 * 6  # each image of a drawer is as good as another
    plain = [numbers_of(task.support) for task in drawn_tasks(data)]
    assert any(
        np.ptp(data.labels["drawer"][n], axis=1).min() == 0 for n in plain
    )


def test_a_class_by_too_few_drawers_is_named_by_its_id():
    data = spread_data([7, 7, 7, 2, -1])
    drawn_tasks(data, spread="drawer", num_shots=1)
    with pytest.raises(
        ValueError,
        match=r"need 3 images of different drawers per class.*"
        r"character \d with 2 images of different drawers",
    ):
        drawn_tasks(data, spread="drawer")


# Accuracy ---------------------------------------------------------------------


def accuracy(scorer, data, **kwargs):
    settings = {"num_ways": 4, "num_shots": 1, "num_tasks": 50}
    return few_shot_accuracy(scorer, data, **{**settings, **kwargs})


def distinct_data():
    """Makes one class around each corner of a cube of four dimensions."""
    corners = np.stack(np.meshgrid(*[[0.1, 0.9]] * 4), axis=-1).reshape(-1, 4)
    rng = np.random.default_rng(0)
    return grouped([c + rng.uniform(-0.1, 0.1, size=(5, 4)) for c in corners])


@pytest.mark.parametrize("num_shots", [1, 3])
def test_perfect_information_classifies_without_mistakes(num_shots):
    # Within a class pixels differ by 0.2 at most, between classes by 0.6.
    world = GaussianWorld(4, noise=0.1, loadings=np.eye(4))
    scorer = ClassScorer(world.model, group="character")
    result = accuracy(scorer, distinct_data(), num_shots=num_shots)
    assert (result.mean, result.interval[1]) == (1.0, 1.0)
    assert 0.9 < result.interval[0] < 1.0
    assert result.num_values == 50


def test_a_model_that_ignores_the_support_is_at_chance():
    # All samples are from the prior.
    world = GaussianWorld(4, noise=0.1, loadings=np.eye(4), use_of_support=0.0)
    scorer = ClassScorer(world.model, group="character", num_samples=2)
    result = accuracy(scorer, distinct_data(), num_tasks=150)
    # All classes share them, so that no class wins by them.
    assert result.mean == 0.25
    assert result.interval[0] < result.mean < result.interval[1]


class Fixed(OneByOne):
    """A scorer with given scores."""

    group = "character"

    def __init__(self, scores):
        self.scores = iter(scores)
        self.seeds = []

    def __call__(self, support, queries, *, seed):
        del support, queries
        self.seeds.append(seed)
        return next(self.scores)


def test_accuracy_is_the_mean_over_tasks():
    right, wrong = np.eye(2), 1.0 - np.eye(2)
    half = np.array([[1.0, 0.0], [1.0, 0.0]])
    result = accuracy(
        Fixed([right, wrong, half, right]),
        telling_data(),
        num_ways=2,
        num_tasks=4,
    )
    assert result.values == (1.0, 0.0, 0.5, 1.0)
    assert result.mean == 0.625
    assert result.key == "accuracy.2way_1shot"
    assert result.chance == 0.5


def test_every_task_has_draws_of_its_own():
    scorer = Fixed([np.eye(2)] * 4)
    accuracy(scorer, telling_data(), num_ways=2, num_tasks=4, seed=9)
    assert scorer.seeds == [(9, 0), (9, 1), (9, 2), (9, 3)]


def test_accuracy_says_how_far_it_is():
    lines = []
    accuracy(
        Fixed([np.eye(2)] * 3),
        telling_data(),
        num_ways=2,
        num_tasks=3,
        progress=lines.append,
    )
    assert lines[-1] == "2-way 1-shot: task 3 of 3, 100.0% so far"
    assert len(lines) == 3


def test_accuracy_by_a_coarser_grouping_is_on_spread_tasks():
    # Brightness alone identifies a class.
    data = uniform_data((6,) * 8, alphabet=[0, 0, 0, 0, 1, 1, 1, 1])
    scorer, lines = NearestNeighbour(), []
    scorer.group = "alphabet"
    settings = {"num_ways": 2, "num_shots": 3, "num_tasks": 200}
    mixed = accuracy(scorer, data, **settings)
    spread = accuracy(
        scorer, data, spread="character", progress=lines.append, **settings
    )
    assert spread.mean + spread.half_width < mixed.mean - mixed.half_width
    assert lines[-1].startswith("2-way 3-shot by alphabet: task 200 of 200, ")


def test_more_shots_and_fewer_ways_are_easier():
    data = uniform_data((6,) * 12)
    scorer = NearestNeighbour()
    settings = {"num_tasks": 100}
    easy = accuracy(scorer, data, num_ways=2, num_shots=5, **settings)
    hard = accuracy(scorer, data, num_ways=10, num_shots=1, **settings)
    assert easy.mean - easy.half_width > hard.mean + hard.half_width


class CountedLabels(np.ndarray):
    """Labels that count how many entries the functions on them go through."""

    entries = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = [np.asarray(value) for value in inputs]
        CountedLabels.entries += max(value.size for value in plain)
        return getattr(ufunc, method)(*plain, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        CountedLabels.entries += self.size
        return super().__array_function__(function, types, args, kwargs)


@pytest.mark.parametrize(
    ("within", "spread"), [(None, None), ("alphabet", "drawer")]
)
def test_the_labels_are_not_scanned_once_a_class(within, spread):
    num_classes, size = 500, 4
    count = num_classes * size
    data = GroupedImages(
        np.zeros((count, 1, 1, 1), np.float32),
        {
            "character": np.repeat(np.arange(num_classes), size),
            "alphabet": np.repeat(np.arange(num_classes // 5), size * 5),
            "drawer": np.tile(np.arange(size), num_classes),
        },
    )
    counted = {k: v.view(CountedLabels) for k, v in data.labels.items()}
    object.__setattr__(data, "labels", counted)
    CountedLabels.entries = 0
    design = TaskDesign(5, 1, within=within, spread=spread)
    next(tasks.few_shot_tasks(data, design, group="character", num_tasks=1))
    assert tasks.most_shots(data, "character", spread=spread) == size - 1
    assert tasks.most_classes(data, "character", within=within) == (
        5 if within else num_classes
    )
    # A few passes over all labels, and one over those of each class.
    assert 0 < CountedLabels.entries < 50 * count
