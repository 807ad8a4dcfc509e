import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import assert_survives_round_trip
from vhe_tf.layers.convolution import ConvolutionalDecoder
from vhe_tf.layers.convolution import ConvolutionalEncoder


def _random(*shape):
    rng = np.random.default_rng(0)
    return tf.constant(rng.normal(size=shape), tf.float32)


SIZES = [(28, 28, 1), (40, 40, 3), (13, 9, 2), (1, 1, 1)]


@pytest.mark.parametrize("image_shape", SIZES)
def test_the_decoder_makes_images_of_any_size(image_shape):
    decoder = ConvolutionalDecoder(image_shape, (8, 16), convolutions=1)
    assert decoder(_random(2, 5)).shape == (2, *image_shape)


@pytest.mark.parametrize("image_shape", SIZES)
def test_the_decoder_mirrors_what_the_encoder_leaves(image_shape):
    encoder = ConvolutionalEncoder((8, 16), convolutions=1)
    decoder = ConvolutionalDecoder(image_shape, (8, 16), convolutions=1)
    features = encoder(_random(2, *image_shape))
    decoder(_random(2, 5))
    assert features.shape == (2, decoder.base.units)


def test_sample_axes_equal_folding_them_into_the_batch():
    decoder = ConvolutionalDecoder((13, 9, 2), (8,), convolutions=1)
    features = _random(3, 2, 4, 5)
    images = decoder(features)
    assert images.shape == (3, 2, 4, 13, 9, 2)
    folded = decoder(tf.reshape(features, [-1, 5]))
    np.testing.assert_allclose(
        tf.reshape(images, folded.shape), folded, rtol=1e-5, atol=1e-6
    )


def test_the_decoder_knows_its_image_shape_in_a_graph_of_any_batch():
    decoder = ConvolutionalDecoder((13, 9, 2), (8,), convolutions=0)
    decoder(_random(1, 5))
    graph = tf.function(
        decoder, input_signature=[tf.TensorSpec([None, None, 5])]
    ).get_concrete_function()
    assert graph.outputs[0].shape[-3:] == (13, 9, 2)


def test_the_encoder_runs_stages_of_the_declared_depth():
    encoder = ConvolutionalEncoder((8, 16, 8), convolutions=2)
    features = encoder(_random(2, 13, 9, 2))
    assert features.shape == (2, 2 * 2 * 8)  # 13x9, 7x5, 4x3, 2x2
    kernels = [w.shape for w in encoder.weights if len(w.shape) == 4]
    assert kernels == [
        (3, 3, *channels)
        for channels in [
            (2, 8),
            (8, 8),
            (8, 8),
            (8, 16),
            (16, 16),
            (16, 16),
            (16, 8),
            (8, 8),
            (8, 8),
        ]
    ]


@pytest.mark.parametrize("training", [False, True])
def test_images_of_a_batch_do_not_interact(training):
    encoder = ConvolutionalEncoder((8,), convolutions=1)
    images = _random(3, 6, 6, 1)
    together = encoder(images, training=training)
    alone = encoder(images[1:2], training=training)
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-5, atol=1e-6)
    assert not encoder.non_trainable_variables


def test_the_encoder_reads_images_of_one_pixel_differing():
    encoder = ConvolutionalEncoder((8,), convolutions=0)
    image = np.zeros((1, 6, 6, 1), np.float32)
    other = image.copy()
    other[0, 5, 5] = 1.0
    assert not np.allclose(encoder(image), encoder(other))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (
            lambda: ConvolutionalEncoder((8,), 1, dtype="mixed_float16"),
            (6, 6, 1),
        ),
        (
            lambda: ConvolutionalDecoder(
                (6, 6, 1), (8,), 1, dtype="mixed_float16"
            ),
            (5,),
        ),
    ],
)
def test_the_dtype_policy_reaches_every_sub_layer(layer, shape):
    layer = layer()
    assert layer(_random(2, *shape)).dtype == tf.float16
    assert all(w.dtype == "float32" for w in layer.weights)
    for part in layer._flatten_layers():
        if isinstance(part, keras.layers.Conv2D | keras.layers.Dense):
            assert part.compute_dtype == "float16"


def test_convolutions_survive_a_round_trip():
    assert_survives_round_trip(
        ConvolutionalEncoder((8, 16), convolutions=1), _random(2, 6, 6, 1)
    )
    assert_survives_round_trip(
        ConvolutionalDecoder((7, 6, 2), (8, 16), convolutions=1), _random(2, 5)
    )


def test_the_default_order_of_axes_is_without_effect():
    expected = [_encoded_and_decoded()]
    keras.config.set_image_data_format("channels_first")
    try:
        expected.append(_encoded_and_decoded())
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(*expected, rtol=1e-6)


def _encoded_and_decoded():
    keras.utils.set_random_seed(0)
    encoder = ConvolutionalEncoder((8, 16), convolutions=1)
    decoder = ConvolutionalDecoder((13, 9, 2), (8, 16), convolutions=1)
    return decoder(encoder(_random(2, 13, 9, 2)))
