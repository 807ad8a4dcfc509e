"""Latents that pass no gradient."""

import keras
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf import layers
from vhe_tf.layers.base import BaseLayer

SHAPE = (8, 8, 1)
SEED = (1, 2)


class Fixed(BaseLayer):
    """Returns a distribution that is made of one weight."""

    def __init__(self, make, **kwargs):
        super().__init__(**kwargs)
        self.make = make

    def build(self, *_):
        self.weight = self.add_weight(shape=(3,), initializer="zeros")

    def call(self, observed=None, *parents):
        leading = [] if observed is None else [tf.shape(observed)[0]]
        loc = tf.broadcast_to(self.weight, [*leading, 3])
        return self.make(loc)


def _normal(loc):
    return tfd.MultivariateNormalDiag(loc, tf.ones_like(loc))


def _mixture(components, **options):
    def make(loc):
        logits = tf.zeros([*loc.shape[:-1], 2])
        both = tf.stack([loc, loc + 1.0], axis=-2)
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits), components(both), **options
        )

    return make


def _independent(of):
    return lambda loc: tfd.Independent(of(loc), 1)


_ROUND = tfb.Inline(
    forward_fn=tf.round,
    inverse_fn=tf.identity,
    forward_log_det_jacobian_fn=lambda x: tf.zeros([]),
    inverse_log_det_jacobian_fn=lambda x: tf.zeros([]),
    forward_min_event_ndims=0,
)

NO_GRADIENT = {
    "Bernoulli": _independent(lambda loc: tfd.Bernoulli(loc, dtype=tf.float32)),
    "OneHotCategorical": lambda loc: tfd.OneHotCategorical(
        loc, dtype=tf.float32
    ),
    "Poisson": _independent(lambda loc: tfd.Poisson(log_rate=loc)),
    "mixture": _mixture(_normal),
    "mixture of Bernoullis": _mixture(
        _independent(lambda loc: tfd.Bernoulli(loc, dtype=tf.float32))
    ),
    "transformed": lambda loc: tfb.Shift(1.0)(
        tfd.Independent(tfd.Bernoulli(loc, dtype=tf.float32), 1)
    ),
    "integers": _independent(tfd.Bernoulli),
    "stop_gradient": lambda loc: _normal(tf.stop_gradient(loc)),
    "round": lambda loc: _normal(tf.round(loc)),
    "sign": lambda loc: _normal(tf.sign(loc)),
    "cast": lambda loc: _normal(tf.cast(loc > 0, tf.float32)),
    "ignored": lambda loc: _normal(tf.zeros_like(loc)),
    "rounded samples": lambda loc: _ROUND(_normal(loc)),
}


def _model(posterior):
    latent = Latent(
        "character",
        prior=Fixed(_normal),
        posterior=Fixed(posterior),
        divergence="one_sample",
    )
    likelihood = layers.ImageLikelihood(
        layers.ConvolutionalDecoder(SHAPE, filters=[8]),
        layers.BernoulliImageHead(),
    )
    return VHE([latent], likelihood, event_shape=SHAPE)


@pytest.mark.parametrize("name", list(NO_GRADIENT))
def test_a_posterior_that_passes_no_gradient_is_rejected(name):
    keras.utils.set_random_seed(0)
    with pytest.raises(ValueError, match=r"'character' .*Received: "):
        _model(NO_GRADIENT[name])


@pytest.mark.parametrize(
    "posterior",
    [
        _normal,
        _mixture(
            _independent(lambda loc: tfd.Normal(loc, 1.0)), reparameterize=True
        ),
        # As the message says.
        lambda loc: tfd.Independent(
            tfd.MixtureSameFamily(
                tfd.Categorical(tf.zeros([*loc.shape, 2])),
                tfd.Normal(tf.stack([loc, loc + 1.0], axis=-1), 1.0),
                reparameterize=True,
            ),
            1,
        ),
        lambda loc: tfd.RelaxedOneHotCategorical(0.5, loc),
        _independent(lambda loc: tfd.RelaxedBernoulli(0.5, loc)),
        lambda loc: tfb.Exp()(_normal(loc)),
    ],
)
def test_a_posterior_that_passes_gradients_is_accepted(posterior):
    model = _model(posterior)
    samples = model.infer(tf.zeros([1, 2, *SHAPE]), seed=SEED)
    assert samples["character"].shape == (1, 1, 3)


class _WithoutBias(BaseLayer):
    """A posterior whose weights have no gradient of a blank image."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, use_bias=False)

    def call(self, observed, *parents):
        flat = tf.reshape(observed, [*observed.shape[:2], -1])
        return _normal(self.dense(tf.reduce_mean(flat, axis=1)))


class _WithoutWeights(BaseLayer):
    def call(self, observed, *parents):
        return _normal(tf.reduce_mean(observed, axis=[1, 2, 4])[:, :3])


@pytest.mark.parametrize("posterior", [_WithoutBias, _WithoutWeights])
def test_what_a_blank_image_does_not_show_is_no_mistake(posterior):
    latent = Latent(
        "character",
        prior=Fixed(_normal),
        posterior=posterior(),
        divergence="one_sample",
    )
    likelihood = layers.ImageLikelihood(
        layers.ConvolutionalDecoder(SHAPE, filters=[8]),
        layers.BernoulliImageHead(),
    )
    VHE([latent], likelihood, event_shape=SHAPE)
