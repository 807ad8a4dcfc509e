import dataclasses

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.spatial
import scipy.stats
import tensorflow as tf

from tests.conftest import tiny_vhe
from vhe_tf.data import GroupedImages
from vhe_tf.evaluation import DrawingCritic
from vhe_tf.evaluation import DrawingCritics
from vhe_tf.evaluation import Drawings
from vhe_tf.evaluation import drawing_classes
from vhe_tf.evaluation import drawings
from vhe_tf.evaluation.drawing_critics import binarized

RNG = np.random.default_rng(0)


def _features(*shape):
    return np.random.default_rng(1).normal(size=shape)


def _data(num_classes=4, num_images=9, size=8):
    """Drawings with classes: random images, each class around one of them."""
    rng = np.random.default_rng(2)
    centres = rng.integers(0, 2, (num_classes, 1, size, size, 1))
    flips = rng.random((num_classes, num_images, size, size, 1)) < 0.1
    images = np.abs(centres - flips).astype(np.float32)
    return GroupedImages(
        images.reshape(-1, size, size, 1),
        {
            "character": np.repeat(np.arange(num_classes), num_images),
            "alphabet": np.repeat(np.arange(num_classes) // 2, num_images),
        },
    )


def _critic(*, image_size=8, filters=3, features=6, seed=0):
    rng = np.random.default_rng(seed)
    weights = {"image_size": np.int32(image_size)}
    channels = 1
    for k in range(2):
        name = f"embedding.{k}"
        weights[f"{name}.0.weight"] = rng.normal(size=(filters, channels, 3, 3))
        for part in ("0.bias", "1.weight", "1.bias", "1.running_mean"):
            weights[f"{name}.{part}"] = rng.normal(size=filters)
        weights[f"{name}.1.running_var"] = rng.uniform(0.5, 2.0, filters)
        channels = filters
    size = filters * (image_size // 4) ** 2
    weights["embedding.4.weight"] = rng.normal(size=(features, size))
    weights["embedding.4.bias"] = rng.normal(size=features)
    weights["metric_layer.weight"] = rng.normal(size=(4, features))
    weights["metric_layer.bias"] = rng.normal(size=4)
    return weights


@pytest.fixture(scope="module")
def critics():
    return DrawingCritics(
        DrawingCritic(_critic()), DrawingCritic(_critic(seed=1))
    )


# Critics ----------------------------------------------------------------------


def test_a_critic_equals_a_naive_computation():
    weights = _critic()
    images = np.random.default_rng(3).integers(0, 2, (2, 8, 8, 1))
    features = images.transpose(0, 3, 1, 2).astype(np.float64)
    for k in range(2):
        kernel = weights[f"embedding.{k}.0.weight"]
        features = np.stack(
            [
                [
                    sum(
                        scipy.ndimage.correlate(channel, taps, mode="constant")
                        for channel, taps in zip(image, of_filter, strict=True)
                    )
                    for of_filter in kernel
                ]
                for image in features
            ]
        )

        def of(name, k=k):
            return weights[f"embedding.{k}.{name}"][:, None, None]

        features += of("0.bias")
        features = (features - of("1.running_mean")) / np.sqrt(
            of("1.running_var") + 1e-5
        ) * of("1.weight") + of("1.bias")
        features = np.maximum(features, 0.0)
        rows = features.reshape(
            *features.shape[:2], features.shape[2] // 2, 2, -1
        )
        rows = rows.max(axis=3)
        features = rows.reshape(*rows.shape[:3], -1, 2).max(axis=4)
    flat = np.maximum(features.reshape(2, -1), 0.0)
    for name in ("embedding.4", "metric_layer"):
        flat = flat @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    critic = DrawingCritic(weights)
    np.testing.assert_allclose(
        critic(images.astype(np.float32)), flat, rtol=1e-4, atol=1e-4
    )


def test_a_critic_judges_no_drawing_that_is_not_finite():
    images = np.zeros([2, 8, 8, 1], np.float32)
    images[1, 3, 3] = np.nan
    with pytest.raises(ValueError, match="1 of 128 values are NaN"):
        DrawingCritic(_critic())(images)


def test_a_critic_without_some_arrays_is_rejected():
    weights = _critic()
    for missing in ("embedding.1.1.bias", "embedding.4.bias"):
        with pytest.raises(ValueError, match="Received: "):
            DrawingCritic({k: v for k, v in weights.items() if k != missing})


def test_a_folder_without_critics_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="without proto_net"):
        DrawingCritics.load(tmp_path)


def test_critics_are_those_of_the_folder(tmp_path, critics):
    np.savez(tmp_path / "proto_net.npz", **_critic())
    np.savez(tmp_path / "simclr.npz", **_critic(seed=1))
    loaded = DrawingCritics.load(tmp_path)
    images = _data().images
    for name in ("recognition", "variation"):
        np.testing.assert_array_equal(
            getattr(loaded, name)(images), getattr(critics, name)(images)
        )


def test_each_drawing_is_thresholded_at_half_of_its_own_range():
    faint = np.zeros([1, 4, 4, 1], np.float32)
    faint[0, 1] = 0.2
    faint[0, 2] = 0.1
    expected = np.zeros([1, 4, 4, 1])
    expected[0, 1:3] = 1.0
    np.testing.assert_array_equal(binarized(faint, 4), expected)
    assert not binarized(np.full([1, 4, 4, 1], 0.7, np.float32), 4).any()


# Measures ---------------------------------------------------------------------


def test_recognizability_is_the_expectation_over_random_tasks():
    exemplars = _features(12, 3)
    features = exemplars[:, None] + 0.7 * _features(12, 5, 3)
    exact = drawings.recognizability(features, exemplars, ways=4)
    rng = np.random.default_rng(5)
    won = np.zeros([12, 5])
    for _ in range(2000):
        for k in range(12):
            others = rng.permutation(np.delete(np.arange(12), k))[:3]
            classes = [k, *others]
            distance = scipy.spatial.distance.cdist(
                features[k], exemplars[classes]
            )
            won[k] += distance.argmin(axis=1) == 0
    assert 0.2 < exact.mean() < 0.9
    np.testing.assert_allclose(exact, won / 2000, atol=0.06)


def test_with_few_characters_all_are_told_apart():
    exemplars = _features(3, 2)
    features = exemplars[:, None] + _features(3, 4, 2)
    exact = drawings.recognizability(features, exemplars)
    nearest = [
        scipy.spatial.distance.cdist(features[k], exemplars).argmin(axis=1) == k
        for k in range(3)
    ]
    np.testing.assert_array_equal(exact, nearest)


def test_diversity_is_relative_to_the_spread_of_all_drawings():
    features = _features(3, 4, 2) * np.array([1.0, 100.0])
    expected = [
        np.mean(
            [
                np.std(features[k, :, f], ddof=1) / np.std(features[..., f])
                for f in range(2)
            ]
        )
        for k in range(3)
    ]
    np.testing.assert_allclose(drawings.diversity(features), expected)


def test_the_originality_curve_goes_from_near_to_far():
    variation = np.arange(10.0)[::-1].reshape(1, 10, 1)
    recognized = np.linspace(1.0, 0.1, 10)[::-1].reshape(1, 10)
    np.testing.assert_allclose(
        drawings.originality(
            variation, np.zeros([1, 1]), recognized=recognized
        ),
        [[0.95, 0.75, 0.55, 0.35, 0.15]],
    )


def test_precision_and_recall_tell_copies_from_inventions():
    true = _features(40, 3)
    precise, recalled = drawings.precision_and_recall(true, true[:5])
    assert precise.all()
    assert recalled.mean() < 1.0
    precise, recalled = drawings.precision_and_recall(true, true + 100.0)
    assert not precise.any()
    assert not recalled.any()


def test_the_frechet_distance_equals_scipy():
    true = _features(50, 4)
    made = 2.0 * _features(60, 4)[:, ::-1] @ _features(4, 4) + 1.0
    a, b = np.cov(true, rowvar=False), np.cov(made, rowvar=False)
    expected = np.square(true.mean(axis=0) - made.mean(axis=0)).sum()
    expected += np.trace(a + b - 2.0 * scipy.linalg.sqrtm(a @ b).real)
    np.testing.assert_allclose(
        drawings.frechet_distance(true, made), expected, rtol=1e-6
    )


def test_connected_figures_equal_scipy():
    images = np.random.default_rng(6).random((200, 5, 5, 1)) < 0.35
    images[0] = False
    structure = np.ones([3, 3])
    expected = [
        scipy.ndimage.label(image[..., 0], structure)[1] == 1
        for image in images
    ]
    assert 0 < sum(expected) < 200
    np.testing.assert_array_equal(
        drawings.are_connected(images.astype(np.float32)), expected
    )


# The evaluator ----------------------------------------------------------------


class Copyist:
    """A model that repeats the first support image; new ones are blank."""

    def sample(self, support, *, seed, best_of=1, **options):
        del seed, best_of
        self.options = options
        return support["character"][:, 0]

    def sample_prior(self, batch_size, *, seed, **options):
        del seed
        assert options == self.options
        return tf.zeros([batch_size, 8, 8, 1])


def test_a_copyist_is_recognized_without_diversity(critics):
    model = Copyist()
    evaluator = Drawings(
        _data(),
        group="character",
        shots=(1, 5),
        num_drawings=5,
        num_unconditional=7,
        critics=critics,
        options={"guidance": 0.3, "temperature": 0.5, "best_of": 2},
    )
    found = {each.key: each for each in evaluator(model)}
    assert model.options == {"guidance": 0.3, "temperature": 0.5}
    recognized = found["drawings.1shot.recognizability"]
    assert recognized.mean == 1.0
    # Of 5 drawings of each of 4 characters.
    wilson = scipy.stats.binomtest(20, 20).proportion_ci(method="wilson")
    assert recognized.interval == pytest.approx(wilson)
    assert found["drawings.1shot.diversity"].mean < 1e-6
    assert found["drawings.1shot.precision"].mean == 1.0
    assert found["drawings.people.diversity"].mean > 0.1
    assert found["drawings.unconditional.blank"].mean == 1.0
    assert found["drawings.unconditional.connected"].mean == 0.0
    assert found["drawings.people.ink"].num_values == 4
    assert not evaluator.left_out(model)


def test_the_support_image_is_the_drawing_nearest_to_the_mean(critics):
    data = _data()
    evaluator = Drawings(data, group="character", critics=critics)
    features = critics.recognition(data.images).reshape(4, 9, -1)
    for k in range(4):
        distance = np.linalg.norm(features[k] - features[k].mean(0), axis=-1)
        np.testing.assert_array_equal(
            evaluator._true[k],
            data.images[9 * k : 9 * k + 9][distance.argsort()],
        )


def test_drawings_of_a_model_do_not_depend_on_the_pieces(critics, monkeypatch):
    evaluator = Drawings(
        _data(2), group="character", num_drawings=5, critics=critics
    )
    model = tiny_vhe()
    together = evaluator(model)
    monkeypatch.setattr(drawings, "_SAMPLED_AT_ONCE", 4)
    assert evaluator(model) == together


def test_no_more_is_sampled_at_once_with_best_of(critics, monkeypatch):
    rows = []

    class Recorder(Copyist):
        def sample(self, support, *, seed, best_of):
            rows.append(len(seed) * best_of)
            return super().sample(support, seed=seed)

    monkeypatch.setattr(drawings, "_SAMPLED_AT_ONCE", 12)
    evaluator = Drawings(
        _data(2),
        group="character",
        num_drawings=5,
        critics=critics,
        options={"best_of": 4},
    )
    evaluator(Recorder())
    assert max(rows) == 12
    assert sum(rows) == 4 * 2 * 5


def test_too_few_images_or_drawings_are_rejected(critics):
    with pytest.raises(ValueError, match="a class of 5 images"):
        Drawings(_data(num_images=5), group="character", critics=critics)
    with pytest.raises(ValueError, match="Received: num_drawings=4"):
        Drawings(_data(), group="character", num_drawings=4, critics=critics)


def test_what_a_class_is_too_small_for_is_left_out(critics):
    evaluator = Drawings(
        _data(num_images=6),
        group="character",
        shots=(1, 6),
        num_drawings=5,
        critics=critics,
    )
    assert "6 images" in " ".join(evaluator.left_out(Copyist()))
    by_whom = {each.tasks for each in evaluator(Copyist())}
    assert by_whom == {"people", "1shot"}


def test_the_classes_are_the_first_three_of_each_alphabet():
    data = _data(num_classes=10, num_images=2)
    alphabets = np.array([0] * 5 + [1] * 2 + [2] * 3).repeat(2)
    data = dataclasses.replace(
        data, labels={**data.labels, "alphabet": alphabets}
    )
    chosen = drawing_classes(data, group="character", within="alphabet")
    assert chosen.group_ids("character").tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert drawing_classes(data, group="character") is data
