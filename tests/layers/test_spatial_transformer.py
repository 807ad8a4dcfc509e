import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from tests.conftest import assert_survives_round_trip
from vhe_tf.layers.spatial_transformer import AffineMap
from vhe_tf.layers.spatial_transformer import Localisation
from vhe_tf.layers.spatial_transformer import affine_transform

IDENTITY = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], np.float32)


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _resampled_by_scipy(images, theta):
    """Returns what `affine_transform` should, of `[N, H, W, C]`, float64."""
    images, theta = np.float64(images), np.float64(theta)
    _, height, width, channels = images.shape
    x = (np.arange(width) + 0.5) / width * 2.0 - 1.0
    y = (np.arange(height) + 0.5) / height * 2.0 - 1.0
    ones = np.ones([height, width])
    target = np.stack([ones * x, ones * y[:, None], ones])  # [3, H, W]
    output = np.empty(images.shape)
    for n, matrix in enumerate(theta.reshape(-1, 2, 3)):
        source_x, source_y = np.tensordot(matrix, target, axes=1)
        rows = (source_y + 1.0) / 2.0 * height - 0.5
        columns = (source_x + 1.0) / 2.0 * width - 0.5
        for c in range(channels):
            output[n, ..., c] = scipy.ndimage.map_coordinates(
                images[n, ..., c],
                [rows, columns],
                order=1,
                mode="grid-constant",
            )
    return output


@pytest.mark.parametrize("spread", [0.1, 0.7, 3.0])
@pytest.mark.parametrize("image_shape", [(8, 8, 1), (5, 9, 2), (7, 3, 3)])
def test_random_maps_equal_scipy(image_shape, spread):
    images = _random(20, *image_shape)
    theta = IDENTITY + spread * _random(20, 6, seed=1)
    np.testing.assert_allclose(
        affine_transform(images, theta),
        _resampled_by_scipy(images, theta),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("image_shape", [(1, 1, 1), (1, 6, 1), (4, 1, 2)])
def test_images_of_one_row_or_column_equal_scipy(image_shape):
    images = _random(20, *image_shape)
    theta = IDENTITY + 0.5 * _random(20, 6, seed=1)
    np.testing.assert_allclose(
        affine_transform(images, theta),
        _resampled_by_scipy(images, theta),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("image_shape", [(8, 8, 1), (5, 9, 2), (28, 28, 1)])
def test_the_identity_changes_nothing(image_shape):
    images = _random(2, *image_shape)
    theta = np.tile(IDENTITY, [2, 1])
    np.testing.assert_allclose(
        affine_transform(images, theta), images, rtol=1e-5, atol=1e-5
    )


def test_a_shift_of_whole_pixels_moves_them_and_lets_in_zeros():
    images = _random(1, 4, 8, 2)
    # Read 2 pixels to the right and 1 below: [-1, 1] spans 8 and 4 pixels.
    theta = np.array([[1.0, 0.0, 2 * 2 / 8, 0.0, 1.0, 1 * 2 / 4]], np.float32)
    expected = np.zeros(images.shape)
    expected[:, :-1, :-2] = images[:, 1:, 2:]
    np.testing.assert_allclose(
        affine_transform(images, theta), expected, atol=1e-5
    )


def test_a_negative_scale_mirrors():
    images = _random(1, 4, 8, 2)
    for theta, expected in (
        ([-1.0, 0.0, 0.0, 0.0, 1.0, 0.0], images[:, :, ::-1]),
        ([1.0, 0.0, 0.0, 0.0, -1.0, 0.0], images[:, ::-1]),
    ):
        np.testing.assert_allclose(
            affine_transform(images, tf.constant([theta])), expected, atol=1e-5
        )


def test_far_outside_all_is_zero():
    images = 1.0 + tf.abs(_random(4, 5, 6, 2))
    for far in (3.0, 1e4, 1e9):
        theta = IDENTITY + far * np.array(
            [[0, 0, s, 0, 0, t] for s, t in ((1, 0), (-1, 0), (0, 1), (0, -1))],
            np.float32,
        )
        np.testing.assert_array_equal(
            affine_transform(images, theta), tf.zeros_like(images)
        )


def test_gradients_equal_finite_differences_of_scipy():
    images = _random(4, 5, 6, 2)
    theta = IDENTITY + 0.4 * _random(4, 6, seed=1)
    upstream = _random(*images.shape, seed=2)
    with tf.GradientTape() as tape:
        tape.watch([images, theta])
        output = affine_transform(images, theta)
    by_images, by_theta = tape.gradient(
        output, [images, theta], output_gradients=upstream
    )

    def loss(images, theta):
        return np.sum(
            np.float64(upstream) * _resampled_by_scipy(images, theta),
            axis=(1, 2, 3),
        )

    # So small a step, in float64, that no position crosses a pixel's centre.
    step = 1e-6
    for axis in range(6):
        change = step * np.eye(6)[axis]
        slope = loss(images, np.float64(theta) + change)
        slope -= loss(images, np.float64(theta) - change)
        np.testing.assert_allclose(
            by_theta[:, axis], slope / (2.0 * step), rtol=1e-3, atol=1e-3
        )
    # Linear in the images.
    for pixel in np.ndindex(*images.shape[1:]):
        basis = np.zeros(images.shape)
        basis[(slice(None), *pixel)] = 1.0
        np.testing.assert_allclose(
            by_images[(slice(None), *pixel)], loss(basis, theta), atol=1e-4
        )


def test_a_map_can_be_learnt_from_the_identity_on():
    theta = tf.constant(IDENTITY[np.newaxis])
    with tf.GradientTape() as tape:
        tape.watch(theta)
        loss = tf.reduce_sum(affine_transform(_random(1, 8, 8, 1), theta) ** 2)
    gradient = tape.gradient(loss, theta)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.abs(gradient) > 1e-3)


def test_leading_axes_equal_one_call_an_image():
    images = _random(2, 3, 4, 5, 6, 2)
    theta = IDENTITY + 0.4 * _random(2, 3, 4, 6, seed=1)
    output = affine_transform(images, theta)
    assert output.shape == images.shape
    for index in np.ndindex(2, 3, 4):
        alone = affine_transform(images[index], theta[index])
        assert alone.shape == (5, 6, 2)
        np.testing.assert_allclose(output[index], alone, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_values_and_gradients_equal_eager_ones(jit_compile):
    def with_gradients(images, theta):
        with tf.GradientTape() as tape:
            tape.watch([images, theta])
            output = affine_transform(images, theta)
            loss = tf.reduce_sum(output**2)
        return output, *tape.gradient(loss, [images, theta])

    images = _random(3, 5, 6, 2)
    theta = IDENTITY + 0.4 * _random(3, 6, seed=1)
    compiled = tf.function(with_gradients, jit_compile=jit_compile)
    for value, oracle in zip(
        compiled(images, theta), with_gradients(images, theta), strict=True
    ):
        np.testing.assert_allclose(value, oracle, rtol=1e-3, atol=1e-3)


def test_the_batch_can_be_unknown_to_the_graph():
    compiled = tf.function(
        affine_transform,
        input_signature=[
            tf.TensorSpec([None, None, 5, 6, 2]),
            tf.TensorSpec([None, None, 6]),
        ],
    )
    images = _random(2, 3, 5, 6, 2)
    theta = IDENTITY + 0.4 * _random(2, 3, 6, seed=1)
    output = compiled(images, theta)
    assert output.shape == (2, 3, 5, 6, 2)
    np.testing.assert_allclose(
        output, affine_transform(images, theta), atol=1e-5
    )


# Layers ----------------------------------------------------------------------


def test_a_new_affine_map_is_the_identity():
    np.testing.assert_array_equal(
        AffineMap(4)(_random(2, 3, 5)), np.tile(IDENTITY, [2, 3, 1])
    )


def test_an_affine_map_stays_within_one_of_the_identity():
    layer = AffineMap(4)
    features = 1e3 * _random(2, 3, 5)
    layer(features)
    layer.set_weights([_random(*w.shape) for w in layer.weights])
    distance = np.abs(layer(features) - IDENTITY)
    assert np.all(distance <= 1.0)
    assert np.max(distance) > 0.9
    assert layer(features).shape == (2, 3, 6)


def test_an_affine_map_learns_from_the_first_step_on():
    layer, features = AffineMap(4), _random(3, 5)
    layer(features)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(features) * _random(3, 6, seed=1))
    assert np.all(tape.gradient(loss, layer.offset.kernel) != 0.0)


def test_an_affine_map_is_float32_under_mixed_float16():
    layer = AffineMap(4, dtype="mixed_float16")
    assert layer(_random(3, 5)).dtype == tf.float32
    assert layer.hidden.compute_dtype == "float16"
    assert layer.offset.compute_dtype == "float16"


def test_an_image_of_28x28_has_90_localisation_features():
    assert Localisation()(_random(2, 28, 28, 1)).shape == (2, 90)


@pytest.mark.parametrize(
    "image_shape", [(1, 1, 1), (3, 5, 2), (8, 8, 1), (9, 28, 1), (13, 14, 1)]
)
def test_localisation_copes_with_small_images(image_shape):
    layer = Localisation()
    images = _random(2, *image_shape)
    layer(images)
    # In weights all positive, nothing hides behind a ReLU.
    layer.set_weights([np.abs(w) for w in layer.get_weights()])
    features = layer(tf.abs(images))
    assert features.shape[0] == 2
    assert features.shape[1] >= 10
    assert np.all(np.max(features, axis=1) > 0.0)


def test_localisation_equals_valid_convolutions_and_maxima():
    layer = Localisation()
    images = _random(2, 28, 28, 1)
    layer(images)
    layer.set_weights(
        [0.3 * _random(*w.shape, seed=i) for i, w in enumerate(layer.weights)]
    )
    features = images
    for kernel, bias in (layer.get_weights()[:2], layer.get_weights()[2:]):
        features = tf.nn.conv2d(features, kernel, 1, "VALID") + bias
        pooled = tf.nn.max_pool2d(features, 2, 2, "VALID")
        features = np.maximum(pooled, 0.0)
    np.testing.assert_allclose(
        layer(images), features.reshape(2, -1), rtol=1e-4, atol=1e-4
    )


def test_localisation_knows_its_features_in_a_graph_of_any_batch():
    layer = Localisation()
    layer(_random(1, 28, 28, 1))
    graph = tf.function(
        layer, input_signature=[tf.TensorSpec([None, 28, 28, 1])]
    ).get_concrete_function()
    assert graph.outputs[0].shape.as_list() == [None, 90]


def test_layers_survive_a_round_trip():
    assert_survives_round_trip(AffineMap(4), _random(2, 3, 5))
    assert_survives_round_trip(Localisation(), _random(2, 9, 8, 1))
