import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import assert_distribution_shape
from tests.conftest import assert_survives_round_trip
from vhe_tf.layers.convolution import ConvolutionalDecoder
from vhe_tf.layers.convolution import ConvolutionalEncoder
from vhe_tf.layers.heads import BernoulliImageHead
from vhe_tf.layers.inference import ConditionalNormal
from vhe_tf.layers.inference import ImageLikelihood
from vhe_tf.layers.inference import QueryPosterior
from vhe_tf.layers.inference import SupportPosterior


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _support_posterior():
    return SupportPosterior(ConvolutionalEncoder((8,), 0), 2, 8)


def _query_posterior():
    return QueryPosterior(ConvolutionalEncoder((8,), 0), 2, 8)


def _likelihood():
    return ImageLikelihood(
        ConvolutionalDecoder((6, 6, 1), (8,), 0), BernoulliImageHead()
    )


def test_a_conditional_prior_keeps_the_leading_axes_of_its_parents():
    layer = ConditionalNormal(2, 8)
    d = layer(_random(5, 3, 4), _random(5, 3, 1))
    assert_distribution_shape(d, batch=[5, 3], event=[2])


def test_a_conditional_prior_depends_on_every_parent():
    layer = ConditionalNormal(2, 8)
    a, b = _random(3, 4), _random(3, 1, seed=1)
    loc = layer(a, b).mean()
    assert not np.allclose(loc, layer(a + 1.0, b).mean())
    assert not np.allclose(loc, layer(a, b + 1.0).mean())


@pytest.mark.parametrize("support_size", [1, 2, 7])
def test_a_support_posterior_takes_any_number_of_shots(support_size):
    layer = _support_posterior()
    layer(_random(1, 1, 6, 6, 1))
    d = layer(_random(3, support_size, 6, 6, 1))
    assert_distribution_shape(d, batch=[3], event=[2])


def test_a_support_posterior_ignores_the_order_of_the_support():
    layer = _support_posterior()
    support = _random(3, 4, 6, 6, 1)
    d = layer(support)
    other = layer(tf.gather(support, [2, 0, 3, 1], axis=1))
    np.testing.assert_allclose(d.mean(), other.mean(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d.stddev(), other.stddev(), rtol=1e-5)


def test_a_support_posterior_sees_every_element():
    layer = _support_posterior()
    support = _random(1, 3, 6, 6, 1)
    with tf.GradientTape() as tape:
        tape.watch(support)
        loc = layer(support).mean()
    gradient = np.abs(tape.gradient(loc, support)).sum(axis=(0, 2, 3, 4))
    assert np.all(gradient > 0.0)


def test_a_support_repeated_is_the_same_evidence():
    layer = _support_posterior()
    support = _random(3, 2, 6, 6, 1)
    np.testing.assert_allclose(
        layer(support).mean(),
        layer(tf.concat([support, support], axis=1)).mean(),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("make", "observed"),
    [(_support_posterior, (3, 2, 6, 6, 1)), (_query_posterior, (3, 6, 6, 1))],
)
def test_sample_axes_of_parents_equal_one_call_a_sample(make, observed):
    layer = make()
    observed = _random(*observed)
    a, b = _random(4, 5, 3, 2), _random(4, 5, 3, 1, seed=1)
    d = layer(observed, a, b)
    assert_distribution_shape(d, batch=[4, 5, 3], event=[2])
    alone = layer(observed, a[2, 3], b[2, 3])
    assert_distribution_shape(alone, batch=[3], event=[2])
    np.testing.assert_allclose(
        d.mean()[2, 3], alone.mean(), rtol=1e-5, atol=1e-6
    )


def test_a_likelihood_keeps_sample_axes():
    d = _likelihood()(character=_random(4, 3, 2), element=_random(4, 3, 1))
    assert_distribution_shape(d, batch=[4, 3], event=[6, 6, 1])


def test_a_likelihood_takes_its_latents_in_any_order():
    layer = _likelihood()
    a, b = _random(3, 2), _random(3, 1, seed=1)
    np.testing.assert_array_equal(
        layer(character=a, element=b).mean(),
        layer(element=b, character=a).mean(),
    )


def test_a_likelihood_refuses_an_unseen_latent_that_is_none():
    likelihood = ImageLikelihood(
        ConvolutionalDecoder((8, 8, 1), (4,), 0),
        BernoulliImageHead(),
        exclude=["alfabet"],
    )
    with pytest.raises(ValueError, match=r"\['alfabet'\]"):
        likelihood(alphabet=tf.zeros([2, 3]), character=tf.zeros([2, 3]))


def test_inference_layers_survive_a_round_trip():
    parents = [_random(4, 3, 2), _random(4, 3, 1)]
    assert_survives_round_trip(ConditionalNormal(2, 8), *parents)
    assert_survives_round_trip(
        _support_posterior(), _random(3, 2, 6, 6, 1), *parents
    )
    assert_survives_round_trip(
        _query_posterior(), _random(3, 6, 6, 1), *parents
    )
    assert_survives_round_trip(
        _likelihood(), character=parents[0], element=parents[1]
    )


def test_a_dtype_policy_revives_with_its_layer():
    layer = SupportPosterior(
        keras.layers.Flatten(), 2, 8, dtype="mixed_float16"
    )
    revived = SupportPosterior.from_config(layer.get_config())
    assert revived.dtype_policy.name == "mixed_float16"
    assert revived.head.parameters.compute_dtype == "float16"
    assert_distribution_shape(
        revived(_random(3, 2, 6, 6, 1)), batch=[3], event=[2]
    )
