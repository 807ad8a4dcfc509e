import re

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conftest import IMAGE_SHAPE
from tests.conftest import assert_distribution_shape
from tests.conftest import assert_equal_to_rounding
from tests.conftest import perturb
from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from tests.evaluation.conftest import GaussianWorld
from tests.evaluation.conftest import latents_seen
from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf import deconvolutional_vhe
from vhe_tf import random
from vhe_tf.layers import base
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.objectives import ElboTerms

GROUPS = {
    "flat": ["character"],
    "hierarchical": ["alphabet", "character"],
    "factorial": ["character", "style"],
}
SEED = (5, 6)


@pytest.fixture(scope="module")
def models():
    """One untrained model of each structure; tests must not change them."""
    return {structure: tiny_vhe(structure) for structure in GROUPS}


@pytest.fixture(scope="module")
def scratch():
    """A model that tests may compile as they like, but not train."""
    return tiny_vhe()


# The hierarchical model contains the flat one.
@pytest.fixture(params=["hierarchical", "factorial"])
def structure(request):
    return request.param


@pytest.fixture
def model(models, structure):
    return models[structure]


@pytest.fixture
def episode(structure):
    return tiny_episode(GROUPS[structure])


@pytest.fixture
def mixed_float16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(policy)


def _support(structure, **kwargs):
    return tiny_episode(GROUPS[structure], **kwargs)["support"]


def _assert_equal(terms, others):
    tf.nest.map_structure(np.testing.assert_array_equal, terms, others)


def _assert_close(terms, others):
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        terms,
        others,
    )


def _dataset(episode, steps=3):
    return tf.data.Dataset.from_tensors(episode).repeat(steps)


# Construction -----------------------------------------------------------------


@pytest.mark.parametrize(
    "event_shape", [(0,), (8, 8, 0), (8, -8, 1), (8.0, 8, 1)]
)
def test_an_improper_event_shape_is_refused(models, event_shape):
    model = models["flat"]
    with pytest.raises(ValueError, match="Received: event_shape="):
        VHE(model.latents, model.likelihood, event_shape=event_shape)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="Received: objective='elbo'"):
        tiny_vhe(objective="elbo")


def test_an_improper_graph_is_refused_at_construction(models):
    latents = models["hierarchical"].latents[1:]
    with pytest.raises(ValueError, match="parent='alphabet'"):
        VHE(
            latents,
            models["hierarchical"].likelihood,
            event_shape=IMAGE_SHAPE,
        )


def test_a_new_model_has_all_its_weights(model, episode):
    count = len(model.weights)
    model(episode)
    assert model.built
    assert len(model.weights) == count
    assert not model.non_trainable_variables


def test_latents_are_kept_parents_first(models):
    names = [latent.name for latent in models["hierarchical"].latents]
    assert names == ["alphabet", "character", "element"]


# The bound --------------------------------------------------------------------


def test_terms_are_float32_one_an_episode(model, episode):
    for tensor in tf.nest.flatten(model(episode)):
        assert tensor.shape == (3,)
        assert tensor.dtype == tf.float32


def test_terms_name_every_latent(model, episode):
    names = {latent.name for latent in model.latents}
    terms = model(episode)
    assert set(terms.kl) == set(terms.scaled_kl) == names


def test_the_bound_is_assembled_from_its_terms(model, episode):
    terms = model(episode)
    shared = sum(
        kl / (1.0 if name == "element" else 5.0)
        for name, kl in terms.kl.items()
    )
    np.testing.assert_allclose(
        terms.elbo, terms.log_likelihood - shared, rtol=1e-5
    )


def test_each_group_is_shared_by_its_own_size(models):
    episode = tiny_episode(GROUPS["hierarchical"])
    episode["group_size"] = {
        "alphabet": tf.constant([40, 80, 120]),
        "character": tf.constant([4, 8, 12]),
    }
    terms = models["hierarchical"](episode)
    for name, size in episode["group_size"].items():
        np.testing.assert_allclose(
            terms.scaled_kl[name],
            terms.kl[name] / np.float32(size),
            rtol=1e-6,
        )


def test_the_order_of_the_support_does_not_matter(model, structure):
    episode = tiny_episode(GROUPS[structure], support_size=4)
    other = {
        **episode,
        "support": {
            name: tf.gather(support, [2, 0, 3, 1], axis=1)
            for name, support in episode["support"].items()
        },
    }
    _assert_close(model(episode), model(other))


class _Recorder(inference.ConditionalNormal):
    """Remembers the sizes of the parents that it is given."""

    def call(self, *parents):
        self.seen = tuple(parent.shape[-1] for parent in parents)
        return super().call(*parents)


def test_parents_arrive_in_the_order_that_a_latent_names_them():
    def latent(name, size, *parents, **kwargs):
        return Latent(
            name,
            prior=_Recorder(size, 8) if parents else heads.StandardNormal(size),
            posterior=kwargs.pop("posterior", inference.SupportPosterior)(
                keras.layers.Flatten(), size, 8
            ),
            parents=parents,
            **kwargs,
        )

    model = VHE(
        [
            latent("alphabet", 1),
            latent("style", 2),
            latent("character", 3, "style", "alphabet"),
            latent(
                "element",
                4,
                "character",
                "alphabet",
                "style",
                posterior=inference.QueryPosterior,
                per_element=True,
            ),
        ],
        inference.ImageLikelihood(
            convolution.ConvolutionalDecoder(IMAGE_SHAPE, (8,), 0),
            heads.BernoulliImageHead(),
        ),
        event_shape=IMAGE_SHAPE,
    )
    episode = tiny_episode(["alphabet", "style", "character"])
    character, element = (v.prior for v in model.latents[2:])
    for run in (
        lambda: model(episode),
        lambda: model.sample(episode["support"], seed=SEED),
        lambda: model.sample_prior(2, seed=SEED),
    ):
        character.seen = element.seen = ()
        run()
        # The posterior alone is asked where a support is known.
        assert character.seen in ((2, 1), ())
        assert element.seen == (3, 1, 2)
    assert character.seen == (2, 1)


def test_supports_may_differ_in_size(models):
    episode = tiny_episode(GROUPS["hierarchical"])
    episode["support"]["alphabet"] = tf.ones([3, 7, *IMAGE_SHAPE])
    assert models["hierarchical"](episode).elbo.shape == (3,)


def test_episodes_of_a_batch_do_not_interact(model, episode, structure):
    other = tiny_episode(GROUPS[structure], seed=(8, 9), group_size=9)
    row = np.arange(3) == 1

    def replaced(old, new):
        return tf.where(row.reshape([3] + [1] * (len(old.shape) - 1)), new, old)

    changed = {
        key: tf.nest.map_structure(replaced, episode[key], other[key])
        for key in ("query", "support", "group_size")
    }
    terms = model(episode)
    others = model({**changed, "seed": episode["seed"]})
    keep = [0, 2]
    _assert_close(
        tf.nest.map_structure(lambda t: np.asarray(t)[keep], terms),
        tf.nest.map_structure(lambda t: np.asarray(t)[keep], others),
    )
    assert not np.isclose(terms.elbo[1], others.elbo[1])


def test_the_bound_of_an_episode_has_no_gradient_in_another(model, episode):
    inputs = [episode["query"], *episode["support"].values()]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        elbo = model(episode).elbo[1]
    for gradient in tape.gradient(elbo, inputs):
        by_episode = np.abs(gradient).reshape(3, -1).sum(axis=1)
        assert by_episode[1] > 0.0
        np.testing.assert_array_equal(by_episode[[0, 2]], [0.0, 0.0])


def _reaches(model, episode, support_name):
    """Returns the latents whose KL depends on a support."""
    support = episode["support"][support_name]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(support)
        kl = model(episode).kl
    gradients = {name: tape.gradient(kl[name], support) for name in kl}
    return {
        name
        for name, gradient in gradients.items()
        if gradient is not None and np.any(gradient != 0.0)
    }


@pytest.mark.parametrize(
    ("structure", "support_name", "reached"),
    [
        ("hierarchical", "alphabet", {"alphabet", "character", "element"}),
        ("hierarchical", "character", {"character", "element"}),
        ("factorial", "character", {"character"}),
        ("factorial", "style", {"style"}),
    ],
)
def test_a_support_reaches_its_latent_and_those_below(
    models, structure, support_name, reached
):
    episode = tiny_episode(GROUPS[structure])
    assert _reaches(models[structure], episode, support_name) == reached


def test_the_query_reaches_no_group_latent(models):
    episode = tiny_episode(GROUPS["hierarchical"])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(episode["query"])
        kl = models["hierarchical"](episode).kl
    assert tape.gradient(kl["alphabet"], episode["query"]) is None
    assert tape.gradient(kl["character"], episode["query"]) is None
    assert np.any(tape.gradient(kl["element"], episode["query"]) != 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": tf.zeros([1, *IMAGE_SHAPE])}, "size"),
        ({"query": tf.zeros([3, 8, 7, 1])}, "size 8"),
        ({"support": {"character": tf.zeros([3, *IMAGE_SHAPE])}}, "rank 5"),
        ({"support": {"character": tf.zeros([2, 2, *IMAGE_SHAPE])}}, "size"),
        ({"group_size": {"character": tf.ones([3, 1], tf.int32)}}, "rank"),
        ({"seed": tf.constant([1, 2])}, r"\[B, 2\].*of shape \(2,\)"),
        ({"seed": tf.zeros([3, 3], tf.int32)}, "size 2"),
        ({"seed": tf.zeros([2, 2], tf.int32)}, "size"),
    ],
)
def test_an_episode_whose_shapes_disagree_is_refused(models, change, message):
    for call in (models["flat"], tf.function(models["flat"])):
        with pytest.raises(ValueError, match=message):
            call({**tiny_episode(), **change})


# Purity -----------------------------------------------------------------------


@pytest.mark.parametrize("key", ["query", "support", "group_size", "seed"])
def test_an_episode_that_lacks_something_is_refused(models, key):
    episode = tiny_episode()
    del episode[key]
    with pytest.raises(ValueError, match=f"an episode without {key}"):
        models["flat"](episode)


@pytest.mark.parametrize("key", ["support", "group_size"])
def test_an_episode_that_lacks_a_latent_is_refused(models, key):
    episode = tiny_episode(GROUPS["factorial"])
    del episode[key]["style"]
    with pytest.raises(ValueError, match=rf"without {key}\['style'\]"):
        models["factorial"](episode)


def test_equal_seeds_give_equal_terms(model, episode):
    _assert_equal(model(episode), model(episode))


def test_other_seeds_give_other_terms(model, episode):
    other = model({**episode, "seed": episode["seed"] + 1})
    assert np.all(np.not_equal(model(episode).elbo, other.elbo))


def test_latents_are_drawn_independently(models):
    samples = models["factorial"].infer({}, seed=SEED, batch_size=4)
    assert not np.allclose(samples["character"], samples["style"])


def test_training_changes_nothing_in_the_call(model, episode):
    _assert_equal(model(episode, training=True), model(episode, training=False))


def test_a_call_assigns_nothing(model, episode):
    before = [np.array(v) for v in model.variables]
    model(episode, training=True)
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)


def test_graph_and_stateless_calls_equal_the_eager_one(model, episode):
    eager = model(episode)
    _assert_close(tf.function(model)(episode), eager)
    terms, state = model.stateless_call(
        model.trainable_variables, model.non_trainable_variables, episode
    )
    _assert_close(terms, eager)
    assert len(state) == len(model.non_trainable_variables)


def test_a_graph_takes_episodes_of_any_size(models):
    specs = {
        "query": tf.TensorSpec([None, *IMAGE_SHAPE]),
        "support": {"character": tf.TensorSpec([None, None, *IMAGE_SHAPE])},
        "group_size": {"character": tf.TensorSpec([None], tf.int32)},
        "seed": tf.TensorSpec([None, 2], tf.int32),
    }
    graph = tf.function(models["flat"], input_signature=[specs])
    for sizes in ({}, {"batch_size": 1, "support_size": 5}):
        episode = tiny_episode(**sizes)
        _assert_close(graph(episode), models["flat"](episode))
    with pytest.raises(tf.errors.InvalidArgumentError, match="dimension 0"):
        graph({**tiny_episode(), "query": tf.zeros([1, *IMAGE_SHAPE])})


@pytest.mark.parametrize("structure", ["hierarchical"])
def test_xla_gives_the_same_terms(model, episode):
    _assert_close(tf.function(model, jit_compile=True)(episode), model(episode))


# Training ---------------------------------------------------------------------


def test_every_weight_gets_a_gradient(model, episode):
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model(episode).elbo)
    gradients = tape.gradient(loss, model.trainable_variables)
    for gradient, weight in zip(
        gradients, model.trainable_variables, strict=True
    ):
        assert np.all(np.isfinite(gradient)), weight.path
        assert np.any(gradient != 0.0), weight.path


def test_fitting_reports_a_falling_loss(structure, episode):
    model = tiny_vhe(structure)
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(
        _dataset(episode, 8), epochs=3, shuffle=False, verbose=0
    ).history
    names = {"loss", "elbo", "log_likelihood"}
    names |= {f"kl_{latent.name}" for latent in model.latents}
    for group in GROUPS[structure]:
        names |= {f"kl_{group}_scaled", f"group_size_{group}"}
    assert set(history) == names
    # An epoch that kept the steps of the last would lag behind its loss.
    assert np.all(np.diff(history["loss"]) < 0.0)
    np.testing.assert_allclose(
        history["loss"], np.negative(history["elbo"]), rtol=1e-5
    )
    assert history[f"group_size_{GROUPS[structure][0]}"] == [5.0] * 3


def test_metrics_are_means_over_the_epoch_alone(models):
    model = tiny_vhe()
    model.compile(keras.optimizers.SGD(0.0))
    first, second = tiny_episode(), tiny_episode(group_size=9, seed=(3, 4))
    for episodes in ([first, second], [second]):
        expected = [model(episode) for episode in episodes]
        result = {}
        model.reset_metrics()
        for episode in episodes:
            result = model.train_step(episode)
        for name, values in {
            "elbo": [t.elbo for t in expected],
            "loss": [-t.elbo for t in expected],
            "log_likelihood": [t.log_likelihood for t in expected],
            "kl_character": [t.kl["character"] for t in expected],
            "kl_character_scaled": [t.scaled_kl["character"] for t in expected],
            "kl_element": [t.kl["element"] for t in expected],
            "group_size_character": [
                e["group_size"]["character"] for e in episodes
            ],
        }.items():
            np.testing.assert_allclose(result[name], np.mean(values), rtol=1e-5)


def test_fitting_resets_the_metrics_each_epoch():
    model = tiny_vhe()
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(
        _dataset(tiny_episode()), epochs=2, shuffle=False, verbose=0
    ).history
    np.testing.assert_allclose(
        history["loss"][0], history["loss"][1], rtol=1e-6
    )
    assert model.metrics[0].count.numpy() == 3.0


def test_evaluation_reports_the_bound_itself(scratch):
    model = scratch
    model.compile(
        kl_warmup_steps={"character": 9, "element": 9},
    )
    before = [np.array(w) for w in model.weights]
    result = model.evaluate(
        _dataset(tiny_episode()), verbose=0, return_dict=True
    )
    expected = np.mean(model(tiny_episode()).elbo)
    np.testing.assert_allclose(result["loss"], -expected, rtol=1e-5)
    np.testing.assert_allclose(result["elbo"], expected, rtol=1e-5)
    _assert_equal(model.get_weights(), before)


@pytest.mark.usefixtures("mixed_float16")
def test_training_works_under_mixed_float16(structure, episode):
    # From some initial weights the gradients overflow at this loss scale.
    keras.utils.set_random_seed(0)
    model = tiny_vhe(structure)
    assert model.likelihood.decoder.compute_dtype == "float16"
    for tensor in tf.nest.flatten(model(episode)):
        assert tensor.dtype == tf.float32
    samples = model.infer(episode["support"], seed=SEED)
    assert all(v.dtype == tf.float32 for v in samples.values())
    likelihood = model.decode(samples, seed=SEED)
    assert_distribution_shape(likelihood, batch=[1, 3], event=IMAGE_SHAPE)
    model.compile(
        keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(0.01), initial_scale=128.0
        )
    )
    before = model.get_weights()
    result = model.train_step(episode)
    assert np.isfinite(result["loss"])
    for weight, old in zip(model.trainable_variables, before, strict=True):
        assert weight.dtype == "float32"
        assert np.all(np.isfinite(weight))
        assert np.any(np.not_equal(weight, old)), weight.path


def test_mixed_float16_scales_the_loss_by_default(mixed_float16):
    model = tiny_vhe()
    model.compile("adam")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


# The loss ---------------------------------------------------------------------


TERMS = ElboTerms(
    elbo=tf.constant([-13.5, -22.5]),
    log_likelihood=tf.constant([-10.0, -20.0]),
    kl={
        "character": tf.constant([6.0, 2.0]),
        "element": tf.constant([2.0, 2.0]),
    },
    scaled_kl={
        "character": tf.constant([1.5, 0.5]),  # |X| = 4
        "element": tf.constant([2.0, 2.0]),
    },
)


@pytest.mark.parametrize(
    ("options", "step", "loss"),
    [
        ({}, 0, 15.0 + 1.0 + 2.0),
        # The weight of a KL is step / kl_warmup_steps, at most 1.
        ({"kl_warmup_steps": {"character": 10}}, 0, 15.0 + 0.0 + 2.0),
        ({"kl_warmup_steps": {"character": 10}}, 4, 15.0 + 0.4 + 2.0),
        ({"kl_warmup_steps": {"character": 10}}, 10, 15.0 + 1.0 + 2.0),
        ({"kl_warmup_steps": {"character": 10}}, 99, 15.0 + 1.0 + 2.0),
        ({"kl_warmup_steps": {"element": 4}}, 1, 15.0 + 1.0 + 0.5),
        ({"kl_warmup_steps": {"character": 0}}, 0, 15.0 + 1.0 + 2.0),
    ],
)
def test_the_loss_anneals_as_documented(scratch, options, step, loss):
    scratch.compile(**options)
    np.testing.assert_allclose(
        scratch.loss_of_terms(TERMS, tf.constant(step)), loss, rtol=1e-6
    )


def test_warm_up_counts_optimizer_steps_and_leaves_the_metrics():
    model = tiny_vhe()
    model.compile(
        keras.optimizers.SGD(0.0),
        kl_warmup_steps={"character": 2, "element": 2},
    )
    terms = model(tiny_episode())
    reconstruction = -np.mean(terms.log_likelihood)
    elbo = np.mean(terms.elbo)
    for weight in (0.0, 0.5, 1.0, 1.0):
        model.reset_metrics()
        result = model.train_step(tiny_episode())
        kl = -elbo - reconstruction
        np.testing.assert_allclose(
            result["loss"], reconstruction + weight * kl, rtol=1e-5
        )
        np.testing.assert_allclose(result["elbo"], elbo, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"), [("alphabet", 3), ("character", -3)]
)
def test_an_improper_annealing_is_refused(scratch, name, value):
    with pytest.raises(
        ValueError, match=rf"Received: kl_warmup_steps\['{name}'\]={value}"
    ):
        scratch.compile(kl_warmup_steps={name: value})


@pytest.mark.parametrize("accumulation", [0, -2, 2.0])
def test_an_improper_accumulation_is_refused(scratch, accumulation):
    with pytest.raises(
        ValueError, match=rf"Received: accumulation={accumulation}\."
    ):
        scratch.compile(accumulation=accumulation)


def test_the_microbatches_revive_with_the_compilation(scratch):
    scratch.compile(accumulation=3)
    config = scratch.get_compile_config()
    scratch.compile()
    assert scratch.accumulation == 1
    scratch.compile_from_config(config)
    assert scratch.accumulation == 3


# Inference and generation -----------------------------------------------------


def test_inference_draws_every_group_latent(model, structure):
    support = _support(structure, support_size=4)
    samples = model.infer(support, seed=SEED, num_samples=6)
    assert set(samples) == set(GROUPS[structure])
    assert all(v.shape == (6, 3, 2) for v in samples.values())


@pytest.mark.parametrize(
    ("structure", "known"),
    [
        ("hierarchical", ["alphabet"]),
        ("hierarchical", ["character"]),
        ("factorial", ["character"]),
        ("factorial", ["style"]),
    ],
)
def test_a_latent_without_support_is_inferred_or_drawn_from_its_prior(
    models, structure, known
):
    model = models[structure]
    support = {name: _support(structure)[name] for name in known}
    samples = model.infer(support, seed=SEED, num_samples=6)
    assert all(v.shape == (6, 3, 2) for v in samples.values())
    _, ratio = model.importance_sample(support, seed=SEED, num_samples=6)
    assert ratio.shape == (6, 3)
    unknown = next(n for n in GROUPS[structure] if n not in known)
    other = {name: 1.0 - value for name, value in support.items()}
    redrawn = model.infer(other, seed=SEED, num_samples=6)
    # The parent is inferred from the child's support, the child drawn given
    # the parent.
    depends = structure == "hierarchical"
    assert np.allclose(samples[unknown], redrawn[unknown]) != depends
    assert not np.allclose(samples[known[0]], redrawn[known[0]])


class Restricted(base.BaseLayer):
    """A likelihood that sees some of the latents."""

    def __init__(self, names):
        super().__init__(autocast=False)
        self.likelihood = inference.ImageLikelihood(
            convolution.ConvolutionalDecoder(IMAGE_SHAPE, (8,), 0),
            heads.BernoulliImageHead(),
        )
        self.names = names

    def call(self, **latents):
        return self.likelihood(**{k: latents[k] for k in self.names})


def test_a_latent_on_which_nothing_depends_is_refused():
    # z sees a, but neither x nor the prior of what x sees does.
    model = tiny_vhe("factorial")
    with pytest.raises(ValueError, match="Nothing depends on latent 'style'"):
        VHE(
            latents=tiny_vhe("factorial").latents,
            likelihood=Restricted(["character"]),
            event_shape=model.image_shape,
        )


def test_a_latent_that_only_a_posterior_sees_is_refused():
    hierarchical = tiny_vhe("hierarchical")
    character = Latent(
        "character",
        prior=heads.StandardNormal(2),
        posterior=inference.SupportPosterior(keras.layers.Flatten(), 2, 8),
        parents=["alphabet"],
    )
    with pytest.raises(
        ValueError, match="Nothing depends on latent 'alphabet'"
    ):
        VHE(
            latents=[hierarchical.latents[0], character],
            likelihood=Restricted(["character"]),
            event_shape=hierarchical.image_shape,
        )


class OfDistribution(base.BaseLayer):
    """A layer that changes what another returns."""

    def __init__(self, layer, change):
        super().__init__(autocast=False)
        self.layer = layer
        self.change = change

    def call(self, *args, **kwargs):
        return self.change(self.layer(*args, **kwargs))


def test_a_likelihood_of_anything_but_images_is_refused():
    model = tiny_vhe()
    with pytest.raises(ValueError, match=r"event shape \(8, 8, 3\)"):
        VHE(
            latents=model.latents,
            likelihood=inference.ImageLikelihood(
                convolution.ConvolutionalDecoder((8, 8, 3), (8,), 0),
                heads.BernoulliImageHead(),
            ),
            event_shape=IMAGE_SHAPE,
        )
    # Pixels that are not made one event.
    with pytest.raises(ValueError, match=r"event shape \(\), batch shape"):
        VHE(
            latents=model.latents,
            likelihood=OfDistribution(
                model.likelihood, lambda image: image.distribution
            ),
            event_shape=IMAGE_SHAPE,
        )


def test_a_latent_of_many_kls_is_refused():
    def normal(mvn):
        return tfd.Normal(mvn.mean(), mvn.stddev())

    character = Latent(
        "character",
        prior=OfDistribution(heads.StandardNormal(2), normal),
        posterior=OfDistribution(
            inference.SupportPosterior(keras.layers.Flatten(), 2, 8), normal
        ),
    )
    with pytest.raises(ValueError, match=r"\(1, 2\) .* by latent 'character'"):
        VHE(
            latents=[character],
            likelihood=Restricted(["character"]),
            event_shape=IMAGE_SHAPE,
        )


def test_a_parent_of_what_the_likelihood_sees_is_enough():
    hierarchical = tiny_vhe("hierarchical")
    alphabet, character, _ = hierarchical.latents
    VHE(
        latents=[alphabet, character],
        likelihood=Restricted(["character"]),
        event_shape=hierarchical.image_shape,
    )


def test_importance_weights_are_ratios_of_prior_to_posterior(models):
    model = models["hierarchical"]
    support = _support("hierarchical")
    samples, ratio = model.importance_sample(support, seed=SEED, num_samples=4)
    alphabet, character, _ = model.latents
    a, c = samples["alphabet"], samples["character"]
    expected = (
        alphabet.prior().log_prob(a)
        - alphabet.posterior(support["alphabet"]).log_prob(a)
        + character.prior(a).log_prob(c)
        - character.posterior(support["character"], a).log_prob(c)
    )
    np.testing.assert_allclose(ratio, expected, rtol=1e-5, atol=1e-5)
    _assert_equal(samples, model.infer(support, seed=SEED, num_samples=4))


def test_inference_without_support_needs_a_batch_size(model):
    samples = model.infer({}, seed=SEED, num_samples=2, batch_size=4)
    assert all(v.shape == (2, 4, 2) for v in samples.values())
    with pytest.raises(ValueError, match=r"support=\{\}, batch_size=None"):
        model.infer({}, seed=SEED)


def test_a_support_of_an_unknown_latent_is_refused(model):
    support = {"person": tf.zeros([3, 2, *IMAGE_SHAPE])}
    with pytest.raises(ValueError, match="Received: 'person'"):
        model.infer(support, seed=SEED)


def test_a_support_of_an_element_latent_is_refused(models):
    support = {"element": tf.zeros([3, 2, *IMAGE_SHAPE])}
    with pytest.raises(ValueError, match="Received: 'element'"):
        models["flat"].infer(support, seed=SEED)


def test_inference_checks_supports_as_generation_does(models):
    model = models["flat"]
    support = tiny_episode()["support"]["character"]
    for wrong, message in (
        (support[:, 0], r"support has the axes \[B, N, 8, 8, 1\]"),
        (support[..., :7, :], "wrong shape"),
        (tf.cast(support, tf.int32), "dtype int32"),
    ):
        for method in (model.infer, model.importance_sample):
            with pytest.raises(ValueError, match=message):
                method({"character": wrong}, seed=SEED, num_samples=1)
    np.testing.assert_array_equal(
        model.infer(support, seed=SEED)["character"],
        model.infer({"character": support}, seed=SEED)["character"],
    )


def test_a_latent_stands_with_its_parents_alone(models):
    model = models["hierarchical"]
    episode = tiny_episode(GROUPS["hierarchical"])
    samples = model.infer(episode["support"], seed=SEED)
    encoded = model.encode(episode["support"])
    orphan = {"character": samples["character"]}
    for call in (
        lambda: model.decode(orphan, seed=SEED),
        lambda: model.render(orphan, seed=SEED, query=episode["query"]),
        lambda: model.log_likelihood_given(orphan, episode["query"], seed=SEED),
        lambda: model.sample({"character": encoded["character"]}, seed=SEED),
        lambda: model.log_likelihood(
            {"character": encoded["character"]}, episode["query"], seed=SEED
        ),
    ):
        with pytest.raises(ValueError, match=r"depends on \['alphabet'\]"):
            call()
    for given in (samples, {"alphabet": samples["alphabet"]}):
        assert model.decode(given, seed=SEED).batch_shape == (1, 3)


@pytest.mark.parametrize("names", [[], ["person"], ["element"]])
def test_values_of_no_group_latent_are_refused(model, episode, names):
    samples = {name: tf.zeros([1, 3, 3]) for name in names}
    received = "`samples` .*Received: " + re.escape(str(names))
    with pytest.raises(ValueError, match=received):
        model.decode(samples, seed=SEED)
    with pytest.raises(ValueError, match=received):
        model.log_likelihood_given(samples, episode["query"], seed=SEED)


def test_values_and_queries_must_be_as_many(model, episode):
    samples = model.infer(episode["support"], seed=SEED)
    query = episode["query"][:1]  # would broadcast
    for call in (
        lambda: model.log_likelihood_given(samples, query, seed=SEED),
        lambda: model.render(samples, query=query, seed=SEED),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="the same B"):
            call()


def test_likelihoods_and_samples_need_a_support(model, episode):
    for call in (
        lambda: model.sample({}, seed=SEED),
        lambda: model.log_likelihood({}, episode["query"], seed=SEED),
    ):
        with pytest.raises(ValueError, match="use `sample_prior`"):
            call()


def test_decoding_gives_a_distribution_over_images(model, episode):
    samples = model.infer(episode["support"], seed=SEED, num_samples=4)
    likelihood = model.decode(samples, seed=SEED, query=episode["query"])
    assert_distribution_shape(likelihood, batch=[4, 3], event=IMAGE_SHAPE)


def _assert_binary(images, batch_size):
    assert images.shape == (batch_size, *IMAGE_SHAPE)
    assert set(np.unique(images)) <= {0.0, 1.0}


def test_generation_gives_an_image_a_group(model, structure):
    for support_size in (1, 4):
        support = _support(structure, support_size=support_size)
        images = model.sample(support, seed=SEED)
        _assert_binary(images, 3)
        _assert_equal(images, model.sample(support, seed=SEED))
        assert np.any(images != model.sample(support, seed=(5, 7)))
    some = {GROUPS[structure][0]: support[GROUPS[structure][0]]}
    _assert_binary(model.sample(some, seed=SEED), 3)
    _assert_binary(model.sample_prior(5, seed=SEED), 5)


def test_reconstructions_are_means(model, episode):
    images = model.reconstruct(episode["support"], episode["query"], seed=SEED)
    assert images.shape == (3, *IMAGE_SHAPE)
    assert np.all((images > 0.0) & (images < 1.0))


def test_with_one_group_latent_the_support_alone_will_do(models):
    model, episode = models["flat"], tiny_episode()
    support = episode["support"]["character"]
    _assert_equal(
        model.sample(support, seed=SEED),
        model.sample({"character": support}, seed=SEED),
    )
    _assert_equal(
        model.reconstruct(support, episode["query"], seed=SEED),
        model.reconstruct({"character": support}, episode["query"], seed=SEED),
    )


@pytest.mark.parametrize("structure", ["hierarchical", "factorial"])
def test_with_several_group_latents_a_bare_support_is_refused(
    models, structure
):
    support = tf.zeros([3, 2, *IMAGE_SHAPE])
    with pytest.raises(ValueError, match=r"several group.*Received a tensor"):
        models[structure].sample(support, seed=SEED)


@pytest.fixture(scope="module")
def pixel_cnn():
    """An untrained model whose pixels depend on each other."""
    return tiny_pixel_cnn_vhe()


@pytest.mark.parametrize("with_query", [False, True])
def test_independent_pixels_are_rendered_as_their_means(
    model, episode, with_query
):
    samples = model.infer(episode["support"], seed=SEED, num_samples=4)
    query = episode["query"] if with_query else None
    images = model.render(samples, seed=SEED, query=query)
    assert images.shape == (4, 3, *IMAGE_SHAPE)
    likelihood = model.decode(
        samples, seed=random.fold_in(SEED, 0), query=query
    )
    _assert_equal(images, likelihood.mean())
    # Typical images are sharper.
    sharper = model.render(samples, seed=SEED, query=query, temperature=0.5)
    logits = likelihood.distribution.logits_parameter()
    np.testing.assert_allclose(sharper, tf.sigmoid(logits / 0.5), rtol=1e-5)


def test_reconstructions_infer_what_has_no_support_from_the_query():
    model = _narrow("factorial")
    episode = tiny_episode(GROUPS["factorial"])
    support = {"character": episode["support"]["character"]}
    with latents_seen(model) as seen:
        model.reconstruct(support, episode["query"], seed=SEED)
    latents = {latent.name: latent for latent in model.latents}
    for name, observed in (
        ("character", support["character"]),
        ("style", episode["query"][:, tf.newaxis]),
    ):
        np.testing.assert_allclose(
            seen[-1][name][0],
            latents[name].posterior(observed).mean(),
            atol=1e-3,
        )


def test_dependent_pixels_are_rendered_as_a_draw(pixel_cnn):
    episode = tiny_episode()
    samples = pixel_cnn.infer(episode["support"], seed=SEED, num_samples=2)
    query = episode["query"]
    images = pixel_cnn.render(samples, seed=SEED, query=query)
    assert images.shape == (2, 3, *IMAGE_SHAPE)
    assert set(np.unique(images)) == {0.0, 1.0}
    assert len(np.unique(np.reshape(images, [6, -1]), axis=0)) == 6
    _assert_equal(images, pixel_cnn.render(samples, seed=SEED, query=query))
    other = pixel_cnn.render(samples, seed=(5, 7), query=query)
    assert np.any(images != other)


def test_reconstructions_are_rendered_from_the_query(pixel_cnn, models):
    episode = tiny_episode()
    for model in (pixel_cnn, models["flat"]):
        images = model.reconstruct(
            episode["support"], episode["query"], seed=SEED, temperature=0.5
        )
        samples = model.infer(episode["support"], seed=random.fold_in(SEED, 0))
        _assert_equal(
            images,
            model.render(
                samples,
                seed=random.fold_in(SEED, 1),
                query=episode["query"],
                temperature=0.5,
                guidance=0.0,
            )[0],
        )


# Temperature ------------------------------------------------------------------

COLD = 1e-6


def test_cold_images_of_independent_pixels_are_the_most_probable(
    model, structure
):
    support = _support(structure)
    samples = model.infer(support, seed=random.fold_in(SEED, 0))
    likelihood = model.decode(samples, seed=random.fold_in(SEED, 1))
    images = model.sample(support, seed=SEED, temperature=COLD)
    _assert_equal(images, likelihood.mean()[0].numpy() > 0.5)
    assert np.any(images != model.sample(support, seed=SEED))
    samples = model.infer({}, seed=random.fold_in(SEED, 0), batch_size=3)
    likelihood = model.decode(samples, seed=random.fold_in(SEED, 1))
    images = model.sample_prior(3, seed=SEED, temperature=COLD)
    _assert_equal(images, likelihood.mean()[0].numpy() > 0.5)


def _is_greedy(model, images, likelihood):
    """Returns whether each pixel is the likelier one given those before."""
    logits = model.likelihood.network(images, likelihood.conditioning[0])
    return (logits.numpy() > 0.0) == (images.numpy() > 0.5)


def test_cold_images_of_a_pixel_cnn_are_greedy(pixel_cnn):
    support = tiny_episode()["support"]
    samples = pixel_cnn.infer(support, seed=random.fold_in(SEED, 0))
    likelihood = pixel_cnn.decode(samples, seed=random.fold_in(SEED, 1))
    cold = pixel_cnn.sample(support, seed=SEED, temperature=COLD, guidance=0.0)
    assert np.all(_is_greedy(pixel_cnn, cold, likelihood))
    warm = pixel_cnn.sample(support, seed=SEED, guidance=0.0)
    assert not np.all(_is_greedy(pixel_cnn, warm, likelihood))
    query = tiny_episode()["query"]
    cold = pixel_cnn.reconstruct(support, query, seed=SEED, temperature=COLD)
    samples = pixel_cnn.infer(support, seed=random.fold_in(SEED, 0))
    seed = random.fold_in(random.fold_in(SEED, 1), 0)
    likelihood = pixel_cnn.decode(samples, seed=seed, query=query)
    assert np.all(_is_greedy(pixel_cnn, cold, likelihood))


# Guidance ---------------------------------------------------------------------


def test_without_guidance_images_are_samples_of_the_likelihood(pixel_cnn):
    support = tiny_episode()["support"]
    samples = pixel_cnn.infer(support, seed=random.fold_in(SEED, 0))
    likelihood = pixel_cnn.decode(samples, seed=random.fold_in(SEED, 1))
    _assert_equal(
        pixel_cnn.sample(support, seed=SEED, guidance=0.0),
        random.sample(likelihood, seed=random.fold_in(SEED, 2))[0],
    )


def test_guided_images_follow_the_logits_of_a_naive_computation(pixel_cnn):
    support = tiny_episode()["support"]
    samples = pixel_cnn.infer(support, seed=random.fold_in(SEED, 0))
    samples, _ = pixel_cnn._complete(
        samples, query=None, seed=random.fold_in(SEED, 1)
    )
    images = pixel_cnn.sample(
        support, seed=SEED, guidance=2.0, temperature=COLD
    )

    def logits(template):
        conditioning = pixel_cnn.likelihood.conditioning(
            character=template, pose=samples["pose"][0]
        )
        return np.float64(pixel_cnn.likelihood.network(images, conditioning))

    contrasts = pixel_cnn.infer({}, seed=0, num_samples=6, batch_size=1)
    mean = np.mean(
        [
            scipy.special.expit(logits(tf.repeat(template, 3, axis=0)))
            for template in contrasts["character"]
        ],
        axis=0,
    )
    guided = 3.0 * logits(samples["character"][0])
    guided -= 2.0 * scipy.special.logit(mean)
    assert np.all((guided > 0.0) == (images.numpy() > 0.5))


def test_guidance_is_the_default_of_binary_pixel_cnns(models, pixel_cnn):
    support = tiny_episode()["support"]
    guided = pixel_cnn.sample(support, seed=SEED)
    _assert_equal(guided, pixel_cnn.sample(support, seed=SEED, guidance=0.6))
    assert np.any(guided != pixel_cnn.sample(support, seed=SEED, guidance=0.0))
    new = pixel_cnn.sample_prior(3, seed=SEED)
    _assert_equal(new, pixel_cnn.sample_prior(3, seed=SEED, guidance=0.6))
    assert np.any(new != pixel_cnn.sample_prior(3, seed=SEED, guidance=0.0))
    latents = pixel_cnn.infer(support, seed=SEED, num_samples=2)
    shown = pixel_cnn.render(latents, seed=SEED)
    _assert_equal(shown, pixel_cnn.render(latents, seed=SEED, guidance=0.6))
    assert np.any(shown != pixel_cnn.render(latents, seed=SEED, guidance=0.0))
    model = models["flat"]
    _assert_equal(
        model.sample(support, seed=SEED),
        model.sample(support, seed=SEED, guidance=0.0),
    )
    with pytest.raises(ValueError, match=r"Received: guidance=0\.5"):
        model.sample(support, seed=SEED, guidance=0.5)


def test_a_guided_row_depends_on_its_own_seed_alone(pixel_cnn):
    support = tiny_episode()["support"]["character"]
    seeds = random.fold_in(SEED, tf.range(3))
    together = pixel_cnn.sample(support, seed=seeds, best_of=2)
    alone = pixel_cnn.sample(support[1:2], seed=seeds[1:2], best_of=2)
    _assert_equal(together[1:2], alone)


def test_the_best_sample_explains_its_support_best(models):
    model, support = models["flat"], tiny_episode()["support"]
    seeds = random.fold_in(SEED, tf.range(3))
    candidates, scores = [], []
    for index in range(5):
        seed = random.fold_in(seeds, index)
        made = model.sample(support, seed=seed)
        candidates.append(made.numpy())
        scores.append(
            sum(
                model.log_likelihood(
                    {"character": made[:, tf.newaxis]},
                    support["character"][:, shot],
                    seed=random.fold_in(seed, 3),
                    num_samples=4,
                ).numpy()
                for shot in range(2)
            )
        )
    best = np.argmax(scores, axis=0)
    assert len(set(best)) > 1
    _assert_equal(
        model.sample(support, seed=seeds, best_of=5),
        np.stack([candidates[k][row] for row, k in enumerate(best)]),
    )


def test_the_best_of_samples_needs_the_support(models):
    model, support = models["flat"], tiny_episode()["support"]
    with pytest.raises(ValueError, match="takes images"):
        model.sample(model.encode(support), seed=SEED, best_of=2)
    with pytest.raises(ValueError, match="Received: best_of=0"):
        model.sample(support, seed=SEED, best_of=0)


def test_the_temperature_may_be_a_tensor(models, pixel_cnn):
    for model in (models["flat"], pixel_cnn):
        support = tiny_episode()["support"]
        plain = {"seed": SEED, "guidance": 0.0}
        for value in (0.25, 1.0):
            _assert_equal(
                model.sample(support, temperature=value, **plain),
                model.sample(support, temperature=tf.constant(value), **plain),
            )


def test_a_temperature_that_is_not_positive_is_refused(models):
    model, support = models["flat"], tiny_episode()["support"]
    with pytest.raises(ValueError, match="Received: temperature=0"):
        model.sample(support, seed=SEED, temperature=0)
    with pytest.raises(ValueError, match="Received: temperature=-1"):
        model.sample_prior(3, seed=SEED, latent_temperature=-1)


def test_a_temperature_shrinks_the_latents_drawn_from_priors(models):
    model = models["hierarchical"]
    plain, cooled = (
        model.infer({}, seed=SEED, batch_size=4, temperature=temperature)
        for temperature in (1.0, 0.25)
    )
    np.testing.assert_allclose(
        cooled["alphabet"], 0.5 * plain["alphabet"], rtol=1e-5
    )
    prior = model.latents[1].prior(cooled["alphabet"])
    noise = (
        plain["character"] - model.latents[1].prior(plain["alphabet"]).mean()
    ) / model.latents[1].prior(plain["alphabet"]).stddev()
    np.testing.assert_allclose(
        cooled["character"],
        prior.mean() + 0.5 * prior.stddev() * noise,
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_temperature_leaves_latents_drawn_from_posteriors(models):
    support = _support("hierarchical")
    _assert_equal(
        models["hierarchical"].infer(support, seed=SEED, temperature=COLD),
        models["hierarchical"].infer(support, seed=SEED),
    )


def test_a_temperature_cools_the_templates_of_a_pixel_cnn(pixel_cnn):
    first, second = (
        pixel_cnn.infer({}, seed=seed, batch_size=2, temperature=1e-8)
        for seed in [(1, 2), (3, 4)]
    )
    # However drawn, there is one most typical template.
    np.testing.assert_allclose(
        first["character"], second["character"], atol=0.02
    )
    warm = pixel_cnn.infer({}, seed=SEED, batch_size=2)["character"]
    assert np.std(warm[:, 0] - warm[:, 1]) > 0.2


def test_groups_from_cold_latents_are_all_alike():
    # Without element latents, all that is left is the group's.
    model = tiny_vhe("factorial")
    perturb(model)

    def images(**kwargs):
        return model.sample_prior(6, seed=SEED, temperature=COLD, **kwargs)

    alike = images(latent_temperature=1e-12)
    _assert_equal(alike, np.repeat(alike[:1], 6, axis=0))
    assert np.any(images() != images()[:1])
    origin = tf.zeros([1, 2])
    middle = model.likelihood(character=origin, style=origin).mean()
    _assert_equal(alike[0], middle[0].numpy() > 0.5)


# Interpolation ----------------------------------------------------------------


@pytest.fixture(params=["hierarchical", "pixel_cnn"])
def between(request, models, pixel_cnn):
    """A model, and supports at either end."""
    if request.param == "pixel_cnn":
        return pixel_cnn, *(_support("flat", seed=(k, k)) for k in (1, 2))
    ends = (_support(request.param, seed=(k, k)) for k in (1, 2))
    return models[request.param], *ends


def test_interpolation_decodes_a_straight_line_with_one_chance(between):
    model, support, other = between
    images = model.interpolate(
        support, other, num_steps=3, seed=SEED, temperature=0.5
    )
    assert images.shape == (3, 3, *IMAGE_SHAPE)
    start, end = (
        model.infer(ends, seed=random.fold_in(SEED, 0))
        for ends in (support, other)
    )
    for step, weight in enumerate([0.0, 0.5, 1.0]):
        latents = {
            name: start[name] + weight * (end[name] - start[name])
            for name in start
        }
        expected = model.render(
            latents, seed=random.fold_in(SEED, 1), temperature=0.5
        )[0]
        np.testing.assert_allclose(images[:, step], expected, atol=1e-4)
    assert np.any(
        images != model.interpolate(support, other, num_steps=3, seed=(5, 7))
    )


def test_between_equal_ends_nothing_changes(between):
    model, support, _ = between
    images = model.interpolate(support, support, num_steps=3, seed=SEED)
    np.testing.assert_allclose(
        images, np.repeat(images[:, :1], 3, axis=1), atol=1e-5
    )


def test_a_linear_model_interpolates_linearly():
    world = GaussianWorld(2)
    rng = np.random.default_rng(0)
    support, other = rng.uniform(size=(2, 3, 4, 2, 2, 1)).astype(np.float32)
    images = world.model.interpolate(
        support, other, num_steps=4, seed=SEED
    ).numpy()
    weights = np.linspace(0.0, 1.0, 4).reshape(1, 4, 1, 1, 1)
    ends = images[:, :1], images[:, -1:]
    np.testing.assert_allclose(
        images, (1.0 - weights) * ends[0] + weights * ends[1], atol=1e-5
    )
    assert not np.allclose(*ends)
    # From each support its own end.
    for end, images_of_end in zip(ends, (support, other), strict=True):
        [alone] = world.model.infer(
            {"character": images_of_end}, seed=random.fold_in(SEED, 0)
        ).values()
        np.testing.assert_allclose(
            np.reshape(end, [3, 4]), alone[0] @ np.float32(world.a), atol=1e-5
        )


def test_interpolation_draws_an_unknown_latent_once(models):
    model = models["factorial"]
    support, other = (
        {"character": _support("flat", seed=(k, k))["character"]}
        for k in (1, 2)
    )
    images = model.interpolate(support, other, num_steps=2, seed=SEED)
    style = model.infer(support, seed=random.fold_in(SEED, 0))["style"]
    end = model.infer(other, seed=random.fold_in(SEED, 0))
    _assert_equal(end["style"], style)
    assert_equal_to_rounding(
        images[:, 1], model.render(end, seed=random.fold_in(SEED, 1))[0]
    )


@pytest.mark.parametrize("num_steps", [1, 0, -2])
def test_an_interpolation_without_two_ends_is_refused(models, num_steps):
    [support] = tiny_episode()["support"].values()
    with pytest.raises(ValueError, match=f"Received: num_steps={num_steps}"):
        models["flat"].interpolate(
            support, support, num_steps=num_steps, seed=SEED
        )


def test_an_interpolation_between_wrong_shapes_is_refused(models):
    [support] = tiny_episode()["support"].values()
    for ends in [(support, support[:, 0]), (support[:, 0], support)]:
        with pytest.raises(ValueError, match=r"batch axis.*Received: "):
            models["flat"].interpolate(*ends, num_steps=2, seed=SEED)


# Likelihood and classification ------------------------------------------------


def test_conditional_likelihoods_are_one_an_episode(model, structure):
    episode = tiny_episode(GROUPS[structure], support_size=1)
    kwargs = {"seed": SEED, "num_samples": 4, "num_element_samples": 2}
    scores = model.log_likelihood(
        episode["support"], episode["query"], **kwargs
    )
    assert scores.shape == (3,)
    assert scores.dtype == tf.float32
    some = {GROUPS[structure][0]: episode["support"][GROUPS[structure][0]]}
    assert model.log_likelihood(some, episode["query"], **kwargs).shape == (3,)


def test_likelihoods_given_latents_keep_their_sample_axes(model, episode):
    samples = model.infer(episode["support"], seed=SEED, num_samples=4)
    nested = {n: v[tf.newaxis] for n, v in samples.items()}
    scores = model.log_likelihood_given(
        samples, episode["query"], seed=SEED, num_element_samples=2
    )
    assert scores.shape == (4, 3)
    assert model.log_likelihood_given(
        nested, episode["query"], seed=SEED
    ).shape == (1, 4, 3)


def _narrow(structure):
    """Makes a model whose posteriors are points, so that chance is nothing."""
    model = tiny_vhe(structure)
    for latent in model.latents:
        head = latent.posterior.head.parameters
        kernel, bias = head.get_weights()
        size = len(bias) // 2
        kernel[:, size:], bias[size:] = 0.0, -1e4
        head.set_weights([kernel, bias])
    return model


@pytest.mark.parametrize(("num_ways", "support_size"), [(1, 3), (3, 1)])
def test_classes_score_as_if_each_were_alone(num_ways, support_size):
    structure = "factorial"
    model = _narrow(structure)
    query = tiny_episode(GROUPS[structure])["query"]
    classes = [
        _support(structure, support_size=support_size, seed=(k, k))
        for k in range(num_ways)
    ]
    stacked = {
        name: tf.stack([c[name] for c in classes], axis=1)
        for name in GROUPS[structure]
    }
    scores = model.classify(stacked, query, seed=SEED, num_samples=2)
    assert scores.shape == (3, num_ways)
    alone = [
        model.log_likelihood(c, query, seed=SEED, num_samples=1)
        for c in classes
    ]
    # Draws are 1e-5 off the mean of a posterior.
    np.testing.assert_allclose(scores, np.stack(alone, axis=1), atol=5e-3)


def test_classification_equals_likelihoods_of_the_same_samples(
    model, structure
):
    query = tiny_episode(GROUPS[structure])["query"][:2]
    classes = [_support(structure, seed=(k, k)) for k in range(3)]
    stacked = {
        name: tf.stack([c[name][:2] for c in classes], axis=1)
        for name in GROUPS[structure]
    }
    scores = model.classify(
        stacked, query, seed=SEED, num_samples=3, num_element_samples=2
    )
    seeds = random.fold_in(SEED, tf.range(2))
    for row, of_class in np.ndindex(2, 3):
        samples = model.infer(
            {k: v[row, of_class][tf.newaxis] for k, v in stacked.items()},
            seed=random.fold_in(seeds[row : row + 1], 0),
            num_samples=3,
            sample_unobserved=False,
        )
        alone = [
            model.log_likelihood_given(
                {name: value[s] for name, value in samples.items()},
                query[row : row + 1],
                seed=random.fold_in(random.fold_in(seeds[row], 1), [s]),
                num_element_samples=2,
            )
            for s in range(3)
        ]
        np.testing.assert_allclose(
            scores[row, of_class],
            scipy.special.logsumexp(alone) - np.log(3),
            rtol=1e-5,
        )


def test_generation_and_classification_work_in_a_graph_of_any_size(models):
    model, episode = models["flat"], tiny_episode()
    image = [None, *IMAGE_SHAPE]
    support = episode["support"]["character"]
    seed = tf.constant(SEED, tf.int32)
    sample = tf.function(
        lambda support, seed: model.sample(support, seed=seed),
        input_signature=[
            tf.TensorSpec([None, *image]),
            tf.TensorSpec([2], tf.int32),
        ],
    )
    _assert_equal(sample(support, seed), model.sample(support, seed=seed))
    classify = tf.function(
        lambda support, query, seed: model.classify(
            support, query, seed=seed, num_samples=2
        ),
        input_signature=[
            tf.TensorSpec([None, None, *image]),
            tf.TensorSpec(image),
            tf.TensorSpec([2], tf.int32),
        ],
    )
    classes = tf.stack([support, 1.0 - support], axis=1)
    _assert_close(
        classify(classes, episode["query"], seed),
        model.classify(classes, episode["query"], seed=seed, num_samples=2),
    )


@pytest.mark.parametrize(
    ("support", "query", "message"),
    [
        ((2, 8, 8, 1), (2, 8, 8, 1), "batch axis, or none"),
        ((8, 8, 1), (8, 8, 1), "batch axis, or none"),
        ((2, 3, 8, 8, 1), (1, 8, 8, 1), "wrong shape"),  # would broadcast
        ((2, 3, 8, 8, 1), (2, 8, 8), "batch axis, or none"),  # no channels
        ((2, 3, 8, 9, 1), (2, 8, 8, 1), "wrong shape"),
    ],
)
def test_images_of_a_wrong_shape_are_rejected(models, support, query, message):
    model = models["flat"]
    support, query = tf.zeros(support), tf.zeros(query)
    for method in (model.log_likelihood, model.reconstruct):
        with pytest.raises(ValueError, match=message):
            method(support, query, seed=(0, 0))


def test_a_support_without_its_ways_is_rejected(models):
    with pytest.raises(ValueError, match="batch axis, or none"):
        models["flat"].classify(
            tf.zeros([2, 3, 8, 8, 1]), tf.zeros([2, 8, 8, 1]), seed=(0, 0)
        )


def test_a_single_image_is_not_a_support(models):
    image = np.zeros([8, 8, 1], np.float32)
    with pytest.raises(ValueError, match=r"Received: a support of shape \(8,"):
        models["flat"].sample(image, seed=SEED)


def test_one_group_needs_no_batch_axis(model, episode):
    support = {k: v[0].numpy() for k, v in episode["support"].items()}
    of_batch = {k: v[tf.newaxis] for k, v in support.items()}
    query = episode["query"][0].numpy()
    for call in (
        lambda s, x: model.sample(s, seed=SEED),
        lambda s, x: model.sample(support=s, seed=SEED),
        lambda s, x: model.reconstruct(s, x, seed=SEED),
        lambda s, x: model.interpolate(s, s, num_steps=3, seed=SEED),
        lambda s, x: model.log_likelihood(s, query=x, seed=SEED),
        lambda s, x: model.classify(
            {k: np.stack([v, 1 - v], axis=-5) for k, v in s.items()},
            x,
            seed=SEED,
        ),
    ):
        result = call(support, query)
        expected = call(of_batch, query[np.newaxis])
        assert expected.shape == (1, *result.shape)
        np.testing.assert_array_equal(result, expected[0])


def test_bytes_are_pixels_from_0_to_255(models):
    model = models["flat"]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 3, 8, 8, 1)).astype(np.uint8)
    ink = (pixels >= 128).astype(np.float32)
    for method in (model.sample, lambda s, seed: model.infer(s, seed=seed)):
        _assert_equal(method(pixels, seed=SEED), method(ink, seed=SEED))
    _assert_equal(
        model.log_likelihood(pixels, pixels[:, 0], seed=SEED),
        model.log_likelihood(ink, ink[:, 0], seed=SEED),
    )


def test_bytes_of_many_levels_are_scaled():
    model = deconvolutional_vhe("small", image_shape=(8, 8, 1), num_levels=256)
    pixels = np.arange(128, dtype=np.uint8).reshape(1, 2, 8, 8, 1)
    _assert_equal(
        model.infer(pixels, seed=SEED),
        model.infer(np.float32(pixels) / 255, seed=SEED),
    )


def test_the_summary_shows_the_graph(models):
    lines = []
    models["hierarchical"].summary(print_fn=lines.append, line_length=90)
    rows = [re.split(" {2,}", line) for line in lines[0].splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["alphabet", "-", "group"],
        ["character", "alphabet", "group"],
        ["element", "alphabet, character", "element"],
        ["x", "alphabet, character, element", "element"],
    ]
    assert rows[1] == [
        "character",
        "alphabet",
        "group",
        "(2,)",
        *["MultivariateNormalDiag"] * 2,
        f"{models['hierarchical'].latents[1].count_params():,}",
    ]
    assert rows[3][3:6] == ["(8, 8, 1)", "Bernoulli", "-"]
    total = f"{models['hierarchical'].count_params():,}"
    assert total in "".join(lines[1:])


def test_what_encode_returns_stands_for_the_support():
    model = tiny_vhe()
    support = tiny_episode()["support"]["character"]
    query = tiny_episode()["query"]
    encoded = model.encode(support)
    assert list(encoded) == ["character"]
    for method, arguments in (("sample", ()), ("log_likelihood", (query,))):
        np.testing.assert_array_equal(
            getattr(model, method)(encoded, *arguments, seed=(1, 2)),
            getattr(model, method)(support, *arguments, seed=(1, 2)),
        )


def test_encode_takes_parents_at_the_means_of_their_posteriors():
    model = tiny_vhe("hierarchical")
    support = tiny_episode(["alphabet", "character"])["support"]
    encoded = model.encode(support)
    latents = {latent.name: latent for latent in model.latents}
    alphabet = latents["alphabet"].posterior(support["alphabet"])
    expected = latents["character"].posterior(
        support["character"], alphabet.mean()
    )
    np.testing.assert_array_equal(encoded["character"].mean(), expected.mean())
    # A parent without a support of its own is inferred from its child's.
    encoded = model.encode({"character": support["character"]})
    assert list(encoded) == ["alphabet", "character"]
    alphabet = latents["alphabet"].posterior(support["character"])
    np.testing.assert_array_equal(encoded["alphabet"].mean(), alphabet.mean())
    expected = latents["character"].posterior(
        support["character"], alphabet.mean()
    )
    np.testing.assert_array_equal(encoded["character"].mean(), expected.mean())


def test_encode_refuses_what_it_returned():
    encoded = tiny_vhe().encode(tiny_episode()["support"])
    with pytest.raises(ValueError, match="`encode` takes images"):
        tiny_vhe().encode(encoded)


def test_encoded_groups_and_queries_must_be_as_many():
    model = tiny_vhe()
    episode = tiny_episode()
    encoded = model.encode(episode["support"]["character"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="the same B"):
        model.log_likelihood(encoded, episode["query"][:1], seed=(1, 2))


def test_classify_refuses_what_encode_returns():
    model = tiny_vhe()
    episode = tiny_episode()
    encoded = model.encode(episode["support"]["character"])
    with pytest.raises(ValueError, match="`classify` takes images"):
        model.classify(encoded, episode["query"], seed=(1, 2))


def test_images_of_whole_numbers_are_rejected(models):
    with pytest.raises(ValueError, match="'character' of dtype int32"):
        models["flat"].sample(tf.zeros([1, 1, 8, 8, 1], tf.int32), seed=(1, 2))


def test_images_of_256_levels_are_refused(models):
    model = models["flat"]
    episode = tiny_episode()
    support, query = episode["support"]["character"], episode["query"]
    classes = support[:, tf.newaxis]
    samples = model.infer(support, seed=SEED)
    for call in (
        lambda: model.log_likelihood(255 * support, query, seed=SEED),
        lambda: model.log_likelihood(support, 255 * query, seed=SEED),
        lambda: model.classify(classes, 255 * query, seed=SEED),
        lambda: model.infer({"character": 255 * support}, seed=SEED),
        lambda: model({**episode, "query": 255 * query}),
        lambda: model.log_likelihood_given(samples, 255 * query, seed=SEED),
        lambda: model.decode(samples, query=255 * query, seed=SEED),
    ):
        with pytest.raises(ValueError, match=r"Received: `.*in 0\.\.255"):
            call()


def test_images_of_double_precision_are_as_good(models, pixel_cnn):
    episode = tiny_episode()
    double = {
        "support": np.float64(episode["support"]["character"]),
        "query": np.float64(episode["query"]),
    }
    for model in (models["flat"], pixel_cnn):
        support, query = episode["support"]["character"], episode["query"]
        kwargs = {"seed": SEED, "num_samples": 2}
        np.testing.assert_array_equal(
            model.classify(
                double["support"][:, None], double["query"], **kwargs
            ),
            model.classify(support[:, tf.newaxis], query, **kwargs),
        )
        terms = model(
            {
                **episode,
                "query": double["query"],
                "support": {"character": double["support"]},
            }
        )
        np.testing.assert_array_equal(terms.elbo, model(episode).elbo)


def test_a_seed_may_be_an_integer(model, episode):
    _assert_equal(
        model.infer(episode["support"], seed=7),
        model.infer(episode["support"], seed=(7, 0)),
    )


@pytest.mark.parametrize("seed", [3.5, (1, 2, 3)])
def test_a_seed_of_another_shape_is_refused_by_name(models, seed):
    with pytest.raises(ValueError, match=re.escape(f"seed={seed!r}")):
        models["flat"].sample_prior(2, seed=seed)


def test_interpolation_needs_as_many_groups_at_either_end():
    support = tf.zeros([2, 1, 8, 8, 1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="the same B"):
        tiny_vhe().interpolate(support, support[:1], num_steps=3, seed=(1, 2))
