import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from tests.evaluation.conftest import NUM_ERRORS
from tests.evaluation.conftest import GaussianWorld
from tests.evaluation.conftest import few_shot_tasks
from tests.evaluation.conftest import grouped
from tests.evaluation.conftest import latents_seen
from tests.evaluation.conftest import pixel_cnn_log_weight
from tests.evaluation.conftest import uniform_data
from vhe_tf import random
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation.classification import ClassScorer
from vhe_tf.evaluation.likelihood import JointScorer
from vhe_tf.evaluation.likelihood import conditional_nll
from vhe_tf.evaluation.likelihood import joint_nll

SIZES = (1, 2, 3, 5, 8)


def images_of(data, character):
    return data.images[data.labels["character"] == character]


def log_evidences(world, data):
    """Returns log p(X) of each group, in the order of their ids."""
    return np.array(
        [
            world.log_evidence(images_of(data, character))
            for character in data.group_ids("character")
        ]
    )


def joint(world, data, **kwargs):
    of_scorer = {
        name: kwargs.pop(name)
        for name in ("num_element_samples", "max_decoded")
        if name in kwargs
    }
    scorer = JointScorer(world.model, group="character", **of_scorer)
    return joint_nll(scorer, data, **kwargs)


def joint_log_weights(model, images, *, num_samples, seed=(0, 0), **settings):
    scorer = JointScorer(model, **settings)
    return scorer(images, num_samples, seed=seed)


# The joint likelihood, whose weights have the mean p(X) -----------------------


def test_one_sample_is_exact_at_the_true_posterior():
    world = GaussianWorld(2, 1)
    data = uniform_data(SIZES)
    result = joint(world, data, num_samples=1)
    expected = -log_evidences(world, data).sum() / len(data)
    # Sums in float32.
    np.testing.assert_allclose(result.mean, expected, rtol=2e-5)
    assert result.effective_sample_size == 1.0


def test_constant_weights_have_as_many_effective_samples():
    world = GaussianWorld(2, 1)
    result = joint(world, uniform_data(SIZES), num_samples=40)
    np.testing.assert_allclose(result.effective_sample_size, 40.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("element_size", "num_element_samples"), [(0, 1), (1, 4)]
)
def test_many_samples_find_the_evidence(element_size, num_element_samples):
    # Both posteriors are too wide, and that of c is off.
    world = GaussianWorld(
        2, element_size, width=1.4, shift=0.1, element_width=1.3
    )
    images = images_of(uniform_data(), 0)
    num_samples = 20_000
    log_weights = joint_log_weights(
        world.model,
        images,
        group="character",
        num_samples=num_samples,
        num_element_samples=num_element_samples,
        max_decoded=60_000,
    )
    assert log_weights.shape == (num_samples,)
    assert log_weights.dtype == np.float64
    weights = np.exp(log_weights - world.log_evidence(images))
    # Delta method: the error of the log of a mean is that of the mean.
    error = weights.std() / weights.mean() / np.sqrt(num_samples)
    assert NUM_ERRORS * error < 0.2
    assert abs(np.log(weights.mean())) < NUM_ERRORS * error


def test_the_joint_nll_is_minus_the_evidence_per_image():
    world = GaussianWorld(2, 1, width=1.4, shift=0.1)
    data = uniform_data(SIZES)
    result = joint(world, data, num_samples=4000, max_decoded=10**5)
    expected = -log_evidences(world, data).sum() / len(data)
    # The effective sample size of a group is k / (1 + spread of its weights
    # squared), so that its error is sqrt(1 / ESS - 1 / k) nats. Of 5 groups
    # with 19 images:
    error = np.sqrt(5.0 / result.effective_sample_size) / len(data)
    assert NUM_ERRORS * error < 0.1
    assert abs(result.mean - expected) < NUM_ERRORS * error
    assert result.num_samples == 4000
    assert result.num_element_samples == 1


@pytest.mark.parametrize("max_decoded", [10**6, 9])
def test_the_weights_of_a_pixel_cnn_are_those_of_a_loop(max_decoded):
    model = tiny_pixel_cnn_vhe()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (3, 8, 8, 1)).astype(np.float32)
    with latents_seen(model) as seen:
        log_weights = JointScorer(
            model,
            group="character",
            num_element_samples=2,
            max_decoded=max_decoded,
        )(images, 3, seed=(1, 2))
    decoded = [latents["pose"][..., 0].size for latents in seen]
    assert max(decoded) <= max(max_decoded, 2)
    assert sum(decoded) == 3 * 3 * 2
    group = model.latents[0]
    posterior = group.posterior(images[np.newaxis])
    totals = {}  # by template: log weight, and of how many images
    for latents in seen:
        c, z = latents["character"], latents["pose"]  # [T, S, n, E...]
        for s in range(z.shape[1]):
            template = c[0, s, 0]  # of all images and all their poses
            np.testing.assert_array_equal(c[:, s] - template, 0.0)
            total, first = totals.get(
                template.tobytes(),
                (
                    float(group.prior().log_prob(template))
                    - float(posterior.log_prob(template)[0]),
                    0,
                ),
            )
            for i in range(z.shape[2]):
                of_poses = [
                    pixel_cnn_log_weight(
                        model, images[first + i], template, z[t, s, i]
                    )
                    for t in range(2)
                ]
                total += np.logaddexp(*of_poses) - np.log(2.0)
            totals[template.tobytes()] = total, first + z.shape[2]
    expected, counts = zip(*totals.values(), strict=True)
    assert counts == (3, 3, 3)
    np.testing.assert_allclose(log_weights, expected, rtol=1e-4)


def test_few_samples_bound_the_nll_from_above_and_more_tighten_it():
    world = GaussianWorld(2, 1, width=1.5, shift=0.2, element_width=1.5)
    images = images_of(uniform_data(), 0)
    # The same group 80 times over: as many independent estimates.
    data = grouped([images] * 80)
    expected = -world.log_evidence(images) / len(images)
    results = [
        joint(
            world,
            data,
            num_samples=num_samples,
            num_element_samples=num_element_samples,
        )
        for num_samples, num_element_samples in [(1, 1), (1, 20), (20, 20)]
    ]
    errors = [result.standard_error for result in results]
    gaps = [result.mean - expected for result in results]
    assert gaps[0] > NUM_ERRORS * errors[0]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] > -NUM_ERRORS * errors[2]


def test_every_group_has_draws_of_its_own():
    world = GaussianWorld(2, width=1.5)
    data = grouped([images_of(uniform_data(), 0)] * 2)
    assert joint(world, data, num_samples=2).half_width > 0.0


def test_the_effective_sample_size_is_that_of_the_weights():
    world = GaussianWorld(2, width=2.0, shift=0.3)
    data = uniform_data((4, 4, 4))
    result = joint(world, data, num_samples=50, seed=3)
    sizes, means = [], []
    for character in range(3):
        log_weights = joint_log_weights(
            world.model,
            images_of(data, character),
            group="character",
            num_samples=50,
            seed=(3, character),
        )
        weights = np.exp(log_weights)
        sizes.append(weights.sum() ** 2 / np.square(weights).sum())
        means.append(-np.log(weights.mean()) / 4)
    assert max(sizes) < 45.0
    np.testing.assert_allclose(
        result.effective_sample_size, np.mean(sizes), rtol=1e-4
    )
    np.testing.assert_allclose(result.mean, np.mean(means), rtol=1e-5)
    np.testing.assert_allclose(
        result.standard_error,
        np.std(means, ddof=1) / np.sqrt(3),
        rtol=1e-4,
    )


@pytest.mark.parametrize("max_decoded", [100, 7])
def test_no_more_images_are_decoded_at_once_than_allowed(max_decoded):
    world = GaussianWorld(2, 1)
    images = images_of(uniform_data(), 0)
    log_weights = joint_log_weights(
        world.model,
        images,
        group="character",
        num_samples=25,
        num_element_samples=2,
        max_decoded=max_decoded,
    )
    # At the true posterior every draw has the same weight.
    np.testing.assert_allclose(
        log_weights, np.full(25, world.log_evidence(images)), rtol=2e-5
    )
    assert max(world.decoded) <= max(max_decoded, 2)
    assert sum(world.decoded) == 25 * 2 * len(images)


def test_the_pieces_of_the_weights_are_different_draws():
    world = GaussianWorld(2, width=1.5)
    log_weights = joint_log_weights(
        world.model,
        images_of(uniform_data(), 0),
        group="character",
        num_samples=20,
        max_decoded=12,
    )
    assert len(np.unique(log_weights)) == 20


def test_equal_seeds_give_equal_weights_and_others_do_not():
    world = GaussianWorld(2, 1, width=1.5)
    images = images_of(uniform_data(), 0)

    def drawn(*seed):
        return joint_log_weights(
            world.model,
            images,
            group="character",
            num_samples=5,
            max_decoded=12,
            seed=seed,
        )

    np.testing.assert_array_equal(drawn(1, 2), drawn(1, 2))
    assert np.all(drawn(1, 2) != drawn(2, 2))


def test_groups_weigh_by_their_images():
    world = GaussianWorld(2)
    data = uniform_data((1, 9))
    expected = -log_evidences(world, data)
    result = joint(world, data, num_samples=2)
    np.testing.assert_allclose(result.mean, expected.sum() / 10, rtol=2e-5)
    assert abs(expected.sum() / 10 - (expected / [1, 9]).mean()) > 0.05


def test_groups_that_differ_only_in_size_leave_no_doubt():
    # c without effect, and images all alike: the same nats per image in each.
    world = GaussianWorld(2, loadings=np.zeros((2, 4)))
    data = grouped([np.full((size, 4), 0.3) for size in (1, 4, 16)])
    result = joint(world, data, num_samples=3)
    np.testing.assert_allclose(
        result.mean, -world.log_evidence(data.images[:1]), rtol=1e-5
    )
    assert result.half_width < 1e-5


def test_the_interval_is_that_of_a_ratio_of_sums():
    # Groups of random sizes from 1 to 8: the jackknife, which leaves out
    # one group at a time, agrees with the linearised error.
    world = GaussianWorld(2)
    rng = np.random.default_rng(0)
    data = uniform_data(rng.integers(1, 9, size=60))
    nll = -log_evidences(world, data)
    sizes = np.bincount(data.labels["character"])
    left_out = (nll.sum() - nll) / (sizes.sum() - sizes)
    error = np.sqrt(59 / 60 * np.square(left_out - left_out.mean()).sum())
    result = joint(world, data, num_samples=1)
    assert result.num_values == 60
    np.testing.assert_allclose(result.standard_error, error, rtol=0.1)


def test_num_groups_chooses_some_of_them_by_the_seed():
    world = GaussianWorld(2)
    data = uniform_data((3,) * 10)
    means = set()
    each = -log_evidences(world, data) / 3
    for seed in (0, 0, 1, 2):
        result = joint(world, data, num_samples=1, num_groups=2, seed=seed)
        assert result.num_values == 2
        pairs = (each[:, np.newaxis] + each) / 2
        np.fill_diagonal(pairs, np.inf)
        assert np.abs(pairs - result.mean).min() < 1e-4
        means.add(round(result.mean, 5))
    assert 1 < len(means) <= 3


@pytest.mark.parametrize("num_groups", [None, 3, 10])
def test_num_groups_may_exceed_the_groups(num_groups):
    world = GaussianWorld(2)
    data = uniform_data((2, 2, 2))
    result = joint(world, data, num_samples=1, num_groups=num_groups)
    assert result.num_values == 3
    np.testing.assert_allclose(
        result.mean,
        -log_evidences(world, data).mean() / 2,
        rtol=1e-6,
    )


def test_a_single_group_has_no_interval():
    result = joint(GaussianWorld(2), uniform_data((4,)), num_samples=2)
    assert np.isfinite(result.mean)
    assert result.half_width is None


def test_the_joint_nll_says_how_far_it_is():
    lines = []
    world = GaussianWorld(2)
    data = uniform_data((2, 3))
    result = joint(world, data, num_samples=1, progress=lines.append)
    assert len(lines) == 2
    assert lines[-1].startswith("joint NLL: group 2 of 2, ")
    assert f"{result.mean:.2f} nats" in lines[-1]


# The conditional likelihood ---------------------------------------------------


def scorer_of(world, num_samples=20, **kwargs):
    return ClassScorer(
        world.model, group="character", num_samples=num_samples, **kwargs
    )


@pytest.mark.parametrize(("element_size", "num_shots"), [(0, 1), (1, 3)])
def test_the_conditional_nll_is_that_of_the_predictive(element_size, num_shots):
    world = GaussianWorld(2, element_size, width=1.3, shift=0.1)
    data = uniform_data()
    num_tasks, num_samples = 60, 4000
    result = conditional_nll(
        scorer_of(world, num_samples),
        data,
        num_shots=num_shots,
        num_queries=num_tasks,
        seed=2,
    )
    tasks = few_shot_tasks(
        data,
        group="character",
        num_ways=1,
        num_shots=num_shots,
        num_tasks=num_tasks,
        seed=2,
    )
    expected, errors = [], []
    for task in tasks:
        support = task.support[0]
        expected.append(-world.log_predictive(support, task.queries)[0])
        errors.append(
            world.log_predictive_error(support, task.queries, num_samples)[0]
        )
    error = np.linalg.norm(errors) / num_tasks
    assert NUM_ERRORS * error < 0.05
    assert abs(result.mean - np.mean(expected)) < NUM_ERRORS * error
    # Beside the spread of the tasks that of the estimates is small.
    np.testing.assert_allclose(
        result.standard_error,
        np.std(expected, ddof=1) / np.sqrt(num_tasks),
        rtol=0.05,
    )
    assert result.num_values == num_tasks


def test_more_shots_lower_the_nll_of_a_model_that_uses_them():
    world = GaussianWorld(4, noise=0.1, loadings=np.eye(4))
    rng = np.random.default_rng(1)
    c = rng.uniform(0.3, 0.7, size=(40, 1, 4))
    noise = 0.1 * rng.normal(size=(40, 12, 4))
    data = grouped(np.clip(c + noise, 0.0, 1.0))
    nll = [
        conditional_nll(
            scorer_of(world, 200), data, num_shots=shots, num_queries=200
        )
        for shots in (1, 2, 10)
    ]
    # Each of 4 pixels is known to (1 + 1 / shots) noise**2, which makes 0.5
    # log(1.5 / 2) and 0.5 log(1.1 / 1.5) nats: 0.6 from row to row, beside
    # intervals of 1.96 sqrt(4 / 2 / 200) = 0.2.
    assert nll[0].mean - nll[0].half_width > nll[1].mean
    assert nll[1].mean - nll[1].half_width > nll[2].mean


def test_shots_leave_a_model_alone_that_ignores_them():
    world = GaussianWorld(2, use_of_support=0.0)
    data = grouped([np.full((6, 4), 0.4)] * 3)
    means = [
        conditional_nll(
            scorer_of(world, 4000), data, num_shots=shots, num_queries=4
        ).mean
        for shots in (1, 5)
    ]
    expected = -world.log_predictive(data.images[:1], data.images[:1])[0]
    error = world.log_predictive_error(
        data.images[:1], data.images[:1], 4 * 4000
    )[0]
    assert NUM_ERRORS * error < 0.1
    assert np.all(np.abs(np.array(means) - expected) < NUM_ERRORS * error)


def test_too_many_shots_are_an_error():
    with pytest.raises(ValueError, match="need 7 images per class"):
        conditional_nll(
            scorer_of(GaussianWorld(2)),
            uniform_data(),
            num_shots=6,
            num_queries=1,
        )


def test_the_conditional_nll_says_how_far_it_is():
    lines = []
    result = conditional_nll(
        scorer_of(GaussianWorld(2), 2),
        uniform_data(),
        num_shots=2,
        num_queries=3,
        progress=lines.append,
    )
    assert lines[-1] == (
        f"conditional NLL after 2 shots: 3 of 3, {result.mean:.2f} nats so far"
    )


# Several group latents --------------------------------------------------------


def test_the_images_of_a_group_are_those_of_the_group_that_holds_it():
    model = tiny_vhe("hierarchical")
    images = tiny_episode(batch_size=4)["query"].numpy()
    scorer = JointScorer(model, group="character", num_element_samples=2)
    actual = scorer(images, 6, seed=(1, 2))
    support = {name: images[np.newaxis] for name in ("alphabet", "character")}
    key = random.fold_in((1, 2), 0)
    samples, log_weights = model.importance_sample(
        support, seed=key, num_samples=6
    )
    log_likelihood = model.log_likelihood_given(
        {name: tf.repeat(value, 4, axis=1) for name, value in samples.items()},
        images,
        seed=random.fold_in(random.fold_in(key, 1), 0),
        num_element_samples=2,
    )
    expected = log_weights[:, 0] + tf.reduce_sum(log_likelihood, axis=1)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_images_of_a_character_have_styles_of_their_own():
    model = tiny_vhe("factorial")
    images = tiny_episode(batch_size=4)["query"].numpy()
    with latents_seen(model) as seen:
        JointScorer(model, group="character")(images, 3, seed=(1, 2))
    [latents] = seen  # [T, S, n, L] each
    characters, styles = latents["character"], latents["style"]
    np.testing.assert_array_equal(
        characters, np.repeat(characters[..., :1, :], 4, axis=-2)
    )
    assert np.all(np.diff(styles, axis=-2) != 0.0)


def test_the_joint_likelihood_of_a_group_of_groups_is_refused():
    with pytest.raises(ValueError, match="holds those of 'character'"):
        JointScorer(tiny_vhe("hierarchical"), group="alphabet")


def test_other_group_latents_are_integrated_out():
    keras.utils.set_random_seed(0)
    model = tiny_vhe("factorial")
    # Faint images of the latents, so that samples of p(x | c) are alike.
    model.set_weights([0.5 * weight for weight in model.get_weights()])
    episode = tiny_episode(batch_size=3)
    support = episode["support"]["character"].numpy()
    query = episode["query"].numpy()
    num_samples = 2000
    scores = ClassScorer(
        model, group="character", num_samples=num_samples, max_decoded=6000
    )(support, query, seed=(1, 2))
    # s of the query itself: p(s) / q(s; {x}) p(x | c, s), one s for each c.
    characters = model.latents[0].posterior(support)
    styles = model.latents[1].posterior(query[:, np.newaxis])
    c = characters.sample(num_samples, seed=(3, 4))
    s = styles.sample(num_samples, seed=(5, 6))
    by_hand = (
        model.likelihood(character=c, style=s).log_prob(query)
        + model.latents[1].prior().log_prob(s)
        - styles.log_prob(s)
    ).numpy()
    weights = np.exp(by_hand - np.max(by_hand, axis=0))
    expected = np.log(weights.mean(axis=0)) + np.max(by_hand, axis=0)
    # Two estimates, each with an error by the delta method.
    error = weights.std(axis=0) / weights.mean(axis=0)
    error *= np.sqrt(2.0 / num_samples)
    assert np.all(NUM_ERRORS * error < 1.0)
    assert np.all(np.abs(np.diag(scores) - expected) < NUM_ERRORS * error)


@pytest.mark.parametrize(
    "kwargs",
    [{"num_samples": 0}, {"num_element_samples": 0}, {"num_groups": 0}],
)
def test_no_draws_or_groups_are_refused(kwargs):
    [(name, _)] = kwargs.items()
    with pytest.raises(ValueError, match=f"Received: {name}="):
        joint(GaussianWorld(), uniform_data(), **kwargs)


def test_what_is_no_group_or_no_image_of_the_model_is_refused():
    model = GaussianWorld().model
    data = uniform_data()
    others = GroupedImages(data.images, {"person": data.labels["character"]})
    with pytest.raises(ValueError, match=r"\['person'\].*'character'"):
        joint_nll(JointScorer(model, group="character"), others)
    with pytest.raises(ValueError, match="Received: group='person'"):
        JointScorer(model, group="person")
    with pytest.raises(
        ValueError, match=r"\(8, 8, 1\)\. Received: \(2, 2, 1\)"
    ):
        joint_nll(JointScorer(tiny_vhe(), group="character"), data)


def test_stored_images_are_refused():
    stored = GroupedImages(
        np.zeros((4, 8, 8, 1), np.uint8), {"character": np.zeros(4, int)}
    )
    with pytest.raises(ValueError, match="images of dtype uint8"):
        joint_nll(JointScorer(tiny_vhe(), group="character"), stored)
    with pytest.raises(ValueError, match="images of dtype uint8"):
        next(
            few_shot_tasks(
                stored,
                group="character",
                num_ways=1,
                num_shots=1,
                num_tasks=1,
            )
        )
