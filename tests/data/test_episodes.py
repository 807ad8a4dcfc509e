import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.data.conftest import MIXED
from tests.data.conftest import assert_uniform
from tests.data.conftest import compiled
from tests.data.conftest import draws
from tests.data.conftest import numbered
from tests.data.conftest import numbers
from tests.data.conftest import repeated
from tests.data.conftest import sampler_of
from tests.data.conftest import subsets
from vhe_tf import random
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.data.sampling import sample_without_replacement

# Sampling without replacement ------------------------------------------------


def row_seeds(count):
    return random.fold_in(7, tf.range(count))


def test_draws_are_uniform_over_ordered_subsets():
    num_rows = 30_000
    drawn = sample_without_replacement(
        tf.fill([num_rows], tf.constant(5, tf.int64)),
        3,
        seeds=row_seeds(num_rows),
    )
    # Hence any first few columns are a uniform draw too.
    assert_uniform(
        map(tuple, drawn.numpy()), list(itertools.permutations(range(5), 3))
    )


def test_a_draw_of_the_whole_population_is_a_uniform_order():
    drawn = sample_without_replacement(
        tf.fill([12_000], tf.constant(4, tf.int64)),
        4,
        seeds=row_seeds(12_000),
    )
    assert_uniform(
        map(tuple, drawn.numpy()), list(itertools.permutations(range(4)))
    )


def test_each_row_draws_from_its_own_population():
    sizes = [3, 6, 4, 10**12]
    population = np.repeat(sizes, 5000)
    drawn = sample_without_replacement(
        tf.constant(population), 3, seeds=row_seeds(20_000)
    ).numpy()
    assert drawn.min() >= 0
    assert np.all(drawn < population[:, None])
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    for size in sizes[:3]:
        assert_uniform(
            map(frozenset, drawn[population == size]), subsets(range(size), 3)
        )
    # Large numbers reach everywhere: the fraction below a tenth is off by 6
    # standard errors one time in 10**8.
    low = np.mean(drawn[population == 10**12] < 10**11)
    assert abs(low - 0.1) < 6 * np.sqrt(0.1 * 0.9 / 15_000)


def test_rows_are_drawn_independently():
    drawn = sample_without_replacement(
        tf.fill([20_000], tf.constant(4, tf.int64)),
        2,
        seeds=row_seeds(20_000),
    ).numpy()
    pairs = zip(drawn[::2, 0], drawn[1::2, 0], strict=True)
    assert_uniform(pairs, list(itertools.product(range(4), repeat=2)))


def test_no_draws_give_no_columns():
    population = tf.constant([3, 1], tf.int64)
    drawn = sample_without_replacement(population, 0, seeds=row_seeds(2))
    assert drawn.shape == (2, 0)
    assert drawn.dtype == tf.int64


# The support set -------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"resamples": True},
        {"resamples": False},
    ],
)
def test_support_holds_distinct_elements_of_the_group_of_x(options):
    sampler = sampler_of(
        numbered(character=MIXED),
        **({"support_size": 3, "batch_size": 100} | options),
    )
    query, support = draws(sampler, 4)
    np.testing.assert_array_equal(
        MIXED[support], np.broadcast_to(MIXED[query, None], support.shape)
    )
    assert np.all(np.diff(np.sort(support, axis=1), axis=1) > 0)


def draws_by_group(**options):
    """Yields the members of each group of `MIXED`, and samples of (x, D).

    Queries and supports come from many groups like it; their members are
    identified by their places in the group.
    """
    sampler = sampler_of(
        numbered(character=repeated(MIXED)), batch_size=16_000, **options
    )
    query, support = draws(sampler, 1)
    block = len(MIXED)
    assert np.all(support // block == query[:, None] // block)
    query, support = query % block, support % block
    for group in np.unique(MIXED):
        inside = MIXED[query] == group
        pairs = zip(query[inside], map(frozenset, support[inside]), strict=True)
        yield np.flatnonzero(group == MIXED), pairs


def test_resampled_d_is_uniform_and_independent_of_x():
    for members, pairs in draws_by_group():
        # Independence includes that x is in D now and then.
        assert_uniform(
            pairs, list(itertools.product(members, subsets(members, 2)))
        )


def test_every_column_of_a_resampled_d_is_uniform():
    sampler = sampler_of(numbered(character=repeated([3] * 4)), batch_size=8000)
    query, support = draws(sampler, 1)
    for column in support.T:
        assert_uniform(
            zip(query % 4, column % 4, strict=True),
            list(itertools.product(range(4), repeat=2)),
        )


def test_d_that_x_is_drawn_from_is_uniform_over_the_subsets_with_x():
    for members, pairs in draws_by_group(resamples=False, support_size=3):
        outcomes = itertools.product(members, subsets(members, 3))
        assert_uniform(pairs, [(x, d) for x, d in outcomes if x in d])


def test_d_that_x_is_drawn_from_holds_x_once():
    sampler = sampler_of(
        numbered(character=MIXED),
        batch_size=200,
        support_size=3,
        resamples=False,
    )
    query, support = draws(sampler, 2)
    np.testing.assert_array_equal(np.sum(support == query[:, None], axis=1), 1)


def test_x_and_the_same_element_in_d_are_binarised_apart():
    values = np.linspace(0, 1, 144, dtype=np.float32).reshape(4, 6, 6, 1)
    grey = GroupedImages(
        values, {"character": np.arange(4), "alphabet": np.arange(4)}
    )
    sampler = Episodes(grey, batch_size=20_000, support_size=1, resamples=False)
    episode = sampler.episode(0)
    query = episode["query"].numpy()
    member = episode["support"]["character"].numpy()[:, 0]
    # Once for both, the first would be the mean of the values themselves.
    np.testing.assert_allclose(
        (query * member).mean(axis=0), (values**2).mean(axis=0), atol=0.02
    )
    np.testing.assert_allclose(
        query.mean(axis=0), values.mean(axis=0), atol=0.02
    )


def test_support_of_the_whole_group_is_the_whole_group():
    for resamples in (True, False):
        sampler = sampler_of(
            numbered(character=[8, 1, 8, 1, 8, 1]),
            batch_size=60,
            support_size=3,
            resamples=resamples,
        )
        query, support = draws(sampler, 1)
        expected = np.array([[0, 2, 4], [1, 3, 5]])[query % 2]
        np.testing.assert_array_equal(np.sort(support, axis=1), expected)


def test_x_alone_is_its_support_in_groups_of_one():
    sampler = sampler_of(
        numbered(character=[5, 9, 2]), support_size=1, resamples=False
    )
    query, support = draws(sampler, 3)
    np.testing.assert_array_equal(support, query[:, None])


def test_supports_of_two_latents_are_drawn_independently():
    ids = repeated([6, 6, 6])
    sampler = sampler_of(
        numbered(character=ids, alphabet=ids), batch_size=9000, support_size=1
    )
    episode = sampler.episode(0)
    columns = [
        numbers(episode["query"]) % 3,
        numbers(episode["support"]["character"])[:, 0] % 3,
        numbers(episode["support"]["alphabet"])[:, 0] % 3,
    ]
    assert_uniform(
        zip(*columns, strict=True),
        list(itertools.product(range(3), repeat=3)),
    )


def test_supports_of_successive_steps_are_drawn_independently():
    sampler = sampler_of(
        numbered(character=repeated([6, 6, 6])), batch_size=9000, support_size=1
    )
    _, support = draws(sampler, 2)
    assert_uniform(
        zip(support[:9000, 0] % 3, support[9000:, 0] % 3, strict=True),
        list(itertools.product(range(3), repeat=2)),
    )


def test_each_latent_has_support_from_its_own_group():
    alphabet = np.array([30, 30, 30, 30, 30, 12, 12, 12])
    character = np.array([5, 5, 8, 8, 8, 9, 9, 9])
    sampler = sampler_of(
        numbered(alphabet=alphabet, character=character), batch_size=800
    )
    episode = sampler.episode(0)
    query = numbers(episode["query"])
    for name, ids in (("alphabet", alphabet), ("character", character)):
        support = numbers(episode["support"][name])
        assert np.all(ids[support] == ids[query][:, None])
    reached = alphabet == 30
    assert set(
        numbers(episode["support"]["alphabet"])[reached[query]].ravel()
    ) == set(np.flatnonzero(reached))


def test_only_the_latents_asked_for_get_support():
    data = numbered(alphabet=[4] * 6, character=[0, 0, 0, 9, 9, 9])
    episode = sampler_of(data, group_latents=["character"]).episode(0)
    assert set(episode["support"]) == {"character"}
    assert set(episode["group_size"]) == {"character"}


def test_a_group_too_small_is_no_error_where_it_is_not_asked_for():
    data = numbered(alphabet=[4] * 3, character=[0, 5, 9])
    episode = sampler_of(data, group_latents=["alphabet"]).episode(0)
    assert set(episode["support"]) == {"alphabet"}


def test_episodes_without_group_latents_hold_queries_only():
    sampler = sampler_of(
        numbered(character=[0, 5, 9]), group_latents=[], batch_size=3
    )
    episode = sampler.episode(0)
    assert episode["support"] == {}
    assert episode["group_size"] == {}
    assert sorted(numbers(episode["query"])) == [0, 1, 2]


# Support sizes sampled from a range -------------------------------------------


def test_every_support_size_of_a_range_is_equally_likely():
    sampler = sampler_of(
        numbered(character=[2] * 5), support_size=(2, 4), batch_size=1
    )
    episode = compiled(sampler)
    sizes = [
        episode(step)["support"]["character"].shape[1] for step in range(400)
    ]
    assert_uniform(sizes, [2, 3, 4])


def test_all_latents_share_the_support_size_of_a_batch():
    sampler = sampler_of(
        numbered(alphabet=[1] * 6, character=[7, 7, 7, 3, 3, 3]),
        support_size=(1, 3),
    )
    episode = compiled(sampler)
    shapes = [
        {name: each.shape[:2] for name, each in support.items()}
        for support in (episode(step)["support"] for step in range(30))
    ]
    assert {shape["alphabet"] for shape in shapes} == {(4, 1), (4, 2), (4, 3)}
    assert all(shape["alphabet"] == shape["character"] for shape in shapes)


@pytest.mark.parametrize("resamples", [True, False])
def test_d_of_every_size_of_a_range_is_uniform(resamples):
    sampler = sampler_of(
        numbered(character=repeated([2] * 4)),
        support_size=(1, 3),
        batch_size=1000,
        resamples=resamples,
    )
    episode = compiled(sampler)
    drawn = {1: [], 2: [], 3: []}
    for step in range(20):
        each = episode(step)
        support = numbers(each["support"]["character"]) % 4
        drawn[support.shape[1]] += zip(
            numbers(each["query"]) % 4, map(frozenset, support), strict=True
        )
    for size, pairs in drawn.items():
        outcomes = itertools.product(range(4), subsets(range(4), size))
        assert_uniform(
            pairs, [(x, d) for x, d in outcomes if resamples or x in d]
        )


# Group sizes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("symmetries", "copies"), [(1, 1), (8, 1), (1, 6), (4, 3)]
)
def test_group_size_counts_images_times_copies(symmetries, copies):
    alphabet = np.array([30, 30, 30, 12, 30, 12, 12, 30])
    character = np.array([5, 8, 8, 9, 5, 11, 9, 5])
    data = numbered(alphabet=alphabet, character=character)
    sampler = sampler_of(
        data,
        batch_size=8 * symmetries * copies,
        support_size=1,
        augmentation=Augmentation(symmetries, copies, "none"),
    )
    episode = sampler.episode(0)
    for name, ids in data.labels.items():
        group_size = episode["group_size"][name].numpy()
        assert group_size.dtype == np.int32
        # Images of one pixel may move out of their frame: compare the sizes
        # of the whole epoch.
        truth = [np.sum(ids == each) * copies for each in ids]
        np.testing.assert_array_equal(
            np.sort(group_size), np.sort(np.repeat(truth, symmetries * copies))
        )
        if copies == 1:
            np.testing.assert_array_equal(
                group_size, np.array(truth)[numbers(episode["query"])]
            )


# Errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "needed", "received"),
    [
        ({"support_size": 4}, 4, "group 7 with 3 elements (1 such groups)"),
        ({"support_size": (1, 6)}, 6, "group 7 with 3 elements (2 such"),
        (
            {"support_size": 4, "resamples": False},
            4,
            "group 7 with 3 elements (1 such groups)",
        ),
        (
            {"support_size": 7, "augmentation": Augmentation(8, 2)},
            7,
            "group 7 with 6 elements (1 such groups)",
        ),
    ],
)
def test_a_group_too_small_for_the_support_is_named(options, needed, received):
    with pytest.raises(ValueError, match=re.escape(received)) as error:
        sampler_of(numbered(character=MIXED), **options)
    assert f"'character' needs at least {needed} elements" in str(error.value)


def test_a_group_too_small_is_named_by_its_name_with_a_way_out():
    data = numbered(character=MIXED)
    data = GroupedImages(data.images, data.labels, {"character": {7: "aleph"}})
    received = "Received: group 7 ('aleph') with 3 elements (1 such groups)."
    with pytest.raises(ValueError, match=re.escape(received)) as error:
        sampler_of(data, support_size=4)
    assert "'character'" in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"support_size": 3},
        {"support_size": 3, "resamples": False},
        {"support_size": 6, "augmentation": Augmentation(1, 2)},
    ],
)
def test_a_group_just_large_enough_is_accepted(options):
    sampler_of(numbered(character=MIXED), **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("batch_size", -3),
        ("batch_size", 2.5),
        ("batch_size", "4"),
        ("support_size", 0),
        ("support_size", -1),
        ("support_size", 2.5),
        ("support_size", None),
        ("support_size", "2"),
        ("support_size", (0, 2)),
        ("support_size", (3, 2)),
        ("support_size", (1, 2, 3)),
        ("support_size", (1.0, 2.0)),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 2**70),
        ("seed", 0.5),
    ],
)
def test_a_bad_number_is_refused(name, value):
    with pytest.raises(
        ValueError, match=re.escape(f"Received: {name}={value!r}.")
    ):
        sampler_of(numbered(character=MIXED), **{name: value})


def test_an_unknown_grouping_is_named_beside_the_known_ones():
    data = numbered(character=MIXED, alphabet=[2] * 8)
    with pytest.raises(ValueError, match="need a grouping 'drawer'") as error:
        sampler_of(data, group_latents=["character", "drawer"])
    assert "['alphabet', 'character']" in str(error.value)
