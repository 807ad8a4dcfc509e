import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import tiny_episode
from vhe_tf import deconvolutional_vhe


@pytest.fixture(scope="module")
def small():
    return deconvolutional_vhe("small", image_shape=(8, 8, 1))


def test_the_small_model_bounds_every_episode(small):
    terms = small(tiny_episode())
    assert terms.elbo.shape == (3,)
    assert np.all(np.isfinite(terms.elbo))
    assert np.all(terms.log_likelihood < 0.0)


def test_the_latents_are_one_of_the_group_and_one_of_the_element(small):
    group, element = small.latents
    assert (group.name, group.per_element) == ("character", False)
    assert (element.name, element.per_element) == ("element", True)
    assert element.parents == ("character",)


def test_the_posterior_of_the_element_reads_the_group_latent(small):
    element = small.latents[1]
    query = tiny_episode()["query"]
    posteriors = [
        element.posterior(query, c).mean()
        for c in (tf.zeros([3, 64]), tf.ones([3, 64]))
    ]
    assert not np.allclose(*posteriors)


def test_every_weight_gets_a_gradient(small):
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(small(tiny_episode(batch_size=4)).elbo)
    gradients = tape.gradient(loss, small.trainable_variables)
    for gradient, weight in zip(
        gradients, small.trainable_variables, strict=True
    ):
        assert np.all(np.isfinite(gradient)), weight.path
        assert np.any(gradient != 0.0), weight.path


def test_the_group_and_the_objective_are_the_callers():
    model = deconvolutional_vhe(
        "small", image_shape=(9, 7, 2), group="person", objective="rescale"
    )
    assert model.get_config()["image_shape"] == [9, 7, 2]
    assert model.latents[0].name == "person"
    assert model.objective == "rescale"
    episode = tiny_episode(["person"], image_shape=(9, 7, 2))
    assert model(episode).elbo.shape == (3,)


def test_the_published_sizes_are_the_defaults():
    model = deconvolutional_vhe()
    group, element = model.latents
    assert model.image_shape == (28, 28, 1)
    assert group.prior.latent_size == 512
    assert element.prior.latent_size == 16
    assert group.posterior.encoder.filters == (64, 128, 256)
    assert model.likelihood.decoder.filters == (64, 128, 256)


def test_an_unknown_size_is_refused():
    with pytest.raises(
        ValueError, match=r"\['published', 'small'\]. Received: size='huge'"
    ):
        deconvolutional_vhe("huge")
