import functools
import importlib
import itertools
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from vhe_tf.data import MISSING
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.data.augmentation import affine_table
from vhe_tf.data.augmentation import symmetry
from vhe_tf.data.augmentation import transform

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = SHARED / "tfds"

needs_omniglot = pytest.mark.skipif(
    not (REAL / "omniglot" / "3.0.0").exists(),
    reason="needs Omniglot as prepared by TensorFlow Datasets in "
    "../shared/data/tfds",
)

AS_STORED = Augmentation(binarization="none")

# Groups of 5 and 3 images, not stored in order, with ids that have gaps.
MIXED = np.array([42, 7, 42, 42, 7, 42, 7, 42])


def assert_same_images(one, other):
    assert one.images.dtype == other.images.dtype
    np.testing.assert_array_equal(one.images, other.images)
    assert_same_labels(one, other)


def assert_same_labels(one, other):
    assert list(one.labels) == list(other.labels)
    for name, ids in one.labels.items():
        np.testing.assert_array_equal(ids, other.labels[name])
    assert one.group_names == other.group_names
    assert one.image_shape == other.image_shape
    assert len(one) == len(other)


# Episodes ---------------------------------------------------------------------


def numbered(**labels):
    """Images of one pixel, which holds their index in units of 2**-16."""
    ids = {name: np.asarray(values) for name, values in labels.items()}
    num_images = len(next(iter(ids.values())))
    images = np.arange(num_images, dtype=np.float32) / 2**16
    return GroupedImages(images[:, None, None, None], ids)


def numbers(images):
    """The indices of `numbered` images, of any leading axes."""
    return (2**16 * np.asarray(images)[..., 0, 0, 0]).astype(int)


def repeated(ids, times=500):
    """Many such groups: the ids again and again, each time new ones."""
    return (np.asarray(ids) + 100 * np.arange(times)[:, None]).ravel()


def sampler_of(data, **options):
    defaults = {
        "batch_size": 4,
        "support_size": 2,
        "resamples": True,
        "augmentation": AS_STORED,
    }
    return Episodes(data, **(defaults | options))


def compiled(sampler):
    return tf.function(
        sampler.episode, input_signature=[tf.TensorSpec([], tf.int64)]
    )


def draws(sampler, num_steps, name="character"):
    """Queries `[num_steps * B]` and supports `[num_steps * B, N]`."""
    episode = compiled(sampler)
    episodes = [episode(step) for step in range(num_steps)]
    return (
        np.concatenate([numbers(each["query"]) for each in episodes]),
        np.concatenate([numbers(each["support"][name]) for each in episodes]),
    )


def assert_uniform(drawn, outcomes):
    """Chi-square test that all outcomes are drawn, equally often.

    A fair sampler fails it one time in 10**8. That an epoch holds every query
    equally often only makes the statistic smaller. Outcomes are expected at
    least 50 times, so that the statistic has its limiting distribution.
    """
    import scipy.stats  # not at once: it is slow

    if len(outcomes) == 1:
        assert set(drawn) == set(outcomes)
        return
    place = {outcome: index for index, outcome in enumerate(outcomes)}
    counts = np.bincount([place[each] for each in drawn], minlength=len(place))
    assert counts.sum() >= 50 * len(counts)
    assert scipy.stats.chisquare(counts).pvalue > 1e-8, counts


def subsets(members, size):
    return [frozenset(each) for each in itertools.combinations(members, size)]


def assert_same_episode(one, other):
    tf.nest.assert_same_structure(one, other)
    for left, right in zip(
        tf.nest.flatten(one), tf.nest.flatten(other), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def crossed(missing=0.3, num_images=24):
    """Images in groupings that cross; of two, some labels are missing."""
    generator = np.random.default_rng(3)
    labels = {
        "alphabet": 30 + np.arange(num_images) % 2,
        "drawer": 7 * (np.arange(num_images) // 2 % 3),
        "style": 5 + np.arange(num_images) // 6 % 2,
    }
    for name in ("drawer", "style"):
        gone = generator.random(num_images) < missing
        labels[name] = np.where(gone, MISSING, labels[name])
    images = generator.random((num_images, 5, 5, 1), np.float32)
    return GroupedImages(images, labels)


# Augmented images -------------------------------------------------------------


def patterned(ids):
    generator = np.random.default_rng(0)
    images = generator.random((len(ids), 5, 5, 1), np.float32)
    return GroupedImages(images, {"character": np.asarray(ids)})


def elements_by_pixels(data, augmentation, seed):
    """Maps the pixels of every element to (image, symmetry, copy)."""
    size = data.image_shape[:2]
    table = affine_table(
        len(data),
        augmentation.affine_copies,
        stored_size=size,
        image_size=size,
        seed=seed,
    )
    elements = {}
    for image, index, copy in np.ndindex(
        len(data), augmentation.symmetries, augmentation.affine_copies
    ):
        moved = transform(
            tf.constant(data.images[image : image + 1]),
            table[image, copy][None],
            image_size=size,
        )
        turned = symmetry(moved, tf.constant([index])).numpy()
        elements[turned.tobytes()] = (image, index, copy)
    return elements


def identified(images, elements):
    return [elements[image.tobytes()] for image in np.asarray(images)]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def sampler_of_one_group(images, *, batch_size=None, seed=0, **augmentation):
    """A sampler whose first step draws every element of one group once."""
    copies = Augmentation(**augmentation)
    return Episodes(
        GroupedImages(images, {"character": np.full(len(images), 6)}),
        batch_size=batch_size or len(images) * copies.multiplicity,
        support_size=1,
        resamples=True,
        augmentation=copies,
        seed=seed,
    )


def queries(sampler, step=0):
    return sampler.episode(step)["query"].numpy()


def as_set(images):
    return {image.tobytes() for image in images}


# Sources ----------------------------------------------------------------------


@pytest.fixture
def few_glyphs(monkeypatch):
    """Embedded handwriting of 10 alphabets with 2 characters by 3 people."""
    module = importlib.import_module("vhe_tf.data.datasets.glyphs.spec")
    small = functools.partial(
        module.generate_glyphs,
        num_alphabets=10,
        characters_per_alphabet=2,
        num_drawers=3,
    )
    monkeypatch.setattr(module, "generate_glyphs", small)


def data_of(images, **labels):
    labels = labels or {"character": np.arange(len(images))}
    return GroupedImages(np.asarray(images), labels)
