import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.data.conftest import AS_STORED
from tests.data.conftest import assert_uniform
from tests.data.conftest import compiled
from tests.data.conftest import crossed
from tests.data.conftest import elements_by_pixels
from tests.data.conftest import identified
from tests.data.conftest import numbered
from tests.data.conftest import numbers
from tests.data.conftest import repeated
from tests.data.conftest import sampler_of
from tests.data.conftest import subsets
from vhe_tf.data import MISSING
from vhe_tf.data import Augmentation


def brute_force_size(labels, element, elements):
    """Counts the elements of the group of `element`, one by one."""
    image, turned, _ = element
    return sum(
        labels[other] == labels[image] and other_turned == turned
        for other, other_turned, _ in elements
        if labels[image] != MISSING
    )


def assert_support_fits(support, element, labels):
    image, turned, _ = element
    if labels[image] == MISSING:
        assert set(support) == {element}
        return
    assert len(set(support)) == len(support)
    assert {labels[member] for member, _, _ in support} == {labels[image]}
    assert {each for _, each, _ in support} == {turned}


@pytest.mark.parametrize(
    ("options", "augmentation", "missing"),
    [
        ({"resamples": True}, Augmentation(4, 2, "none"), 0.0),
        ({"resamples": True}, AS_STORED, 0.3),
        ({"resamples": False}, AS_STORED, 0.0),
        ({"resamples": False}, Augmentation(4, 2, "none"), 0.3),
        (
            {"resamples": True, "support_size": (1, 3)},
            Augmentation(4, 2, "none"),
            0.3,
        ),
    ],
)
def test_crossed_and_missing_labels_against_brute_force(
    options, augmentation, missing
):
    data = crossed(missing)
    elements = elements_by_pixels(data, augmentation, seed=0)
    assert len(elements) == len(data) * augmentation.multiplicity
    sampler = sampler_of(
        data,
        **({"support_size": 2} | options),
        batch_size=len(elements) // 4,
        augmentation=augmentation,
    )
    episode = compiled(sampler)
    for step in range(sampler.steps_per_epoch):
        each = episode(step)
        queries = identified(each["query"], elements)
        for name, labels in data.labels.items():
            assert list(each["group_size"][name]) == [
                brute_force_size(labels, query, elements.values())
                for query in queries
            ]
            for query, images in zip(
                queries, each["support"][name], strict=True
            ):
                support = identified(images, elements)
                assert_support_fits(support, query, labels)
                if not sampler.resamples:
                    assert support[0] == query
            if MISSING in labels:
                assert list(each["has_label"][name]) == [
                    labels[image] != MISSING for image, _, _ in queries
                ]


@pytest.mark.parametrize("resamples", [True, False])
def test_supports_are_uniform_over_the_labelled_members(resamples):
    block = np.array([5, MISSING, 5, 8, 5, MISSING, 8, 5])
    ids = np.where(block == MISSING, MISSING, repeated(block).reshape(-1, 8))
    sampler = sampler_of(
        numbered(style=ids.ravel()), batch_size=16_000, resamples=resamples
    )
    episode = sampler.episode(0)
    query = numbers(episode["query"])
    support = numbers(episode["support"]["style"])
    known = episode["has_label"]["style"].numpy()
    assert np.all(support // 8 == query[:, None] // 8)
    query, support = query % 8, support % 8
    np.testing.assert_array_equal(known, block[query] != MISSING)
    np.testing.assert_array_equal(support[~known], query[~known, None] + [0, 0])
    for group in (5, 8):
        inside = block[query] == group
        members = np.flatnonzero(block == group)
        pairs = zip(query[inside], map(frozenset, support[inside]), strict=True)
        outcomes = itertools.product(members, subsets(members, 2))
        assert_uniform(
            pairs, [(x, d) for x, d in outcomes if resamples or x in d]
        )


def test_the_only_labelled_image_of_a_group_is_known():
    sampler = sampler_of(
        numbered(style=[3, MISSING, 8]),
        batch_size=3,
        support_size=1,
        resamples=False,
    )
    episode = sampler.episode(0)
    labelled = numbers(episode["query"]) != 1
    np.testing.assert_array_equal(episode["has_label"]["style"], labelled)
    np.testing.assert_array_equal(episode["group_size"]["style"], labelled)


def test_known_is_told_of_incomplete_groupings_alone():
    data = numbered(
        alphabet=[4] * 6,
        drawer=[1, MISSING, 1, 1, 1, MISSING],
        style=[MISSING, 0, 0, 0, 0, 0],
    )
    spec = tf.TensorSpec([4], tf.bool)
    assert sampler_of(data).dataset().element_spec["has_label"] == {
        "drawer": spec,
        "style": spec,
    }
    some = sampler_of(data, group_latents=["alphabet", "style"])
    assert set(some.episode(0)["has_label"]) == {"style"}
    complete = sampler_of(data, group_latents=["alphabet"])
    assert set(complete.episode(0)) == {
        "query",
        "support",
        "group_size",
        "seed",
    }


def test_missing_labels_leave_other_groupings_as_they_were():
    complete = crossed(missing=0.0)
    incomplete = crossed(missing=0.3)
    one, other = (
        compiled(sampler_of(data, batch_size=9))(4)
        for data in (complete, incomplete)
    )
    np.testing.assert_array_equal(one["query"], other["query"])
    np.testing.assert_array_equal(one["seed"], other["seed"])
    np.testing.assert_array_equal(
        one["support"]["alphabet"], other["support"]["alphabet"]
    )
    np.testing.assert_array_equal(
        one["group_size"]["alphabet"], other["group_size"]["alphabet"]
    )


def test_images_without_a_label_make_no_group_too_small():
    data = numbered(character=[7, 7, MISSING, 7, 9, 9, 9])
    sampler_of(data, support_size=3)
    with pytest.raises(ValueError, match=re.escape("group 7 with 3 elements")):
        sampler_of(data, support_size=4)
