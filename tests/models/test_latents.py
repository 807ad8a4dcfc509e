import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conftest import assert_distribution_shape
from tests.conftest import assert_survives_round_trip
from tests.conftest import tiny_episode
from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.models.latents import parents_first


def _latent(name, *parents, **kwargs):
    return Latent(
        name,
        prior=heads.StandardNormal(2),
        posterior=inference.SupportPosterior(keras.layers.Flatten(), 2, 8),
        parents=parents,
        **kwargs,
    )


def _names(latents):
    return [latent.name for latent in parents_first(latents)]


@pytest.mark.parametrize("per_element", [False, True])
@pytest.mark.parametrize("parents", [(), ("alphabet", "style")])
def test_a_vector_is_declared_in_one_call(parents, per_element):
    latent = Latent.vector(
        "character",
        3,
        encoder=keras.layers.Flatten(),
        units=8,
        parents=parents,
        per_element=per_element,
    )
    assert latent.parents == parents
    assert latent.per_element == per_element
    observed = tf.zeros([2, 8, 8, 1] if per_element else [2, 5, 8, 8, 1])
    values = [tf.zeros([4, 2, 3])] * len(parents)
    posterior, prior = latent(observed, *values)
    leading = [4, 2] if parents else [2]
    assert_distribution_shape(posterior, batch=leading, event=[3])
    assert_distribution_shape(
        prior, batch=leading if parents else [], event=[3]
    )
    assert_survives_round_trip(latent, observed, *values)


def test_a_template_is_declared_in_one_call():
    latent = Latent.template("character", (8, 6, 3), prior_blocks=1)
    posterior, prior = latent(tf.zeros([2, 5, 8, 6, 1]))
    assert_distribution_shape(posterior, batch=[2], event=[8, 6, 3])
    assert prior.event_shape == (8, 6, 3)
    value = tf.zeros([2, 8, 6, 3])
    assert latent.kl(posterior, prior, sample=value).shape == [2]


def test_latents_are_sorted_parents_first():
    latents = [
        _latent("position", "character", "style", per_element=True),
        _latent("character", "alphabet"),
        _latent("style"),
        _latent("alphabet"),
    ]
    assert _names(latents) == ["style", "alphabet", "character", "position"]


@pytest.mark.parametrize("names", [["b", "a", "c"], ["c", "b", "a"]])
def test_independent_latents_keep_the_order_of_their_declaration(names):
    assert _names([_latent(name) for name in names]) == names


def test_a_latent_of_an_element_may_have_one_of_an_element_as_parent():
    latents = [
        _latent("fine", "coarse", per_element=True),
        _latent("coarse", "character", per_element=True),
        _latent("character"),
    ]
    assert _names(latents) == ["character", "coarse", "fine"]


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (lambda: [], r"at least one group latent.*Received: \[\]"),
        (
            lambda: [_latent("position", per_element=True)],
            r"at least one group latent.*Received: \['position'\]",
        ),
        (
            lambda: [_latent("glyph"), _latent("glyph")],
            "Received: two latents named 'glyph'",
        ),
        (
            lambda: [_latent("glyph", "script")],
            r"'glyph' names a parent.*Declared: \['glyph'\]. "
            "Received: parent='script'",
        ),
        (
            lambda: [
                _latent("glyph", "position"),
                _latent("position", per_element=True),
            ],
            "'glyph' is shared.*Received: parent='position'",
        ),
        (
            lambda: [
                _latent("root"),
                _latent("glyph", "script"),
                _latent("script", "glyph"),
            ],
            r"acyclic.*cycle among \['glyph', 'script'\]",
        ),
    ],
)
def test_an_improper_graph_is_refused(latents, message):
    with pytest.raises(ValueError, match=message):
        parents_first(latents())


def test_an_unknown_divergence_is_refused():
    with pytest.raises(
        ValueError, match=r"'glyph' must be one of.*divergence='renyi'"
    ):
        _latent("glyph", divergence="renyi")


def test_a_kl_without_a_closed_form_says_what_to_declare():
    latent = Latent(
        "character",
        prior=heads.StandardNormal(2),
        posterior=inference.SupportPosterior(keras.layers.Flatten(), 2, 8),
    )
    prior = tfd.Independent(tfd.Logistic(tf.zeros(2), 1.0), 1)
    posterior = tfd.MultivariateNormalDiag(tf.zeros([1, 2]))
    with pytest.raises(ValueError, match="divergence='one_sample'"):
        latent.kl(posterior, prior, sample=posterior.sample())


def test_prior_and_posterior_must_have_one_event_shape():
    latent = Latent(
        "character",
        prior=heads.StandardNormal(1),
        posterior=inference.SupportPosterior(keras.layers.Flatten(), 4, 8),
    )
    support = tiny_episode()["support"]["character"]
    posterior, prior = latent(support)
    with pytest.raises(ValueError, match=r"'character' .* \(1,\) and \(4,\)"):
        latent.kl(posterior, prior, sample=posterior.sample())


def test_a_latent_below_itself_is_refused():
    with pytest.raises(
        ValueError, match=r"own parent. Received: parents=\('script', 'glyph'\)"
    ):
        _latent("glyph", "script", "glyph")


def test_a_latent_returns_its_posterior_and_its_prior():
    posterior, prior = _latent("glyph")(tiny_episode()["support"]["character"])
    assert_distribution_shape(posterior, batch=[3], event=[2])
    assert_distribution_shape(prior, batch=[], event=[2])


def test_the_two_divergences_agree_on_average():
    exact, estimate = _latent("a"), _latent("b", divergence="one_sample")
    posterior, prior = exact(tiny_episode()["support"]["character"])
    num_samples = 20_000
    samples = posterior.sample(num_samples, seed=(1, 2))
    kl = exact.kl(posterior, prior, sample=samples)
    estimates = estimate.kl(posterior, prior, sample=samples)
    assert kl.shape == (3,)
    assert estimates.shape == (num_samples, 3)
    # Five standard errors of the mean.
    error = 5.0 * np.std(estimates, axis=0) / np.sqrt(num_samples)
    assert np.all(np.abs(np.mean(estimates, axis=0) - kl) < error)


@pytest.mark.parametrize("divergence", ["closed_form", "one_sample"])
def test_a_latent_survives_a_round_trip(divergence):
    latent = Latent(
        "glyph",
        prior=inference.ConditionalNormal(2, 8),
        posterior=inference.SupportPosterior(keras.layers.Flatten(), 2, 8),
        parents=["script"],
        divergence=divergence,
    )
    assert_survives_round_trip(
        latent, tiny_episode()["support"]["character"], tf.ones([3, 4])
    )


def test_a_latent_of_an_element_survives_a_round_trip():
    latent = Latent(
        "position",
        prior=heads.StandardNormal(2),
        posterior=inference.QueryPosterior(keras.layers.Flatten(), 2, 8),
        per_element=True,
    )
    assert_survives_round_trip(latent, tiny_episode()["query"])


class _Prior(keras.layers.Layer):
    def call(self):
        raise AssertionError("is not called")


class _Posterior(keras.layers.Layer):
    def call(self, observed):
        raise AssertionError("is not called")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prior": _Prior()}, r"call\(self, \*parents\).*_Prior\.call\(\)"),
        (
            {"prior": _Posterior()},
            r"call\(self, \*parents\).*_Posterior\.call\(observed\)",
        ),
        (
            {"posterior": _Posterior(), "parents": ["above"]},
            r"\['observed', 'above'\].*_Posterior\.call\(observed\)",
        ),
    ],
)
def test_layers_of_another_signature_are_named(given, message):
    settings = {
        "prior": heads.StandardNormal(2),
        "posterior": inference.SupportPosterior(keras.layers.Flatten(), 2, 8),
    }
    with pytest.raises(ValueError, match=message):
        Latent("character", **{**settings, **given})


def _normal():
    return tfd.Normal(tf.zeros([2]), 1.0)


@pytest.mark.parametrize("role", ["prior", "posterior", "fitted_prior"])
@pytest.mark.parametrize("given", [_normal, _normal(), "normal"])
def test_what_is_no_layer_is_named(role, given):
    settings = {
        "prior": heads.StandardNormal(2),
        "posterior": inference.SupportPosterior(keras.layers.Flatten(), 2, 8),
    }
    received = f"Received: .* of type {type(given).__name__}"
    with pytest.raises(ValueError, match=f"`{role}` of .*{received}"):
        Latent("character", **{**settings, role: given})


class _OfNothing(keras.layers.Layer):
    def call(self):
        raise AssertionError("is not called")


class _OfX(keras.layers.Layer):
    def call(self, x):
        raise AssertionError("is not called")


class _OfPositions(keras.layers.Layer):
    def call(self, *latents):
        raise AssertionError("is not called")


@pytest.mark.parametrize("kind", [_OfNothing, _OfX, _OfPositions])
def test_likelihoods_of_another_signature_are_named(kind):
    message = rf"call\(self, character\)`.*{kind.__name__}\.call\("
    with pytest.raises(ValueError, match=message):
        VHE([_latent("character")], kind(), event_shape=(8, 8, 1))


@pytest.mark.parametrize("given", [_normal, _normal(), None])
def test_a_likelihood_that_is_no_layer_is_named(given):
    with pytest.raises(ValueError, match="`likelihood` must be a Keras layer"):
        VHE([_latent("character")], given, event_shape=(8, 8, 1))
