import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import assert_survives_round_trip
from vhe_tf import random
from vhe_tf.layers.dropout import SeededDropout
from vhe_tf.layers.dropout import seed_scope

ONES = tf.ones([3, 50])
SEEDS = tf.constant([[1, 2], [3, 4], [5, 6]])


def _dropped(layers, features=ONES, *, seeds=SEEDS):
    """Returns what each layer makes of the features, in one scope."""
    with seed_scope(seeds):
        return [layer(features, training=True) for layer in layers]


def test_equal_seeds_give_equal_masks_and_others_other_ones():
    layer = SeededDropout(0.5)
    (mask,) = _dropped([layer])
    (again,) = _dropped([layer])
    (other,) = _dropped([layer], seeds=SEEDS + 1)
    np.testing.assert_array_equal(again, mask)
    assert not np.array_equal(other, mask)


def test_calls_under_one_seed_draw_independent_masks():
    layer = SeededDropout(0.5)
    masks = np.array(_dropped([layer, layer, SeededDropout(0.5)])) > 0.0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        # Agreement of 150 fair coins has a standard deviation of 0.041.
        assert abs(np.mean(masks[i] == masks[j]) - 0.5) < 0.2


def test_features_are_kept_with_the_chance_that_the_rate_leaves():
    features = tf.constant(
        np.random.default_rng(0).normal(size=(3, 40_000)), tf.float32
    )
    for rate in (0.1, 0.5, 0.8):
        (dropped,) = _dropped([SeededDropout(rate)], features)
        kept = np.array(dropped) != 0.0
        # Five standard errors of a mean of 120,000 samples.
        error = 5.0 * np.sqrt(rate * (1.0 - rate) / kept.size)
        assert abs(kept.mean() - (1.0 - rate)) < error
        np.testing.assert_allclose(
            np.array(dropped)[kept],
            np.array(features)[kept] / (1.0 - rate),
            rtol=1e-5,
        )


def test_nothing_is_dropped_outside_of_training():
    layer = SeededDropout(0.5)
    np.testing.assert_array_equal(layer(ONES), ONES)
    with seed_scope(SEEDS):
        np.testing.assert_array_equal(layer(ONES), ONES)
        np.testing.assert_array_equal(layer(ONES, training=False), ONES)


def test_a_rate_of_zero_drops_nothing_and_needs_no_seed():
    np.testing.assert_array_equal(SeededDropout(0.0)(ONES, training=True), ONES)


def test_training_without_a_seed_is_refused():
    layer = SeededDropout(0.5)
    with pytest.raises(RuntimeError, match="seed_scope"):
        layer(ONES, training=True)
    with seed_scope(SEEDS):
        layer(ONES, training=True)
    with pytest.raises(RuntimeError, match="seed_scope"):
        layer(ONES, training=True)


def test_an_error_ends_the_scope_and_an_inner_scope_returns_to_the_outer():
    layer = SeededDropout(0.5)
    with pytest.raises(KeyError), seed_scope(SEEDS):
        raise KeyError
    with pytest.raises(RuntimeError, match="seed_scope"):
        layer(ONES, training=True)
    first, second = _dropped([layer, layer])
    with seed_scope(SEEDS):
        np.testing.assert_array_equal(layer(ONES, training=True), first)
        (inner,) = _dropped([layer])
        np.testing.assert_array_equal(layer(ONES, training=True), second)
    np.testing.assert_array_equal(inner, first)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_call_is_a_function_of_the_seed(jit_compile):
    layers = [SeededDropout(0.5), SeededDropout(0.5)]

    @tf.function(jit_compile=jit_compile)
    def dropped(seeds):
        with seed_scope(seeds):
            return [layer(ONES, training=True) for layer in layers]

    first, second = dropped(SEEDS)
    assert set(np.unique(first)) == {0.0, 2.0}
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, _dropped(layers)[0])
    np.testing.assert_array_equal(second, _dropped(layers)[1])
    assert not np.array_equal(dropped(SEEDS + 1)[0], first)


def test_a_row_is_dropped_by_its_own_seed():
    layer = SeededDropout(0.5)
    # Two entries of each row, as of two images of a support.
    features = tf.ones([6, 4, 5])
    (together,) = _dropped([layer], features)
    for row in range(3):
        (alone,) = _dropped([layer], features[:2], seeds=SEEDS[row : row + 1])
        np.testing.assert_array_equal(together[2 * row : 2 * row + 2], alone)


def test_the_gradient_passes_where_features_are_kept():
    layer = SeededDropout(0.5)
    with tf.GradientTape() as tape, seed_scope(SEEDS):
        tape.watch(ONES)
        dropped = layer(ONES, training=True)
    np.testing.assert_array_equal(tape.gradient(dropped, ONES), dropped)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=f"Received: rate={rate}"):
        SeededDropout(rate)


def test_dropout_survives_a_round_trip():
    assert_survives_round_trip(SeededDropout(0.5), ONES)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_drops_where_the_numbers_of_the_call_are_below_the_rate(dtype):
    features = tf.cast(tf.random.stateless_normal([3, 5, 7], (5, 6)), dtype)
    layer = SeededDropout(0.3, dtype=dtype)
    for call, dropped in enumerate(_dropped([layer, layer], features)):
        noise = random.uniform([5, 7], random.fold_in(SEEDS, call))
        expected = np.where(noise < 0.3, 0.0, features / (1.0 - 0.3))
        assert dropped.dtype == dtype
        np.testing.assert_allclose(
            np.float32(dropped), np.float32(expected), rtol=1e-2
        )
