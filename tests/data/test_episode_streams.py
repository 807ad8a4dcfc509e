import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.data.conftest import MIXED
from tests.data.conftest import assert_same_episode
from tests.data.conftest import compiled
from tests.data.conftest import crossed
from tests.data.conftest import draws
from tests.data.conftest import numbered
from tests.data.conftest import numbers
from tests.data.conftest import patterned
from tests.data.conftest import sampler_of
from vhe_tf.data import Augmentation
from vhe_tf.data import GroupedImages

# Epochs ----------------------------------------------------------------------


def orders(sampler, num_epochs):
    """The queries of each epoch, `[num_epochs, num_elements]`."""
    count = sampler.num_elements
    num_steps = -(-num_epochs * count // sampler.batch_size)
    query, _ = draws(sampler, num_steps, next(iter(sampler.data.labels)))
    return query[: num_epochs * count].reshape(num_epochs, count)


@pytest.mark.parametrize(
    ("num_images", "batch_size"),
    [(1, 1), (1, 4), (2, 60), (7, 4), (7, 7), (24, 7), (24, 60), (100, 60)],
)
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
    [(0, 1), (0, 2**31), (5, 2**32 + 5), (1, 2**63 - 1)],
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


@pytest.mark.parametrize("first_step", [2**31 + 5, 2**40 + 1])
def test_steps_beyond_32_bits_are_steps_like_others(first_step):
    sampler = sampler_of(numbered(character=[6] * 8), batch_size=8)
    far, next_far = sampler.dataset(first_step).take(2)
    near = sampler.episode(first_step % 2**31)
    for episode in (far, next_far):
        assert sorted(numbers(episode["query"])) == list(range(8))
    assert np.any(far["seed"] != near["seed"])
    assert np.any(far["seed"] != next_far["seed"])
    assert_same_episode(far, sampler.episode(tf.constant(first_step)))


def test_model_seeds_differ_from_step_to_step_and_row_to_row():
    episode = compiled(chancy(0))
    seeds = [episode(step)["seed"].numpy() for step in range(200)]
    assert seeds[0].dtype == np.int32
    assert seeds[0].shape == (4, 2)
    # Both halves vary: 800 numbers of 32 bits collide one time in 10,000, and
    # two collisions in one half once in 10**8.
    for half in np.concatenate(seeds).T:
        assert len(set(half.tolist())) >= 799
    assert len(set(map(tuple, np.concatenate(seeds).tolist()))) == 800


def test_two_steps_share_no_chance_for_want_of_bits():
    # These steps of seed 0 collide in the first 32 bits folded from them.
    one, other = (
        sampler_of(numbered(character=[6] * 200)).episode(step)
        for step in (45520, 47586)
    )
    assert np.any(one["seed"] != other["seed"])
    assert np.any(one["support"]["character"] != other["support"]["character"])


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


# Parts of a batch -------------------------------------------------------------


def joined(parts):
    """Puts the rows of parts together, as in the whole batch."""
    return tf.nest.map_structure(lambda *rows: np.concatenate(rows), *parts)


@pytest.mark.parametrize(
    ("num_parts", "options"),
    [
        (2, {"resamples": False}),
        (3, {"resamples": True, "support_size": (1, 3)}),
        pytest.param(12, {"resamples": True}, marks=pytest.mark.slow),
    ],
)
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
        "seed": tf.TensorSpec([5, 2], tf.int32),
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
