import itertools

import numpy as np
import tensorflow as tf

from tests.data.conftest import assert_same_episode
from tests.data.conftest import assert_uniform
from tests.data.conftest import compiled
from tests.data.conftest import elements_by_pixels
from tests.data.conftest import identified
from tests.data.conftest import patterned
from tests.data.conftest import sampler_of
from tests.data.conftest import subsets
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data.augmentation import affine_table
from vhe_tf.data.augmentation import transform

# Augmented elements ----------------------------------------------------------

FULL = Augmentation(symmetries=8, affine_copies=3, binarization="none")


def test_symmetries_make_groups_and_affine_copies_make_elements():
    ids = np.array([50, 3, 50, 3])
    data = patterned(ids)
    sampler = Episodes(
        data,
        batch_size=192,
        support_size=4,
        resamples=True,
        augmentation=FULL,
        seed=9,
    )
    elements = elements_by_pixels(data, FULL, seed=9)
    assert len(elements) == sampler.num_elements == 4 * 8 * 3
    seen = set()
    for step in range(5):
        episode = sampler.episode(step)
        queries = identified(episode["query"], elements)
        for (image, index, _), images in zip(
            queries, episode["support"]["character"], strict=True
        ):
            support = identified(images, elements)
            assert len(set(support)) == 4
            assert {ids[member] for member, _, _ in support} == {ids[image]}
            assert {turned for _, turned, _ in support} == {index}
            seen |= set(support)
    # 960 supports of 4 out of 6 elements in 16 groups: one element is missing
    # by chance 96 * (1 - 1 / 24)**960 < 10**-15.
    assert seen == set(elements.values())


def episode_of_copies(**options):
    """Draws an episode from two copies each of two images of one group.

    Returns:
        The episode, and the four elements by their pixels.
    """
    data = patterned([4, 4])
    augmentation = Augmentation(affine_copies=2, binarization="none")
    sampler = Episodes(
        data, resamples=True, augmentation=augmentation, **options
    )
    return sampler.episode(0), elements_by_pixels(data, augmentation, seed=0)


def test_support_is_uniform_over_images_and_copies():
    episode, elements = episode_of_copies(batch_size=2000, support_size=2)
    members = list(elements.values())
    supports = episode["support"]["character"].numpy()
    assert_uniform(
        zip(
            identified(episode["query"], elements),
            (frozenset(identified(each, elements)) for each in supports),
            strict=True,
        ),
        list(itertools.product(members, subsets(members, 2))),
    )


def test_every_augmented_element_is_a_query_once_an_epoch():
    data = patterned([50, 3, 50, 3])
    sampler = Episodes(
        data,
        batch_size=25,
        support_size=1,
        resamples=True,
        augmentation=FULL,
    )
    elements = elements_by_pixels(data, FULL, seed=0)
    episode = compiled(sampler)
    queries = [
        each
        for step in range(12)
        for each in identified(episode(step)["query"], elements)
    ]
    for epoch in range(3):
        assert sorted(queries[96 * epoch : 96 * (epoch + 1)]) == sorted(
            elements.values()
        )


# Affine maps ------------------------------------------------------------------


def test_affine_maps_are_shared_by_many_images(monkeypatch):
    augmentation = Augmentation(affine_copies=3, binarization="none")
    data = patterned([4] * 10)
    options = {"batch_size": 30, "augmentation": augmentation, "seed": 6}
    unbounded = sampler_of(data, **options).episode(0)
    for limit in (30, 1000):
        monkeypatch.setattr("vhe_tf.data.episodes._MAX_MAPS", limit)
        assert_same_episode(sampler_of(data, **options).episode(0), unbounded)
    for limit, num_rows in ((29, 9), (12, 4), (2, 1)):
        monkeypatch.setattr("vhe_tf.data.episodes._MAX_MAPS", limit)
        sampler = sampler_of(data, **options)
        assert sampler._maps.shape == (num_rows, 3, 8)
        table = affine_table(
            num_rows, 3, stored_size=(5, 5), image_size=(5, 5), seed=6
        )
        expected = {
            transform(
                tf.constant(data.images[image : image + 1]),
                table[image % num_rows, copy][None],
                image_size=(5, 5),
            )
            .numpy()
            .tobytes()
            for image, copy in np.ndindex(10, 3)
        }
        drawn = sampler.episode(0)["query"].numpy()
        assert {image.tobytes() for image in drawn} == expected
