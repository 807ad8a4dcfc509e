import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import assert_survives_round_trip
from vhe_tf.layers.shift_convolution import Pointwise
from vhe_tf.layers.shift_convolution import ShiftConvolution
from vhe_tf.layers.shift_convolution import convolve
from vhe_tf.layers.shift_convolution import library_gradients

# Kernel (kh, kw), padding, and the output's size for images of 5x7.
GEOMETRIES = [
    ((1, 1), ((0, 0), (0, 0)), (5, 7)),
    ((3, 3), ((1, 1), (1, 1)), (5, 7)),
    ((3, 3), ((0, 0), (0, 0)), (3, 5)),
    ((2, 3), ((1, 0), (1, 1)), (5, 7)),  # of a vertical stack
    ((1, 2), ((0, 0), (1, 0)), (5, 7)),  # of a horizontal one
    ((3, 7), ((2, 0), (3, 3)), (5, 7)),
    ((4, 2), ((0, 3), (0, 1)), (5, 7)),
    ((2, 4), ((1, 1), (3, 2)), (6, 9)),
    ((5, 1), ((2, 1), (0, 0)), (4, 7)),
    ((5, 7), ((0, 0), (0, 0)), (1, 1)),
]


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _padded(padding):
    return [(0, 0), *padding, (0, 0)]


def _with_gradients(function, images, kernel, upstream):
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        output = function(images, kernel)
    return output, *tape.gradient(
        output, [images, kernel], output_gradients=upstream
    )


def _assert_equals_tensorflow(images, kernel, padding, **compiler):
    def ours(images, kernel, upstream):
        return _with_gradients(
            lambda x, w: convolve(x, w, padding=padding),
            images,
            kernel,
            upstream,
        )

    expected = tf.nn.conv2d(images, kernel, 1, _padded(padding))
    upstream = _random(*expected.shape, seed=2)
    if compiler:
        ours = tf.function(ours, **compiler)
    for value, oracle in zip(
        ours(images, kernel, upstream),
        _with_gradients(
            lambda x, w: tf.nn.conv2d(x, w, 1, _padded(padding)),
            images,
            kernel,
            upstream,
        ),
        strict=True,
    ):
        assert value.shape == oracle.shape
        np.testing.assert_allclose(value, oracle, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 7, 8, 11])
@pytest.mark.parametrize(("size", "padding", "output"), GEOMETRIES)
def test_values_and_gradients_equal_tensorflow(size, padding, output, channels):
    images = _random(3, 5, 7, channels)
    kernel = _random(*size, channels, 5, seed=1)
    assert convolve(images, kernel, padding=padding).shape == (3, *output, 5)
    _assert_equals_tensorflow(images, kernel, padding)


@pytest.mark.parametrize("image_size", [(1, 1), (1, 6), (9, 2), (4, 4)])
def test_small_and_odd_images_equal_tensorflow(image_size):
    for size, padding in (
        ((3, 3), ((1, 1), (1, 1))),
        ((2, 3), ((1, 0), (1, 1))),
        ((2, 5), ((1, 0), (2, 2))),
    ):
        images = _random(2, *image_size, 9)
        kernel = _random(*size, 9, 3, seed=1)
        _assert_equals_tensorflow(images, kernel, padding)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("channels", [2, 9])
def test_compiled_values_and_gradients_equal_tensorflow(channels, jit_compile):
    for size, padding in (
        ((1, 1), ((0, 0), (0, 0))),
        ((2, 3), ((1, 0), (1, 1))),
    ):
        _assert_equals_tensorflow(
            _random(2, 5, 7, channels),
            _random(*size, channels, 4, seed=1),
            padding,
            jit_compile=jit_compile,
        )


@pytest.mark.parametrize("channels", [2, 9])
@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_the_batch_can_be_unknown_to_the_graph(size, channels):
    kh, kw = size
    padding = ((kh - 1, 0), (kw - 1, 0))
    kernel = _random(*size, channels, 4, seed=1)

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 7, channels])])
    def ours(images):
        output = convolve(images, kernel, padding=padding)
        assert output.shape[1:] == (5, 7, 4)
        return output, *tf.gradients(tf.reduce_sum(output**2), [images, kernel])

    for batch in (1, 3):
        images = _random(batch, 5, 7, channels)
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            expected = tf.nn.conv2d(images, kernel, 1, _padded(padding))
            loss = tf.reduce_sum(expected**2)
        oracle = [expected, *tape.gradient(loss, [images, kernel])]
        for value, other in zip(ours(images), oracle, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-3)


def test_gradients_equal_finite_differences():
    images, kernel = _random(1, 3, 4, 8), _random(2, 3, 8, 2, seed=1)
    analytic, numeric = tf.test.compute_gradient(
        lambda x, w: convolve(x, w, padding=((1, 0), (1, 1))), [images, kernel]
    )
    for value, oracle in zip(analytic, numeric, strict=True):
        # Float32, and differences over 1/1024.
        np.testing.assert_allclose(value, oracle, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("size", [(3, 3), (2, 4), (1, 5)])
def test_a_layer_keeps_the_size_of_the_image_by_default(size):
    layer = ShiftConvolution(3, size)
    images = _random(2, 5, 7, 4)
    layer.build(images.shape)
    layer.set_weights([_random(*w.shape, seed=3) for w in layer.weights])
    kernel, bias = layer.weights
    np.testing.assert_allclose(
        layer(images),
        tf.nn.conv2d(images, kernel, 1, "SAME") + bias,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(("size", "padding", "output"), GEOMETRIES)
def test_a_layer_declares_the_shape_that_it_returns(size, padding, output):
    layer = ShiftConvolution(3, size, padding=padding)
    assert layer(_random(2, 5, 7, 4)).shape == (2, *output, 3)
    for shape, expected in (
        ((2, 5, 7, 4), (2, *output, 3)),
        ((None, None, None, 4), (None, None, None, 3)),
    ):
        spec = layer.compute_output_spec(keras.KerasTensor(shape))
        assert spec.shape == expected


def test_a_layer_without_bias_has_none():
    layer = ShiftConvolution(3, (2, 3), use_bias=False)
    np.testing.assert_array_equal(
        layer(tf.zeros([1, 4, 4, 2])), tf.zeros([1, 4, 4, 3])
    )
    assert len(layer.weights) == 1


def test_a_pointwise_convolution_is_an_affine_map_of_every_pixel():
    layer = Pointwise(3)
    images = _random(2, 5, 7, 4)
    layer.build(images.shape)
    layer.set_weights([_random(*w.shape, seed=3) for w in layer.weights])
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(
        layer(images), np.array(images) @ kernel[0, 0] + bias, atol=1e-5
    )


def test_the_dtype_policy_is_that_of_the_output():
    layer = ShiftConvolution(3, (2, 3), dtype="mixed_float16")
    assert layer(_random(2, 5, 7, 4)).dtype == tf.float16
    assert all(w.dtype == "float32" for w in layer.weights)


def test_convolutions_survive_a_round_trip():
    images = _random(2, 5, 7, 4)
    assert_survives_round_trip(ShiftConvolution(3, (2, 3)), images)
    assert_survives_round_trip(
        ShiftConvolution(3, (2, 3), padding=((1, 0), (0, 2)), use_bias=False),
        images,
    )
    assert_survives_round_trip(Pointwise(3), images)
    assert_survives_round_trip(Pointwise(3, use_bias=False), images)


def test_a_bias_begins_where_it_is_told_to():
    bias = [1.0, -2.0, 0.5]
    layer = Pointwise(3, bias_initializer=keras.initializers.Constant(bias))
    np.testing.assert_array_equal(layer(tf.zeros([1, 1, 1, 2])), [[[bias]]])
    revived = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    np.testing.assert_array_equal(revived(tf.zeros([1, 1, 1, 2])), [[[bias]]])


def _kinds_of_operations(size, channels):
    kernel = _random(*size, channels, 4)

    @tf.function
    def gradient(images):
        padding = (((size[0] - 1), 0), ((size[1] - 1), 0))
        output = convolve(images, kernel, padding=padding)
        return tf.gradients(output, [images, kernel])

    graph = gradient.get_concrete_function(_random(2, 5, 7, channels)).graph
    return [o.type for o in graph.get_operations()]


@pytest.mark.parametrize(
    ("size", "channels", "by_taps"),
    [((2, 3), 8, True), ((2, 5), 8, False), ((2, 3), 7, False)],
)
def test_small_kernels_have_gradients_of_their_own(size, channels, by_taps):
    kinds = _kinds_of_operations(size, channels)
    assert ("Conv2DBackpropFilter" not in kinds) == by_taps
    with library_gradients():
        assert "Conv2DBackpropFilter" in _kinds_of_operations(size, channels)
    assert _kinds_of_operations(size, channels) == kinds
