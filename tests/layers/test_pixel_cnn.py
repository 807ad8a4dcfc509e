import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import assert_survives_round_trip
from vhe_tf import random
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import NormalPixels
from vhe_tf.layers import incremental_pixel_cnn
from vhe_tf.layers.dropout import seed_scope
from vhe_tf.layers.pixel_cnn import GatedPixelCNN


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _network(num_parameters=1, *, channels=1, conditioned=None, **sizes):
    """Makes a built network all of whose weights, biases too, are random."""
    sizes = {"filters": 4, "num_blocks": 2, "first_kernel_size": 3, **sizes}
    network = GatedPixelCNN(num_parameters, **sizes)
    network.build(
        (None, None, None, channels),
        conditioned and (None, None, None, conditioned),
    )
    network.set_weights(
        [0.5 * _random(*w.shape, seed=i) for i, w in enumerate(network.weights)]
    )
    return network


def _jacobian(network, image, conditioning=None, *, of):
    """Returns |d parameters / d inputs|, `[H, W, P, H, W, C]`."""
    height, width, _ = image.shape
    size = height * width * network.num_parameters
    # The image once for each parameter, which is differentiated there.
    images = tf.repeat(image[tf.newaxis], size, axis=0)
    if conditioning is not None:
        conditioning = tf.repeat(conditioning[tf.newaxis], size, axis=0)
    inputs = {"images": images, "conditioning": conditioning}[of]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        parameters = network(images, conditioning)
    chosen = tf.reshape(tf.eye(size), parameters.shape)
    gradient = tape.gradient(parameters, inputs, output_gradients=chosen)
    return np.abs(gradient).reshape(
        *image.shape[:2], network.num_parameters, *inputs.shape[1:]
    )


def _offsets(height, width):
    """Returns how many rows up, and columns right, each pixel is of each."""
    i, j = np.arange(height), np.arange(width)
    up = i[:, None, None, None] - i[None, None, :, None]
    right = j[None, None, None, :] - j[None, :, None, None]
    return np.broadcast_arrays(up, right)  # [H, W, H, W] each


def _assert_depends_exactly_on(seen, jacobian):
    """Checks that a gradient is zero but for every pixel seen, not there."""
    depends = np.moveaxis(jacobian, 2, -1) > 0.0  # [H, W, H, W, C, P]
    np.testing.assert_array_equal(np.all(depends, axis=(-1, -2)), seen)
    np.testing.assert_array_equal(np.any(depends, axis=(-1, -2)), seen)


def _draw_naively(network, noise, conditioning, pixels, temperature):
    """Draws in raster order, each pixel by an evaluation of the image."""
    images = np.zeros(noise.shape, np.float32)
    _, height, width, _ = images.shape
    for i in range(height):
        for j in range(width):
            parameters = network(tf.constant(images), conditioning)
            images[:, i, j] = pixels.transform(
                parameters[:, i, j], noise[:, i, j], temperature=temperature
            )
    return images


def _assert_same_draws(draws, expected, pixels):
    if isinstance(pixels, BernoulliPixels):
        np.testing.assert_array_equal(draws, expected)
        assert 0.1 < np.mean(expected) < 0.9
    else:
        np.testing.assert_allclose(draws, expected, rtol=1e-3, atol=1e-4)


# The dependence of pixels ----------------------------------------------------


@pytest.mark.parametrize("conditioned", [None, 2])
@pytest.mark.parametrize(
    ("sizes", "reach"),
    [
        ({"num_blocks": 1, "first_kernel_size": 3}, 2),
        ({"num_blocks": 2, "first_kernel_size": 3}, 3),
        ({"num_blocks": 1, "first_kernel_size": 7}, 4),
        ({"num_blocks": 2, "first_kernel_size": 3, "kernel_size": 5}, 5),
        ({"num_blocks": 3, "first_kernel_size": 9}, 7),
    ],
)
def test_a_pixel_sees_all_before_it_in_the_receptive_field_and_no_other(
    sizes, reach, conditioned
):
    network = _network(2, channels=2, conditioned=conditioned, **sizes)
    assert network.receptive_field == reach
    conditioning = conditioned and _random(7, 8, conditioned, seed=1)
    jacobian = _jacobian(network, _random(7, 8, 2), conditioning, of="images")
    up, right = _offsets(7, 8)
    # No blind spot: the rows above are seen as far right as left.
    above = (up >= 1) & (up <= reach) & (np.abs(right) <= reach)
    left = (up == 0) & (-reach <= right) & (right <= -1)
    _assert_depends_exactly_on(above | left, jacobian)


@pytest.mark.parametrize(
    ("sizes", "reach", "below"),
    [
        ({"num_blocks": 1}, 0, 0),
        ({"num_blocks": 3}, 2, 0),
        ({"num_blocks": 2, "kernel_size": 5}, 2, 0),
        ({"num_blocks": 2, "conditioning_kernel_size": 3}, 2, 1),
        ({"num_blocks": 2, "conditioning_filters": (3, 4)}, 3, 2),
    ],
)
def test_a_pixel_sees_the_conditioning_around_and_above_it(sizes, reach, below):
    network = _network(2, conditioned=2, **sizes)
    jacobian = _jacobian(
        network, _random(7, 8, 1), _random(7, 8, 2, seed=1), of="conditioning"
    )
    up, right = _offsets(7, 8)
    _assert_depends_exactly_on(
        (-below <= up) & (up <= reach) & (np.abs(right) <= reach), jacobian
    )


def test_the_first_pixel_knows_nothing_but_the_conditioning():
    network = _network(conditioned=2)
    conditioning = _random(3, 4, 5, 2)
    np.testing.assert_array_equal(
        network(_random(3, 4, 5, 1), conditioning)[:, 0, 0],
        network(_random(3, 4, 5, 1, seed=1), conditioning)[:, 0, 0],
    )


# Values ----------------------------------------------------------------------


def _elu(features):
    return np.where(features > 0.0, features, np.expm1(features))


def test_parameters_equal_masked_convolutions_around_the_blocks():
    network = _network(
        3,
        channels=2,
        conditioned=2,
        first_kernel_size=5,
        conditioning_filters=(3,),
    )
    images, conditioning = _random(2, 5, 6, 2), _random(2, 5, 6, 2, seed=1)
    kernel = np.zeros((5, 5, 2, 4), np.float32)
    kernel[:2] = network.first_above.kernel
    above = tf.nn.conv2d(images, kernel, 1, "SAME") + network.first_above.bias
    kernel = np.zeros((1, 5, 2, 4), np.float32)
    kernel[:, :2] = network.first_left.kernel
    left = tf.nn.conv2d(images, kernel, 1, "SAME") + network.first_left.bias
    (embedding,) = network.embedding
    embedded = _elu(
        tf.nn.conv2d(conditioning, embedding.kernel, 1, "SAME").numpy()
        + embedding.bias.numpy()
    )
    for block in network.blocks:
        above, left = block(above, left, embedded)
    hidden = _elu(left.numpy()) @ network.hidden.kernel.numpy()[0, 0]
    hidden = _elu(hidden + network.hidden.bias.numpy())
    expected = hidden @ network.parameters.kernel.numpy()[0, 0]
    np.testing.assert_allclose(
        network(images, conditioning),
        expected + network.parameters.bias.numpy(),
        rtol=1e-4,
        atol=1e-4,
    )


def test_compiled_parameters_equal_eager_ones():
    network = _network(conditioned=2, conditioning_filters=(3,))
    images, conditioning = _random(3, 5, 6, 1), _random(3, 5, 6, 2, seed=1)
    expected = network(images, conditioning)
    for jit_compile in (False, True):
        compiled = tf.function(network, jit_compile=jit_compile)
        np.testing.assert_allclose(
            compiled(images, conditioning), expected, rtol=1e-4, atol=1e-5
        )


def test_every_weight_gets_a_gradient():
    network = _network(conditioned=2, conditioning_filters=(3,))
    with tf.GradientTape() as tape:
        parameters = network(_random(3, 5, 6, 1), _random(3, 5, 6, 2, seed=1))
        loss = tf.reduce_sum(parameters**2)
    gradients = tape.gradient(loss, network.trainable_variables)
    assert len(gradients) == 4 + 2 + 2 * 7 + 4
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient)


def test_parameters_are_float32_under_mixed_float16():
    network = _network(dtype="mixed_float16", conditioned=2)
    images, conditioning = _random(3, 4, 5, 1), _random(3, 4, 5, 2, seed=1)
    parameters = network(images, conditioning)
    assert parameters.dtype == tf.float32
    exact = _network(conditioned=2)(images, conditioning)
    np.testing.assert_allclose(parameters, exact, atol=0.05)
    assert not np.array_equal(parameters, exact)


def test_dropout_acts_in_training_only():
    plain, dropping = _network(), _network(dropout=0.5)
    images = _random(3, 5, 6, 1)
    np.testing.assert_array_equal(dropping(images), plain(images))

    def trained(seed):
        with seed_scope(random.fold_in(seed, tf.range(3))):
            return dropping(images, training=True)

    assert not np.allclose(trained([1, 2]), plain(images))
    np.testing.assert_array_equal(trained([1, 2]), trained([1, 2]))
    assert not np.allclose(trained([1, 2]), trained([1, 3]))


# Draws -----------------------------------------------------------------------

# Pixels, image shape, batch, temperature, channels of the conditioning, sizes.
DRAWS = [
    (BernoulliPixels(), (4, 6, 1), 3, 1.0, None, {}),
    (NormalPixels(), (6, 4, 1), 1, 0.5, 3, {"first_kernel_size": 7}),
    (
        BernoulliPixels(),
        (5, 4, 2),
        3,
        2.0,
        2,
        {
            "kernel_size": 5,
            "num_blocks": 3,
            "conditioning_filters": (3,),
            "conditioning_kernel_size": 3,
        },
    ),
    (
        NormalPixels(),
        (1, 7, 3),
        2,
        1.0,
        1,
        {"num_blocks": 1, "first_kernel_size": 9},
    ),
]


def _drawing(image_shape, batch, conditioned, pixels, **sizes):
    """Returns a network, noise and a conditioning."""
    channels = image_shape[-1]
    network = _network(
        pixels.num_parameters(channels),
        channels=channels,
        conditioned=conditioned,
        **sizes,
    )
    noise = pixels.noise([batch, *image_shape], tf.constant([[1, 2]]))[0]
    if conditioned:
        conditioned = _random(batch, *image_shape[:2], conditioned, seed=9)
    return network, noise, conditioned


@pytest.mark.parametrize("case", DRAWS, ids=range(len(DRAWS)))
def test_draws_equal_those_of_the_naive_sampler(case):
    pixels, image_shape, batch, temperature, conditioned, sizes = case
    network, noise, conditioning = _drawing(
        image_shape, batch, conditioned, pixels, **sizes
    )
    temperature = tf.constant(temperature)
    draws = network.generate(
        noise, conditioning, pixels=pixels, temperature=temperature
    )
    assert draws.dtype == tf.float32
    _assert_same_draws(
        draws,
        _draw_naively(network, noise, conditioning, pixels, temperature),
        pixels,
    )


@pytest.mark.parametrize("most", [0, 2])
def test_rows_are_guessed_or_sampled_by_pixel_to_the_same(most, monkeypatch):
    monkeypatch.setattr(incremental_pixel_cnn, "_MAX_GUESSED", most)
    pixels = BernoulliPixels()
    network, noise, conditioning = _drawing(
        (5, 6, 2), 3, 2, pixels, kernel_size=5, num_blocks=2
    )
    draw = tf.function(
        lambda *inputs: network.generate(
            *inputs, pixels=pixels, temperature=tf.constant(1.0)
        ),
        input_signature=[
            tf.TensorSpec([None, 5, 6, 2]),
            tf.TensorSpec([None, 5, 6, 2]),
        ],
    )
    np.testing.assert_array_equal(
        draw(noise, conditioning),
        _draw_naively(network, noise, conditioning, pixels, 1.0),
    )


def test_draws_compiled_by_xla_equal_those_of_the_naive_sampler():
    pixels = NormalPixels()
    network, noise, conditioning = _drawing((4, 5, 2), 3, 2, pixels)
    temperature = tf.constant(0.7)
    compiled = tf.function(
        lambda *inputs: network.generate(
            *inputs, pixels=pixels, temperature=temperature
        ),
        jit_compile=True,
    )
    _assert_same_draws(
        compiled(noise, conditioning),
        _draw_naively(network, noise, conditioning, pixels, temperature),
        pixels,
    )


def test_a_graph_of_any_batch_draws_each_image_without_its_neighbours():
    pixels = NormalPixels()
    network, noise, conditioning = _drawing((4, 5, 2), 3, 2, pixels)
    compiled = tf.function(
        lambda *inputs: network.generate(
            *inputs, pixels=pixels, temperature=tf.constant(1.0)
        ),
        input_signature=[
            tf.TensorSpec([None, 4, 5, 2]),
            tf.TensorSpec([None, 4, 5, 2]),
        ],
    )
    assert compiled.get_concrete_function().outputs[0].shape[1:] == (4, 5, 2)
    draws = compiled(noise, conditioning)
    _assert_same_draws(
        draws,
        _draw_naively(network, noise, conditioning, pixels, 1.0),
        pixels,
    )
    for n in range(3):
        alone = compiled(noise[n : n + 1], conditioning[n : n + 1])
        _assert_same_draws(alone, draws[n : n + 1], pixels)


def test_new_weights_change_what_a_used_sampler_draws():
    pixels = NormalPixels()
    network, noise, _ = _drawing((3, 4, 1), 2, None, pixels)
    temperature = tf.constant(1.0)
    network.generate(noise, None, pixels=pixels, temperature=temperature)
    network.set_weights([0.5 * w for w in network.get_weights()])
    _assert_same_draws(
        network.generate(noise, None, pixels=pixels, temperature=temperature),
        _draw_naively(network, noise, None, pixels, temperature),
        pixels,
    )


def test_a_network_can_draw_before_its_first_call():
    network = GatedPixelCNN(1, filters=4, num_blocks=2)
    pixels = BernoulliPixels()
    noise = pixels.noise([2, 3, 4, 1], tf.constant([[1, 2]]))[0]
    conditioning = _random(2, 3, 4, 2)
    draws = network.generate(
        noise, conditioning, pixels=pixels, temperature=tf.constant(1.0)
    )
    np.testing.assert_array_equal(
        draws, _draw_naively(network, noise, conditioning, pixels, 1.0)
    )


def test_draws_under_mixed_float16_are_those_of_the_same_network():
    pixels = NormalPixels()
    network, noise, conditioning = _drawing(
        (3, 4, 1), 2, 2, pixels, dtype="mixed_float16"
    )
    draws = network.generate(
        noise, conditioning, pixels=pixels, temperature=tf.constant(1.0)
    )
    assert draws.dtype == tf.float32
    np.testing.assert_allclose(
        draws,
        _draw_naively(network, noise, conditioning, pixels, 1.0),
        atol=0.05,
    )


# Configuration ---------------------------------------------------------------


def test_a_network_survives_a_round_trip():
    images, conditioning = _random(2, 5, 6, 1), _random(2, 5, 6, 2)
    assert_survives_round_trip(
        GatedPixelCNN(1, filters=4, num_blocks=2), images
    )
    assert_survives_round_trip(
        GatedPixelCNN(
            3,
            filters=4,
            num_blocks=1,
            kernel_size=5,
            first_kernel_size=3,
            conditioning_filters=(3, 2),
            conditioning_kernel_size=3,
            dropout=0.5,
            bias_initializer=keras.initializers.Constant([1.0, -2.0, 0.5]),
            dtype="mixed_float16",
        ),
        images,
        conditioning,
    )


def test_the_parameters_of_a_pixel_begin_where_they_are_told_to():
    bias = [1.0, -2.0, 0.5]
    network = GatedPixelCNN(
        3,
        filters=4,
        num_blocks=1,
        bias_initializer=keras.initializers.Constant(bias),
    )
    revived = GatedPixelCNN.from_config(network.get_config())
    for begun in (network, revived):
        begun.build((None, 5, 6, 1))
        np.testing.assert_array_equal(begun.parameters.bias, bias)


def test_a_network_is_revived_with_the_weights_that_it_had_built():
    network = _network(conditioned=2, conditioning_filters=(3,))
    revived = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(network)
    )
    assert revived.built
    assert [w.shape for w in revived.weights] == [
        w.shape for w in network.weights
    ]


@pytest.mark.parametrize("name", ["kernel_size", "first_kernel_size"])
@pytest.mark.parametrize("size", [1, 2, 4, -3])
def test_a_kernel_without_a_middle_is_refused(name, size):
    with pytest.raises(ValueError, match=f"Received: {name}={size}"):
        GatedPixelCNN(1, filters=4, num_blocks=1, **{name: size})


@pytest.mark.parametrize(
    ("function", "shown"),
    [(GatedPixelCNN._generate, False), (len, True)],
)
def test_tracings_of_several_networks_together_are_not_warned_of(
    function, shown
):
    logger = logging.getLogger("tensorflow")
    text = f"5 calls to <function {function}> triggered tf.function retracing"
    record = logger.makeRecord("", logging.WARNING, "", 0, text, (), None)
    assert bool(logger.filter(record)) == shown
