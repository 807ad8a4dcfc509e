"""Values that a likelihood does not model, wherever images come in."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tests.conftest import tiny_pixel_cnn_vhe
from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf import deconvolutional_vhe
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.data import ready
from vhe_tf.distributions.discretized import DiscretizedLogisticPixels
from vhe_tf.distributions.domain import Domain
from vhe_tf.evaluation import ClassScorer
from vhe_tf.evaluation import ConditionalLikelihood
from vhe_tf.evaluation import Elbo
from vhe_tf.evaluation import FewShotClassification
from vhe_tf.evaluation import JointLikelihood
from vhe_tf.evaluation import JointScorer
from vhe_tf.evaluation import OpenSet
from vhe_tf.evaluation import Sampling
from vhe_tf.layers.base import BaseLayer
from vhe_tf.models._checks import check_episodes
from vhe_tf.models._checks import checked_dataset

SHAPE = (8, 8, 1)
SEED = (1, 2)
NAN = np.nan  # in WRONG the second image
LABELS = {"character": np.arange(20) // 5}


@pytest.fixture(scope="module")
def models():
    """Models by their levels: binary, of 8 levels, and a density."""
    return {
        2: tiny_pixel_cnn_vhe(),
        8: tiny_pixel_cnn_vhe(num_levels=8),
        None: deconvolutional_vhe("small", image_shape=SHAPE, num_levels=256),
    }


def binary(*leading):
    generator = np.random.default_rng(0)
    return np.float32(generator.random((*leading, *SHAPE)) < 0.3)


WRONG = {
    "times 10": lambda x: 10 * x,
    "-1 to 1": lambda x: 2 * x - 1,
    "grey": lambda x: 0.25 + x / 2,
    "NaN": lambda x: np.where(
        np.arange(x.size).reshape(x.shape) == 70, np.nan, x
    ),
    "infinite": lambda x: np.where(x == 1, np.inf, x),
}
KINDS = [
    (levels, name)
    for levels in (2, 8, None)
    for name in WRONG
    # 8 levels and a density are of grey images, a density of any number.
    if (levels, name) not in [(8, "grey"), (None, "grey"), (None, "-1 to 1")]
    and (levels, name) != (None, "times 10")
]


@pytest.mark.parametrize(("levels", "name"), KINDS)
def test_eager_calls_reject_values_that_are_not_modelled(models, levels, name):
    model, right = models[levels], binary(2, 3)
    wrong = np.float32(WRONG[name](right))
    model.log_likelihood(right, right[:, 0], seed=SEED, num_samples=1)
    calls = {
        "query": lambda: model.log_likelihood(right, wrong[:, 1], seed=SEED),
        "character": lambda: model.infer(wrong, seed=SEED),
    }
    calls["images"] = lambda: model.predict(wrong[:, 0], verbose=0)
    if name == "NaN":  # in the second image of the first group alone
        calls["query"] = lambda: model.classify(right, wrong[0], seed=SEED)
        del calls["images"]
        right = np.stack([right] * 3)
    for argument, call in calls.items():
        with pytest.raises(
            ValueError, match=f"Received: `{argument}`"
        ) as error:
            call()
        if name == "NaN":
            index = r"[1]" if argument == "query" else r"[0, 1]"
            assert f"index {index}" in str(error.value)
            assert "value nan" in str(error.value)


@pytest.mark.parametrize("name", list(WRONG))
def test_evaluators_reject_values_that_are_not_modelled(models, name):
    model, wrong = models[2], np.float32(WRONG[name](binary(20)))
    with pytest.raises(ValueError, match="Received: `queries`"):
        ClassScorer(model, group="character", num_samples=1)(
            binary(2, 1), wrong[:3], seed=SEED
        )
    with pytest.raises(ValueError, match="Received: `images`"):
        JointScorer(model, group="character")(wrong[:3], 1, seed=SEED)
    if name == "grey":  # others are not `GroupedImages`
        data = GroupedImages(wrong, LABELS)
        for evaluator in (
            JointLikelihood(data, group="character"),
            Elbo(data, num_batches=1),
        ):
            with pytest.raises(ValueError, match=r"Received: `images` .*0.25"):
                evaluator(model)


def episodes(support, query):
    return tf.data.Dataset.from_tensors(
        {
            "query": query,
            "support": {"character": support},
            "group_size": {"character": np.full(len(query), 5, np.int32)},
            "seed": np.zeros((len(query), 2), np.int32),
        }
    )


@pytest.mark.parametrize("name", list(WRONG))
def test_a_data_set_of_episodes_ends_at_values_that_are_not_modelled(
    models, name
):
    model, wrong = models[2], np.float32(WRONG[name](binary(3, 2)))
    for data, argument in (
        (episodes(wrong, binary(3)), "character"),
        (episodes(binary(3, 2), wrong[:, 1]), "query"),
    ):
        if name != "NaN" or argument == "character":
            with pytest.raises(
                tf.errors.InvalidArgumentError, match=f"Received: `{argument}`"
            ):
                list(checked_dataset(model, data))
    [right] = checked_dataset(model, episodes(binary(3, 2), binary(3)))
    np.testing.assert_array_equal(right["query"], binary(3))


def test_fit_ends_at_values_that_are_not_modelled():
    model = deconvolutional_vhe("small", image_shape=SHAPE)
    model.compile("sgd")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Received: `quer"):
        model.fit(episodes(binary(3, 2), binary(3) / 2), verbose=0)


@pytest.mark.parametrize(
    ("images", "options"),
    [
        (0.25 + binary(20) / 2, {}),
        (np.uint8(64 + 128 * binary(20)), {}),
        (binary(20), {"affine_copies": 2}),
    ],
)
def test_episodes_must_be_binary_for_a_binary_model(models, images, options):
    episodes = Episodes.for_model(
        models[2],
        GroupedImages(images, LABELS),
        support_size=2,
        augmentation=Augmentation(binarization="none", **options),
    )
    models[2].compile("adam")
    with pytest.raises(ValueError, match="Received: "):
        models[2].evaluate(episodes, verbose=0)


# How files of pixels on another scale look once they are bytes.
ON_ANOTHER_SCALE = {
    "0 and 1": np.uint8(binary(20)),
    "4 bits": np.uint8(15 * binary(20)),
    "12 bits of 16": np.uint8(4095 * binary(20) // 257),
    "inverted 4 bits": 255 - np.uint8(15 * binary(20)),
    "divided twice": binary(20) / 255,
}


@pytest.mark.parametrize("levels", [2, 8])
@pytest.mark.parametrize("name", list(ON_ANOTHER_SCALE))
def test_images_that_are_blank_or_all_ink_are_rejected(models, name, levels):
    model, images = models[levels], ON_ANOTHER_SCALE[name]
    received = f"Received: {images.dtype} pixels in .*{images.max():g}"
    data = GroupedImages(images, LABELS)
    model.compile("adam")
    for call in (
        lambda: model.fit(images, LABELS, verbose=0),
        lambda: model.evaluate(Episodes.for_model(model, data), verbose=0),
        lambda: ready(data, "binary" if levels == 2 else "colour"),
    ):
        with pytest.raises(ValueError, match=received):
            call()
    with pytest.raises(tf.errors.InvalidArgumentError, match="Received: "):
        list(
            checked_dataset(
                model, episodes(images.reshape(4, 5, *SHAPE), images[::5])
            )
        )
    if levels == 2 and images.dtype != np.uint8:
        received = "Received: "  # grey, before it is of low contrast
    with pytest.raises(ValueError, match=received):
        model.infer(images[np.newaxis], seed=SEED)
    if images.dtype != np.uint8:
        with pytest.raises(ValueError, match=received):
            model.log_likelihood(binary(1, 2), images[:1], seed=SEED)
        with pytest.raises(ValueError, match=received):
            ClassScorer(model, group="character", num_samples=1)(
                binary(2, 1), images, seed=SEED
            )


@pytest.mark.parametrize("levels", [2, 8])
@pytest.mark.parametrize("name", list(ON_ANOTHER_SCALE))
def test_half_of_the_images_on_another_scale_are_rejected(models, name, levels):
    model, wrong = models[levels], ON_ANOTHER_SCALE[name]
    images = binary(20).astype(wrong.dtype)
    images *= 255 if wrong.dtype == np.uint8 else 1
    images[:10] = wrong[:10]
    data = GroupedImages(images, LABELS)
    model.compile("adam")
    calls = [
        lambda: model.fit(images, LABELS, verbose=0),
        lambda: ready(data, "binary" if levels == 2 else "colour"),
    ]
    if levels == 8 or images.dtype == np.uint8:
        support = images.reshape(4, 5, *SHAPE)[[0, 3]]
        calls += [
            lambda: model.infer(support, seed=SEED),
            lambda: model.log_likelihood(
                support[1:], images[[0]], seed=SEED, num_samples=1
            ),
        ]
    for call in calls:
        with pytest.raises(ValueError, match="on another scale"):
            call()


def test_some_images_on_another_scale_are_warned_of(models, caplog):
    images = np.uint8(255 * binary(20))
    images[[2, 17]] //= 255
    models[2].infer(images[np.newaxis], seed=SEED)
    [message] = caplog.messages
    assert "2 of 20 images" in message
    assert "index (0, 2), index (0, 17)." in message


@pytest.mark.parametrize("num_groups", [1, 3])
def test_faint_images_do_not_end_batches_of_few_groups(models, num_groups):
    right = np.uint8(255 * binary(num_groups, 2))
    faint = right // 255
    for support, query in ((faint, right[:, 0]), (right, faint[:, 0])):
        [batch] = checked_dataset(models[2], episodes(support, query))
        np.testing.assert_array_equal(batch["query"], query)


# Evaluators of one class or one query at a time.
EVALUATORS = {
    "accuracy": lambda data, **options: FewShotClassification(
        data, ways=(1,), shots=(1,), num_tasks=5, **options
    ),
    "conditional": lambda data, **options: ConditionalLikelihood(
        data, shots=(1,), num_queries=5, **options
    ),
    "joint": JointLikelihood,
    "open set": lambda data, **options: OpenSet(
        data, num_ways=1, num_tasks=5, **options
    ),
}


@pytest.mark.parametrize("name", list(EVALUATORS))
def test_a_faint_class_is_measured_but_not_faint_data(models, name):
    images = binary(20)
    images[:5] /= 100
    options = {"group": "character", "sampling": Sampling(num_samples=1)}
    for value in EVALUATORS[name](GroupedImages(images, LABELS), **options)(
        models[8]
    ):
        assert np.isfinite(value.mean)
    faint = GroupedImages(images / 100, LABELS)
    with pytest.raises(ValueError, match="on another scale"):
        EVALUATORS[name](faint, **options)(models[8])


def test_two_classes_on_another_scale_are_rejected(models):
    images = np.uint8(255 * binary(40))
    images[5:15] //= 255
    models[2].compile("adam")
    with pytest.raises(ValueError, match=r"'character' .*2 such .*of 8: 1, 2"):
        models[2].fit(images, {"character": np.arange(40) // 5}, verbose=0)


def test_some_blank_images_are_no_mistake(models):
    images = binary(20)
    images[3] = 0
    images[5:10] = 0
    data = GroupedImages(np.uint8(255 * images), LABELS)
    assert ready(data, "binary").images[3].max() == 0
    models[2].infer(np.zeros([1, 2, *SHAPE], np.uint8), seed=SEED)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_page_that_is_ink_is_warned_of(models, caplog, as_bytes):
    right = binary(2, 3)
    scale = np.uint8(255) if as_bytes else np.float32(1)
    models[2].infer(scale * right.astype(scale.dtype), seed=SEED)
    assert not caplog.messages
    wrong = scale * (1 - right).astype(scale.dtype)
    models[2].infer(wrong, seed=SEED)
    [message] = caplog.messages
    assert "'character'" in message
    assert f"all pixels {1 - right.mean():.2f}" in message
    caplog.clear()
    models[2].compile("adam")
    data = GroupedImages(
        wrong.reshape(6, *SHAPE), {"character": [0, 0, 0, 1, 1, 1]}
    )
    check_episodes(
        models[2], Episodes.for_model(models[2], data, support_size=2)
    )
    [message] = caplog.messages
    assert "'images'" in message


@pytest.mark.parametrize("value", [np.float32(0), np.float32(1), np.uint8(255)])
def test_data_without_any_drawing_are_rejected(models, value):
    images = np.full([20, *SHAPE], value)
    models[2].compile("adam")
    with pytest.raises(ValueError, match=f"Received: .* {value:g}"):
        models[2].fit(images, LABELS["character"], verbose=0)


# The domain -------------------------------------------------------------------

BINARY = Domain(0.0, 1.0, integer=True)
ONE_HOT = Domain(0.0, 1.0, integer=True, total=1.0)


@pytest.mark.parametrize(
    ("likelihood", "domain"),
    [
        (tfd.Independent(tfd.Bernoulli([0.0]), 1), BINARY),
        (tfd.Sample(tfd.Bernoulli(0.0), 3), BINARY),
        (
            tfd.MixtureSameFamily(
                tfd.Categorical([0.0, 0.0]), tfd.Bernoulli([0.0, 1.0])
            ),
            BINARY,
        ),
        (tfd.Beta(1.0, 2.0), Domain(0.0, 1.0)),
        (tfd.Poisson(3.0), Domain(0.0, integer=True)),
        (tfd.Gamma(1.0, 1.0), Domain(0.0)),
        (tfd.Exponential(1.0), Domain(0.0)),
        (tfb.Exp()(tfd.Normal(0.0, 1.0)), Domain(0.0)),
        (tfd.Normal(0.0, 1.0), Domain()),
        (tfd.MultivariateNormalDiag([0.0, 1.0]), Domain()),
        (tfd.Categorical(np.zeros(2)), BINARY),
        (
            tfd.Independent(tfd.Categorical(np.zeros([3, 5])), 1),
            Domain(0.0, 4.0, integer=True),
        ),
        (tfd.Masked(tfd.Bernoulli([0.0]), True), BINARY),
        (tfd.Blockwise([tfd.Bernoulli(0.0), tfd.Bernoulli(1.0)]), BINARY),
        (
            tfd.Blockwise(
                [tfd.Normal(0.0, 1.0), tfd.Bernoulli(0.0, dtype=tf.float32)]
            ),
            Domain(),
        ),
        (
            tfb.Shift(1.0)(tfd.Blockwise([tfd.Normal(0.0, 1.0)] * 2)),
            Domain(),
        ),
        # Its limits may depend on the latents.
        (tfd.Uniform(-2.0, 3.0), Domain()),
        (tfd.Binomial(tf.constant(5.0), 0.0), Domain(0.0, integer=True)),
        (tfd.OneHotCategorical(np.float32([0, 0, 0])), ONE_HOT),
        (
            tfd.Independent(tfd.OneHotCategorical(np.zeros([2, 3])), 1),
            ONE_HOT,
        ),
        (
            tfd.Blockwise([tfd.OneHotCategorical(np.zeros(3))] * 2),
            BINARY,
        ),
        (tfd.Multinomial(5.0, [0.0, 0.0]), Domain(0.0, 5.0, True, 5.0)),
        (
            tfd.DirichletMultinomial(5.0, [1.0, 2.0]),
            Domain(0.0, 5.0, True, 5.0),
        ),
        (tfd.Dirichlet([1.0, 2.0, 3.0]), Domain(0.0, 1.0, total=1.0)),
        (
            tfd.RelaxedOneHotCategorical(1.0, [0.0, 0.0]),
            Domain(0.0, 1.0, total=1.0),
        ),
        (tfd.Binomial(5.0, 0.0), Domain(0.0, 5.0, integer=True)),
        (tfd.BetaBinomial(5.0, 1.0, 1.0), Domain(0.0, 5.0, integer=True)),
        (tfd.ProbitBernoulli(0.0), BINARY),
        (tfd.Skellam(1.0, 1.0), Domain(integer=True)),
        (tfd.OrderedLogistic([0.0, 1.0], 0.0), Domain(0.0, 2.0, True)),
        (tfd.FiniteDiscrete([1.0, 3.0], [0.0, 0.0]), Domain(1.0, 3.0, True)),
        (
            tfd.QuantizedDistribution(tfd.Normal(0.0, 9.0), low=0.0, high=7.0),
            Domain(0.0, 7.0, integer=True),
        ),
        (tfd.Inflated(tfd.Poisson(1.0), 0.5), Domain(0.0, integer=True)),
        (
            tfd.Mixture(
                tfd.Categorical([0.0, 0.0]),
                [tfd.Bernoulli(0.0, dtype=tf.float32), tfd.Normal(0.0, 1.0)],
            ),
            Domain(),
        ),
        (
            tfd.Mixture(
                tfd.Categorical([0.0, 0.0]),
                [tfd.Bernoulli(0.0, dtype=tf.float32), tfd.Poisson(1.0)],
            ),
            Domain(0.0, integer=True),
        ),
    ],
)
def test_the_domain_is_that_of_the_likelihood(likelihood, domain):
    assert Domain.of(likelihood) == domain
    sample = likelihood.sample(9, seed=0).numpy().astype(np.float32)
    domain.check("x", sample, event_rank=0)


@pytest.mark.parametrize(
    ("domain", "wrong", "message"),
    [
        (ONE_HOT, [0, 0, 0], "tf.one_hot.* the sum 0 in the element"),
        (ONE_HOT, [0, 1, 1], "tf.one_hot.* the sum 2 in the element"),
        (ONE_HOT, [-1, 1, 1], "the value -1 in the element"),
        (Domain(0.0, 5.0, True, 5.0), [1, 1, 2], "to 5 along .* the sum 4 in"),
        (Domain(0.0, 1.0, total=1.0), [0.2, 0.2, 0.3], "the sum 0.7 in"),
        (Domain(0.0, 1.0, total=1.0), [np.nan, 1, 0], "the value nan in"),
    ],
)
def test_vectors_of_another_total_are_rejected(domain, wrong, message):
    right = [domain.total, 0, 0]
    values = np.float32([right, wrong])
    for images in (values, tf.constant(values)):
        rows = np.all(domain.holds(images), axis=-1)
        assert rows.tolist() == [True, False]
    with pytest.raises(ValueError, match=rf"{message}.*at index \[1\]"):
        domain.check("x", values, event_rank=1)
    domain.assertion("x", tf.constant(values[:1]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        domain.assertion("x", tf.constant(values))


def test_vectors_that_their_likelihood_does_not_model_are_not_trained_on():
    model = VHE(
        [Latent.vector("character", 2, encoder=keras.layers.Dense(3), units=4)],
        Positive(),
        event_shape=(3,),
    )
    vectors = np.random.default_rng(0).random([20, 3], np.float32)
    model.compile("adam")
    check_episodes(model, Episodes.for_model(model, _grouped(vectors)))
    vectors[7, 1] = -1
    with pytest.raises(ValueError, match="value -1 in the element at index"):
        check_episodes(model, Episodes.for_model(model, _grouped(vectors)))


class Positive(BaseLayer):
    """A likelihood of positive vectors."""

    def build(self, *_):
        self.weight = self.add_weight(shape=(2, 3))

    def call(self, character):
        return tfd.Independent(
            tfd.Exponential(tf.nn.softplus(character @ self.weight)), 1
        )


def _grouped(vectors):
    return GroupedImages(vectors, LABELS)


def test_nan_is_never_a_probability():
    """A pixel that is NaN is the tail of no logistic."""
    pixels = DiscretizedLogisticPixels(num_components=2, num_levels=8)
    images = np.float32([[[[np.nan, 0.0, 1.0]]]])
    parameters = tf.zeros([1, 1, 1, pixels.num_parameters(3)])
    for temperature in (1.0, 0.7):
        log_prob = pixels.log_prob(
            parameters,
            tf.constant(images),
            temperature=tf.constant(temperature),
        )
        assert np.isnan(log_prob[0, 0, 0, 0])
