"""What the tests share: three assertions' worth of helpers and tiny models."""

import inspect
import json

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference

IMAGE_SHAPE = (8, 8, 1)


def assert_distribution_shape(d, *, batch, event):
    """Checks the shapes a float32 distribution declares and those it gives."""
    assert isinstance(d, tfd.Distribution)
    assert tuple(d.batch_shape) == tuple(batch)
    assert tuple(d.event_shape) == tuple(event)
    assert d.dtype == tf.float32
    value = d.sample(seed=(1, 2))
    assert tuple(value.shape) == (*batch, *event)
    assert tuple(d.log_prob(value).shape) == tuple(batch)


def assert_survives_round_trip(layer, *inputs, **named_inputs):
    """Checks that a layer's config is complete and revives the layer."""
    declared = set(inspect.signature(type(layer).__init__).parameters)
    assert declared - {"self", "kwargs"} <= set(layer.get_config())
    expected = _values(layer(*inputs, **named_inputs))
    written = json.dumps(keras.saving.serialize_keras_object(layer))
    revived = keras.saving.deserialize_keras_object(json.loads(written))
    assert type(revived) is type(layer)
    assert json.dumps(revived.get_config()) == json.dumps(layer.get_config())
    revived(*inputs, **named_inputs)
    revived.set_weights(layer.get_weights())
    for value, old in zip(
        _values(revived(*inputs, **named_inputs)), expected, strict=True
    ):
        np.testing.assert_array_equal(value, old)


def _values(output):
    """Returns tensors that tell one output of a layer from another."""
    if isinstance(output, tfd.Distribution):
        return [output.mean(), output.sample(seed=(3, 4))]
    if isinstance(output, tuple):
        return [value for part in output for value in _values(part)]
    return [output]


def tiny_episode(
    groups=("character",),
    *,
    batch_size=3,
    support_size=2,
    group_size=5,
    image_shape=IMAGE_SHAPE,
    seed=(1, 2),
):
    """Makes an episode of random binary images."""
    rng = np.random.default_rng(seed)

    def images(*leading):
        return tf.constant(
            rng.integers(0, 2, (*leading, *image_shape)), tf.float32
        )

    return {
        "query": images(batch_size),
        "support": {name: images(batch_size, support_size) for name in groups},
        "group_size": {
            name: tf.fill([batch_size], group_size) for name in groups
        },
        "seed": tf.constant(seed, tf.int32),
    }


def tiny_vhe(structure="flat", *, objective="vhe"):
    """Makes a VHE over 8x8 images: flat, hierarchical or factorial."""

    def group(name, *parents):
        return Latent(
            name,
            prior=(
                inference.ConditionalNormal(2, 8)
                if parents
                else heads.StandardNormal(2)
            ),
            posterior=inference.SupportPosterior(keras.layers.Flatten(), 2, 8),
            parents=parents,
        )

    def element(*parents):
        return Latent(
            "element",
            prior=inference.ConditionalNormal(3, 8),
            posterior=inference.QueryPosterior(keras.layers.Flatten(), 3, 8),
            parents=parents,
            per_element=True,
        )

    latents = {
        "flat": [group("character"), element("character")],
        "hierarchical": [
            element("alphabet", "character"),
            group("character", "alphabet"),
            group("alphabet"),
        ],
        "factorial": [group("character"), group("style")],
    }
    return VHE(
        latents=latents[structure],
        likelihood=inference.ImageLikelihood(
            convolution.ConvolutionalDecoder(IMAGE_SHAPE, (8,), 0),
            heads.BernoulliImageHead(),
        ),
        image_shape=IMAGE_SHAPE,
        objective=objective,
    )
