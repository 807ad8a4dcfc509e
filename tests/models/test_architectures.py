import dataclasses
import json

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.conftest import IMAGE_SHAPE
from tests.conftest import assert_distribution_shape
from tests.conftest import perturb
from tests.conftest import tiny_alphabet_pixel_cnn_vhe
from tests.conftest import tiny_alphabet_vhe
from tests.conftest import tiny_deconvolutional_sizes
from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_sizes
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_style_vhe
from vhe_tf import alphabet_vhe
from vhe_tf import deconvolutional_vhe
from vhe_tf import load_model
from vhe_tf import objectives
from vhe_tf import pixel_cnn_vhe
from vhe_tf import random
from vhe_tf import style_vhe
from vhe_tf.layers import spatial_transformer
from vhe_tf.models import architectures

SEED = (5, 6)
OBJECTIVES = [str(objective) for objective in objectives.Objective]


@pytest.fixture(scope="module")
def small():
    return deconvolutional_vhe("small", image_shape=(8, 8, 1))


@pytest.fixture(scope="module")
def tinies():
    """Tiny PixelCNN models by size; tests must not change them."""
    return {size: tiny_pixel_cnn_vhe(size) for size in ("small", "published")}


@pytest.fixture
def tiny(tinies):
    return tinies["small"]


def assert_close(terms, others):
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        terms,
        others,
    )


def assert_equal(terms, others):
    tf.nest.map_structure(np.testing.assert_array_equal, terms, others)


def assert_every_weight_gets_a_gradient(model, episode):
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model(episode, training=True).elbo)
    gradients = tape.gradient(loss, model.trainable_variables)
    for gradient, weight in zip(
        gradients, model.trainable_variables, strict=True
    ):
        assert np.all(np.isfinite(gradient)), weight.path
        assert np.any(gradient != 0.0), weight.path


def assert_every_weight_has_moved(model, before):
    for weight, old in zip(model.trainable_variables, before, strict=True):
        assert weight.dtype == "float32"
        assert np.all(np.isfinite(weight)), weight.path
        assert np.any(np.not_equal(weight, old)), weight.path


# The deconvolutional model ----------------------------------------------------


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
    assert_every_weight_gets_a_gradient(small, tiny_episode(batch_size=4))


def test_the_group_and_the_objective_are_the_callers():
    model = deconvolutional_vhe(
        "small", image_shape=(9, 7, 2), group="person", objective="rescale"
    )
    assert model.get_config()["event_shape"] == [9, 7, 2]
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


@pytest.mark.parametrize(
    ("architecture", "size", "sizes"),
    [
        (deconvolutional_vhe, "large", r"\['published', 'small'\]"),
        (alphabet_vhe, "large", r"\['published', 'small'\]"),
        (style_vhe, "large", r"\['published', 'small'\]"),
        (pixel_cnn_vhe, "huge", r"\['large', 'published', 'small'\]"),
    ],
)
def test_an_unknown_size_is_refused(architecture, size, sizes):
    with pytest.raises(ValueError, match=f"{sizes}. Received: size='{size}'"):
        architecture(size)


# The PixelCNN model: sizes and shapes -----------------------------------------


def test_the_published_sizes_of_the_pixel_cnn_are_the_defaults():
    model = pixel_cnn_vhe()
    group, pose = model.latents
    assert model.image_shape == (28, 28, 1)
    assert model.objective == "vhe"
    assert group.prior.image_shape == (28, 28, 10)
    assert group.prior.network.num_blocks == 2
    assert group.prior.network.filters == 20
    assert group.posterior.channels == 10
    assert group.posterior.filters == (10,)  # one scale
    assert group.posterior.kernel_size == 5
    assert pose.prior.latent_size == pose.posterior.latent_size == 90
    assert pose.parents == ()  # q(z; x)
    assert isinstance(pose.posterior.encoder, spatial_transformer.Localisation)
    decoder = model.likelihood.network
    assert decoder.num_blocks == 4
    assert decoder.filters == 40
    assert decoder.kernel_size == 5
    assert decoder.dropout == 0.5
    assert decoder.conditioning_kernel_size == 5
    assert decoder.conditioning_filters == ()


def test_the_large_pixel_cnn_has_the_structure_of_the_small_one():
    small, large = (pixel_cnn_vhe(size) for size in ("small", "large"))
    for latent, other in zip(small.latents, large.latents, strict=True):
        assert type(latent.posterior) is type(other.posterior)
        assert len(latent.posterior.weights) == len(other.posterior.weights)
    decoder = large.likelihood.network
    assert (decoder.filters, decoder.num_blocks) == (64, 6)
    assert (decoder.kernel_size, decoder.dropout) == (3, 0.2)
    assert (
        large.latents[1].parents == small.latents[1].parents == ("character",)
    )


def test_a_size_of_ones_own_is_that_of_the_model(tmp_path):
    with tiny_pixel_cnn_sizes():
        size = dataclasses.replace(
            architectures.PIXEL_CNN_SIZES["small"], filters=6, num_blocks=2
        )
    model = pixel_cnn_vhe(size, image_shape=(8, 8, 1))
    model.save(tmp_path / "own.keras")
    decoder = load_model(tmp_path / "own.keras").likelihood.network
    assert (decoder.filters, decoder.num_blocks) == (6, 2)


def test_the_template_and_the_pose_are_latents(tinies):
    for model in tinies.values():
        group, pose = model.latents
        assert (group.name, group.per_element) == ("character", False)
        assert group.divergence == "one_sample"
        assert (pose.name, pose.per_element) == ("pose", True)
        assert (model.likelihood.template, model.likelihood.pose) == (
            "character",
            "pose",
        )
        support = tiny_episode()["support"]["character"]
        template = group.posterior(support)
        assert_distribution_shape(template, batch=[3], event=(8, 8, 3))
    assert tinies["small"].latents[1].parents == ("character",)


@pytest.mark.parametrize(
    ("size", "image_shape"),
    [("small", (9, 7, 2)), ("published", (5, 11, 3)), ("small", (1, 6, 1))],
)
def test_images_of_any_shape_are_bounded_and_drawn(size, image_shape):
    model = tiny_pixel_cnn_vhe(
        size, image_shape=image_shape, group="person", objective="rescale"
    )
    assert model.latents[0].name == "person"
    assert model.objective == "rescale"
    episode = tiny_episode(["person"], image_shape=image_shape)
    terms = model(episode)
    for tensor in tf.nest.flatten(terms):
        assert tensor.shape == (3,)
        assert np.all(np.isfinite(tensor))
    assert np.all(terms.log_likelihood < 0.0)
    for images in (
        model.sample(episode["support"], seed=SEED),
        model.sample_prior(3, seed=SEED),
        model.reconstruct(episode["support"], episode["query"], seed=SEED),
    ):
        assert images.shape == (3, *image_shape)
        assert set(np.unique(images)) <= {0.0, 1.0}


# The PixelCNN model: the bound ------------------------------------------------


# The large size has the structure of the small one.
@pytest.mark.parametrize("size", ["small", "published"])
def test_every_weight_of_the_pixel_cnn_gets_a_gradient(size):
    model = pixel_cnn_vhe(size, image_shape=IMAGE_SHAPE)
    # At first nothing depends on a pose.
    perturb(model)
    assert_every_weight_gets_a_gradient(model, tiny_episode(batch_size=8))


def _log_prob_of_template(prior, c):
    """Returns log p(c) by SciPy, `[S]`, a sum over pixels and channels."""
    parameters = prior.network(tf.constant(c, tf.float32), None).numpy()
    loc, raw_scale = np.split(np.float64(parameters), 2, axis=-1)
    scale = np.logaddexp(0.0, raw_scale) + 1e-3
    return scipy.stats.norm(loc, scale).logpdf(c).sum(axis=(1, 2, 3))


def test_the_kl_of_the_template_is_unbiased(tiny):
    rng = np.random.default_rng(0)
    group = tiny.latents[0]
    [support] = tiny_episode(batch_size=1)["support"].values()
    posterior = group.posterior(support).distribution
    q = scipy.stats.norm(np.float64(posterior.loc), np.float64(posterior.scale))
    c = q.rvs((4000, *posterior.loc.shape[1:]), random_state=rng)
    expected = q.logpdf(c).sum(axis=(1, 2, 3)) - _log_prob_of_template(
        group.prior, c
    )
    # As many draws as there are copies of the episode.
    query = tiny_episode(batch_size=500)["query"]
    call = tf.function(tiny)
    draws = [
        call(
            {
                "query": query,
                "support": {"character": tf.repeat(support, 500, axis=0)},
                "group_size": {"character": tf.fill([500], 5)},
                "seed": random.fold_in((3, index), tf.range(500)),
            }
        ).kl["character"]
        for index in range(4)
    ]
    draws = np.concatenate(draws)
    error = np.hypot(draws.std() / 2000**0.5, expected.std() / 4000**0.5)
    assert 0.0 < 5.0 * error < 0.1 * expected.mean()
    assert abs(draws.mean() - expected.mean()) < 5.0 * error
    # One sample of each, not a mean of many.
    np.testing.assert_allclose(draws.std(), expected.std(), rtol=0.2)


def test_the_template_that_is_paid_for_is_the_one_decoded(tiny, monkeypatch):
    decoded = {}

    def spy(**latents):
        decoded.update(latents)
        return type(tiny.likelihood).call(tiny.likelihood, **latents)

    monkeypatch.setattr(tiny.likelihood, "call", spy)
    episode = tiny_episode()
    terms = tiny(episode)
    group, pose = tiny.latents
    c, z = decoded["character"], decoded["pose"]
    posterior = group.posterior(episode["support"]["character"])
    np.testing.assert_allclose(
        terms.kl["character"],
        posterior.log_prob(c) - _log_prob_of_template(group.prior, c.numpy()),
        rtol=1e-4,
    )
    # And q(z; x, c) is given the same c.
    q = pose.posterior(episode["query"], c)
    mean, scale = q.mean().numpy(), q.stddev().numpy()
    np.testing.assert_allclose(
        terms.kl["pose"],
        (0.5 * (scale**2 + mean**2 - 1.0) - np.log(scale)).sum(axis=1),
        rtol=1e-4,
        atol=1e-4,
    )
    assert z.shape == (3, 2)


def _one_log_likelihood(model, image, c, z):
    """Returns log p(x | c, z) of one image by the network itself, nats."""
    likelihood = model.likelihood
    conditioning = spatial_transformer.affine_transform(
        c[tf.newaxis], likelihood.affine_map(z[tf.newaxis])
    )
    logits = likelihood.network(image[tf.newaxis], conditioning).numpy()[0]
    signs = 2.0 * np.float64(image) - 1.0
    return -np.logaddexp(0.0, -signs * logits).sum()


def test_the_likelihood_is_that_of_the_posed_template(tiny):
    rng = np.random.default_rng(0)
    query = tiny_episode()["query"]
    c = tf.constant(rng.normal(size=(2, 3, 8, 8, 3)), tf.float32)
    z = tf.constant(rng.normal(size=(2, 3, 2)), tf.float32)
    likelihood = tiny.likelihood(character=c, pose=z)
    assert_distribution_shape(likelihood, batch=[2, 3], event=IMAGE_SHAPE)
    expected = [
        [
            _one_log_likelihood(tiny, query[b], c[s, b], z[s, b])
            for b in range(3)
        ]
        for s in range(2)
    ]
    np.testing.assert_allclose(likelihood.log_prob(query), expected, rtol=1e-5)
    # Both matter.
    assert not np.allclose(
        likelihood.log_prob(query),
        tiny.likelihood(character=c, pose=-z).log_prob(query),
    )
    assert not np.allclose(
        likelihood.log_prob(query),
        tiny.likelihood(character=-c, pose=z).log_prob(query),
    )


@pytest.mark.parametrize("size", ["small", "published"])
def test_the_bound_of_an_episode_has_no_gradient_in_another(tinies, size):
    episode = tiny_episode()
    inputs = [episode["query"], *episode["support"].values()]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        elbo = tinies[size](episode, training=True).elbo[1]
    for gradient in tape.gradient(elbo, inputs):
        by_episode = np.abs(gradient).reshape(3, -1).sum(axis=1)
        assert by_episode[1] > 0.0
        np.testing.assert_array_equal(by_episode[[0, 2]], [0.0, 0.0])


# The PixelCNN model: purity ---------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_the_call_is_a_function_of_the_seed(tiny, training):
    episode = tiny_episode()
    terms = tiny(episode, training=training)
    assert_equal(terms, tiny(episode, training=training))
    other = tiny(
        {**episode, "seed": tiny_episode(seed=(1, 3))["seed"]},
        training=training,
    )
    assert np.all(np.not_equal(terms.elbo, other.elbo))
    assert np.all(np.not_equal(terms.kl["character"], other.kl["character"]))


def _narrow(model):
    """Makes both posteriors all but points, so that latents have no chance."""
    group, pose = model.latents
    for layer in (group.posterior.parameters, pose.posterior.head.parameters):
        kernel, bias = layer.get_weights()
        size = len(bias) // 2
        kernel[..., size:], bias[size:] = 0.0, -1e4
        layer.set_weights([kernel, bias])


def test_dropout_takes_its_chance_from_the_episode():
    model = tiny_pixel_cnn_vhe()
    _narrow(model)
    # A template within 1e-3 of its mean must not move the likelihood by more.
    seeds = [tiny_episode(seed=seed)["seed"] for seed in [(1, 2), (1, 3)]]
    plain, other_plain, dropped, other_dropped = (
        model(
            {**tiny_episode(), "seed": seed}, training=training
        ).log_likelihood.numpy()
        for training in (False, True)
        for seed in seeds
    )
    np.testing.assert_allclose(plain, other_plain, atol=0.05)
    # Some row may be moved by less; not all of them.
    assert np.max(np.abs(dropped - other_dropped)) > 0.1
    assert np.max(np.abs(dropped - plain)) > 0.1
    # Each episode of a batch, and each place, has randomness of its own.
    same = tf.nest.map_structure(lambda v: tf.repeat(v[:1], 3, axis=0), {
        key: tiny_episode()[key] for key in ("query", "support", "group_size")
    })  # fmt: skip
    spread = model({**same, "seed": seeds[0]}, training=True).log_likelihood
    assert np.ptp(spread) > 0.1


def test_a_graph_equals_the_eager_call(tiny):
    graph = tf.function(lambda episode: tiny(episode, training=True))
    episode = tiny_episode()
    assert_close(graph(episode), tiny(episode, training=True))


@pytest.mark.parametrize("training", [False, True])
def test_a_stateless_call_equals_the_call(tiny, training):
    episode = tiny_episode()
    terms, state = tiny.stateless_call(
        tiny.trainable_variables,
        tiny.non_trainable_variables,
        episode,
        training=training,
    )
    assert_close(terms, tiny(episode, training=training))
    assert not state


def test_a_stateless_call_uses_the_weights_it_is_given(tiny):
    other = tiny_pixel_cnn_vhe(seed=1)
    terms, _ = tiny.stateless_call(
        [v.numpy() for v in other.trainable_variables], [], tiny_episode()
    )
    assert_close(terms, other(tiny_episode()))


@pytest.mark.parametrize("size", ["small", "published"])
def test_a_saved_pixel_cnn_revives_the_same_numbers(tinies, size, tmp_path):
    model = tinies[size]
    model.save(tmp_path / "model.keras")
    revived = load_model(tmp_path / "model.keras")
    assert json.dumps(revived.get_config()) == json.dumps(model.get_config())
    episode = tiny_episode()
    for training in (False, True):
        assert_equal(
            revived(episode, training=training),
            model(episode, training=training),
        )
    assert_equal(
        revived.sample(episode["support"], seed=SEED),
        model.sample(episode["support"], seed=SEED),
    )


# The PixelCNN model: training -------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_a_step(objective):
    model = tiny_pixel_cnn_vhe(objective=objective)
    model.compile(keras.optimizers.Adam(1e-3))
    episode = tiny_episode()
    terms = model(episode, training=True)
    group_scale = 5.0 if model.objective.rescales else 2.0
    np.testing.assert_allclose(
        terms.elbo,
        terms.log_likelihood
        - terms.kl["character"] / group_scale
        - terms.kl["pose"],
        rtol=1e-5,
    )
    before = model.get_weights()
    result = model.train_step(episode)
    # The step sees the same terms: dropout on, the episode's seed.
    np.testing.assert_allclose(result["elbo"], np.mean(terms.elbo), rtol=1e-5)
    assert_every_weight_has_moved(model, before)
    assert np.mean(model(episode, training=True).elbo) > np.mean(terms.elbo)


def test_a_pixel_cnn_trains_in_mixed_precision():
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = tiny_pixel_cnn_vhe()
        assert model.likelihood.network.compute_dtype == "float16"
        for tensor in tf.nest.flatten(model(tiny_episode())):
            assert tensor.dtype == tf.float32
        model.compile(
            keras.optimizers.LossScaleOptimizer(
                keras.optimizers.Adam(1e-3), initial_scale=16.0
            )
        )
        before = model.get_weights()
        result = model.train_step(tiny_episode())
        images = model.sample(tiny_episode()["support"], seed=SEED)
    finally:
        keras.config.set_dtype_policy(default)
    assert np.isfinite(result["loss"])
    assert images.dtype == tf.float32
    assert set(np.unique(images)) <= {0.0, 1.0}
    assert_every_weight_has_moved(model, before)


# The PixelCNN model: generation -----------------------------------------------


def test_templates_are_drawn_from_posterior_or_prior(tiny):
    support = tiny_episode()["support"]
    drawn = tiny.infer(support, seed=SEED, num_samples=4)["character"]
    assert drawn.shape == (4, 3, 8, 8, 3)
    anew = tiny.infer({}, seed=SEED, num_samples=4, batch_size=3)["character"]
    assert anew.shape == (4, 3, 8, 8, 3)
    assert len(np.unique(np.reshape(anew, [12, -1]), axis=0)) == 12


def test_generation_repeats_with_its_seed(tiny):
    support = tiny_episode()["support"]
    images = tiny.sample(support, seed=SEED)
    assert_equal(images, tiny.sample(support, seed=SEED))
    assert np.any(images != tiny.sample(support, seed=(5, 7)))
    unconditional = tiny.sample_prior(3, seed=SEED)
    assert_equal(unconditional, tiny.sample_prior(3, seed=SEED))
    assert np.any(unconditional != tiny.sample_prior(3, seed=(5, 7)))


def test_generation_works_in_a_graph_of_any_size(tiny):
    sample = tf.function(
        lambda support, seed: tiny.sample(support, seed=seed),
        input_signature=[
            tf.TensorSpec([None, None, *IMAGE_SHAPE]),
            tf.TensorSpec([2], tf.int32),
        ],
    )
    for sizes in ({}, {"batch_size": 1, "support_size": 4}):
        [support] = tiny_episode(**sizes)["support"].values()
        assert_equal(sample(support, SEED), tiny.sample(support, seed=SEED))


# Images of 8 bits -------------------------------------------------------------

# Not square, and of odd sides.
COLOUR = {"image_shape": (6, 9, 3), "num_levels": 256, "group": "person"}


@pytest.fixture(scope="module")
def colours():
    """Tiny models of 8-bit colour images; tests must not change them."""
    keras.utils.set_random_seed(0)
    with tiny_deconvolutional_sizes():
        deconvolutional = deconvolutional_vhe("small", **COLOUR)
    pixel_cnn = tiny_pixel_cnn_vhe(**COLOUR)
    return {
        "deconvolutional": deconvolutional,
        "pixel_cnn": pixel_cnn,
        "depth_upscaled": tiny_pixel_cnn_vhe(**COLOUR, high_bits=3),
    }


KINDS_OF_COLOUR = ["deconvolutional", "pixel_cnn", "depth_upscaled"]


@pytest.mark.parametrize("kind", KINDS_OF_COLOUR)
def test_8_bit_images_are_bounded_and_drawn(colours, kind):
    model = colours[kind]
    episode = episode_of(model, group_sizes=(5,))
    terms = model(episode)
    for tensor in tf.nest.flatten(terms):
        assert tensor.shape == (3,)
        assert np.all(np.isfinite(tensor))
    # Not far from log 256 a dimension before any training, in levels.
    nats = -np.mean(terms.log_likelihood) / (6 * 9 * 3)
    assert 4.0 < nats < 10.0
    images = model.sample(episode["support"], seed=SEED).numpy()
    assert images.shape == (3, 6, 9, 3)
    if kind != "deconvolutional":
        levels = 255.0 * images
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
        assert 0.0 <= levels.min() < levels.max() <= 255.0
        assert len(np.unique(levels)) > 10
    assert_every_weight_gets_a_gradient(
        model, episode_of(model, group_sizes=(5,), batch_size=8)
    )


@pytest.mark.parametrize("kind", KINDS_OF_COLOUR)
def test_a_saved_model_of_8_bit_images_revives_the_same_numbers(
    colours, kind, tmp_path
):
    model = colours[kind]
    model.save(tmp_path / "model.keras")
    revived = load_model(tmp_path / "model.keras")
    episode = episode_of(model, group_sizes=(5,))
    assert_equal(revived(episode, training=True), model(episode, training=True))
    assert json.dumps(revived.get_config()) == json.dumps(model.get_config())


def test_a_pixel_of_8_bits_begins_with_components_that_share_the_levels():
    with tiny_pixel_cnn_sizes():
        likelihood = pixel_cnn_vhe("small", **COLOUR).likelihood
    initial = np.float32(likelihood.pixels.initial_parameters(3))
    assert len(set(initial)) > 2
    np.testing.assert_array_equal(likelihood.network.parameters.bias, initial)


@pytest.mark.parametrize(("num_levels", "scale"), [(2, 0.694), (256, 0.05)])
def test_templates_of_photographs_begin_narrow(num_levels, scale):
    with tiny_pixel_cnn_sizes():
        model = pixel_cnn_vhe("small", num_levels=num_levels)
    [template] = [v for v in model.latents if not v.per_element]
    blank = np.zeros((1, 2, 28, 28, 1), np.float32)
    stddev = template.posterior(blank).stddev()
    np.testing.assert_allclose(stddev, scale, atol=1e-3)


def test_only_the_high_image_depends_on_the_latents(colours):
    likelihood = colours["depth_upscaled"].likelihood
    assert likelihood.network.num_parameters == 2 * (1 + 2 * 3 + 3)
    templates = np.random.default_rng(0).normal(size=(2, 6, 9, 3))
    d = likelihood(
        person=tf.constant(templates, tf.float32), pose=tf.zeros([2, 2])
    )
    image = d.sample(seed=SEED)[0]
    levels = np.rint(255.0 * image)
    high = d.high.log_prob(np.float32(levels // 32 / 7.0))
    low = d.log_prob(image) - high
    np.testing.assert_allclose(low[0], low[1], rtol=1e-5)
    assert abs(high[0] - high[1]) > 0.1
    assert d.num_levels == 256


@pytest.mark.parametrize("high_bits", [0, 8])
def test_there_are_high_and_low_bits(high_bits):
    with pytest.raises(ValueError, match=f"high_bits={high_bits}"):
        pixel_cnn_vhe("small", **COLOUR, high_bits=high_bits)


@pytest.mark.parametrize("architecture", [deconvolutional_vhe, pixel_cnn_vhe])
def test_images_of_one_level_are_refused(architecture):
    with pytest.raises(ValueError, match=r"2 or more.*num_levels=1\."):
        architecture("small", num_levels=1)


# Alphabets above characters, styles beside them -------------------------------

GROUPS = {
    "alphabet": ("alphabet", "character"),
    "alphabet_pixel_cnn": ("alphabet", "character"),
    "style": ("character", "style"),
}
ELEMENT = {
    "alphabet": "element",
    "alphabet_pixel_cnn": "pose",
    "style": "pose",
}
KINDS = [(kind, size) for kind in GROUPS for size in ("small", "published")]


def tiny_of(kind, size, **kwargs):
    make = {
        "alphabet": tiny_alphabet_vhe,
        "alphabet_pixel_cnn": tiny_alphabet_pixel_cnn_vhe,
        "style": tiny_style_vhe,
    }[kind]
    return make(size, **kwargs)


@pytest.fixture(scope="module")
def kinds():
    """Tiny models by kind and size; tests must not change them."""
    return {key: tiny_of(*key) for key in KINDS}


def episode_of(model, *, group_sizes=(5, 7), batch_size=3):
    """Makes an episode whose pixels have any level of the model."""
    names = [v.name for v in model.latents if not v.per_element]
    episode = tiny_episode(
        names, image_shape=model.image_shape, batch_size=batch_size
    )
    rng = np.random.default_rng(0)

    def levels(images):
        last = (model.num_levels or 256) - 1
        pixels = rng.integers(0, last + 1, images.shape) / last
        return tf.constant(pixels, tf.float32)

    sizes = zip(names, group_sizes, strict=True)
    return {
        **episode,
        "query": levels(episode["query"]),
        "support": tf.nest.map_structure(levels, episode["support"]),
        "group_size": {name: tf.fill([batch_size], n) for name, n in sizes},
    }


def structure(model):
    return [(v.name, v.parents, v.per_element) for v in model.latents]


@pytest.mark.parametrize(
    ("size", "parents"),
    [("small", ("sign",)), ("published", ("script", "sign"))],
)
def test_an_alphabet_is_above_its_characters(size, parents):
    assert structure(tiny_alphabet_vhe(size, groups=("script", "sign"))) == [
        ("script", (), False),
        ("sign", ("script",), False),
        ("element", parents, True),
    ]


def test_a_template_is_conditioned_on_its_alphabet():
    model = tiny_alphabet_pixel_cnn_vhe(groups=("script", "sign"))
    assert structure(model) == [
        ("script", (), False),
        ("sign", ("script",), False),
        ("pose", ("sign",), True),
    ]
    sign = model.latents[1]
    support = tiny_episode()["support"]["character"]
    # With sample axes: each row of q and p is that of its own parent.
    scripts = tf.random.stateless_normal([2, 3, 3], SEED)
    posterior, prior = sign(support, scripts)
    assert posterior.batch_shape == prior.batch_shape == (2, 3)
    sample = posterior.sample(seed=SEED)
    for i in range(2):
        q, p = sign(support, scripts[i])
        np.testing.assert_allclose(
            posterior.mean()[i], q.mean(), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            prior.log_prob(sample)[i],
            p.log_prob(sample[i]),
            rtol=1e-4,
            atol=1e-3,
        )
    assert not np.allclose(posterior.mean()[0], posterior.mean()[1], atol=1e-3)
    assert not np.allclose(
        prior.log_prob(sample[:1])[0],
        sign.prior(scripts[1]).log_prob(sample[0]),
        atol=1e-2,
    )


@pytest.mark.parametrize("size", ["small", "published"])
def test_a_style_is_beside_a_character_and_its_pose(size):
    model = tiny_style_vhe(size, groups=("tune", "instrument"))
    assert structure(model) == [
        ("tune", (), False),
        ("instrument", (), False),
        ("pose", ("tune",) if size == "small" else (), True),
    ]
    assert model.latents[0].divergence == "one_sample"
    assert model.likelihood.template == "tune"
    assert model.likelihood.pose == "pose"
    assert model.likelihood.style == "instrument"


def test_the_published_sizes_of_the_alphabet_model_are_the_defaults():
    model = alphabet_vhe()
    alphabet, character, element = model.latents
    assert model.image_shape == (28, 28, 1)
    assert model.objective == "vhe"
    # "The same encoder and decoder architecture as c."
    for latent in (alphabet, character):
        assert latent.prior.latent_size == 512
        assert latent.posterior.latent_size == 512
        assert latent.posterior.encoder.filters == (64, 128, 256)
        assert latent.posterior.encoder.convolutions == 2
    assert alphabet.posterior.encoder is not character.posterior.encoder
    assert element.prior.latent_size == 16
    assert model.likelihood.decoder.filters == (64, 128, 256)


def test_the_published_sizes_of_the_style_model_are_the_defaults():
    model = style_vhe()
    character, style, pose = model.latents
    assert model.image_shape == (28, 28, 3)
    assert model.objective == "vhe"
    assert character.prior.image_shape == (28, 28, 10)
    assert character.posterior.channels == 10
    assert pose.prior.latent_size == pose.posterior.latent_size == 90
    assert style.prior.latent_size == style.posterior.latent_size == 6
    assert style.posterior.encoder.filters == (64, 128, 256)
    decoder = model.likelihood.network
    assert (decoder.num_blocks, decoder.filters) == (4, 40)
    assert (decoder.kernel_size, decoder.dropout) == (5, 0.5)
    assert model.likelihood.num_components == 10


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_the_bound_shares_each_kl_by_its_own_group(kinds, kind, size):
    model = kinds[kind, size]
    terms = model(episode_of(model))
    first, second = GROUPS[kind]
    expected = (
        terms.log_likelihood
        - terms.kl[first] / 5.0
        - terms.kl[second] / 7.0
        - terms.kl[ELEMENT[kind]]
    )
    assert set(terms.kl) == {v.name for v in model.latents}
    np.testing.assert_allclose(terms.elbo, expected, rtol=1e-5)
    for tensor in tf.nest.flatten(terms):
        assert tensor.shape == (3,)
        assert np.all(np.isfinite(tensor))
    assert np.all(terms.log_likelihood < 0.0)


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_every_weight_of_either_kind_gets_a_gradient(kinds, kind, size):
    model = kinds[kind, size]
    assert_every_weight_gets_a_gradient(model, episode_of(model, batch_size=8))


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_an_image_depends_on_its_latents(kinds, kind, size):
    model = kinds[kind, size]
    episode = episode_of(model)
    samples = model.infer(episode["support"], seed=SEED)
    element = 2
    if kind != "alphabet":
        element = model.latents[-1].prior().event_shape[0]
    samples[ELEMENT[kind]] = tf.ones([1, 3, element])
    values = model.likelihood(**samples).log_prob(episode["query"])
    for name in samples:
        moved = {**samples, name: samples[name] + 1.0}
        others = model.likelihood(**moved).log_prob(episode["query"])
        if (name, size) == ("alphabet", "small") or (name, kind) == (
            "alphabet",
            "alphabet_pixel_cnn",
        ):
            # On the alphabet through the character alone.
            assert_equal(others, values)
        else:
            assert np.all(np.abs(others - values) > 1e-3), name


@pytest.mark.parametrize("kind", GROUPS)
def test_a_graph_of_either_kind_equals_the_eager_call(kinds, kind):
    model = kinds[kind, "small"]
    graph = tf.function(lambda episode: model(episode, training=True))
    episode = episode_of(model)
    assert_close(graph(episode), model(episode, training=True))


@pytest.mark.parametrize("kind", GROUPS)
def test_a_saved_model_of_either_kind_revives_the_same_numbers(
    kinds, kind, tmp_path
):
    model = kinds[kind, "small"]
    model.save(tmp_path / "model.keras")
    revived = load_model(tmp_path / "model.keras")
    assert json.dumps(revived.get_config()) == json.dumps(model.get_config())
    episode = episode_of(model)
    assert_equal(revived(episode, training=True), model(episode, training=True))
    assert_equal(
        revived.sample(episode["support"], seed=SEED),
        model.sample(episode["support"], seed=SEED),
    )


# An objective is the same of every kind.
@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        ("alphabet_pixel_cnn", "vhe"),
        ("style", "vhe"),
        *(("alphabet", objective) for objective in OBJECTIVES),
    ],
)
def test_either_kind_trains_a_step(kind, objective):
    model = tiny_of(kind, "small", objective=objective)
    assert model.objective == objective
    model.compile(keras.optimizers.Adam(1e-3))
    episode = episode_of(model)
    before = model.get_weights()
    first = model(episode, training=True)
    result = model.train_step(episode)
    np.testing.assert_allclose(result["elbo"], np.mean(first.elbo), rtol=1e-5)
    assert_every_weight_has_moved(model, before)
    assert np.mean(model(episode, training=True).elbo) > np.mean(first.elbo)


@pytest.mark.parametrize("kind", GROUPS)
def test_some_supports_are_enough_to_draw(kinds, kind):
    model = kinds[kind, "small"]
    support = episode_of(model)["support"]
    first, second = GROUPS[kind]
    for known in ({first}, {second}, {first, second}):
        images = model.sample({k: support[k] for k in known}, seed=SEED)
        assert images.shape == (3, *model.image_shape)
        levels = 255.0 * images.numpy()
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
        assert np.all((levels >= 0.0) & (levels <= 255.0))
    assert model.sample_prior(2, seed=SEED).shape == (2, *model.image_shape)


def test_images_have_as_many_levels_as_asked_for(kinds):
    default = kinds["style", "small"].sample_prior(2, seed=SEED)
    assert len(np.unique(default)) > 10
    model = tiny_style_vhe(num_levels=4)
    images = 3.0 * model.sample_prior(2, seed=SEED).numpy()
    np.testing.assert_allclose(np.unique(images), [0, 1, 2, 3], atol=1e-6)


@pytest.mark.parametrize("kind", ["alphabet_pixel_cnn", "style"])
def test_either_kind_trains_in_mixed_precision(kind):
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny_of(kind, "small")
        for tensor in tf.nest.flatten(model(episode_of(model))):
            assert tensor.dtype == tf.float32
        model.compile(keras.optimizers.Adam(1e-3))
        before = model.get_weights()
        result = model.train_step(episode_of(model))
    finally:
        keras.config.set_dtype_policy(default)
    assert np.isfinite(result["loss"])
    assert_every_weight_has_moved(model, before)
