import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tests.conftest import assert_equal_to_rounding
from tests.conftest import assert_survives_round_trip
from vhe_tf import random
from vhe_tf.layers import gated_residual
from vhe_tf.layers.dropout import seed_scope
from vhe_tf.layers.gated_residual import GatedResidualBlock

SHAPE = (2, 5, 6, 4)


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _with_random_weights(layer, *inputs):
    layer(*inputs)
    layer.set_weights(
        [_random(*w.shape, seed=i) for i, w in enumerate(layer.weights)]
    )
    return layer


def _masked_convolution(images, kernel, first_row, first_column):
    """Convolves by a full kernel whose taps are zero but for those given."""
    kh, kw, channels, filters = kernel.shape
    size = 2 * max(kh, kw) + 1
    full = np.zeros((size, size, channels, filters), np.float32)
    row, column = size // 2 + first_row, size // 2 + first_column
    full[row : row + kh, column : column + kw] = kernel
    return tf.nn.conv2d(images, full, 1, "SAME").numpy()


def _gated(features):
    a, b = np.split(features, 2, axis=-1)
    return np.tanh(a) * scipy.special.expit(b)


def _block_by_masks(block, above, left, conditioning=None):
    """Computes a block as in Figure 2 of van den Oord et al. (2016)."""
    reach = block.kernel_size // 2
    above_in = block.from_above.bias + _masked_convolution(
        above, block.from_above.kernel.numpy(), -reach, -reach
    )
    if conditioning is not None:
        offset = -(block.conditioning_kernel_size // 2)
        above_in += _masked_convolution(
            conditioning, block.condition.kernel.numpy(), offset, offset
        )
    left_in = block.from_left.bias + _masked_convolution(
        left, block.from_left.kernel.numpy(), 0, -reach
    )
    left_in += above_in @ block.across.kernel.numpy()[0, 0]
    return (
        above + _gated(above_in),
        left + _gated(left_in) @ block.residual.kernel.numpy()[0, 0],
    )


def test_a_gate_is_the_tanh_of_one_half_times_the_sigmoid_of_the_other():
    features = _random(3, 6)
    assert_equal_to_rounding(gated_residual.gate(features), _gated(features))


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_convolutions_of_the_stacks_equal_masked_ones(kernel_size):
    images = _random(*SHAPE)
    reach = kernel_size // 2
    for make, first_row in (
        (gated_residual.vertical, -reach),
        (gated_residual.horizontal, 0),
    ):
        layer = _with_random_weights(make(3, kernel_size), images)
        np.testing.assert_allclose(
            layer(images),
            layer.bias
            + _masked_convolution(
                images, layer.kernel.numpy(), first_row, -reach
            ),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize("conditioning_kernel_size", [None, 1, 3])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_a_block_equals_masked_convolutions(
    kernel_size, conditioning_kernel_size
):
    block = GatedResidualBlock(
        4, kernel_size, conditioning_kernel_size=conditioning_kernel_size or 1
    )
    inputs = [_random(*SHAPE, seed=1), _random(*SHAPE, seed=2)]
    if conditioning_kernel_size is not None:
        inputs.append(_random(*SHAPE[:-1], 3, seed=3))
    _with_random_weights(block, *inputs)
    for value, oracle in zip(
        block(*inputs), _block_by_masks(block, *inputs), strict=True
    ):
        np.testing.assert_allclose(value, oracle, rtol=1e-3, atol=1e-3)


def test_the_vertical_stack_never_sees_the_horizontal_one():
    block = GatedResidualBlock(4, 3)
    above, left = _random(*SHAPE, seed=1), _random(*SHAPE, seed=2)
    with tf.GradientTape() as tape:
        tape.watch(left)
        next_above, _ = block(above, left)
    assert tape.gradient(next_above, left) is None


def test_every_weight_gets_a_gradient():
    block = GatedResidualBlock(4, 3, conditioning_kernel_size=3)
    inputs = _random(*SHAPE), _random(*SHAPE, seed=1), _random(*SHAPE, seed=2)
    with tf.GradientTape() as tape:
        above, left = block(*inputs)
        loss = tf.reduce_sum(above**2) + tf.reduce_sum(left**2)
    gradients = tape.gradient(loss, block.trainable_variables)
    assert len(gradients) == 7
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
        assert np.all(np.any(gradient, axis=tuple(range(gradient.ndim - 1))))


def test_dropout_acts_on_both_stacks_in_training_only():
    plain, dropping = (
        GatedResidualBlock(4, 3),
        GatedResidualBlock(4, 3, dropout=0.5),
    )
    above, left = _random(*SHAPE, seed=1), _random(*SHAPE, seed=2)
    _with_random_weights(plain, above, left)
    _with_random_weights(dropping, above, left)
    expected = plain(above, left)
    for value, other in zip(dropping(above, left), expected, strict=True):
        np.testing.assert_array_equal(value, other)
    with seed_scope(random.fold_in((1, 2), tf.range(SHAPE[0]))):
        next_above, next_left = dropping(above, left, training=True)
    added, added_plain = next_above - above, expected[0] - above
    gone = np.isclose(added, 0.0, atol=1e-5)
    doubled = np.isclose(added, 2.0 * added_plain, atol=1e-5)
    assert np.all(gone | doubled)
    assert 0.3 < gone.mean() < 0.7
    assert not np.allclose(next_left, expected[1])


def test_a_block_declares_the_shapes_that_it_returns():
    block = GatedResidualBlock(4, 3)
    above, left = block(_random(*SHAPE), _random(*SHAPE, seed=1))
    symbolic = keras.KerasTensor(SHAPE)
    specs = block.compute_output_spec(symbolic, symbolic)
    assert [spec.shape for spec in specs] == [SHAPE, SHAPE]
    assert (above.shape, left.shape) == (SHAPE, SHAPE)


def test_the_dtype_policy_reaches_every_sub_layer():
    block = GatedResidualBlock(4, 3, dtype="mixed_float16")
    above, left = block(_random(*SHAPE), _random(*SHAPE, seed=1))
    assert above.dtype == left.dtype == tf.float16
    assert all(w.dtype == "float32" for w in block.weights)


def test_a_block_survives_a_round_trip():
    assert_survives_round_trip(
        GatedResidualBlock(4, 3), _random(*SHAPE), _random(*SHAPE, seed=1)
    )
    assert_survives_round_trip(
        GatedResidualBlock(4, 5, conditioning_kernel_size=3, dropout=0.5),
        _random(*SHAPE),
        _random(*SHAPE, seed=1),
        _random(*SHAPE[:-1], 3, seed=2),
    )
