"""Numbers without a meaning, which would give blank images or NaN."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe

SEED = (1, 2)
EPISODE = tiny_episode()
SUPPORT, QUERY = EPISODE["support"]["character"], EPISODE["query"]


@pytest.fixture(scope="module")
def model():
    return tiny_vhe()


@pytest.fixture(scope="module")
def pixel_cnn():
    return tiny_pixel_cnn_vhe()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "method",
    [
        lambda m, samples: m.decode(samples, seed=SEED),
        lambda m, samples: m.decode(samples, seed=SEED, query=QUERY),
        lambda m, samples: m.render(samples, seed=SEED),
        lambda m, samples: m.log_likelihood_given(samples, QUERY, seed=SEED),
    ],
    ids=["decode", "reconstruct", "render", "log_likelihood_given"],
)
def test_latents_that_are_not_finite_are_rejected(method, value, model):
    samples = model.infer(SUPPORT, seed=SEED, num_samples=2)
    wrong = samples["character"].numpy()
    wrong[1, 2, 0] = value
    with pytest.raises(ValueError, match=r"samples\['character'\].* 1 of 12"):
        method(model, {"character": wrong})


def test_a_posterior_that_is_not_finite_makes_no_image(model):
    posterior = model.encode(SUPPORT)["character"]
    wrong = posterior.copy(loc=posterior.loc * np.nan)
    with pytest.raises(ValueError, match=r"samples\['character'\]"):
        model.sample({"character": wrong}, seed=SEED)


@pytest.mark.parametrize("value", [0, -1, 2.5])
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("num_samples", lambda m, **n: m.infer(SUPPORT, seed=SEED, **n)),
        ("batch_size", lambda m, **n: m.infer({}, seed=SEED, **n)),
        ("batch_size", lambda m, **n: m.sample_prior(*n.values(), seed=SEED)),
        (
            "num_samples",
            lambda m, **n: m.importance_sample(SUPPORT, seed=SEED, **n),
        ),
        *(
            (name, method)
            for name in ("num_samples", "num_element_samples")
            for method in (
                lambda m, **n: m.log_likelihood(SUPPORT, QUERY, seed=SEED, **n),
                lambda m, **n: m.classify(
                    SUPPORT[tf.newaxis], QUERY[:1], seed=SEED, **n
                ),
            )
        ),
        (
            "num_element_samples",
            lambda m, **n: m.log_likelihood_given(
                m.infer(SUPPORT, seed=SEED), QUERY, seed=SEED, **n
            ),
        ),
    ],
)
def test_numbers_of_samples_are_positive(name, method, value, model):
    with pytest.raises(ValueError, match=f"Received: {name}={value}"):
        method(model, **{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", ["temperature", "guidance"])
def test_temperatures_and_guidance_are_finite(name, value, pixel_cnn):
    with pytest.raises(ValueError, match=f"Received: {name}={value}"):
        pixel_cnn.sample(SUPPORT, seed=SEED, **{"guidance": 0.0, name: value})


@pytest.mark.parametrize("value", [math.nan, 0.0, tf.constant(math.nan)])
def test_temperatures_of_latents_are_positive(value, model):
    with pytest.raises(ValueError, match=r"must be positive.*Received: "):
        model.sample_prior(2, seed=SEED, latent_temperature=value)
