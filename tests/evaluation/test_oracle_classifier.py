import re

import keras
import numpy as np
import pytest

from vhe_tf.evaluation import oracle_classifier
from vhe_tf.evaluation.oracle_classifier import train_oracle_classifier

SIZE = 12

INKS = np.array(
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.7, 0.7, 0.0]]
)


def drawings(shapes, count, *, seed=0, reach=2):
    """Draws shapes in inks, both at random, away from the middle.

    Args:
        shapes: `[K, 8, 8]` bool.
        count: How many images.
        seed: Decides everything else.
        reach: How far they may be from the middle, at most 2.

    Returns:
        `[count, 12, 12, 3]` float32, the shapes and the inks.
    """
    rng = np.random.default_rng(seed)
    shape = rng.integers(len(shapes), size=count)
    ink = rng.integers(len(INKS), size=count)
    images = np.zeros((count, SIZE, SIZE, 3), np.float32)
    for index, (y, x) in enumerate(rng.integers(-reach, reach + 1, (count, 2))):
        images[index, 2 + y : 10 + y, 2 + x : 10 + x] = (
            shapes[shape[index]][..., np.newaxis] * INKS[ink[index]]
        )
    return images, shape, ink


def scribbles(count, seed=0):
    """Makes shapes of 4x4 squares, `[count, 8, 8]`."""
    coarse = np.random.default_rng(seed).random((count, 4, 4)) < 0.5
    return np.repeat(np.repeat(coarse, 2, axis=1), 2, axis=2)


BARS = np.zeros((4, 8, 8), bool)
BARS[0, 3:5] = True
BARS[1, :, 3:5] = True
BARS[2] = np.eye(8) > 0
BARS[3] = np.eye(8)[::-1] > 0


@pytest.fixture(scope="module")
def oracle_of_bars():
    """A oracle of orientations, of the ids 10 to 40."""
    images, shape, _ = drawings(BARS, 1000)
    return train_oracle_classifier(images, 10 * (shape + 1), epochs=5)


# What it classifies ------------------------------------------------


def test_a_oracle_of_shapes_does_not_mind_inks(oracle_of_bars):
    images, shape, ink = drawings(BARS, 400, seed=1)
    right = oracle_of_bars.classify(images) == 10 * (shape + 1)
    assert right.mean() > 0.97
    assert min(right[ink == i].mean() for i in range(4)) > 0.95


def test_a_oracle_of_inks_does_not_mind_shapes():
    images, _, ink = drawings(BARS, 1000)
    oracle = train_oracle_classifier(images, ink, epochs=5)
    images, _, ink = drawings(scribbles(50), 400, seed=1)
    assert np.mean(oracle.classify(images) == ink) > 0.97


def test_shapes_of_no_training_are_told_apart_by_exemplars():
    images, shape, _ = drawings(scribbles(60), 2000, reach=1)
    oracle = train_oracle_classifier(images, shape, epochs=12)
    unseen = scribbles(10, seed=1)
    images, shape, _ = drawings(unseen, 300, seed=1, reach=1)
    others, of, _ = drawings(unseen, 300, seed=2, reach=1)
    exemplars = np.stack([others[of == i][:5] for i in range(10)])
    assert np.mean(oracle.nearest(images, exemplars) == shape) > 0.9
    # As the classes are given in another order, so are the answers.
    assert np.mean(oracle.nearest(images, exemplars[::-1]) == 9 - shape) > 0.9


# Embeddings -------------------------------------------------------------------


def test_embeddings_are_of_unit_length(oracle_of_bars):
    images, *_ = drawings(BARS, 300, seed=1)
    embeddings = oracle_of_bars.embed(images)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (300, 64)
    np.testing.assert_allclose(
        np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5
    )


def test_an_image_is_classified_by_itself(oracle_of_bars):
    images, *_ = drawings(BARS, 300, seed=1)  # more than at once
    embeddings = oracle_of_bars.embed(images)
    for index in (0, 255, 256, 299):
        [alone] = oracle_of_bars.embed(images[index : index + 1])
        np.testing.assert_allclose(alone, embeddings[index], atol=1e-5)


def test_the_nearest_class_has_the_nearest_mean_embedding(oracle_of_bars):
    rng = np.random.default_rng(0)
    images = rng.random((40, SIZE, SIZE, 3), np.float32)
    exemplars = rng.random((5, 3, SIZE, SIZE, 3), np.float32)
    means = np.stack([oracle_of_bars.embed(e).mean(axis=0) for e in exemplars])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    away = oracle_of_bars.embed(images)[:, np.newaxis] - means
    distances = np.linalg.norm(away, axis=2)
    answers = oracle_of_bars.nearest(images, exemplars)
    assert len(set(answers)) > 1
    # Embeddings of other batches differ by rounding, which may break a tie.
    np.testing.assert_allclose(
        distances[np.arange(len(images)), answers],
        distances.min(axis=1),
        atol=1e-5,
    )


def test_the_size_of_the_embedding_is_as_asked_for():
    images, shape, _ = drawings(BARS, 20)
    oracle = train_oracle_classifier(images, shape, epochs=1, embedding=5)
    assert oracle.embed(images).shape == (20, 5)


# Training ---------------------------------------------------------------------


def small_oracle(**kwargs):
    images, shape, _ = drawings(BARS, 100)
    return train_oracle_classifier(images, shape, **{"epochs": 2, **kwargs})


def test_equal_seeds_give_equal_oracles_whatever_the_global_seed():
    images, *_ = drawings(BARS, 50, seed=1)
    keras.utils.set_random_seed(1)
    one = small_oracle(seed=3).embed(images)
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(small_oracle(seed=3).embed(images), one)
    assert np.abs(small_oracle(seed=4).embed(images) - one).max() > 0.1


def test_training_leaves_the_global_seed_alone():
    keras.utils.set_random_seed(1)
    expected = keras.random.uniform([3]), np.random.random(3)  # noqa: NPY002
    keras.utils.set_random_seed(1)
    small_oracle()
    np.testing.assert_array_equal(keras.random.uniform([3]), expected[0])
    np.testing.assert_array_equal(np.random.random(3), expected[1])  # noqa: NPY002


def test_images_without_a_label_are_left_out():
    images, shape, _ = drawings(BARS, 100)
    known = np.arange(100) % 4 > 0
    oracle = train_oracle_classifier(images[known], shape[known], epochs=2)
    spoiled = np.where(known[:, None, None, None], images, np.float32(0.5))
    some = train_oracle_classifier(
        spoiled, np.where(known, shape, -1), epochs=2
    )
    np.testing.assert_array_equal(some.class_ids, [0, 1, 2, 3])
    np.testing.assert_array_equal(some.embed(images), oracle.embed(images))


def test_shifted_images_keep_their_edges():
    rng = np.random.default_rng(0)
    images = rng.random((3, 5, 6, 2), np.float32)
    shifts = np.array([[0, 0], [2, -1], [-3, 2]])
    shifted = oracle_classifier._shifted(images, shifts).numpy()
    padded = np.pad(images, [(0, 0), (3, 3), (3, 3), (0, 0)], mode="edge")
    for image, wide, (y, x) in zip(shifted, padded, shifts, strict=True):
        np.testing.assert_array_equal(image, wide[3 - y : 8 - y, 3 - x : 9 - x])


def test_shifts_in_training_teach_not_to_mind_them():
    images, shape, _ = drawings(BARS, 300, reach=0)
    moved, of, _ = drawings(BARS, 300, seed=1)
    minding, not_minding = (
        train_oracle_classifier(images, shape, epochs=15, augment=augment)
        for augment in (0, 2)
    )
    assert np.mean(minding.classify(moved) == of) < 0.8
    assert np.mean(not_minding.classify(moved) == of) > 0.95


def test_each_epoch_shows_every_image_once(monkeypatch):
    seen = []
    batches = oracle_classifier._batches

    def spy(images, classes, order, shifts, batch_size):
        seen.append((order, shifts, batch_size))
        return batches(images, classes, order, shifts, batch_size)

    monkeypatch.setattr(oracle_classifier, "_batches", spy)
    small_oracle(epochs=3, batch_size=50, augment=1)
    [(order, shifts, batch_size)] = seen
    assert batch_size == 50
    assert order.shape == (300,)
    for epoch in order.reshape(3, 100):
        assert sorted(epoch) == list(range(100))
    assert np.any(order[:100] != order[100:200])
    assert {*shifts.ravel().tolist()} == {-1, 0, 1}


def test_a_oracle_says_how_far_it_is():
    lines = []
    small_oracle(epochs=3, progress=lines.append)
    assert len(lines) == 3
    assert re.search(r"epoch 2 of 3, .*[\d.]+% of", lines[1])


# Errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 12, 12), np.float32), r"float32 of shape \[4, 12, 12\]"),
        (
            np.zeros((4, 12, 12, 3), np.uint8),
            r"uint8 of shape \[4, 12, 12, 3\]",
        ),
        (np.zeros((0, 12, 12, 3), np.float32), r"shape \[0, 12, 12, 3\]"),
        (np.full((2, 12, 12, 3), np.nan, np.float32), "864 of 864 .* NaN"),
    ],
)
def test_images_that_are_not_ready_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        train_oracle_classifier(images, np.arange(len(images)))


def test_images_of_another_shape_are_refused(oracle_of_bars):
    images = np.zeros((4, SIZE, SIZE, 3), np.float32)
    with pytest.raises(ValueError, match=r"\[M, 12, 12, 3\].*\[4, 12, 12, 1\]"):
        oracle_of_bars.classify(images[..., :1])
    with pytest.raises(
        ValueError, match=r"`exemplars`.*\[K, N, 12, 12, 3\].*\[4, 12, 12, 3\]"
    ):
        oracle_of_bars.nearest(images, images)


def test_images_that_are_not_finite_have_no_class(oracle_of_bars):
    images = np.zeros((4, SIZE, SIZE, 3), np.float32)
    wrong = images.copy()
    wrong[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="`images` must be finite"):
        oracle_of_bars.classify(wrong)
    with pytest.raises(ValueError, match="`images` must be finite"):
        oracle_of_bars.nearest(wrong, images[:, np.newaxis])
    with pytest.raises(ValueError, match="`exemplars` must be finite"):
        oracle_of_bars.nearest(images, wrong[:, np.newaxis])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(3), r"4 images and labels, int64, of shape \[3\]"),
        (np.arange(4.0), "4 images and labels, float64"),
        (np.array([7, 7, -1, 7]), r"labels of \[7\] alone"),
    ],
)
def test_labels_that_tell_nothing_apart_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        train_oracle_classifier(
            np.zeros((4, SIZE, SIZE, 3), np.float32), labels
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("embedding", 0), ("augment", -1)],
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Received: {name}={value}"):
        small_oracle(**{name: value})
