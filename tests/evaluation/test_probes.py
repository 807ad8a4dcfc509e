from unittest import mock

import numpy as np
import pytest
import scipy.stats

from tests.conftest import tiny_pixel_cnn_vhe
from tests.evaluation.conftest import NUM_ERRORS
from tests.evaluation.conftest import GaussianWorld
from tests.evaluation.conftest import uniform_data
from vhe_tf.data import GroupedImages
from vhe_tf.evaluation import probes
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.probes import linear_probe
from vhe_tf.evaluation.probes import posterior_means


def clusters(sizes, num_features=4, *, spread=1.0, distance=1.0, seed=0):
    """Makes classes of normal features around random centres."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = distance * rng.normal(size=(len(sizes), num_features))
    noise = spread * rng.normal(size=(len(labels), num_features))
    return centres[labels] + noise, labels


# Accuracy and chance ----------------------------------------------------------


def test_a_linear_function_of_the_features_is_read_without_error():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3))
    margin = features @ [1.0, -2.0, 0.5]
    keep = np.abs(margin) > 0.5
    probe = linear_probe(features[keep], (margin[keep] > 0).astype(int))
    assert probe.mean == 1.0
    assert probe.interval[1] == 1.0 > probe.interval[0] > 0.95


def test_classes_on_one_line_are_told_apart():
    # A regression of each of the five classes against the rest finds the
    # outer two alone.
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)
    features = labels[:, np.newaxis] + rng.normal(0.0, 0.1, (200, 1))
    assert linear_probe(features, labels).mean > 0.95


def test_independent_features_leave_chance():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 500)
    probe = linear_probe(rng.normal(size=(2000, 5)), labels)
    assert probe.chance == 0.25
    assert probe.num_values == 600
    error = np.sqrt(0.25 * 0.75 / 600)
    assert abs(probe.mean - 0.25) < NUM_ERRORS * error
    p = probe.mean
    assert probe.standard_error == pytest.approx(np.sqrt(p * (1 - p) / 599))


def test_chance_is_the_share_of_the_most_frequent_class():
    features, labels = clusters([60, 30, 10], distance=0.0)
    probe = linear_probe(features, labels)
    assert probe.chance == 18 / 30
    assert abs(probe.mean - 0.6) < NUM_ERRORS * np.sqrt(0.24 / 30)


def test_equal_seeds_give_equal_probes():
    features, labels = clusters([50] * 5)
    probe = linear_probe(features, labels, seed=3)
    assert linear_probe(features, labels, seed=3) == probe
    others = [linear_probe(features, labels, seed=seed) for seed in range(5)]
    assert len({other.mean for other in others}) > 1


def test_units_and_ids_do_not_matter():
    features, labels = clusters([50] * 5)
    probe = linear_probe(features, labels)
    scaled = features * [1e-6, 1.0, 50.0, 1e6] + [0.0, 1e3, -5.0, 1e8]
    constant = np.full((len(labels), 1), 0.1)
    assert linear_probe(scaled, labels) == probe
    assert linear_probe(np.hstack([features, constant]), labels) == probe
    assert linear_probe(features, 7 + 5 * labels) == probe


def test_examples_without_a_label_are_left_out():
    features, labels = clusters([30] * 4)
    known = np.arange(len(labels)) % 3 > 0
    some = np.where(known, labels, -1)
    assert linear_probe(features, some) == (
        linear_probe(features[known], labels[known])
    )


def test_classes_in_too_few_groups_are_left_out():
    features, labels = clusters([20, 20, 2, 3])
    without = labels != 2
    probe = linear_probe(features, labels)
    assert probe == linear_probe(features[without], labels[without])
    assert probe.num_values == 6 + 6 + 1
    # Six examples, of two groups.
    groups = np.arange(len(labels))
    groups[:20] //= 10
    without = labels % 2 == 1
    assert linear_probe(features, labels, groups=groups) == (
        linear_probe(features[without], labels[without], groups=groups[without])
    )


# Groups -----------------------------------------------------------------------


def test_recognising_a_group_gains_nothing():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 4)
    labels = rng.integers(2, size=200)[groups]
    features = rng.normal(size=(200, 150))[groups]
    assert linear_probe(features, labels).mean > 0.8
    probe = linear_probe(features, labels, groups=groups)
    assert probe.num_values == 60
    error = np.sqrt(0.25 / 60)
    assert abs(probe.mean - 0.5) < NUM_ERRORS * error
    assert NUM_ERRORS * error < 0.4


def test_copies_of_an_example_are_one_value():
    features, labels = clusters([30] * 4)
    probe = linear_probe(features, labels)
    assert 0.3 < probe.mean < 0.95
    copied = linear_probe(
        np.repeat(features, 7, axis=0),
        np.repeat(labels, 7),
        groups=np.repeat(np.arange(len(labels)), 7),
    )
    assert copied.chance == probe.chance
    np.testing.assert_allclose(copied.mean, probe.mean)
    np.testing.assert_allclose(copied.standard_error, probe.standard_error)


def test_the_interval_weighs_groups_by_their_size():
    values = probes._mean_by_group(
        np.array([True, True, False, False, True, False]),
        np.array([8, 8, 8, 3, 5, 5]),
    )
    result = Measurement.of("probe", values)
    # By hand: a mean of 1/2; sums less half the sizes, 1/2, -1/2 and 0, over
    # the mean size, 2.
    assert result.mean == pytest.approx(0.5)
    assert result.num_values == 3
    assert result.standard_error == pytest.approx(
        np.std([0.25, -0.25, 0.0], ddof=1) / np.sqrt(3)
    )


def parts_of(*args, **kwargs):
    """Returns the masks (train, on) of each fit of a probe, ridges last."""
    with mock.patch.object(
        probes, "_predictions", wraps=probes._predictions
    ) as spy:
        linear_probe(*args, **kwargs)
    (_, _, fit, choice, ridges), (_, _, train, test, [ridge]) = [
        call.args for call in spy.call_args_list
    ]
    assert ridge in ridges
    return fit, choice, train, test


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["alone", "nested", "crossed", "mixed"])
def test_every_class_is_in_each_part_and_no_group_in_two(kind, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), [3, 10, 40, 67])
    groups = {
        "alone": np.arange(120),
        "nested": 100 * labels + np.arange(120) % 3,
        "crossed": np.arange(120) % 30,
        "mixed": rng.integers(50, size=120),
    }[kind]
    fit, choice, train, test = parts_of(
        np.zeros((120, 1)), labels, groups=groups, seed=seed
    )
    assert not np.any(fit & choice)
    np.testing.assert_array_equal(fit | choice, train)
    np.testing.assert_array_equal(test, ~train)
    for part in (fit, choice, test):
        assert set(labels[part]) == {0, 1, 2, 3}
    for one, other in [(fit, choice), (train, test)]:
        assert not set(groups[one]) & set(groups[other])
    if kind == "alone":
        assert np.bincount(labels[test]).tolist() == [1, 3, 12, 20]
        assert np.bincount(labels[choice]).tolist() == [1, 2, 8, 14]


def test_three_tenths_of_the_groups_of_each_class_are_tested():
    assert linear_probe(*clusters([50] * 2)).num_values == 2 * 15
    assert linear_probe(*clusters([3, 50])).num_values == 1 + 15


# The classifier ---------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.01, 2.0])
@pytest.mark.parametrize("num_features", [3, 60])
def test_predictions_are_those_of_normal_classes_with_one_covariance(
    num_features, ridge
):
    features, labels = clusters([8, 15, 20], num_features)
    train = np.arange(43) % 2 == 0
    [answers] = probes._predictions(features, labels, train, ~train, [ridge])
    # By SciPy's densities, in as many dimensions as there are features.
    own, own_labels = features[train], labels[train]
    mean, spread = own.mean(axis=0), own.std(axis=0)
    own, others = (own - mean) / spread, (features[~train] - mean) / spread
    means = [own[own_labels == k].mean(axis=0) for k in range(3)]
    within = own - np.array(means)[own_labels]
    covariance = within.T @ within / len(own) + ridge * np.eye(num_features)
    scores = [
        scipy.stats.multivariate_normal(means[k], covariance).logpdf(others)
        + np.log(np.mean(own_labels == k))
        for k in range(3)
    ]
    np.testing.assert_array_equal(answers, np.argmax(scores, axis=0))


def test_two_classes_with_a_tiny_ridge_are_told_apart_by_least_squares():
    features, labels = clusters([40, 40], 6, distance=0.5)
    train = np.arange(80) % 2 == 0
    [answers] = probes._predictions(features, labels, train, ~train, [1e-12])
    with_bias = np.hstack([features, np.ones((80, 1))])
    weights, *_ = np.linalg.lstsq(with_bias[train], 2.0 * labels[train] - 1.0)
    expected = with_bias[~train] @ weights > 0.0
    assert np.sum(expected != labels[~train]) > 5  # no trivial answers
    np.testing.assert_array_equal(answers, expected)


def test_the_ridge_is_chosen():
    features, labels = clusters([60, 60], 100, distance=0.25)
    chosen = linear_probe(features, labels).mean
    with mock.patch.object(probes, "_RIDGES", (1e-6,)):
        without = linear_probe(features, labels).mean
    assert chosen > without + 0.1


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_ridge_is_the_best_on_its_part_of_the_training(best):
    labels = np.repeat([0, 1], 30)
    ridges = []

    def predictions(features, classes, train, on, which):
        ridges.append(tuple(which))
        answers = np.tile(1 - classes[on], (len(which), 1))
        if len(which) > 1:
            answers[best] = classes[on]
        return answers

    with (
        mock.patch.object(probes, "_RIDGES", (7.0, 8.0, 9.0)),
        mock.patch.object(probes, "_predictions", predictions),
    ):
        probe = linear_probe(np.zeros((60, 1)), labels)
    assert ridges == [(7.0, 8.0, 9.0), ((7.0, 8.0, 9.0)[best],)]
    assert probe.mean == 0.0


# Errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "labels", "groups", "message"),
    [
        ((9, 2, 3), 9, 9, r"\(9, 2, 3\), \(9,\) and \(9,\)"),
        ((9, 2), 8, 9, r"\(9, 2\), \(8,\) and \(9,\)"),
        ((9, 2), 9, 8, r"\(9, 2\), \(9,\) and \(8,\)"),
    ],
)
def test_shapes_that_do_not_agree_are_refused(
    features, labels, groups, message
):
    with pytest.raises(ValueError, match=f"Received: shapes {message}"):
        linear_probe(
            np.zeros(features), np.zeros(labels, int), groups=np.zeros(groups)
        )


def test_features_that_are_not_finite_are_refused():
    features, labels = clusters([10, 10])
    features[[4, 7], 1] = np.nan
    with pytest.raises(ValueError, match=r"Received: .*2 such .* 4"):
        linear_probe(features, labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([5] * 9, "1 classes, 1 of them"),
        ([-1] * 5 + [6] * 4, "1 classes, 1 of them"),
        ([5] * 7 + [6] * 2, "2 classes, 1 of them"),
    ],
)
def test_a_single_class_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        linear_probe(np.zeros((9, 2)), np.array(labels))


def test_groups_that_cannot_be_split_are_refused():
    # The Fano plane: each point lies on three lines, any two lines meet, so
    # that no choice of lines holds each point exactly once.
    lines = [(0, 1, 2), (0, 3, 4), (0, 5, 6), (1, 3, 5), (1, 4, 6), (2, 3, 6),
             (2, 4, 5)]  # fmt: skip
    with pytest.raises(
        ValueError, match="7 groups of 7 classes, the rarest in 3"
    ):
        linear_probe(
            np.zeros((21, 1)),
            np.array(lines).ravel(),
            groups=np.repeat(np.arange(7), 3),
        )


# Posterior means --------------------------------------------------------------


@pytest.mark.parametrize("num_shots", [1, 3])
def test_posterior_means_are_those_of_their_supports(num_shots):
    world = GaussianWorld(2, 1, width=1.5, shift=0.2)
    data = uniform_data((100,) * 8)  # more than are encoded at once
    means, indices = posterior_means(
        world.model, data, latent="character", num_shots=num_shots
    )
    assert means.dtype == np.float32
    assert indices.shape == (8 * (100 // num_shots), num_shots)
    assert means.shape == (len(indices), 2)
    expected = [world.posterior(data.images[i])[0] for i in indices]
    np.testing.assert_allclose(means, expected, rtol=1e-4, atol=1e-5)


def test_supports_are_of_one_group_and_share_no_image():
    data = uniform_data((7, 5, 12))
    _, indices = posterior_means(
        GaussianWorld().model, data, latent="character", num_shots=2
    )
    assert len(np.unique(indices)) == indices.size
    labels = data.labels["character"][indices]
    np.testing.assert_array_equal(labels[:, 0], labels[:, 1])
    assert np.bincount(labels[:, 0]).tolist() == [3, 2, 6]


def test_no_more_images_are_encoded_than_asked_for():
    data = uniform_data((7, 5, 12, 1))
    _, indices = posterior_means(
        GaussianWorld().model,
        data,
        latent="character",
        num_shots=2,
        max_images=15,
    )
    labels = data.labels["character"][indices[:, 0]]
    counts = np.bincount(labels, minlength=4)
    assert counts[:3].min() == 2
    assert counts.tolist()[3] == 0
    assert counts.sum() == 7


def test_images_of_no_known_group_are_left_out():
    data = uniform_data((4,) * 5)
    missing = [2, 3, 9, 16, 17, 18, 19]
    data.labels["character"][missing] = -1
    _, indices = posterior_means(
        GaussianWorld().model, data, latent="character"
    )
    assert sorted(indices[:, 0]) == sorted(set(range(20)) - set(missing))


def test_supports_follow_the_seed():
    model, data = GaussianWorld().model, uniform_data()

    def supports(seed):
        _, indices = posterior_means(
            model, data, latent="character", num_shots=3, seed=seed
        )
        return indices.tolist()

    def regardless_of_order(supports):
        return {frozenset(support) for support in supports}

    one, other = supports(1), supports(2)
    assert supports(1) == one
    assert regardless_of_order(one) != regardless_of_order(other)


def test_templates_are_flattened():
    model = tiny_pixel_cnn_vhe()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (6, 8, 8, 1)).astype(np.float32)
    data = GroupedImages(images, {"character": np.array([4, 4, 4, 9, 9, 9])})
    means, indices = posterior_means(
        model, data, latent="character", num_shots=3
    )
    posterior = model.encode(images[indices])["character"]
    assert means.shape == (2, 8 * 8 * 3)
    np.testing.assert_allclose(
        means, posterior.mean().numpy().reshape(2, -1), atol=1e-6
    )


def test_a_latent_predicts_what_it_is_of_and_nothing_else():
    data = uniform_data((50,) * 8)
    drawer = np.arange(400) % 5
    means, indices = posterior_means(
        GaussianWorld().model, data, latent="character"
    )
    of = indices[:, 0]
    right = linear_probe(means, data.labels["character"][of])
    wrong = linear_probe(means, drawer[of])
    assert right.mean > 2 * right.chance
    error = np.sqrt(0.2 * 0.8 / wrong.num_values)
    assert wrong.mean < wrong.chance + NUM_ERRORS * error
    assert NUM_ERRORS * error < 0.2


def test_supports_that_cannot_be_drawn_are_refused():
    model, data = GaussianWorld().model, uniform_data((4, 6))
    with pytest.raises(ValueError, match=r"\['character'\].*latent='style'"):
        posterior_means(model, data, latent="style")
    with pytest.raises(ValueError, match="num_shots=0"):
        posterior_means(model, data, latent="character", num_shots=0)
    with pytest.raises(ValueError, match=r"num_shots=7.*at most 6 images"):
        posterior_means(model, data, latent="character", num_shots=7)
    with pytest.raises(ValueError, match="num_shots=3, max_images=2"):
        posterior_means(
            model, data, latent="character", num_shots=3, max_images=2
        )
    stored = GroupedImages(
        np.zeros((4, 2, 2, 1), np.uint8), {"a": np.arange(4)}
    )
    with pytest.raises(ValueError, match="dtype uint8"):
        posterior_means(model, stored, latent="a")


def test_a_latent_that_the_model_does_not_have_is_refused():
    data = uniform_data((4, 6), alphabet=[3, 4])
    with pytest.raises(ValueError, match=r"\['character'\].*'alphabet'"):
        posterior_means(GaussianWorld().model, data, latent="alphabet")
