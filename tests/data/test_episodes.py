import itertools
import re

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from vhe_tf.data import MISSING
from vhe_tf.data import Augmentation
from vhe_tf.data import EpisodeSampler
from vhe_tf.data import GroupedImages
from vhe_tf.data.augmentation import affine_table
from vhe_tf.data.augmentation import symmetry
from vhe_tf.data.augmentation import transform
from vhe_tf.data.episodes import sample_without_replacement

AS_STORED = Augmentation(binarization="none")

# Groups of 5 and 3 images, not stored in order, with ids that have gaps.
MIXED = np.array([42, 7, 42, 42, 7, 42, 7, 42])


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
    return EpisodeSampler(data, **(defaults | options))


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


def orders(sampler, num_epochs):
    """The queries of each epoch, `[num_epochs, num_elements]`."""
    count = sampler.num_elements
    num_steps = -(-num_epochs * count // sampler.batch_size)
    query, _ = draws(sampler, num_steps, next(iter(sampler.data.labels)))
    return query[: num_epochs * count].reshape(num_epochs, count)


def assert_uniform(drawn, outcomes):
    """Chi-square test that all outcomes are drawn, equally often.

    A fair sampler fails it one time in 10**8. That an epoch holds every query
    equally often only makes the statistic smaller. Outcomes are expected at
    least 50 times, so that the statistic has its limiting distribution.
    """
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


# Sampling without replacement ------------------------------------------------


def test_draws_are_uniform_over_ordered_subsets():
    num_rows = 30_000
    drawn = sample_without_replacement(
        tf.fill([num_rows], tf.constant(5, tf.int64)), 3, seed=[1, 2]
    )
    # Hence any first few columns are a uniform draw too.
    assert_uniform(
        map(tuple, drawn.numpy()), list(itertools.permutations(range(5), 3))
    )


def test_a_draw_of_the_whole_population_is_a_uniform_order():
    drawn = sample_without_replacement(
        tf.fill([12_000], tf.constant(4, tf.int64)), 4, seed=[1, 2]
    )
    assert_uniform(
        map(tuple, drawn.numpy()), list(itertools.permutations(range(4)))
    )


def test_each_row_draws_from_its_own_population():
    sizes = [3, 6, 4, 10**12]
    population = np.repeat(sizes, 5000)
    drawn = sample_without_replacement(
        tf.constant(population), 3, seed=[0, 7]
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
        tf.fill([20_000], tf.constant(4, tf.int64)), 2, seed=[5, 6]
    ).numpy()
    pairs = zip(drawn[::2, 0], drawn[1::2, 0], strict=True)
    assert_uniform(pairs, list(itertools.product(range(4), repeat=2)))


def test_no_draws_give_no_columns():
    population = tf.constant([3, 1], tf.int64)
    drawn = sample_without_replacement(population, 0, seed=[0, 0])
    assert drawn.shape == (2, 0)
    assert drawn.dtype == tf.int64


# The support set -------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"resamples": True},
        {"resamples": True, "exclude_query": True, "support_size": 2},
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
    """By group of `MIXED`, its members and draws of (x, D) from them.

    Queries and supports come from many groups like it; their members are
    told by their places in the group.
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


def test_d_without_x_is_uniform_over_the_others():
    for members, pairs in draws_by_group(exclude_query=True):
        outcomes = itertools.product(members, subsets(members, 2))
        assert_uniform(pairs, [(x, d) for x, d in outcomes if x not in d])


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


def test_x_is_binarised_once_where_d_holds_it():
    grey = GroupedImages(
        np.full((12, 6, 6, 1), 0.5, np.float32),
        {"character": np.arange(12) // 4, "alphabet": np.arange(12) // 6},
    )
    sampler = EpisodeSampler(
        grey, batch_size=8, support_size=3, resamples=False
    )
    episode = sampler.episode(0)
    for support in episode["support"].values():
        np.testing.assert_array_equal(support[:, 0], episode["query"])
        assert not np.array_equal(support[:, 1], episode["query"])


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


# Support sizes drawn from a range --------------------------------------------


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


# Augmented elements ----------------------------------------------------------

FULL = Augmentation(symmetries=8, affine_copies=3, binarization="none")


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
            size,
        )
        turned = symmetry(moved, tf.constant([index])).numpy()
        elements[turned.tobytes()] = (image, index, copy)
    return elements


def identified(images, elements):
    return [elements[image.tobytes()] for image in np.asarray(images)]


def test_symmetries_make_groups_and_affine_copies_make_elements():
    ids = np.array([50, 3, 50, 3])
    data = patterned(ids)
    sampler = EpisodeSampler(
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


def test_support_is_uniform_over_images_and_copies():
    data = patterned([4, 4])
    augmentation = Augmentation(affine_copies=2, binarization="none")
    elements = elements_by_pixels(data, augmentation, seed=0)
    members = list(elements.values())
    sampler = EpisodeSampler(
        data,
        batch_size=2000,
        support_size=2,
        resamples=True,
        augmentation=augmentation,
    )
    episode = sampler.episode(0)
    supports = episode["support"]["character"].numpy()
    assert_uniform(
        zip(
            identified(episode["query"], elements),
            (frozenset(identified(each, elements)) for each in supports),
            strict=True,
        ),
        list(itertools.product(members, subsets(members, 2))),
    )


def test_d_without_x_may_hold_other_copies_of_its_image():
    data = patterned([4, 4])
    augmentation = Augmentation(affine_copies=2, binarization="none")
    elements = elements_by_pixels(data, augmentation, seed=0)
    members = list(elements.values())
    sampler = EpisodeSampler(
        data,
        batch_size=1000,
        support_size=1,
        resamples=True,
        augmentation=augmentation,
        exclude_query=True,
    )
    episode = sampler.episode(0)
    pairs = zip(
        identified(episode["query"], elements),
        identified(episode["support"]["character"][:, 0], elements),
        strict=True,
    )
    assert_uniform(pairs, list(itertools.permutations(members, 2)))


def test_every_augmented_element_is_a_query_once_an_epoch():
    data = patterned([50, 3, 50, 3])
    sampler = EpisodeSampler(
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


# Missing labels and crossed groupings -----------------------------------------


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
    "options",
    [
        {"resamples": True},
        {"resamples": True, "exclude_query": True},
        {"resamples": False},
        {"resamples": True, "support_size": (1, 3)},
    ],
)
@pytest.mark.parametrize(
    "augmentation",
    [AS_STORED, Augmentation(4, 2, "none")],
)
@pytest.mark.parametrize("missing", [0.0, 0.3])
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
                assert list(each["known"][name]) == [
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
    known = episode["known"]["style"].numpy()
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
    np.testing.assert_array_equal(episode["known"]["style"], labelled)
    np.testing.assert_array_equal(episode["group_size"]["style"], labelled)


def test_known_is_told_of_incomplete_groupings_alone():
    data = numbered(
        alphabet=[4] * 6,
        drawer=[1, MISSING, 1, 1, 1, MISSING],
        style=[MISSING, 0, 0, 0, 0, 0],
    )
    spec = tf.TensorSpec([4], tf.bool)
    assert sampler_of(data).dataset().element_spec["known"] == {
        "drawer": spec,
        "style": spec,
    }
    some = sampler_of(data, group_latents=["alphabet", "style"])
    assert set(some.episode(0)["known"]) == {"style"}
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


def test_episodes_with_missing_labels_are_pure_functions_of_seed_and_step():
    options = {"augmentation": CHANCY, "support_size": (1, 2)}
    one, other = (sampler_of(crossed(), seed=5, **options) for _ in range(2))
    resumed = one.dataset(first_step=7).take(3)
    for step, episode in enumerate(resumed, 7):
        assert_same_episode(episode, other.episode(step))
    third = sampler_of(crossed(), seed=6, **options)
    assert np.any(one.episode(0)["query"] != third.episode(0)["query"])
    traced = compiled(one).get_concrete_function().graph.as_graph_def()
    assert not _python_ops(_op_names(traced))


def test_images_without_a_label_make_no_group_too_small():
    data = numbered(character=[7, 7, MISSING, 7, 9, 9, 9])
    sampler_of(data, support_size=3)
    with pytest.raises(ValueError, match=re.escape("group 7 with 3 elements")):
        sampler_of(data, support_size=4)


# Epochs ----------------------------------------------------------------------


@pytest.mark.parametrize("num_images", [1, 2, 3, 7, 24, 100])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 60])
def test_every_element_is_a_query_once_an_epoch(num_images, batch_size):
    sampler = sampler_of(
        numbered(character=[6] * num_images),
        batch_size=batch_size,
        support_size=1,
    )
    for order in orders(sampler, 5):
        np.testing.assert_array_equal(np.sort(order), range(num_images))


def test_steps_per_epoch_is_enough_to_draw_every_element():
    sampler = sampler_of(numbered(character=[6] * 10), batch_size=4)
    assert sampler.steps_per_epoch == 3
    query, _ = draws(sampler, sampler.steps_per_epoch)
    assert set(query) == set(range(10))
    query, _ = draws(sampler, sampler.steps_per_epoch - 1)
    assert set(query) != set(range(10))


@pytest.mark.parametrize("num_images", [250, 1000, 20_000])
def test_orders_are_unlike_storage_and_unlike_each_other(num_images):
    sequences = [np.arange(num_images)]
    for seed in (0, 1, 256):
        images = np.arange(num_images, dtype=np.float32) / num_images
        sampler = sampler_of(
            GroupedImages(
                images[:, None, None, None], {"character": images.astype(int)}
            ),
            batch_size=num_images,
            support_size=1,
            seed=seed,
        )
        for epoch in (0, 1, 2, 256):
            query = sampler.episode(epoch)["query"].numpy().ravel()
            sequences.append(np.rint(query * num_images))
    correlations = np.corrcoef(sequences)
    # The standard error is 1 / sqrt(n - 1); 78 correlations beyond 6.5 of
    # them one time in 10**8.
    limit = 6.5 / np.sqrt(num_images - 1)
    assert np.abs(np.triu(correlations, 1)).max() < limit
    # Neighbours in storage follow each other, and two orders agree in a place,
    # twice and once an epoch on average: above 25 one time in 10**18.
    for order in sequences[1:]:
        assert np.sum(np.abs(np.diff(order)) == 1) < 25
    for one, other in itertools.combinations(sequences, 2):
        assert np.sum(one == other) < 25


# Seeds and steps -------------------------------------------------------------

CHANCY = Augmentation(symmetries=8, affine_copies=2)


def chancy(seed, **options):
    return sampler_of(
        patterned([5, 5, 5, 9, 9, 9]), augmentation=CHANCY, seed=seed, **options
    )


def test_equal_seeds_give_equal_episodes_bit_for_bit():
    one = chancy(3, support_size=(1, 3))
    other = compiled(chancy(3, support_size=(1, 3)))
    for step in range(10):
        assert_same_episode(one.episode(step), other(step))


@pytest.mark.parametrize(
    "seeds",
    [(0, 1), (0, 256), (0, 2**31), (5, 2**32 + 5), (0, 2**40), (1, 2**63 - 1)],
)
def test_other_seeds_give_other_episodes(seeds):
    data = numbered(character=[4] * 200)
    (query, support), (other_query, other_support) = (
        draws(sampler_of(data, batch_size=50, seed=seed), 4) for seed in seeds
    )
    # Of 200 places about one agrees by chance, more than 20 one time in
    # 10**18; of 400 in the supports about two.
    assert np.sum(query == other_query) < 20
    assert np.sum(support == other_support) < 25
    one, other = (chancy(seed).episode(0) for seed in seeds)
    assert np.any(one["seed"] != other["seed"])
    assert np.any(one["query"] != other["query"])


def test_numpy_integers_are_seeds_and_sizes():
    one = chancy(np.int64(7), batch_size=np.int32(3), support_size=np.int64(2))
    other = chancy(7, batch_size=3, support_size=2)
    assert_same_episode(one.episode(1), other.episode(1))
    assert one.image_shape == (5, 5, 1)


def test_a_data_set_can_start_at_any_step():
    sampler = chancy(1, support_size=(1, 3))
    resumed = sampler.dataset(first_step=7).take(3)
    skipped = sampler.dataset().skip(7).take(3)
    for step, (one, other) in enumerate(zip(resumed, skipped, strict=True), 7):
        assert_same_episode(one, other)
        assert_same_episode(one, sampler.episode(step))


@pytest.mark.parametrize("first_step", [2**31 + 5, 2**32, 2**40 + 1])
def test_steps_beyond_32_bits_are_steps_like_others(first_step):
    sampler = sampler_of(numbered(character=[6] * 8), batch_size=8)
    far, next_far = sampler.dataset(first_step).take(2)
    near = sampler.episode(first_step % 2**31)
    for episode in (far, next_far):
        assert sorted(numbers(episode["query"])) == list(range(8))
    assert np.any(far["seed"] != near["seed"])
    assert np.any(far["seed"] != next_far["seed"])
    assert_same_episode(far, sampler.episode(tf.constant(first_step)))


def test_model_seeds_differ_from_step_to_step():
    episode = compiled(chancy(0))
    seeds = [episode(step)["seed"].numpy() for step in range(200)]
    assert seeds[0].dtype == np.int32
    # Both halves vary: 200 draws of 32 bits collide one time in 200,000, and
    # two collisions in one half once in 10**10.
    for half in np.transpose(seeds):
        assert len(set(half.tolist())) >= 199
    assert len({tuple(seed) for seed in seeds}) == 200


def test_two_steps_share_no_chance_for_want_of_bits():
    # These steps of seed 0 collide in the first 32 bits folded from them.
    one, other = (
        sampler_of(numbered(character=[6] * 200)).episode(step)
        for step in (45520, 47586)
    )
    assert np.any(one["seed"] != other["seed"])
    assert np.any(one["support"]["character"] != other["support"]["character"])


# Parts of a batch -------------------------------------------------------------


def joined(parts):
    """Puts the rows of parts together, as in the whole batch."""
    seeds = [part.pop("seed") for part in parts]
    for seed in seeds:
        np.testing.assert_array_equal(seed, seeds[0])
    whole = tf.nest.map_structure(lambda *rows: np.concatenate(rows), *parts)
    return {**whole, "seed": seeds[0]}


@pytest.mark.parametrize(
    "options",
    [
        {"resamples": True},
        {"resamples": False},
        {"resamples": True, "exclude_query": True},
        {"resamples": True, "support_size": (1, 3)},
        {"resamples": True, "group_latents": ["alphabet"]},
    ],
)
@pytest.mark.parametrize("num_parts", [2, 3, 12])
def test_parts_are_rows_of_the_whole_batch(options, num_parts):
    # Binarisation draws noise for each pixel.
    sampler = sampler_of(
        crossed(), batch_size=12, augmentation=CHANCY, **options
    )
    parts = [
        sampler.dataset(first_step=2, part=part, num_parts=num_parts)
        for part in range(num_parts)
    ]
    for step, episodes in enumerate(tf.data.Dataset.zip(*parts).take(4), 2):
        rows = len(episodes[0]["query"])
        assert rows == 12 // num_parts
        assert_same_episode(joined(episodes), sampler.episode(step))


def test_shapes_of_parts_are_static():
    sampler = sampler_of(numbered(character=MIXED), batch_size=6)
    spec = sampler.dataset(part=1, num_parts=3).element_spec
    assert spec["query"] == tf.TensorSpec([2, 1, 1, 1])
    assert spec["support"]["character"] == tf.TensorSpec([2, 2, 1, 1, 1])
    assert spec["group_size"]["character"] == tf.TensorSpec([2], tf.int32)


class _Watched(GroupedImages):
    """Counts the images of each reading."""

    counts: list[int]

    def reader(self):
        read = super().reader()
        object.__setattr__(self, "counts", [])

        def counted(indices):
            tf.py_function(
                lambda indices: self.counts.append(len(indices)), [indices], []
            )
            return read(indices)

        return counted


@pytest.mark.parametrize(("num_parts", "num_images"), [(1, 36), (4, 9)])
def test_a_part_reads_its_own_images_alone(num_parts, num_images):
    data = numbered(character=MIXED)
    watched = _Watched(data.images, data.labels)
    sampler = sampler_of(watched, batch_size=12)
    for _ in sampler.dataset(part=num_parts - 1, num_parts=num_parts).take(3):
        pass
    assert set(watched.counts) == {num_images}


@pytest.mark.parametrize(("part", "num_parts"), [(0, 5), (3, 3), (-1, 3)])
def test_a_part_that_there_is_not_is_refused(part, num_parts):
    sampler = sampler_of(numbered(character=MIXED), batch_size=12)
    received = (
        f"Received: part={part}, num_parts={num_parts} with batch_size=12."
    )
    with pytest.raises(ValueError, match=re.escape(received)):
        sampler.dataset(part=part, num_parts=num_parts)


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
                (5, 5),
            )
            .numpy()
            .tobytes()
            for image, copy in np.ndindex(10, 3)
        }
        drawn = sampler.episode(0)["query"].numpy()
        assert {image.tobytes() for image in drawn} == expected


# The data set ----------------------------------------------------------------


@pytest.mark.parametrize(("support_size", "static"), [(2, 2), ((1, 3), None)])
def test_shapes_are_static_but_for_a_support_size_that_varies(
    support_size, static
):
    data = GroupedImages(
        np.zeros((12, 9, 9, 3), np.uint8),
        {"alphabet": np.full(12, 3), "character": np.arange(12) // 6},
    )
    sampler = sampler_of(
        data,
        batch_size=5,
        support_size=support_size,
        augmentation=Augmentation(8, 2, image_size=(4, 4)),
    )
    support = tf.TensorSpec([5, static, 4, 4, 3], tf.float32)
    size = tf.TensorSpec([5], tf.int32)
    assert sampler.dataset().element_spec == {
        "query": tf.TensorSpec([5, 4, 4, 3], tf.float32),
        "support": {"alphabet": support, "character": support},
        "group_size": {"alphabet": size, "character": size},
        "seed": tf.TensorSpec([2], tf.int32),
    }


def _op_names(graph):
    nodes = itertools.chain(
        graph.node, *(function.node_def for function in graph.library.function)
    )
    return {node.op for node in nodes}


def _data_set_ops(dataset):
    serialized = tf.raw_ops.DatasetToGraphV2(
        input_dataset=dataset._variant_tensor
    )
    return _op_names(tf.compat.v1.GraphDef.FromString(serialized.numpy()))


def _python_ops(ops):
    return {op for op in ops if "PyFunc" in op}


def test_the_input_path_holds_no_python():
    sampler = chancy(0, support_size=(1, 3))
    traced = compiled(sampler).get_concrete_function().graph.as_graph_def()
    assert "RandomIndexShuffle" in _op_names(traced)
    assert not _python_ops(_op_names(traced))
    ops = _data_set_ops(sampler.dataset())
    assert "RandomIndexShuffle" in ops
    assert not _python_ops(ops)


def test_python_in_an_input_path_would_be_found():
    dataset = tf.data.Dataset.range(3).map(
        lambda step: tf.numpy_function(np.negative, [step], tf.int64)
    )
    assert _python_ops(_data_set_ops(dataset))


# Errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "needed", "received"),
    [
        ({"support_size": 4}, 4, "group 7 with 3 elements (1 such groups)"),
        ({"support_size": (1, 6)}, 6, "group 7 with 3 elements (2 such"),
        (
            {"support_size": 3, "exclude_query": True},
            4,
            "group 7 with 3 elements (1 such groups)",
        ),
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
    assert (
        "drop such groups, or leave the label 'character' of their images "
        "empty (id -1)" in str(error.value)
    )


@pytest.mark.parametrize(
    "options",
    [
        {"support_size": 3},
        {"support_size": 2, "exclude_query": True},
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


def test_x_cannot_be_excluded_from_the_d_that_it_is_drawn_from():
    received = "Received: exclude_query=True, resamples=False."
    with pytest.raises(ValueError, match=re.escape(received)):
        sampler_of(
            numbered(character=MIXED), exclude_query=True, resamples=False
        )


def test_an_unknown_grouping_is_named_beside_the_known_ones():
    data = numbered(character=MIXED, alphabet=[2] * 8)
    with pytest.raises(ValueError, match="no grouping 'drawer'") as error:
        sampler_of(data, group_latents=["character", "drawer"])
    assert "['alphabet', 'character']" in str(error.value)
